"""Gathers the report's content from a leaderboard and its saved results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bge_eval.leaderboard.board import Leaderboard
from bge_eval.leaderboard.losses import losing
from bge_eval.leaderboard.ranks import ranks
from bge_eval.leaderboard.rows import Column, Row
from bge_eval.leaderboard.significance import Evidence, Standing, row_costs
from bge_eval.leaderboard.trend import find_series
from bge_eval.measures.mteb_keys import CUTOFFS, MAIN_KEY, measure_of_key
from bge_eval.report.content import (
    Content,
    PairOnTask,
    PartialScore,
    PublishedScore,
    System,
    Task,
    listed,
)
from bge_eval.report.deployment import Curve
from bge_eval.report.naming import facts, short_names, without_settings
from bge_eval.report.queries import QueryGroup, query_groups
from bge_eval.results.saved import SavedResult
from bge_eval.statistics.all_pairs import PairTest, compare_all_pairs
from bge_eval.statistics.corrections import holm
from bge_eval.statistics.many import tukey_hsd

_ACRONYMS = {"ap": "AP", "mrr": "MRR", "v": "V"}


def gather(
    board: Leaderboard,
    *,
    key: str,
    published: Sequence[Row] = (),
    notes: Sequence[str] = (),
    curves: Sequence[Curve] = (),
) -> Content:
    """Collect the content of the report.

    Args:
        board: the leaderboard of the runs alone.
        key: the measure's key in mteb's results; `MAIN_KEY` for every task's own.
        published: rows of published models on the same columns.
        notes: notes below the leaderboard.
        curves: what shorter, compressed and indexed vectors cost.
    """
    saved = [_saved(row, board.columns) for row in board.rows]
    evidence = Evidence(board, key)
    parts: list[QueryGroup] = []
    tasks = []
    pairs = [_pairs(evidence, column.task) for column in board.columns]
    for_tasks = iter(holm([test.p_value for of_task in pairs for test in of_task.pairs]))
    for column, tests in zip(board.columns, pairs, strict=True):
        names = [part.task for part in column.parts] or [column.task]
        for name in names:
            having = {i: results[name] for i, results in enumerate(saved) if name in results}
            parts += query_groups(name, having)
        task = _task(board, column, key, evidence, saved, published)
        tasks.append(replace(task, pairs=_with_corrections(tests, for_tasks)))
    shorts = short_names(board.rows, [row.shown_settings for row in board.rows])
    others = [(row.model, row.average(board.tasks), bool(row.other_data)) for row in published]
    return Content(
        title=board.title,
        measure=board.measure,
        systems=_systems(board, evidence, shorts, saved),
        tasks=tuple(tasks),
        collections=tuple(parts),
        published_means=_best_first(others),
        series=tuple(find_series(board.rows)),
        notes=(
            *notes,
            *(line for _, line in losing(board, evidence)),
            *_without_queries(saved, shorts, parts),
        ),
        curves=tuple(curves),
    )


def _systems(
    board: Leaderboard,
    evidence: Evidence,
    shorts: Sequence[str],
    saved: Sequence[Mapping[str, SavedResult]],
) -> tuple[System, ...]:
    """Return the systems in the order of the leaderboard's rows."""
    means = evidence.mean(dict.fromkeys(board.tasks, 1 / len(board.tasks)))
    each = zip(board.rows, shorts, means, saved, ranks(board, evidence), strict=True)
    return tuple(
        replace(_system(board, row, (short, row.shown_settings), mean, results), rank=rank)
        for row, short, mean, results, rank in each
    )


def measure_name(key: str) -> str:
    """Return the display name of mteb's measure key, e.g. ``nDCG@10``, ``cosine spearman``."""
    measure = measure_of_key(key)
    if measure is not None:
        return str(measure)
    if key in ("", MAIN_KEY):
        return "main score"
    return " ".join(_ACRONYMS.get(word, word) for word in key.split("_"))


def _saved(row: Row, columns: Sequence[Column]) -> dict[str, SavedResult]:
    """Return task → result of one row, an aggregate's parts among them."""
    results = {}
    for column in columns:
        path = row.results.get(column.task)
        if path is None:
            continue
        results[column.task] = SavedResult(path)
        for part in column.parts:
            beside = path.with_name(f"{part.task}.json")
            if beside.is_file():
                results[part.task] = SavedResult(beside)
    return results


def _without_queries(
    saved: Sequence[Mapping[str, SavedResult]],
    names: Sequence[str],
    shown: Sequence[QueryGroup],
) -> list[str]:
    """Return a note for each system with runs whose queries cannot be shown."""
    lines = []
    for index, (results, name) in enumerate(zip(saved, names, strict=True)):
        seen = {collection.task for collection in shown if index in collection.results}
        lacking = [task for task, result in results.items() if result.keys and task not in seen]
        if lacking:
            lines.append(
                f"{name}: single queries of {listed(lacking)} are not shown, because their qrels"
                " are not stored beside the result; run it again with --overwrite"
            )
    return lines


def _task(
    board: Leaderboard,
    column: Column,
    key: str,
    evidence: Evidence,
    saved: Sequence[Mapping[str, SavedResult]],
    published: Sequence[Row],
) -> Task:
    recall = tuple(_recall(results, column) for results in saved)
    figures = [
        (row.model, row.scores.get(column.task), column.task in row.other_data) for row in published
    ]
    return Task(
        name=column.heading,
        task=column.task,
        type=column.type,
        measure=measure_name(column.main if key == MAIN_KEY else key),
        standings=tuple(evidence.task(column)),
        gains=tuple((board.gain(row) or {}).get(column.task) for row in board.rows),
        costs=tuple(
            row_costs(board, row, column.task) if column.task in row.results else None
            for row in board.rows
        ),
        recall=recall if any(recall) else (),
        published=_best_first(figures),
        languages=_languages(saved, column, key),
        partial=tuple(_partial(row, column.task) for row in board.rows),
    )


def _partial(row: Row, task: str) -> PartialScore | None:
    partial = row.partial.get(task)
    return PartialScore(partial.value, partial.name) if partial else None


def _languages(
    saved: Sequence[Mapping[str, SavedResult]], column: Column, key: str
) -> dict[str, tuple[float | None, ...]]:
    """Return language → every system's mean over the column's subsets in that language.

    A task of one subset that mixes languages has no score of any of them.
    """
    by_language: dict[str, list[list[float]]] = {}
    subsets = set()
    for index, results in enumerate(saved):
        result = results.get(column.task)
        for split, entries in (result.scores if result else {}).items():
            if column.splits and split not in column.splits:
                continue
            for entry in entries:
                value = entry.get(key or MAIN_KEY)
                if value is None or (
                    column.subsets and entry.get("hf_subset") not in column.subsets
                ):
                    continue
                subsets.add(entry.get("hf_subset"))
                for language in entry.get("languages") or ():
                    scores = by_language.setdefault(str(language), [[] for _ in saved])
                    scores[index].append(float(value))
    if len(by_language) > 1 and len(subsets) == 1:
        return {}
    return {
        language: tuple(_complete_mean(own, scores) for own in scores)
        for language, scores in sorted(by_language.items())
    }


def _complete_mean(own: Sequence[float], scores: Sequence[Sequence[float]]) -> float | None:
    """Return a system's mean over a language's subsets; None if it lacks one that others have."""
    return sum(own) / len(own) if own and len(own) == max(map(len, scores)) else None


@dataclass(frozen=True, slots=True)
class _Tested:
    """The tests of one task."""

    pairs: Sequence[PairTest] = ()
    """Every pair; the systems are the leaderboard's rows."""
    corrected: Sequence[float] = ()
    """Its p-values by the randomised Tukey HSD test, in the same order."""


def _pairs(evidence: Evidence, task: str) -> _Tested:
    """Test every pair of the systems that have values for the same queries of a task."""
    rows = evidence.by_query(task)
    tested = [index for index, (weights, _) in enumerate(rows) if weights]
    if len(tested) < 2:
        return _Tested()
    weights, parts = rows[tested[0]]
    groups = [
        np.array([[rows[index][1][place][query] for query in part] for index in tested])
        for place, part in enumerate(parts)
    ]
    p_values = tukey_hsd([group.T for group in groups], weights)
    tests = compare_all_pairs(groups, weights)
    return _Tested(
        [replace(test, first=tested[test.first], second=tested[test.second]) for test in tests],
        [float(p_values[test.first, test.second]) for test in tests],
    )


def _with_corrections(tested: _Tested, for_tasks: Iterator[float]) -> tuple[PairOnTask, ...]:
    """Return the pairs of one task with their corrected p-values."""
    return tuple(
        PairOnTask(
            test.first,
            test.second,
            test.difference,
            test.wins,
            test.ties,
            test.losses,
            test.p_value,
            corrected,
            next(for_tasks),
        )
        for test, corrected in zip(tested.pairs, tested.corrected, strict=True)
    )


def _recall(results: Mapping[str, SavedResult], column: Column) -> tuple[float | None, ...] | None:
    """Return mteb's recall at every cutoff, averaged like the score; None if unknown."""
    curves = []
    for part in column.parts or (column,):
        result = results.get(part.task)
        if result is None:
            return None
        curves.append([part.score(result.scores, f"recall_at_{k}") for k in CUTOFFS])
    means = []
    for values in zip(*curves, strict=True):
        known = [value for value in values if value is not None]
        means.append(sum(known) / len(known) if len(known) == len(values) else None)
    return tuple(means) if any(value is not None for value in means) else None


def _best_first(
    figures: Sequence[tuple[str, float | None, bool]],
) -> tuple[PublishedScore, ...]:
    known = [PublishedScore(model, score, other) for model, score, other in figures if score]
    return tuple(sorted(known, key=lambda figure: (-figure.score, figure.model)))


def _system(
    board: Leaderboard,
    row: Row,
    names: tuple[str, str],
    mean: Standing | None,
    results: Mapping[str, SavedResult],
) -> System:
    short, settings = names
    created = {result.record.created[:10] for result in results.values()}
    return System(
        label=" · ".join(filter(None, (without_settings(row), settings))),
        short=short,
        revision=row.revision,
        dtype=row.dtype,
        second_stage=row.reranker is not None,
        mean=row.average(board.tasks),
        mean_standing=mean,
        costs=row_costs(board, row),
        days=tuple(sorted(created - {""})),
        facts=facts(list(results.values())),
        name=without_settings(row),
        settings=settings,
    )
