"""How sure a score is: its interval over queries, and what cannot be told from the best."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

from bge_eval.errors import MissingError
from bge_eval.leaderboard.board import Leaderboard
from bge_eval.leaderboard.costs import Costs, costs
from bge_eval.leaderboard.rows import Column, Row
from bge_eval.measures.mteb_keys import MAIN_KEY, measure_of_key
from bge_eval.measures.per_query import per_query
from bge_eval.records import SplitKey
from bge_eval.results.saved import TOLERANCE, SavedResult

LEVEL = 0.05
"""A difference whose p-value is smaller is one that chance does not explain."""


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
    """1 for the best score of the task, 2 for the second best; equal scores share a rank."""
    tied: bool = False
    """Whether it is not the best, and cannot be told from the best (p of 0.05 or more)."""


@dataclass(frozen=True, slots=True)
class _Group:
    """The queries of one split and subset of one task under one row."""

    weight: float
    """What their mean counts in the task's score."""
    values: Mapping[str, float]
    """Query id → value."""


_Groups: TypeAlias = dict[tuple[str, SplitKey], _Group]
"""(task, (subset, split)) → its queries."""


class Evidence:
    """What single queries say of a table; every result is read once, when it is first needed."""

    def __init__(self, board: Leaderboard, key: str) -> None:
        """Look at a table.

        Args:
            board: the table.
            key: the measure's key in mteb's results; `MAIN_KEY` for every task's own.
        """
        self._board = board
        self._key = key
        self._read: dict[tuple[int, str], _Groups] = {}

    def task(self, column: Column) -> list[Standing | None]:
        """Return every row's standing on one task, in the rows' order."""
        return self.mean({column.task: 1.0})

    def mean(self, weights: Mapping[str, float]) -> list[Standing | None]:
        """Return every row's standing by a weighted mean over tasks, in the rows' order.

        Args:
            weights: task → what it counts; they sum to 1. A row that lacks one has no standing.
        """
        from bge_eval.statistics.randomisation import randomisation_p_value

        scores = [
            sum(weight * row.scores[task] for task, weight in weights.items())
            if not row.missing(list(weights))
            else None
            for row in self._board.rows
        ]
        ranked = sorted({score for score in scores if score is not None}, reverse=True)
        groups = [self._weighted(index, weights) for index in range(len(scores))]
        best = scores.index(ranked[0]) if ranked else 0
        found: list[Standing | None] = []
        for score, own in zip(scores, groups, strict=True):
            if score is None:
                found.append(None)
                continue
            standing = _standing(score, ranked.index(score) + 1, own)
            if standing.rank > 1 and _same_queries(groups[best], own):
                differences = [
                    [group.values[query] - value for query, value in own[name].values.items()]
                    for name, group in groups[best].items()
                ]
                counted = [own[name].weight for name in groups[best]]
                p_value, _ = randomisation_p_value(differences, counted)
                standing = replace(standing, tied=p_value >= LEVEL)
            found.append(standing)
        return found

    def _weighted(self, index: int, weights: Mapping[str, float]) -> _Groups:
        """Return a row's queries of several tasks; nothing where those of one are lacking."""
        columns = {column.task: column for column in self._board.columns}
        groups: _Groups = {}
        for task, weight in weights.items():
            if (index, task) not in self._read:
                row = self._board.rows[index]
                self._read[index, task] = _groups(row, columns[task], self._key)
            found = self._read[index, task]
            if not found:
                return {}
            for name, group in found.items():
                # A task may count twice, for itself and as a part of an aggregate.
                before = groups[name].weight if name in groups else 0.0
                groups[name] = _Group(before + weight * group.weight, group.values)
        return groups


def row_costs(board: Leaderboard, row: Row, task: str | None = None) -> Costs:
    """Return what a row costs; a second stage's costs include its first's.

    Args:
        board: the table.
        row: one of its rows.
        task: of this task alone, instead of all of the table's.
    """
    first = board.first_stage(row)
    before = row_costs(board, first, task) if first is not None else None
    tasks = [task] if task else board.tasks
    saved = [SavedResult(row.results[name]) for name in tasks if name in row.results]
    ran = {result.path: result for each in saved for result in _ran(each)}
    return costs(ran.values(), before)


def _ran(result: SavedResult) -> list[SavedResult]:
    """Return the results that took time: an aggregate's parts in its place."""
    return result.parts() or [result]


def _standing(score: float, rank: int, groups: _Groups) -> Standing:
    from bge_eval.statistics.intervals import bootstrap_interval

    if not groups:
        return Standing(score, rank=rank)
    interval = bootstrap_interval(
        [list(group.values.values()) for group in groups.values()],
        [group.weight for group in groups.values()],
    )
    queries = sum(len(group.values) for group in groups.values())
    if interval is None:
        return Standing(score, queries=queries, rank=rank)
    return Standing(score, interval.low, interval.high, queries, rank)


def _same_queries(one: _Groups, another: _Groups) -> bool:
    return (
        bool(one)
        and one.keys() == another.keys()
        and all(one[name].values.keys() == another[name].values.keys() for name in one)
    )


def _groups(row: Row, column: Column, key: str) -> _Groups:
    """Return a row's values of single queries, by task and part; nothing where any is lacking.

    A task's score is the mean over its splits and subsets, and an aggregate's over its parts.
    """
    path = row.results.get(column.task)
    if path is None:
        return {}
    groups: _Groups = {}
    tasks = column.parts or (column,)
    for task in tasks:
        result = SavedResult(path).beside(task.task)
        found = _task_values(result, task, key) if result.path.is_file() else {}
        if not found:
            return {}
        weight = 1 / len(tasks) / len(found)
        for part, values in found.items():
            groups[task.task, part] = _Group(weight, values)
    mean = sum(
        group.weight * sum(group.values.values()) / len(group.values) for group in groups.values()
    )
    # Where queries do not give the score (another averaging of mteb's), they say nothing of it.
    return groups if abs(mean - row.scores[column.task]) <= TOLERANCE else {}


def _task_values(
    result: SavedResult, column: Column, key: str
) -> dict[SplitKey, Mapping[str, float]]:
    """Return the measure of every query, by subset and split; nothing where it is not kept."""
    if key == MAIN_KEY:
        key = column.main or result.record.main_measure
    measure = measure_of_key(key)
    parts = [
        (subset, split)
        for subset, split in result.keys
        if (not column.subsets or subset in column.subsets)
        and (not column.splits or split in column.splits)
    ]
    if measure is None or not parts:
        return {}
    found: dict[SplitKey, Mapping[str, float]] = {}
    try:
        for part in parts:
            names, values = result.per_query(part)
            if str(measure) in names:
                place = names.index(str(measure))
                found[part] = {query: row[place] for query, row in values.items()}
            else:
                computed = per_query(result.run(part), result.qrels(part), [measure])
                found[part] = {query: row[0] for query, row in computed.items()}
    except MissingError:
        return {}
    return found
