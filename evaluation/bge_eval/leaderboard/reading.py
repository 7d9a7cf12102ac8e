"""Builds a table from saved results. It reads the JSON files alone and needs no mteb or torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bge_eval.leaderboard.board import Leaderboard
from bge_eval.leaderboard.naming import settings_by_value
from bge_eval.leaderboard.rows import (
    Aggregates,
    Column,
    Partial,
    Row,
    TaskScore,
    ordered,
    task_score,
)
from bge_eval.results.cut import averaged, is_cut
from bge_eval.results.identity import Identity, stated
from bge_eval.results.label import read_label
from bge_eval.results.record import RunRecord, read_record
from bge_eval.results.saved import read_meta, read_scores

_WHOLE = "default"
"""mteb's name of the one subset of a task that has no others."""
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
    partial: Partial | None
    """The score of some of the task's subsets, if the result has no more."""
    result: Path | None
    """The task's own result; None for an aggregate of which only the parts are saved."""
    identity: Identity | None
    """The identity of the run; None if it is not known."""


@dataclass(frozen=True, slots=True)
class _File:
    """One result, as it is saved."""

    path: Path
    """mteb's JSON; it does not exist for an aggregate of which only the parts are saved."""
    record: RunRecord
    """Its run.json."""
    scores: Mapping[str, Sequence[Mapping[str, Any]]] | None
    """mteb's scores; None without mteb's JSON."""


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
        tasks: the columns; () for every task that has a result. Cuts of tasks are then columns
            only where no result is of a whole task.
        title: the suite's name.
        columns: the columns with type, splits and subsets, in place of ``tasks``.
        others: rows to add to those of the files, from `published.published_rows`.
        aggregates: which score a task that averages others has.
    """
    requested = {column.task: column for column in columns or map(Column, tasks)}
    files = [_read(path) for path in dict.fromkeys(_files(paths, requested))]
    by_task = _filled(requested, files)
    shown, apart = _shown(requested, by_task)
    rows = [*_rows(files, by_task, key, aggregates), *others]
    scored = [
        row for row in rows if any(task in row.scores or task in row.partial for task in shown)
    ]
    return Leaderboard(
        measure,
        tuple(by_task[task] for task in shown),
        tuple(ordered(scored, averaged(shown) or shown)),
        title,
        apart=apart,
    )


def _read(path: Path) -> _File:
    """Read one result; only its record where mteb's JSON does not exist."""
    return _File(path, read_record(path), _scores(path) if path.is_file() else None)


def _filled(requested: Mapping[str, Column], files: Sequence[_File]) -> dict[str, Column]:
    """Return every column by its task, with what the results tell of it."""
    by_task = dict(requested)
    for file in files:
        task = file.path.stem
        by_task[task] = _completed(by_task.get(task, Column(task)), file.record)
    return by_task | _with_subsets(by_task, files)


def _shown(
    requested: Mapping[str, Column], by_task: Mapping[str, Column]
) -> tuple[list[str], tuple[str, ...]]:
    """Return the tasks that get a column, and the cuts of tasks that get none.

    If no columns are requested, an aggregate replaces its parts, and cuts stand apart from whole
    tasks.
    """
    if requested:
        return [*requested], ()
    inner = {part.task for column in by_task.values() for part in column.parts}
    shown = [task for task in by_task if task not in inner]
    if all(map(is_cut, shown)):
        return shown, ()
    return [task for task in shown if not is_cut(task)], tuple(filter(is_cut, shown))


def _rows(
    files: Sequence[_File], by_task: Mapping[str, Column], key: str, aggregates: Aggregates
) -> list[Row]:
    """Return the rows of results: one for each model, revision, settings and reranker."""
    headings = _Headings()
    entries: dict[tuple[str, str, str, str | None, str], list[_Entry]] = {}
    identities: dict[tuple[str, str, str, bool], list[Identity]] = {}
    for file in files:
        row = headings.of(file)
        entry = _entry(file, row, by_task[file.path.stem], key, aggregates)
        identity = (row.model, row.revision, row.settings, row.reranker, row.reranker_revision)
        entries.setdefault(identity, []).append(entry)
    for of_row in entries.values():
        identities.setdefault(of_row[0].row.first_stage_key, []).extend(
            entry.identity for entry in of_row if entry.identity is not None
        )
    return _with_revisions(
        [
            replace(row, described=settings_by_value(row.settings, identities[row.first_stage_key]))
            for row in map(_row, entries.values())
        ]
    )


class _Headings:
    """The headings of rows; each folder's files are read once."""

    def __init__(self) -> None:
        self._folders: dict[Path, tuple[Mapping[str, Any], str]] = {}

    def of(self, file: _File) -> Row:
        """Return the row that a result belongs to, without its scores."""
        folder = file.path.parent
        if folder not in self._folders:
            self._folders[folder] = read_meta(folder), read_label(folder)
        meta, label = self._folders[folder]
        return replace(_heading(meta, file.record), title=label)


def _entry(file: _File, row: Row, column: Column, key: str, aggregates: Aggregates) -> _Entry:
    """Return what one result gives to its row."""
    stored = column.score(file.scores, key) if file.scores is not None else None
    beside = [(part, file.path.with_name(f"{part.task}.json")) for part in column.parts]
    parts = [part.score(_scores(path), key) if path.is_file() else None for part, path in beside]
    score = task_score(stored, parts, key, aggregates)
    partial = None
    if score.value is None and file.scores is not None and not column.parts:
        partial = column.partial(file.scores, key)
        partial = replace(partial, result=file.path) if partial is not None else None
    path = file.path if file.scores is not None else None
    return _Entry(row, column.task, score, partial, path, file.record.identity)


def _with_subsets(columns: Mapping[str, Column], files: Sequence[_File]) -> dict[str, Column]:
    """Return the columns with the subsets of their results.

    A column that asks for no subsets has all that any of its results has; a result with fewer is
    then a partial one.
    """
    layouts: dict[str, dict[frozenset[str], None]] = {}
    present: dict[str, dict[str, None]] = {}
    for file in files:
        names = [
            str(entry.get("hf_subset", _WHOLE))
            for entries in (file.scores or {}).values()
            for entry in entries
        ]
        layouts.setdefault(file.path.stem, {})[frozenset(names)] = None
        present.setdefault(file.path.stem, {}).update(dict.fromkeys(names))
    completed = {}
    for task, every in present.items():
        column = columns[task]
        if set(every) <= {_WHOLE} or column.parts:
            continue
        subsets = column.subsets or (tuple(every) if len(layouts[task]) > 1 else ())
        completed[task] = replace(column, subsets=subsets, present=tuple(every))
    return completed


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
            reranker_settings.append(stated(setting, experiment[name]))
        elif name not in ("reranker", "rerank_top_k"):
            model_settings.append(stated(name, experiment[name]))
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
        partial={
            entry.task: entry.partial
            for entry in entries
            if entry.partial is not None and entry.task not in scored
        },
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


def _scores(path: Path) -> Mapping[str, Sequence[Mapping[str, Any]]]:
    return read_scores(path, read_record(path))
