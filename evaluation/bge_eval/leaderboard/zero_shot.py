"""Which models were trained on a task, as far as mteb knows (``ModelMeta.is_zero_shot_on``)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from bge_eval.leaderboard.board import Leaderboard
from bge_eval.leaderboard.rows import Row
from bge_eval.results.cut import task_of


@dataclass(frozen=True, slots=True)
class ZeroShot:
    """Whether a row's models were trained on the tasks of a table."""

    zero_shot: bool | None
    """Whether none of them was trained on any of the tasks; None if mteb does not know."""
    trained_on: tuple[str, ...] = ()
    """The tasks that one of them was trained on."""

    @property
    def text(self) -> str:
        """Return it for people: "yes", "no" with the number of tasks, or "unknown"."""
        if self.zero_shot is None:
            return "unknown"
        return "yes" if self.zero_shot else f"no ({len(self.trained_on)})"


def zero_shot(board: Leaderboard, training: Mapping[str, Collection[str] | None]) -> list[ZeroShot]:
    """Return every row's training on the tasks of a table.

    Args:
        board: the table.
        training: model → the tasks that it was trained on, with those that mteb counts as similar
            (``ModelMeta.get_training_datasets``); None if mteb does not know. A model without an
            entry, such as the user's own, is unknown; so is a row whose reranker is.
    """
    names = {
        column.task: [task_of(each.task) for each in (column, *column.parts)]
        for column in board.columns
    }
    known: dict[str, ZeroShot] = {}
    rows = []
    for row in board.rows:
        of_row = []
        for model in _models(row):
            if model not in known:
                known[model] = _of_model(training.get(model), names)
            of_row.append(known[model])
        trained = {task: None for each in of_row for task in each.trained_on}
        unknown = any(each.zero_shot is None for each in of_row)
        rows.append(ZeroShot(False if trained else None if unknown else True, tuple(trained)))
    return rows


def _models(row: Row) -> list[str]:
    """Return the names of a row's encoder and reranker."""
    reranker = (row.reranker or "").partition(" (")[0].partition("@")[0]
    return [row.model, *([reranker] if reranker else [])]


def _of_model(training: Collection[str] | None, names: Mapping[str, Sequence[str]]) -> ZeroShot:
    if training is None:
        return ZeroShot(None)
    trained = [task for task, tasks in names.items() if not set(training).isdisjoint(tasks)]
    return ZeroShot(not trained, tuple(trained))
