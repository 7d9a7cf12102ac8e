"""Faults of tasks that search nothing, counted by mteb's filters (``mteb.data_cleaning``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bge_eval.errors import DamagedError, one_line

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask


@dataclass(frozen=True, slots=True)
class RowFault:
    """How many rows of the scored splits have a fault."""

    name: str
    """The fault: "repeated rows", "rows of the training split" or "empty texts"."""
    count: int
    """Number of rows."""
    total: int
    """Number of rows of the scored splits."""


def row_faults(task: AbsTask) -> list[RowFault]:
    """Count the rows that mteb's filters would remove from the scored splits.

    Texts are compared with letter case folded and spaces joined.

    Args:
        task: a loaded task that is no retrieval.

    Raises:
        DamagedError: mteb's filters cannot read the rows.
    """
    from mteb import data_cleaning

    filters: dict[str, Callable[..., Any]] = {
        "repeated rows": lambda own, **where: data_cleaning.remove_duplicates(
            own, normalization=_folded, **where
        ),
        "rows of the training split": lambda own, **where: data_cleaning.remove_train_leakage(
            own, normalization=_folded, **where
        ),
        "empty texts": lambda own, **where: data_cleaning.remove_by_text_length(
            own, min_length=1, **where
        ),
    }
    total = _rows(task)
    faults = []
    for name, remove in filters.items():
        if name == "rows of the training split" and not _has_training(task):
            continue
        try:
            cleaned = remove(task, splits=list(task.eval_splits))
        except (ValueError, KeyError, TypeError, NotImplementedError) as error:
            raise DamagedError(
                f"mteb's filters cannot read the rows of {task.metadata.name}: {one_line(error)}"
            ) from error
        faults.append(RowFault(name, total - _rows(cleaned), total))
    return faults


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())


def _has_training(task: AbsTask) -> bool:
    train = getattr(task, "train_split", None)
    return isinstance(train, str) and all(train in splits for splits in _splits(task))


def _splits(task: AbsTask) -> list[Mapping[str, Any]]:
    dataset: Any = task.dataset
    if not task.metadata.is_multilingual:
        return [dataset]
    return [dataset[subset] for subset in task.hf_subsets]


def _rows(task: AbsTask) -> int:
    """Count the rows of the scored splits; of lists of texts, the texts."""
    return sum(_texts_of(splits[split]) for splits in _splits(task) for split in task.eval_splits)


def _texts_of(table: Any) -> int:
    column = next((name for name in ("sentences", "text") if name in table.column_names), None)
    if column and len(table) and isinstance(table[0][column], list):
        return sum(map(len, table[column]))
    return len(table)
