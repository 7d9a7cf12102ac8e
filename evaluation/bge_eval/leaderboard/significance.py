"""Interval of a score over queries, and which scores cannot be told from the best one.

The test is made for many systems (`bge_eval.statistics.many`): of any number of equal systems, one
is denied "cannot be told from the best" in at most 5% of the tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from bge_eval.errors import MissingError, UsageError
from bge_eval.leaderboard.board import Leaderboard
from bge_eval.leaderboard.costs import Costs, costs
from bge_eval.leaderboard.rows import Column, Row
from bge_eval.measures.items import item_values
from bge_eval.measures.measure import parse_measure
from bge_eval.measures.mteb_keys import MAIN_KEY, measure_of_key
from bge_eval.measures.per_query import per_query
from bge_eval.measures.rescore import judge
from bge_eval.records import SplitKey
from bge_eval.results.saved import TOLERANCE, SavedResult

if TYPE_CHECKING:
    from bge_eval.statistics.paired import Comparison

LEVEL = 0.05
"""A difference with a smaller p-value is significant."""


@dataclass(frozen=True, slots=True)
class Standing:
    """One row's score on one task: its interval, its rank, and whether it ties with the best."""

    score: float
    """0 to 1."""
    low: float | None = None
    """Lower end of its 95% interval over queries; None without per-query values."""
    high: float | None = None
    """Upper end."""
    queries: int | None = None
    """Number of queries; None without per-query values."""
    rank: int = 0
    """1 for the best score of the task, 2 for the second best; equal scores share a rank."""
    tied: bool = False
    """Whether it is below the best score, but not significantly (p of 0.05 or more)."""
    tested: bool = False
    """Whether it was tested against the best score: both have values of the same queries."""
    p_value: float | None = None
    """p-value of its difference to the best score, corrected for all pairs of systems; None for the
    best itself and where it was not tested."""

    @property
    def untested(self) -> bool:
        """Return whether it is below the best score and was not tested against it."""
        return self.rank > 1 and not self.tested


@dataclass(frozen=True, slots=True)
class _Group:
    """The queries of one split and subset of one task under one row."""

    weight: float
    """Weight of their mean in the task's score."""
    values: Mapping[str, float]
    """Query id → value."""


_Groups: TypeAlias = dict[tuple[str, SplitKey], _Group]
"""(task, (subset, split)) → queries."""


class Evidence:
    """Per-query values of a table's rows; every result is read once, on first use."""

    def __init__(self, board: Leaderboard, key: str) -> None:
        """Prepare for a table; nothing is read yet.

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
            weights: task → weight; they sum to 1.

        Returns:
            The standings; None for a row without a score on one of the tasks.
        """
        scores = [
            sum(weight * row.scores[task] for task, weight in weights.items())
            if not row.missing(list(weights))
            else None
            for row in self._board.rows
        ]
        ranked = sorted({score for score in scores if score is not None}, reverse=True)
        groups = [self._weighted(index, weights) for index in range(len(scores))]
        best = scores.index(ranked[0]) if ranked else 0
        against_best = _against(best, groups)
        standings: list[Standing | None] = []
        for index, (score, own) in enumerate(zip(scores, groups, strict=True)):
            if score is None:
                standings.append(None)
                continue
            standing = _standing(score, ranked.index(score) + 1, own)
            p_value = against_best.get(index)
            tied = standing.rank > 1 and p_value is not None and p_value >= LEVEL
            tested = p_value is not None or (index == best and bool(against_best))
            standings.append(replace(standing, tied=tied, tested=tested, p_value=p_value))
        return standings

    def by_query(self, task: str) -> list[tuple[list[float], list[Mapping[str, float]]]]:
        """Return every row's weights and per-query values of one task, one of each per part.

        Rows with other parts or queries than the first one that has values get empty lists.
        """
        rows = [self._weighted(index, {task: 1.0}) for index in range(len(self._board.rows))]
        first = next((row for row in rows if row), {})
        return [
            (
                [row[name].weight for name in first],
                [row[name].values for name in first],
            )
            if _same_queries(first, row)
            else ([], [])
            for row in rows
        ]

    def pairs(
        self, rows: Sequence[int], weights: Mapping[str, float]
    ) -> npt.NDArray[np.float64] | None:
        """Return the p-value of every pair of rows by a weighted mean over tasks.

        Args:
            rows: the rows' places in the table, two or more.
            weights: task → weight; they sum to 1.

        Returns:
            ``(n_rows, n_rows)`` float64, corrected for all pairs; None if a row has no values by
            query, or has those of other queries.
        """
        groups = [self._weighted(row, weights) for row in rows]
        if not all(_same_queries(groups[0], own) for own in groups):
            return None
        return _p_values(groups)

    def paired(self, before: int, after: int, weights: Mapping[str, float]) -> Comparison | None:
        """Compare two rows by a weighted mean over tasks, as ``bge-eval compare`` does.

        Args:
            before: the first row's place in the table.
            after: the second row's.
            weights: task → weight; they sum to 1.

        Returns:
            The comparison; None if a row has no values by query, or has those of other queries.
        """
        from bge_eval.statistics.paired import compare_means

        one, two = self._weighted(before, weights), self._weighted(after, weights)
        if not _same_queries(one, two):
            return None
        return compare_means(
            [list(group.values.values()) for group in one.values()],
            [[two[name].values[query] for query in group.values] for name, group in one.items()],
            [group.weight for group in one.values()],
        )

    def _weighted(self, index: int, weights: Mapping[str, float]) -> _Groups:
        """Return a row's queries of several tasks; {} if one task has no per-query values."""
        columns = {column.task: column for column in self._board.columns}
        groups: _Groups = {}
        for task, weight in weights.items():
            if (index, task) not in self._read:
                row = self._board.rows[index]
                self._read[index, task] = _groups(row, columns[task], self._key)
            of_task = self._read[index, task]
            if not of_task:
                return {}
            for name, group in of_task.items():
                # A task can be a column itself and a part of an aggregate.
                before = groups[name].weight if name in groups else 0.0
                groups[name] = _Group(before + weight * group.weight, group.values)
        return groups


def row_costs(board: Leaderboard, row: Row, task: str | None = None) -> Costs:
    """Return the costs of a row; a second stage's include those of its first stage.

    Args:
        board: the table.
        row: one of its rows.
        task: the task whose costs are returned; None for all of the table's tasks.
    """
    first = board.first_stage(row)
    before = row_costs(board, first, task) if first is not None else None
    tasks = [task] if task else board.tasks
    saved = [SavedResult(row.results[name]) for name in tasks if name in row.results]
    evaluated = {result.path: result for each in saved for result in each.parts() or [each]}
    return costs(evaluated.values(), before)


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


def _against(best: int, groups: Sequence[_Groups]) -> dict[int, float]:
    """Test all systems with the best one's queries together.

    Returns:
        Index of a row → p-value of its difference to the best row; without rows of other queries.
    """
    rows = [index for index, own in enumerate(groups) if own and _same_queries(groups[best], own)]
    if len(rows) < 2 or best not in rows:
        return {}
    p_values = _p_values([groups[row] for row in rows])[rows.index(best)]
    return {row: float(p) for row, p in zip(rows, p_values, strict=True) if row != best}


def _p_values(groups: Sequence[_Groups]) -> npt.NDArray[np.float64]:
    """Test all pairs of systems that have the same queries."""
    from bge_eval.statistics.many import tukey_hsd

    values = [
        np.array([[own[name].values[query] for own in groups] for query in one.values])
        for name, one in groups[0].items()
    ]
    return tukey_hsd(values, [one.weight for one in groups[0].values()])


def _same_queries(one: _Groups, another: _Groups) -> bool:
    return (
        bool(one)
        and one.keys() == another.keys()
        and all(one[name].values.keys() == another[name].values.keys() for name in one)
    )


def _groups(row: Row, column: Column, key: str) -> _Groups:
    """Return a row's per-query values on one column; {} if a part of it has none.

    A task's score is the mean over its splits and subsets, and an aggregate's over its parts.
    """
    path = row.results.get(column.task)
    if path is None:
        return {}
    groups: _Groups = {}
    tasks = column.parts or (column,)
    for task in tasks:
        result = SavedResult(path).beside(task.task)
        by_split = _task_values(result, task, key) if result.path.is_file() else {}
        if not by_split:
            return {}
        weight = 1 / len(tasks) / len(by_split)
        for part, values in by_split.items():
            groups[task.task, part] = _Group(weight, values)
    mean = sum(
        group.weight * sum(group.values.values()) / len(group.values) for group in groups.values()
    )
    # mteb averages some measures in another way: the queries' mean is then not the score.
    return groups if abs(mean - row.scores[column.task]) <= TOLERANCE else {}


def _chosen(parts: Iterable[SplitKey], column: Column) -> list[SplitKey]:
    """Return the splits and subsets that a column averages."""
    return [
        (subset, split)
        for subset, split in parts
        if (not column.subsets or subset in column.subsets)
        and (not column.splits or split in column.splits)
    ]


def _computed(
    result: SavedResult, parts: Sequence[SplitKey], name: str
) -> dict[SplitKey, Mapping[str, float]]:
    """Return a measure that mteb lacks, such as RR(rel=2), from the runs; {} if there is none."""
    try:
        measure = parse_measure(name)
        values = {p: judge(result.run(p), result.qrels(p), [measure])[measure] for p in parts}
    except (MissingError, UsageError):
        return {}
    return {part: each.per_query for part, each in values.items()}


def _task_values(
    result: SavedResult, column: Column, key: str
) -> dict[SplitKey, Mapping[str, float]]:
    """Return the measure of every query by (subset, split); {} if it cannot be computed."""
    if key == MAIN_KEY:
        key = column.main or result.record.main_measure
    measure = measure_of_key(key)
    if measure is None and result.keys:
        return _computed(result, _chosen(result.keys, column), key)
    if measure is None and key == result.record.main_measure:
        items = item_values(result)
        chosen = _chosen(items.values if items else {}, column)
        return {part: items.values[part] for part in chosen} if items else {}
    parts = _chosen(result.keys, column)
    if measure is None or not parts:
        return {}
    by_split: dict[SplitKey, Mapping[str, float]] = {}
    try:
        for part in parts:
            names, values = result.per_query(part)
            if str(measure) in names:
                column_index = names.index(str(measure))
                by_split[part] = {query: row[column_index] for query, row in values.items()}
            else:
                computed = per_query(result.run(part), result.qrels(part), [measure])
                by_split[part] = {query: row[0] for query, row in computed.items()}
    except MissingError:
        return {}
    return by_split
