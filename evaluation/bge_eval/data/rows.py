"""Plain one-file data sets of the types that are no retrieval: one row a line.

::

    <folder>/<split>.jsonl      STS                  {"sentence1", "sentence2", "score"}
                                pair classification  {"sentence1", "sentence2", "label"}
                                classification       {"text", "label"}

and whatever columns another type's task reads. A task with language subsets has a folder for
each. Rows keep their order, since few-shot sampling depends on it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bge_eval.data.files import Place, find_file, fingerprint, records
from bge_eval.errors import DamagedError, MissingError

if TYPE_CHECKING:
    from datasets import Dataset
    from mteb.abstasks import AbsTask

_OTHER_NAMES = {
    "labels": "label",
    "label": "labels",
    "sentences": "text",
    "text": "sentences",
}
"""The column a task reads → another name that plain files give it."""


@dataclass(frozen=True, slots=True)
class RowsFolder:
    """A folder with ``<split>.jsonl`` files."""

    place: Place
    """The folder, or a folder inside a zip."""

    @staticmethod
    def recognise(place: Place, splits: Iterable[str]) -> RowsFolder | None:
        """Return the folder if it has a file for one of the splits, or any rows file."""
        folder = RowsFolder(place)
        return folder if folder.splits() else None

    def splits(self) -> list[str]:
        """Return the splits that are there."""
        if not self.place.is_dir():
            return []
        names = (entry.name.removesuffix(".gz") for entry in self.place.iterdir())
        return sorted({name[: -len(".jsonl")] for name in names if name.endswith(".jsonl")})

    def files(self, splits: Iterable[str]) -> dict[str, Place]:
        """Return the files of some splits by name.

        Raises:
            MissingError: one is not there; says which are.
        """
        found: dict[str, Place] = {}
        for split in splits:
            place = find_file(self.place, f"{split}.jsonl")
            if place is None:
                raise MissingError(
                    f"{self.place} has no {split}.jsonl (or {split}.jsonl.gz). Splits there:"
                    f" {', '.join(self.splits()) or 'none'}."
                )
            found[split] = place
        return found

    def fingerprint(self, splits: Iterable[str]) -> str:
        """Return 16 hexadecimal digits made from the content of these splits."""
        return fingerprint(self.files(splits))

    def load(self, task: AbsTask, splits: Iterable[str]) -> dict[str, Dataset]:
        """Read the splits, with columns named as the task reads them.

        Raises:
            DamagedError: names file and line of what is wrong.
        """
        from datasets import Dataset

        wanted = columns_of(task)
        return {
            split: Dataset.from_dict(_columns(place, wanted))
            for split, place in self.files(splits).items()
        }


def columns_of(task: AbsTask) -> tuple[str, ...]:
    """Return the columns that a task's evaluation reads."""
    names: list[str] = []
    pair = getattr(task, "column_names", None)
    if pair is not None and task.metadata.type == "STS":
        names += [*pair, "score"]
    for attribute in (
        "input1_column_name",
        "input2_column_name",
        "input_column_name",
        "label_column_name",
        "text_column_name",
        "human_summaries_column_name",
        "machine_summaries_column_name",
        "relevancy_column_name",
    ):
        value = getattr(task, attribute, None)
        if isinstance(value, str):
            names.append(value)
    if task.metadata.type == "BitextMining":
        names += ["sentence1", "sentence2"]
    return tuple(dict.fromkeys(names))


def split_names(task: AbsTask) -> tuple[str, ...]:
    """Return the splits that a task's evaluation reads: its own, and the one it trains on."""
    train = getattr(task, "train_split", None)
    own = [*task.eval_splits]
    return tuple(dict.fromkeys([*own, *([train] if isinstance(train, str) else [])]))


def _columns(place: Place, wanted: tuple[str, ...]) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {}
    names: dict[str, str] = {}
    for number, record in records(place):
        if not columns:
            for name in wanted:
                other = _OTHER_NAMES.get(name, name)
                names[name] = name if name in record or other not in record else other
            columns = {name: [] for name in [*wanted, *(set(record) - set(names.values()))]}
        for name, values in columns.items():
            source = names.get(name, name)
            if source not in record:
                raise DamagedError(
                    f"{place}, line {number}: no {source} (found the keys"
                    f" {', '.join(map(str, record))})."
                )
            values.append(record[source])
    if not columns:
        raise DamagedError(f"{place} is empty: expected one JSON object a line.")
    return columns
