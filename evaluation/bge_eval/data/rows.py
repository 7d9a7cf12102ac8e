"""Tasks that are no retrieval, as plain jsonl files with one row a line.

::

    <folder>/<split>.jsonl      STS                  {"sentence1", "sentence2", "score"}
                                pair classification  {"sentence1", "sentence2", "label"}
                                classification       {"text", "label"}

Other task types use the columns that mteb's task reads. A task with language subsets has one
folder for each. Rows keep their order, because few-shot sampling depends on it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bge_eval.data.files import Place, find_file, fingerprint, records
from bge_eval.data.sources import (
    DataIdentity,
    LocalSource,
    attached,
    columns_of,
    is_retrieval,
    require_subsets,
    split_names,
    subset_folders,
)
from bge_eval.errors import DamagedError, MissingError
from bge_eval.progress import Progress

if TYPE_CHECKING:
    from datasets import Dataset
    from mteb.abstasks import AbsTask

_ALIASES = {
    "labels": "label",
    "label": "labels",
    "sentences": "text",
    "text": "sentences",
}
"""The column a task reads → another name that plain files use for it."""


@dataclass(frozen=True, slots=True)
class RowsFolder:
    """A folder with ``<split>.jsonl`` files."""

    place: Place
    """The folder, or a folder inside a zip."""

    @staticmethod
    def recognise(place: Place) -> RowsFolder | None:
        """Return the folder if it has any jsonl file, else None."""
        folder = RowsFolder(place)
        return folder if folder.splits() else None

    def splits(self) -> list[str]:
        """Return the names of the splits that have a file."""
        if not self.place.is_dir():
            return []
        names = (entry.name.removesuffix(".gz") for entry in self.place.iterdir())
        return sorted({name[: -len(".jsonl")] for name in names if name.endswith(".jsonl")})

    def files(self, splits: Iterable[str]) -> dict[str, Place]:
        """Return split → file for some splits.

        Raises:
            MissingError: a split has no file; the message lists those that have.
        """
        files: dict[str, Place] = {}
        for split in splits:
            place = find_file(self.place, f"{split}.jsonl")
            if place is None:
                raise MissingError(
                    f"{self.place} has no {split}.jsonl (or {split}.jsonl.gz). Splits there:"
                    f" {', '.join(self.splits()) or 'none'}."
                )
            files[split] = place
        return files

    def fingerprint(self, splits: Iterable[str]) -> str:
        """Return a hash of the content of some splits: 16 hexadecimal digits."""
        return fingerprint(self.files(splits))

    def load(self, task: AbsTask, splits: Iterable[str]) -> dict[str, Dataset]:
        """Read some splits, with the columns named as the task reads them.

        Raises:
            DamagedError: a line is invalid; the message names file and line.
        """
        from datasets import Dataset

        required = columns_of(task)
        return {
            split: Dataset.from_dict(_columns(place, required, sts=task.metadata.type == "STS"))
            for split, place in self.files(splits).items()
        }


@dataclass(frozen=True, slots=True)
class RowsSource(LocalSource):
    """The rows files of a task, in one folder for each subset."""

    folders: Mapping[str, RowsFolder]
    """Subset → its folder."""

    def identity(self, task: AbsTask) -> DataIdentity:
        """Fingerprint the splits that the task scores and trains on."""
        prints = [folder.fingerprint(split_names(task)) for folder in self.folders.values()]
        return DataIdentity("rows", "+".join(prints), tuple(task.eval_splits), tuple(self.folders))

    def check(self, task: AbsTask) -> None:
        """Raise MissingError if a split has no file, the training split included."""
        for folder in self.folders.values():
            folder.files(split_names(task))

    @contextmanager
    def loaded(self, task: AbsTask, progress: Progress) -> Iterator[None]:
        """Read the files into the task and run the task's own transformation."""
        from datasets import DatasetDict

        with progress.step("load"):
            splits = split_names(task)
            tables = {
                subset: DatasetDict(folder.load(task, splits))
                for subset, folder in self.folders.items()
            }
            dataset = tables if task.metadata.is_multilingual else tables["default"]
        with attached(task, dataset, transform=True):
            yield


def rows_folders(task: AbsTask, root: Place) -> dict[str, RowsFolder]:
    """Return subset → folder for the subsets of a task that have rows files."""
    folders = {
        subset: RowsFolder.recognise(place) for subset, place in subset_folders(task, root).items()
    }
    return {subset: folder for subset, folder in folders.items() if folder}


def rows_source(task: AbsTask, root: Place, dangling: bool) -> RowsSource | None:
    """Return the source of a folder of rows files, for tasks that are no retrieval."""
    if is_retrieval(task) or not (folders := rows_folders(task, root)):
        return None
    require_subsets(task, root, list(folders), rows_marker(task))
    return RowsSource(root, folders)


def rows_marker(task: AbsTask) -> str:
    """Return the file by which a folder of rows is recognised."""
    return "" if is_retrieval(task) else f"{task.eval_splits[0]}.jsonl"


def rows_collection(folder: Path) -> tuple[str, list[str]] | None:
    """Return the task type and the splits of a user's folder of rows: an STS task.

    Raises:
        MissingError: these are the queries of a search task whose corpus is missing.
        DamagedError: the first row has other columns.
    """
    rows = RowsFolder.recognise(folder)
    if rows is None:
        return None
    splits = rows.splits()
    if "queries" in splits or (folder / "qrels").is_dir():
        raise MissingError(
            f"{folder} has no corpus.jsonl (or corpus.jsonl.gz) beside its queries or judgements."
        )
    place = rows.files(splits[:1])[splits[0]]
    for number, record in records(place):
        if not {"sentence1", "sentence2", "score"} <= set(record):
            raise DamagedError(
                f"{place}, line {number}: its columns are {', '.join(map(repr, record)) or 'none'};"
                " expected sentence1, sentence2 and score (STS), or query, positive and negative"
                " (reranking)."
            )
        break
    return "STS", splits


def _columns(place: Place, required: tuple[str, ...], *, sts: bool = False) -> dict[str, list[Any]]:
    """Read a file into column → values; required columns may have another name in the file.

    Args:
        place: the file.
        required: the columns that the task reads.
        sts: whether these are pairs of texts with a score.
    """
    columns: dict[str, list[Any]] = {}
    names: dict[str, str] = {}
    for number, record in records(place):
        if not columns:
            for name in required:
                alias = _ALIASES.get(name, name)
                names[name] = name if name in record or alias not in record else alias
            columns = {name: [] for name in [*required, *(set(record) - set(names.values()))]}
        for name, values in columns.items():
            key = names.get(name, name)
            if key not in record:
                raise DamagedError(
                    f"{place}, line {number}: no {key} (its keys are"
                    f" {', '.join(map(str, record))})."
                )
            _refuse_value(key, record[key], f"{place}, line {number}", columns[name], sts)
            values.append(record[key])
    if not columns:
        raise DamagedError(f"{place} is empty: expected one JSON object a line.")
    return columns


def _refuse_value(name: str, value: Any, where: str, before: Sequence[Any], sts: bool) -> None:
    """Refuse a value that is missing, of another kind than those before, or no score.

    Raises:
        DamagedError: the message names the column and its place.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    expected = ""
    if sts and name == "score":
        if not number or not math.isfinite(value):
            expected = "a number"
    elif sts and name in ("sentence1", "sentence2"):
        if not isinstance(value, str):
            expected = "a text"
    elif before and not number and type(value) is not type(before[0]):
        expected = f"of the kind of the lines above ({type(before[0]).__name__})"
    if expected:
        raise DamagedError(f"{where}: {name} is {json.dumps(value)[:40]}, expected {expected}.")
