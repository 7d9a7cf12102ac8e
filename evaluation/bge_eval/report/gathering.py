"""Gathers the report's content from a leaderboard and its saved results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bge_eval.leaderboard.board import Leaderboard
from bge_eval.leaderboard.rows import Column, Row
from bge_eval.leaderboard.significance import Evidence, Standing, row_costs
from bge_eval.measures.mteb_keys import CUTOFFS, MAIN_KEY, measure_of_key
from bge_eval.report.content import Content, PublishedScore, System, Task, listed
from bge_eval.report.queries import QueryGroup, query_groups
from bge_eval.results.saved import SavedResult

_ACRONYMS = {"ap": "AP", "mrr": "MRR", "v": "V"}


def gather(
    board: Leaderboard, *, key: str, published: Sequence[Row] = (), notes: Sequence[str] = ()
) -> Content:
    """Collect the content of the report.

    Args:
        board: the leaderboard of the runs alone.
        key: the measure's key in mteb's results; `MAIN_KEY` for every task's own.
        published: rows of published models on the same columns.
        notes: notes below the leaderboard.
    """
    saved = [_saved(row, board.columns) for row in board.rows]
    evidence = Evidence(board, key)
    means = evidence.mean(dict.fromkeys(board.tasks, 1 / len(board.tasks)))
    parts: list[QueryGroup] = []
    tasks = []
    for column in board.columns:
        names = [part.task for part in column.parts] or [column.task]
        for name in names:
            having = {i: results[name] for i, results in enumerate(saved) if name in results}
            parts += query_groups(name, having)
        tasks.append(_task(board, column, key, evidence, saved, published))
    shorts = _short_labels(board.rows)
    systems = tuple(
        _system(board, row, short, mean, results)
        for row, short, mean, results in zip(board.rows, shorts, means, saved, strict=True)
    )
    others = [(row.model, row.average(board.tasks), bool(row.other_data)) for row in published]
    return Content(
        title=board.title,
        measure=board.measure,
        systems=systems,
        tasks=tuple(tasks),
        collections=tuple(parts),
        published_means=_best_first(others),
        notes=(*notes, *_without_queries(saved, shorts, parts)),
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
        name=column.task,
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
    short: str,
    mean: Standing | None,
    results: Mapping[str, SavedResult],
) -> System:
    return System(
        label=row.label,
        short=short,
        revision=row.revision,
        dtype=row.dtype,
        second_stage=row.reranker is not None,
        mean=row.average(board.tasks),
        mean_standing=mean,
        costs=row_costs(board, row),
        days=tuple(
            sorted(
                {result.record.created[:10] for result in results.values() if result.record.created}
            )
        ),
        facts=_facts(list(results.values())),
    )


def _facts(results: Sequence[SavedResult]) -> dict[str, str]:
    """Return setting → value of the results' identities; differing values are joined."""
    values: dict[str, dict[str, None]] = {}

    def add(name: str, value: object) -> None:
        if value not in (None, "", [], {}):
            values.setdefault(name, {}).setdefault(str(value))

    for result in results:
        record, identity = result.record, result.identity
        model: Mapping[str, Any] = identity.model if identity else {}
        for name in ("pooling", "similarity", "dtype", "max_length", "truncate_dim"):
            add(name.replace("_", " "), model.get(name))
        for role, prompt in (model.get("prompts") or {}).items():
            add(f"{role} prompt", prompt)
        reranker: Mapping[str, Any] = (identity.reranker if identity else None) or {}
        add("reranker", reranker.get("name"))
        add("reranked", reranker.get("top_k"))
        add("index", identity.index if identity else "")
        add("device", record.device)
        for package in ("bge-eval", "mteb", "torch", "transformers"):
            add(package, identity.packages.get(package) if identity else "")
        add("run on", record.created[:10])
    return {name: ", ".join(distinct) for name, distinct in values.items()}


def _short_labels(rows: Sequence[Row]) -> list[str]:
    """Return short distinct names for plots."""
    one_model = len(rows) > 1 and len({row.model for row in rows}) == 1
    shorts = []
    for row in rows:
        name = row.model.rpartition("/")[2]
        if row.settings:
            name = row.settings if one_model else f"{name} [{row.settings}]"
        if row.reranker:
            first = "" if one_model and not row.settings else f"{name} "
            name = f"{first}+ {row.reranker.rpartition('/')[2]}"
        shorts.append(name)
    labels = [
        short if shorts.count(short) == 1 else row.label
        for short, row in zip(shorts, rows, strict=True)
    ]
    return [
        label if labels.count(label) == 1 else f"{label} {row.revision[:8]}"
        for label, row in zip(labels, rows, strict=True)
    ]
