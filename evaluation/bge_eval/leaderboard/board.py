"""A table of saved results: models as rows, tasks as columns, one measure.

The means are mteb's (``mteb.benchmarks``): a task's score is the mean over its splits and
subsets, Mean (Task) the mean over tasks, Mean (TaskType) the mean over the means of the task
types.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bge_eval.leaderboard.rows import Column, Row
from bge_eval.results.cut import averaged

if TYPE_CHECKING:
    import pandas as pd

MEAN_TASK = "Mean (Task)"
"""Heading of the mean over all tasks."""
MEAN_TYPE = "Mean (TaskType)"
"""Heading of the mean over the task types' means."""


@dataclass(frozen=True, slots=True)
class Mean:
    """An average that has a value only if it is complete."""

    value: float | None
    """The mean, 0 to 1; None if a score is missing."""
    done: int
    """Tasks with a score; for Mean (TaskType), complete types."""
    total: int
    """All tasks; for Mean (TaskType), all types."""


@dataclass(frozen=True, slots=True)
class Leaderboard:
    """The rows and columns of a table, whatever format it is printed in."""

    measure: str
    """The measure's name, e.g. "nDCG@10"."""
    columns: tuple[Column, ...]
    """The tasks, in order."""
    rows: tuple[Row, ...]
    """Best average first; a second stage directly below its first."""
    title: str = ""
    """The suite's name; "" if the tasks are not one suite."""
    gaps: Mapping[str, str] = field(default_factory=dict)
    """Task → why it has no score; tasks that failed, or were not begun after a failure."""
    apart: tuple[str, ...] = ()
    """Saved tasks without a column: cuts of tasks, where whole ones make the table."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """Return the columns' task names."""
        return tuple(column.task for column in self.columns)

    @property
    def averaged(self) -> tuple[str, ...]:
        """Return the tasks that have a mean together: no cut of a task is averaged with a whole."""
        return averaged(self.tasks)

    @property
    def types(self) -> dict[str, list[str]]:
        """Return task type → its tasks, in the columns' order; a task of unknown type under ""."""
        types: dict[str, list[str]] = {}
        for column in self.columns:
            types.setdefault(column.type, []).append(column.task)
        return types

    @property
    def headings(self) -> dict[str, str]:
        """Return task → its column's heading, which tells where it is not the whole task."""
        return {column.task: column.heading for column in self.columns}

    def means(self, row: Row) -> dict[str, Mean]:
        """Return Mean (Task), Mean (TaskType) and the mean of every type, by mteb's rules."""
        joined = self.averaged
        types = {
            name: _mean(row, [task for task in tasks if task in joined])
            for name, tasks in self.types.items()
        }
        complete = [mean.value for mean in types.values() if mean.value is not None]
        all_types = None
        if complete and len(complete) == len(types):
            all_types = sum(complete) / len(complete)
        return {
            MEAN_TASK: _mean(row, joined),
            MEAN_TYPE: Mean(all_types, len(complete), len(types)),
            **types,
        }

    def first_stage(self, row: Row) -> Row | None:
        """Return the row that a second stage re-ordered, or None."""
        if row.reranker is None:
            return None
        for first in self.rows:
            if first.reranker is None and first.first_stage_key == row.first_stage_key:
                return first
        return None

    def gain(self, row: Row) -> dict[str, float] | None:
        """Return by task how much a second stage gains on its first stage.

        Returns:
            Task → difference, for tasks that both have; None if there is no first stage.
        """
        first = self.first_stage(row)
        if first is None:
            return None
        return {
            task: row.scores[task] - first.scores[task]
            for task in self.tasks
            if task in row.scores and task in first.scores
        }

    def frame(self, *, types: bool = False) -> pd.DataFrame:
        """Return the table as a data frame; missing scores and incomplete averages are NaN.

        Args:
            types: whether the columns are the means by task type instead of the tasks.
        """
        import pandas as pd

        records = []
        has_published = any(row.published for row in self.rows)
        for row in self.rows:
            record: dict[str, Any] = {
                "model": row.model,
                "revision": row.revision,
                "settings": row.settings,
                "reranker": row.reranker or "",
                "dtype": row.dtype,
            }
            if has_published:
                record |= {
                    "published": row.published,
                    "other_data": len(row.other_data),
                    "disagrees": ";".join(row.disagreements),
                }
            if types:
                record |= {name: mean.value for name, mean in self.means(row).items()}
            else:
                record |= {column.heading: row.scores.get(column.task) for column in self.columns}
                record["average"] = row.average(self.averaged)
            record["tasks_done"] = len(self.tasks) - len(row.missing(self.tasks))
            record["tasks_total"] = len(self.tasks)
            records.append(record)
        return pd.DataFrame(records)


def _mean(row: Row, tasks: Sequence[str]) -> Mean:
    return Mean(row.average(tasks), len(tasks) - len(row.missing(tasks)), len(tasks))
