"""Tasks that are no retrieval, as plain jsonl files with one row a line.

::

    <folder>/<split>.jsonl      STS                  {"sentence1", "sentence2", "score"}
                                pair classification  {"sentence1", "sentence2", "label"}
                                classification       {"text", "label"}

Other task types use the columns that mteb's task reads. A task with language subsets has one
folder for each. Rows keep their order, because few-shot sampling depends on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
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
            split: Dataset.from_dict(_columns(place, required))
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
    """Return the task type and the splits of a user's folder of rows: an STS task."""
    rows = RowsFolder.recognise(folder)
    return ("STS", rows.splits()) if rows else None


def _columns(place: Place, required: tuple[str, ...]) -> dict[str, list[Any]]:
    """Read a file into column → values; required columns may have another name in the file."""
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
            values.append(record[key])
    if not columns:
        raise DamagedError(f"{place} is empty: expected one JSON object a line.")
    return columns
