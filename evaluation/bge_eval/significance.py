"""How sure a score is: its interval over queries, and what cannot be told from the best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bge_eval.costs import Costs, costs
from bge_eval.leaderboard import MAIN_KEY, Column, Leaderboard, Row
from bge_eval.measure import measure_of_key, per_query
from bge_eval.records import SplitKey
from bge_eval.results.saved import SavedResult

LEVEL = 0.05
"""A difference whose p-value is smaller is one that chance does not explain."""
_SAME = 5e-5
"""So near the mean over queries must be to the score that it stands for, as mteb rounds it."""


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


def standings(board: Leaderboard, column: Column, key: str) -> list[Standing | None]:
    """Return every row's standing on one task, in the rows' order.

    Args:
        board: the table.
        column: the task.
        key: the measure's key in mteb's results; `MAIN_KEY` for the task's own.
    """
    scores = [row.scores.get(column.task) for row in board.rows]
    ranks = {score: i for i, score in enumerate(_distinct(scores), start=1)}
    groups = [_groups(row, column, key) for row in board.rows]
    found = [
        None if score is None else _standing(score, ranks[score], own)
        for score, own in zip(scores, groups, strict=True)
    ]
    best = next((i for i, it in enumerate(found) if it is not None and it.rank == 1), None)
    if best is None:
        return list(found)
    return [
        replace(it, tied=True) if it is not None and _cannot_be_told(groups[best], own, it) else it
        for it, own in zip(found, groups, strict=True)
    ]


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
    results = [SavedResult(row.results[name]) for name in tasks if name in row.results]
    return costs(results, before)


def _distinct(scores: Sequence[float | None]) -> list[float]:
    return sorted({score for score in scores if score is not None}, reverse=True)


def _standing(score: float, rank: int, groups: Mapping[tuple[str, SplitKey], _Group]) -> Standing:
    from bge_eval.statistics import bootstrap_interval

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


def _cannot_be_told(
    best: Mapping[tuple[str, SplitKey], _Group],
    other: Mapping[tuple[str, SplitKey], _Group],
    standing: Standing,
) -> bool:
    """Whether both have the same queries, and the test finds no difference between them."""
    from bge_eval.statistics import randomisation_p_value

    if standing.rank == 1 or not best or best.keys() != other.keys():
        return False
    if any(best[part].values.keys() != other[part].values.keys() for part in best):
        return False
    differences = [
        [group.values[query] - value for query, value in other[part].values.items()]
        for part, group in best.items()
    ]
    weights = [group.weight for group in best.values()]
    return randomisation_p_value(differences, weights)[0] >= LEVEL


def _groups(row: Row, column: Column, key: str) -> dict[tuple[str, SplitKey], _Group]:
    """Return a row's values of single queries, by task and part; nothing where any is lacking.

    A task's score is the mean over its splits and subsets, and an aggregate's over its parts.
    """
    path = row.results.get(column.task)
    if path is None:
        return {}
    groups: dict[tuple[str, SplitKey], _Group] = {}
    tasks = column.parts or (column,)
    for task in tasks:
        result = SavedResult(_beside(path, task))
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
    return groups if abs(mean - row.scores[column.task]) <= _SAME else {}


def _beside(path: Path, task: Column) -> Path:
    return path if path.stem == task.task else path.with_name(f"{task.task}.json")


def _task_values(
    result: SavedResult, column: Column, key: str
) -> dict[SplitKey, Mapping[str, float]]:
    """Return the measure of every query, by subset and split; nothing where it is not kept."""
    if key == MAIN_KEY:
        key = column.main or str(result.record.get("main_measure") or "")
    measure = measure_of_key(key)
    parts = [
        (subset, split)
        for subset, split in result.parts
        if (not column.subsets or subset in column.subsets)
        and (not column.splits or split in column.splits)
    ]
    if measure is None or not parts:
        return {}
    found: dict[SplitKey, Mapping[str, float]] = {}
    for part in parts:
        names, values = result.per_query(part)
        if str(measure) in names:
            place = names.index(str(measure))
            found[part] = {query: row[place] for query, row in values.items()}
        else:
            computed = per_query(result.run(part), result.qrels(part), [measure])
            found[part] = {query: row[0] for query, row in computed.items()}
    return found
