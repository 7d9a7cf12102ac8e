"""Saved results as a table: models as rows, tasks as columns, one measure.

Reads the JSON files themselves, so that a table needs neither mteb nor torch. The means are
mteb's (``mteb.benchmarks``): a task's score is the mean over its splits and subsets, Mean (Task)
the mean over tasks, Mean (TaskType) the mean over the means of the task types.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bge_eval.measures.mteb_keys import MAIN_KEY
from bge_eval.results.record import RunRecord, read_record
from bge_eval.results.saved import TOLERANCE, read_json

if TYPE_CHECKING:
    import pandas as pd

MEAN_TASK = "Mean (Task)"
"""Heading of the mean over all tasks."""
MEAN_TYPE = "Mean (TaskType)"
"""Heading of the mean over the task types' means."""

_STAGE = "reranker_"
"""Prefix of a second stage's own settings."""


class Aggregates(StrEnum):
    """Which figure stands for a task that averages others (CQADupstackRetrieval)."""

    RECOMPUTED = "recomputed"
    PUBLISHED = "published"


@dataclass(frozen=True, slots=True)
class Column:
    """One task of a table."""

    task: str
    """mteb's task name."""
    type: str = ""
    """mteb's task type, e.g. "Retrieval"; "" while unknown."""
    splits: tuple[str, ...] = ()
    """The splits that are averaged, e.g. ("validation", "test"); () for all that a result has."""
    subsets: tuple[str, ...] = ()
    """The subsets that are averaged, e.g. ("en",); () for all that a result has."""
    main: str = ""
    """mteb's key of the task's main score, e.g. "ndcg_at_10"; "" while unknown."""
    data_revision: str = ""
    """The revision of the data set that the task has now; "" while unknown."""
    parts: tuple[Column, ...] = ()
    """For an aggregate, the tasks whose scores it averages."""

    def score(self, scores: Mapping[str, Sequence[Mapping[str, Any]]], key: str) -> float | None:
        """Return the mean of a measure over the column's splits and subsets.

        Args:
            scores: mteb's, split → one dictionary for each subset, e.g.
                ``{"test": [{"hf_subset": "default", "main_score": 0.71}]}``.
            key: the measure's key.

        Returns:
            The mean, or None if one of the values is missing.
        """
        values: list[Any] = []
        for split in self.splits or scores:
            entries = scores.get(split, ())
            if self.subsets or not entries:
                found = {entry.get("hf_subset", "default"): entry.get(key) for entry in entries}
                values += [found.get(subset) for subset in self.subsets or ("default",)]
            else:
                values += [entry.get(key) for entry in entries]
        known = [float(value) for value in values if value is not None and not math.isnan(value)]
        return sum(known) / len(known) if known and len(known) == len(values) else None


@dataclass(frozen=True, slots=True)
class Disagreement:
    """An aggregate whose own figure is not the mean of its parts."""

    stored: float
    """The figure that stands in its result."""
    recomputed: float
    """The mean of its parts."""
    parts: int
    """How many parts there are."""


@dataclass(frozen=True, slots=True)
class Mean:
    """An average that is complete or not shown."""

    value: float | None
    """The mean, 0 to 1; None if something is missing."""
    done: int
    """How many of its tasks (of Mean (TaskType): of its types) are complete."""
    total: int
    """How many there are."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    model: str
    """``org/model``."""
    revision: str
    """Hub commit or content hash; of a published row every revision that it is joined from."""
    settings: str
    """Settings that are not the model's own, e.g. "dtype=bfloat16"; "" for none."""
    reranker: str | None
    """The second stage, or None."""
    dtype: str
    """Precision; "" where it is not known."""
    scores: dict[str, float] = field(default_factory=dict)
    """Task → measure, 0 to 1; missing tasks are missing."""
    published: bool = False
    """Whether the figures are others', from ``results/published``."""
    disagreements: dict[str, Disagreement] = field(default_factory=dict)
    """Aggregate → its two figures, where they differ."""
    other_data: list[str] = field(default_factory=list)
    """Tasks scored on another, or an unstated, revision of the data set than the task's own."""
    results: dict[str, Path] = field(default_factory=dict)
    """Task → the result that its score was read from; nothing for published rows."""
    reranker_revision: str = ""
    """The second stage's own hub commit or content hash, as far as the result names it."""

    def average(self, tasks: Sequence[str]) -> float | None:
        """Return the mean over all of the tasks, or None if one of them is missing."""
        if not tasks or any(task not in self.scores for task in tasks):
            return None
        return sum(self.scores[task] for task in tasks) / len(tasks)

    def missing(self, tasks: Sequence[str]) -> list[str]:
        """Return the tasks without a score."""
        return [task for task in tasks if task not in self.scores]

    @property
    def label(self) -> str:
        """Return the row's name for people."""
        name = f"{self.model} [{self.settings}]" if self.settings else self.model
        if self.published:
            name += " (published)"
        return f"{name} + {self.reranker}" if self.reranker else name


@dataclass(frozen=True, slots=True)
class Leaderboard:
    """The table, before it is given a form."""

    measure: str
    """The measure's name, e.g. "nDCG@10"."""
    columns: tuple[Column, ...]
    """The tasks, in order."""
    rows: tuple[Row, ...]
    """Best average first; a second stage directly beneath its first."""
    title: str = ""
    """The suite's name, or "" for a free choice of tasks."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """Return the columns' task names."""
        return tuple(column.task for column in self.columns)

    @property
    def types(self) -> dict[str, list[str]]:
        """Return task type → its tasks, in the columns' order; a task of unknown type under ""."""
        types: dict[str, list[str]] = {}
        for column in self.columns:
            types.setdefault(column.type, []).append(column.task)
        return types

    def means(self, row: Row) -> dict[str, Mean]:
        """Return Mean (Task), Mean (TaskType) and the mean of every type, as mteb takes them."""
        types = {name: _mean(row, tasks) for name, tasks in self.types.items()}
        complete = [mean.value for mean in types.values() if mean.value is not None]
        whole = sum(complete) / len(complete) if complete and len(complete) == len(types) else None
        return {
            MEAN_TASK: _mean(row, self.tasks),
            MEAN_TYPE: Mean(whole, len(complete), len(types)),
            **types,
        }

    def first_stage(self, row: Row) -> Row | None:
        """Return the row that a second stage re-ordered, or None."""
        if row.reranker is None:
            return None
        for first in self.rows:
            if first.reranker is None and _group(first) == _group(row):
                return first
        return None

    def gain(self, row: Row) -> dict[str, float] | None:
        """Return a second stage's difference to its own first stage by task, else None."""
        first = self.first_stage(row)
        if first is None:
            return None
        return {
            task: row.scores[task] - first.scores[task]
            for task in self.tasks
            if task in row.scores and task in first.scores
        }

    def gain_of_means(self, row: Row) -> dict[str, float] | None:
        """Return a second stage's difference by heading, where both have that mean, else None."""
        first = self.first_stage(row)
        if first is None:
            return None
        before = {name: mean.value for name, mean in self.means(first).items()}
        after = {name: mean.value for name, mean in self.means(row).items()}
        gains = {}
        for name, value in after.items():
            other = before[name]
            if value is not None and other is not None:
                gains[name] = value - other
        return gains

    def frame(self, *, types: bool = False) -> pd.DataFrame:
        """Return the table as a data frame; missing scores and incomplete averages are NaN.

        Args:
            types: the means by task type as columns, instead of the tasks.
        """
        import pandas as pd

        records = []
        others = any(row.published for row in self.rows)
        for row in self.rows:
            record: dict[str, Any] = {
                "model": row.model,
                "revision": row.revision,
                "settings": row.settings,
                "reranker": row.reranker or "",
                "dtype": row.dtype,
            }
            if others:
                record |= {
                    "published": row.published,
                    "other_data": len(row.other_data),
                    "disagrees": ";".join(row.disagreements),
                }
            if types:
                record |= {name: mean.value for name, mean in self.means(row).items()}
            else:
                record |= {task: row.scores.get(task) for task in self.tasks}
                record["average"] = row.average(self.tasks)
            record["tasks_done"] = len(self.tasks) - len(row.missing(self.tasks))
            record["tasks_total"] = len(self.tasks)
            records.append(record)
        return pd.DataFrame(records)


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
    """Build the table.

    Args:
        paths: result files, from `find_results`.
        measure: the measure's name, for the heading.
        key: the measure's key in mteb's score dictionary; `MAIN_KEY` for every task's own.
        tasks: the columns; without any, every task that has a result.
        title: the suite's name.
        columns: the columns with all that is known of them, instead of ``tasks``.
        others: rows to place among those of the files, from `published.published_rows`.
        aggregates: which figure stands for a task that averages others.
    """
    chosen = {column.task: column for column in columns or map(Column, tasks)}
    known = dict(chosen)
    rows: dict[tuple[str, str, str, str | None, str], Row] = {}
    read: set[Path] = set()
    metas: dict[Path, dict[str, Any]] = {}
    for path in _files(paths, chosen):
        if path in read:
            continue
        read.add(path)
        record = read_record(path)
        column = _completed(known.get(path.stem, Column(path.stem)), record)
        known[path.stem] = column
        if path.parent not in metas:
            metas[path.parent] = read_json(path.parent / "model_meta.json")
        row = _row(metas[path.parent], record)
        identity = (row.model, row.revision, row.settings, row.reranker, row.reranker_revision)
        row = rows[identity] = _joined(rows.get(identity), row)
        parts = [
            _file_score(path.with_name(f"{part.task}.json"), part, key) for part in column.parts
        ]
        fill(row, column, _file_score(path, column, key), parts, key, aggregates)
        if column.task in row.scores and path.is_file():
            row.results[column.task] = path
    # Without a choice of columns, an aggregate stands for its parts.
    inner = {part.task for column in known.values() for part in column.parts}
    shown = tuple(known[task] for task in chosen or known if task in chosen or task not in inner)
    names = [column.task for column in shown]
    every = [*_told_apart(rows.values()), *others]
    kept = [row for row in every if any(task in row.scores for task in names)]
    return Leaderboard(measure, shown, tuple(_ordered(kept, names)), title)


def fill(
    row: Row,
    column: Column,
    stored: float | None,
    parts: Sequence[float | None],
    key: str,
    aggregates: Aggregates,
) -> bool:
    """Put a task's score into a row, an aggregate's from its parts where all of them are there.

    mteb stores only the main score of an aggregate; every measure of it is the mean over its
    parts. Where the stored figure is another than that mean, the row is marked.

    Args:
        row: the row.
        column: the task.
        stored: the measure as the task's own result gives it.
        parts: the measure of every part, in the column's order.
        key: the measure's key.
        aggregates: which of two figures stands in the table. `PUBLISHED` takes the stored one,
            as mteb's own table does; a measure that no aggregate stores is still recomputed.

    Returns:
        Whether the score is recomputed from the parts.
    """
    known = [value for value in parts if value is not None]
    whole = sum(known) / len(known) if known and len(known) == len(column.parts) else None
    if stored is not None and whole is not None and abs(stored - whole) > TOLERANCE:
        row.disagreements[column.task] = Disagreement(stored, whole, len(known))
    recompute = whole is not None and (
        aggregates is Aggregates.RECOMPUTED or (stored is None and key != MAIN_KEY)
    )
    value = whole if recompute else stored
    if value is not None:
        row.scores[column.task] = value
    return recompute


def _files(paths: Sequence[Path], chosen: Mapping[str, Column]) -> Iterable[Path]:
    """Yield the results that the columns need; for a part, where its aggregate's would be."""
    wholes: dict[str, list[str]] = {task: [task] for task in chosen}
    for column in chosen.values():
        for part in column.parts:
            wholes.setdefault(part.task, []).append(column.task)
    for path in paths:
        if not chosen:
            yield path
        for task in wholes.get(path.stem, ()):
            yield path.with_name(f"{task}.json")


def _completed(column: Column, record: RunRecord) -> Column:
    """Add what a run's record says of the task, where the column does not know it."""
    parts = column.parts or tuple(Column(part) for part in record.aggregate_of)
    return replace(
        column,
        type=column.type or record.task_type,
        main=column.main or record.main_measure,
        parts=parts,
    )


def _row(meta: Mapping[str, Any], record: RunRecord) -> Row:
    experiment = meta.get("experiment_kwargs") or {}
    ours, seconds = [], []
    for name in sorted(experiment):
        if name.startswith(_STAGE):
            seconds.append(f"{name.removeprefix(_STAGE)}={experiment[name]}")
        elif name not in ("reranker", "rerank_top_k"):
            ours.append(f"{name}={experiment[name]}")
    settings = ", ".join(ours)
    reranker, revision = None, ""
    if "reranker" in experiment:
        name, _, revision = str(experiment["reranker"]).partition("@")
        said = ", ".join([f"top {experiment['rerank_top_k']}", *seconds])
        reranker = f"{name} ({said})"
    return Row(
        model=str(meta["name"]),
        revision=str(meta["revision"]),
        settings=settings,
        reranker=reranker,
        dtype=record.identity.dtype if record.identity else "",
        reranker_revision=revision,
    )


def _told_apart(rows: Iterable[Row]) -> list[Row]:
    """Name the revision of rerankers that are alike but for it: two checkpoints of one name."""
    listed = list(rows)
    alike = Counter((_group(row), row.reranker) for row in listed)
    return [
        replace(row, reranker=row.reranker.replace(" (", f"@{row.reranker_revision} (", 1))
        if row.reranker and alike[_group(row), row.reranker] > 1
        else row
        for row in listed
    ]


def _joined(row: Row | None, another: Row) -> Row:
    """Return the row that is there; the first result that tells the precision gives it."""
    if row is None:
        return another
    return replace(row, dtype=another.dtype) if another.dtype and not row.dtype else row


def _group(row: Row) -> tuple[str, str, str, bool]:
    """Return what a first stage and its second stages share."""
    return (row.model, row.revision, row.settings, row.published)


def _mean(row: Row, tasks: Sequence[str]) -> Mean:
    return Mean(row.average(tasks), len(tasks) - len(row.missing(tasks)), len(tasks))


def _ordered(rows: Sequence[Row], tasks: Sequence[str]) -> list[Row]:
    """Best first by average (complete ones before others), second stages beneath their first."""

    def rank(row: Row) -> tuple[int, float]:
        average = row.average(tasks)
        done = [row.scores[task] for task in tasks if task in row.scores]
        return (len(row.missing(tasks)), -(average if average is not None else sum(done)))

    groups: dict[tuple[str, str, str, bool], list[Row]] = {}
    for row in rows:
        groups.setdefault(_group(row), []).append(row)
    ordered = sorted(groups.values(), key=lambda group: min(map(rank, group)))
    return [
        row
        for group in ordered
        for row in sorted(group, key=lambda row: (row.reranker is not None, rank(row)))
    ]


def _file_score(path: Path, column: Column, key: str) -> float | None:
    return column.score(read_json(path).get("scores", {}), key) if path.is_file() else None
