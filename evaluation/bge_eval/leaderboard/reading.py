"""Builds a table from saved results. It reads the JSON files alone and needs no mteb or torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bge_eval.leaderboard.board import Leaderboard
from bge_eval.leaderboard.rows import Aggregates, Column, Row, TaskScore, ordered, task_score
from bge_eval.results.record import RunRecord, read_record
from bge_eval.results.saved import read_json

_RERANKER_SETTING = "reranker_"
"""Prefix of a reranker's own settings."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """What one result gives to a row."""

    row: Row
    """The row without its scores."""
    task: str
    """The column that the score belongs to."""
    score: TaskScore
    """The score."""
    result: Path | None
    """The task's own result; None for an aggregate of which only the parts are saved."""


def leaderboard(
    paths: Sequence[Path],
    *,
    measure: str,
    key: str,
    tasks: Sequence[str] = (),
    title: str = "",
    columns: Sequence[Column] = (),
    others: Sequence[Row] = (),
    aggregates: Aggregates = Aggregates.RECOMPUTED,
) -> Leaderboard:
    """Build a table from result files.

    Args:
        paths: result files, from `find_results`.
        measure: the measure's name, for the heading.
        key: the measure's key in mteb's score dictionary; `MAIN_KEY` for every task's own.
        tasks: the columns; () for every task that has a result.
        title: the suite's name.
        columns: the columns with type, splits and subsets, in place of ``tasks``.
        others: rows to add to those of the files, from `published.published_rows`.
        aggregates: which score a task that averages others has.
    """
    requested = {column.task: column for column in columns or map(Column, tasks)}
    by_task = dict(requested)
    entries: dict[tuple[str, str, str, str | None, str], list[_Entry]] = {}
    metas: dict[Path, dict[str, Any]] = {}
    for path in dict.fromkeys(_files(paths, requested)):
        record = read_record(path)
        column = by_task[path.stem] = _completed(by_task.get(path.stem, Column(path.stem)), record)
        if path.parent not in metas:
            metas[path.parent] = read_json(path.parent / "model_meta.json")
        row = _heading(metas[path.parent], record)
        result = path if path.is_file() else None
        stored = _file_score(path, column, key) if result else None
        beside = [(part, path.with_name(f"{part.task}.json")) for part in column.parts]
        parts = [_file_score(file, part, key) if file.is_file() else None for part, file in beside]
        score = task_score(stored, parts, key, aggregates)
        identity = (row.model, row.revision, row.settings, row.reranker, row.reranker_revision)
        entries.setdefault(identity, []).append(_Entry(row, column.task, score, result))
    # If no columns are requested, an aggregate replaces its parts.
    inner = {part.task for column in by_task.values() for part in column.parts}
    shown = requested or [task for task in by_task if task not in inner]
    rows = [*_with_revisions([_row(of_row) for of_row in entries.values()]), *others]
    scored = [row for row in rows if any(task in row.scores for task in shown)]
    return Leaderboard(
        measure, tuple(by_task[task] for task in shown), tuple(ordered(scored, [*shown])), title
    )


def _files(paths: Sequence[Path], requested: Mapping[str, Column]) -> Iterable[Path]:
    """Yield the results that the columns need; for a part, the path of its aggregate's result."""
    owners: dict[str, list[str]] = {task: [task] for task in requested}
    for column in requested.values():
        for part in column.parts:
            owners.setdefault(part.task, []).append(column.task)
    for path in paths:
        if not requested:
            yield path
        for task in owners.get(path.stem, ()):
            yield path.with_name(f"{task}.json")


def _completed(column: Column, record: RunRecord) -> Column:
    """Fill a column's unknown type, main score and parts from the record of a run."""
    return replace(
        column,
        type=column.type or record.task_type,
        main=column.main or record.main_measure,
        parts=column.parts or tuple(Column(part) for part in record.aggregate_of),
    )


def _heading(meta: Mapping[str, Any], record: RunRecord) -> Row:
    """Return the row that a result belongs to, without its scores."""
    experiment = meta.get("experiment_kwargs") or {}
    model_settings, reranker_settings = [], []
    for name in sorted(experiment):
        if name.startswith(_RERANKER_SETTING):
            setting = name.removeprefix(_RERANKER_SETTING)
            reranker_settings.append(f"{setting}={experiment[name]}")
        elif name not in ("reranker", "rerank_top_k"):
            model_settings.append(f"{name}={experiment[name]}")
    reranker, revision = None, ""
    if "reranker" in experiment:
        name, _, revision = str(experiment["reranker"]).partition("@")
        details = ", ".join([f"top {experiment['rerank_top_k']}", *reranker_settings])
        reranker = f"{name} ({details})"
    return Row(
        model=str(meta["name"]),
        revision=str(meta["revision"]),
        settings=", ".join(model_settings),
        reranker=reranker,
        dtype=record.identity.dtype if record.identity else "",
        reranker_revision=revision,
    )


def _row(entries: Sequence[_Entry]) -> Row:
    """Join the entries of one row; of several results of one task, the last counts."""
    scored = {entry.task: entry for entry in entries if entry.score.value is not None}
    return replace(
        entries[0].row,
        dtype=next((entry.row.dtype for entry in entries if entry.row.dtype), ""),
        scores={t: e.score.value for t, e in scored.items() if e.score.value is not None},
        disagreements={
            t: e.score.disagreement for t, e in scored.items() if e.score.disagreement is not None
        },
        results={task: entry.result for task, entry in scored.items() if entry.result},
    )


def _with_revisions(rows: Sequence[Row]) -> list[Row]:
    """Add the reranker's revision to rows that differ in nothing else."""
    counts = Counter((row.first_stage_key, row.reranker) for row in rows)
    return [
        replace(row, reranker=row.reranker.replace(" (", f"@{row.reranker_revision} (", 1))
        if row.reranker and counts[row.first_stage_key, row.reranker] > 1
        else row
        for row in rows
    ]


def _file_score(path: Path, column: Column, key: str) -> float | None:
    return column.score(read_json(path).get("scores", {}), key)
