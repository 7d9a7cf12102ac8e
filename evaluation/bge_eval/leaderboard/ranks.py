"""Ranks of a table's rows: the Borda count of MTEB's leaderboard, and ranks with intervals.

The Borda count is mteb's (``mteb.benchmarks._create_table``): on every task a row earns the number
of rows minus its rank there, where equal scores share the mean of their ranks and a missing score
earns nothing; the row with the most points is first.

The interval of a rank counts the rows that are significantly better and worse: a row is nowhere
above those that beat it, nowhere below those that it beats. With the test of all pairs at once
(`bge_eval.statistics.many`), all intervals of a table hold together with probability 0.95 (Al
Mohamad, Goeman and van Zwet, "Simultaneous confidence intervals for ranks with application to
ranking institutions", Biometrics 78, 2022). Overlapping neighbours cannot be told apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bge_eval.leaderboard.board import Leaderboard
from bge_eval.leaderboard.significance import LEVEL, Evidence


@dataclass(frozen=True, slots=True)
class Rank:
    """The place of one row."""

    borda: int
    """Rank by the Borda count, 1 for the best; equal counts share a rank."""
    mean: int | None = None
    """Rank by the mean over all tasks among the complete rows; None for an incomplete row."""
    low: int | None = None
    """The best rank by the mean that the row may have; None where nothing could be tested."""
    high: int | None = None
    """The worst such rank."""
    over: str = ""
    """What was taken as the sample: "queries", "tasks", or "" where nothing could be tested."""


def borda_ranks(scores: Sequence[Sequence[float | None]]) -> list[int]:
    """Return the rank of every row by the Borda count, as mteb computes it.

    Args:
        scores: for every row, its score on every task; None where it has none.
    """
    from scipy.stats import rankdata

    points = np.zeros(len(scores))
    for of_task in zip(*scores, strict=True):
        scored = [row for row, score in enumerate(of_task) if score is not None]
        values = np.array([of_task[row] for row in scored], np.float64)
        points[scored] += len(scores) - rankdata(-values, method="average")
    ranks: npt.NDArray[np.float64] = rankdata(-points, method="min")
    return [int(rank) for rank in ranks]


def ranks(board: Leaderboard, evidence: Evidence) -> list[Rank | None]:
    """Return the place of every row; None for a row without a score.

    Args:
        board: the table.
        evidence: the values of its rows by query. If all complete rows have them, the intervals
            are over queries, else over tasks.
    """
    tasks = board.averaged
    rows = [row for row, one in enumerate(board.rows) if not set(tasks).isdisjoint(one.scores)]
    table = [[board.rows[row].scores.get(task) for task in tasks] for row in rows]
    borda = dict(zip(rows, borda_ranks(table), strict=True))
    means = {row: mean for row in rows if (mean := board.rows[row].average(tasks)) is not None}
    p_values, over = _pairs(board, evidence, list(means))
    placed: list[Rank | None] = []
    for row in range(len(board.rows)):
        if row not in borda:
            placed.append(None)
        elif row not in means:
            placed.append(Rank(borda[row]))
        else:
            rank = 1 + sum(mean > means[row] for mean in means.values())
            low, high = None, None
            if p_values is not None:
                own = p_values[list(means).index(row)]
                pairs = list(zip(own, means.values(), strict=True))
                low = 1 + sum(bool(p < LEVEL) and mean > means[row] for p, mean in pairs)
                high = len(means) - sum(bool(p < LEVEL) and mean < means[row] for p, mean in pairs)
            placed.append(Rank(borda[row], rank, low, high, over))
    return placed


def _pairs(
    board: Leaderboard, evidence: Evidence, rows: Sequence[int]
) -> tuple[npt.NDArray[np.float64] | None, str]:
    """Return the p-value of every pair of complete rows, and what they are over."""
    from bge_eval.statistics.many import tukey_hsd

    if len(rows) < 2:
        return None, ""
    tasks = board.averaged
    weights = dict.fromkeys(tasks, 1 / len(tasks))
    over_queries = evidence.pairs(rows, weights)
    if over_queries is not None:
        return over_queries, "queries"
    if len(tasks) < 2:
        return None, ""
    scores = [[board.rows[row].scores[task] for row in rows] for task in tasks]
    return tukey_hsd([np.array(scores)]), "tasks"
