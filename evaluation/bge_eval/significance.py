"""How sure a score is: its interval, and what cannot be told from the best."""

from __future__ import annotations

from dataclasses import dataclass

from bge_eval.costs import Costs, costs
from bge_eval.leaderboard import Column, Leaderboard, Row
from bge_eval.results.saved import SavedResult


@dataclass(frozen=True, slots=True)
class Standing:
    """One row's score on one task, among the others."""

    score: float
    """0 to 1."""
    low: float | None = None
    """Lower end of its 95% interval over queries; None where no query's value is kept."""
    high: float | None = None
    """Upper end."""
    queries: int | None = None
    """How many queries the interval is over."""
    rank: int = 0
    """1 for the best score of the task, 2 for the second best, ties sharing a rank."""
    tied: bool = False
    """Whether it is not the best, and cannot be told from the best (p of 0.05 or more)."""


def standings(board: Leaderboard, column: Column, key: str) -> list[Standing | None]:
    """Return every row's standing on one task, in the rows' order."""
    scores = [row.scores.get(column.task) for row in board.rows]
    distinct = sorted({score for score in scores if score is not None}, reverse=True)
    return [
        None if score is None else Standing(score, rank=distinct.index(score) + 1)
        for score in scores
    ]


def row_costs(board: Leaderboard, row: Row) -> Costs:
    """Return what a row costs; a second stage's include its first's."""
    first = board.first_stage(row)
    before = row_costs(board, first) if first is not None else None
    return costs(map(SavedResult, row.results.values()), before)
