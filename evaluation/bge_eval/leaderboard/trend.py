"""Series of checkpoints among a table's rows: their scores over steps, with intervals.

Rows are a series if their names differ in numbers of steps alone: ``checkpoints/checkpoint-500``
and ``checkpoints/checkpoint-1000``, ``run/epoch_1-step_300``, or labels such as ``step 3000``.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from bge_eval.leaderboard.board import Leaderboard
from bge_eval.leaderboard.rows import Row
from bge_eval.leaderboard.significance import Evidence, Standing
from bge_eval.leaderboard.steps import StepName, step_name

MEAN = "average"
"""The name of the mean over the tasks."""


@dataclass(frozen=True, slots=True)
class Series:
    """The checkpoints of one training, in the order of their steps."""

    name: str
    """What their names have in common, such as ``checkpoints``."""
    rows: tuple[int, ...]
    """Their places in the table."""
    steps: tuple[int, ...]
    """The step of each; where several numbers tell them apart, the last one if it only grows, else
    their place from 1."""
    labels: tuple[str, ...]
    """What tells each from the others, such as ``epoch_2-step_300``."""


@dataclass(frozen=True, slots=True)
class Trend:
    """The scores of one series on one task, or in the mean over all."""

    heading: str
    """The task's heading in the table, or `MEAN`."""
    standings: tuple[Standing | None, ...]
    """Score and interval at each step; None without a score. Ranks and ties are over the series."""

    @property
    def best(self) -> int | None:
        """Return the place of the best step, the first of equal ones; None without a score."""
        scored = [(it.score, -place) for place, it in enumerate(self.standings) if it]
        return -max(scored)[1] if scored else None

    @property
    def tied(self) -> tuple[int, ...]:
        """Return the places of the steps that cannot be told from the best."""
        return tuple(
            place
            for place, it in enumerate(self.standings)
            if it and place != self.best and (it.tied or it.rank == 1)
        )


def find_series(rows: Sequence[Row]) -> list[Series]:
    """Return the series of two or more checkpoints among rows, in the rows' order.

    Args:
        rows: the rows of a table. Rows of other settings or rerankers are other series.
    """
    groups: dict[tuple[str, ...], list[tuple[StepName, int]]] = {}
    for place, row in enumerate(rows):
        parts = None if row.published else step_name(row.title or row.model)
        if parts is None:
            continue
        settings = row.settings if not row.title else ""
        key = (parts.base, parts.form, settings, row.reranker or "")
        groups.setdefault(key, []).append((parts, place))
    series = []
    for (base, form, settings, reranker), members in groups.items():
        if len(members) > 1:
            name = base or form.replace("#", "").strip("-_= ")
            name = f"{name} [{settings}]" if settings else name
            members.sort(key=lambda member: (member[0].numbers, member[0].text, member[1]))
            series.append(_series(f"{name} + {reranker}" if reranker else name, members))
    return series


def trends(board: Leaderboard, series: Series, key: str) -> list[Trend]:
    """Return the scores of a series on every task, and in the mean over several.

    Args:
        board: the table that the series is in.
        series: one of its series.
        key: the measure's key in mteb's results; `MAIN_KEY` for every task's own.
    """
    own = Leaderboard(board.measure, board.columns, tuple(board.rows[row] for row in series.rows))
    evidence = Evidence(own, key)
    columns = [Trend(each.heading, tuple(evidence.task(each))) for each in board.columns]
    if len(own.averaged) > 1:
        weights = dict.fromkeys(own.averaged, 1 / len(own.averaged))
        columns.append(Trend(MEAN, tuple(evidence.mean(weights))))
    return [trend for trend in columns if trend.best is not None]


def _series(name: str, members: Sequence[tuple[StepName, int]]) -> Series:
    """Return a series of (name in parts, row) in the order of the numbers."""
    last = [parts.step for parts, _ in members]
    grows = all(one < two for one, two in itertools.pairwise(last))
    steps = last if grows else list(range(1, len(members) + 1))
    return Series(
        name,
        tuple(row for _, row in members),
        tuple(steps),
        tuple(parts.text for parts, _ in members),
    )
