"""Columns and rows of a table: the scores of one model by task, and averages over tasks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from bge_eval.measures.mteb_keys import MAIN_KEY
from bge_eval.results.saved import TOLERANCE


class Aggregates(StrEnum):
    """Which score a task that averages other tasks (CQADupstackRetrieval) has in the table."""

    RECOMPUTED = "recomputed"
    """The mean over its parts, where all of them have a score."""
    PUBLISHED = "published"
    """The score that its own result stores."""


@dataclass(frozen=True, slots=True)
class Column:
    """One task of a table."""

    task: str
    """mteb's task name."""
    type: str = ""
    """mteb's task type, e.g. "Retrieval"; "" if unknown."""
    splits: tuple[str, ...] = ()
    """The splits that are averaged, e.g. ("validation", "test"); () for all that a result has."""
    subsets: tuple[str, ...] = ()
    """The subsets that are averaged, e.g. ("en",); () for all that a result has."""
    main: str = ""
    """mteb's key of the task's main score, e.g. "ndcg_at_10"; "" if unknown."""
    data_revision: str = ""
    """The task's current dataset revision; "" if unknown."""
    parts: tuple[Column, ...] = ()
    """For an aggregate, the tasks whose scores it averages."""
    present: tuple[str, ...] = ()
    """The subsets of the saved results, where they are named otherwise than "default"."""
    part: str = ""
    """The subsets that the column is confined to, e.g. "zh" or "3 of 12 subsets"; "" for a whole
    task."""

    @property
    def heading(self) -> str:
        """Return the task's name, with the subsets where the column is not the whole task."""
        return f"{self.task}/{self.part}" if self.part else self.task

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
                by_subset = {entry.get("hf_subset", "default"): entry.get(key) for entry in entries}
                values += [by_subset.get(subset) for subset in self.subsets or ("default",)]
            else:
                values += [entry.get(key) for entry in entries]
        numbers = [float(value) for value in values if value is not None and not math.isnan(value)]
        return _complete_mean(numbers, len(values))

    def partial(
        self, scores: Mapping[str, Sequence[Mapping[str, Any]]], key: str
    ) -> Partial | None:
        """Return the score of a result that has some of the column's subsets.

        Args:
            scores: as in `score`.
            key: the measure's key.

        Returns:
            The mean over those subsets that have a value in every split; None if there are none,
            or all.
        """
        present = [
            subset
            for subset in self.subsets
            if replace(self, subsets=(subset,)).score(scores, key) is not None
        ]
        value = replace(self, subsets=tuple(present)).score(scores, key) if present else None
        if value is None or len(present) == len(self.subsets):
            return None
        return Partial(value, tuple(present), len(self.subsets))


@dataclass(frozen=True, slots=True)
class Partial:
    """The score of some of a task's subsets, which is not the task's score."""

    value: float
    """The mean over these subsets, 0 to 1."""
    subsets: tuple[str, ...]
    """mteb's names of the subsets that have a score."""
    total: int
    """Number of subsets of the column."""
    result: Path | None = None
    """The result that it comes from."""

    @property
    def name(self) -> str:
        """Return the subsets for people, e.g. "zh" or "3 of 12 subsets"."""
        return part_name(self.subsets, self.total)


_NAMED_SUBSETS = 2
"""Up to this many subsets are named; more are counted."""


def part_name(subsets: Sequence[str], total: int | None) -> str:
    """Return some of a task's subsets for people.

    Args:
        subsets: mteb's names of the subsets.
        total: number of the task's subsets; None if unknown.

    Returns:
        Their names, or their number, e.g. "de+zh" or "3 of 12 subsets".
    """
    if len(subsets) <= _NAMED_SUBSETS:
        return "+".join(subsets)
    return f"{len(subsets)} of {total} subsets" if total else f"{len(subsets)} subsets"


@dataclass(frozen=True, slots=True)
class Disagreement:
    """An aggregate whose stored score is not the mean of its parts."""

    stored: float
    """The score in the aggregate's own result."""
    recomputed: float
    """The mean of its parts."""
    parts: int
    """The number of parts."""


@dataclass(frozen=True, slots=True)
class TaskScore:
    """The score of one row on one task."""

    value: float | None
    """0 to 1; None if the task has no score."""
    recomputed: bool = False
    """Whether it is the mean over an aggregate's parts."""
    disagreement: Disagreement | None = None
    """The stored and the recomputed score of an aggregate, if they differ."""


def task_score(
    stored: float | None, parts: Sequence[float | None], key: str, aggregates: Aggregates
) -> TaskScore:
    """Return a task's score; an aggregate's is the mean over its parts where all have a score.

    mteb stores only the main score of an aggregate; every other measure is the mean over its
    parts.

    Args:
        stored: the measure in the task's own result.
        parts: the measure of every part of an aggregate; none for other tasks.
        key: the measure's key.
        aggregates: the score to take where both exist. With `PUBLISHED`, a measure other than
            the main score is still recomputed where no result stores it.
    """
    scores = [value for value in parts if value is not None]
    mean = _complete_mean(scores, len(parts))
    if mean is None:
        return TaskScore(stored)
    disagreement = None
    if stored is not None and abs(stored - mean) > TOLERANCE:
        disagreement = Disagreement(stored, mean, len(parts))
    recomputed = aggregates is Aggregates.RECOMPUTED or (stored is None and key != MAIN_KEY)
    return TaskScore(mean if recomputed else stored, recomputed, disagreement)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    model: str
    """``org/model``."""
    revision: str
    """Hub commit or content hash; for published scores, all revisions that they come from."""
    settings: str
    """Settings that are not the model's own, e.g. "dtype=bfloat16"; "" for none."""
    reranker: str | None
    """The second stage, or None."""
    dtype: str
    """Precision; "" if unknown."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """Task → measure, 0 to 1; a task without a score has no entry."""
    published: bool = False
    """Whether the scores come from ``results/published`` and not from a saved result."""
    disagreements: Mapping[str, Disagreement] = field(default_factory=dict)
    """Aggregate → its stored and its recomputed score, where they differ."""
    other_data: tuple[str, ...] = ()
    """Tasks scored on a dataset revision that is not the task's own, or not stated."""
    results: Mapping[str, Path] = field(default_factory=dict)
    """Task → the result that its score comes from; empty for published scores."""
    reranker_revision: str = ""
    """The second stage's hub commit or content hash; "" if unknown."""
    partial: Mapping[str, Partial] = field(default_factory=dict)
    """Task → the score of some of its subsets, where a result has no more; it has no part in
    averages and ranks."""

    title: str = ""
    """The user's own name for the row (``run --label``); "" for none."""
    described: str = ""
    """``settings`` for people: prompts and examples by value instead of their digests; "" for
    ``settings`` as they are."""

    @property
    def first_stage_key(self) -> tuple[str, str, str, bool]:
        """Return what a first stage and its second stages have in common."""
        return (self.model, self.revision, self.settings, self.published)

    @property
    def shown_settings(self) -> str:
        """Return the settings for people."""
        return self.described or self.settings

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
        """Return the row's name for people: the user's own label, or model, settings, reranker."""
        if self.title:
            return self.title
        name = f"{self.model} [{self.shown_settings}]" if self.settings else self.model
        if self.published:
            name += " (published)"
        return f"{name} + {self.reranker}" if self.reranker else name


def ordered(rows: Sequence[Row], tasks: Sequence[str]) -> list[Row]:
    """Sort rows: fewest missing tasks first, then best average; second stages follow their first.

    Args:
        rows: the rows.
        tasks: the tasks that are averaged.
    """

    def rank(row: Row) -> tuple[int, float]:
        average = row.average(tasks)
        scores = [row.scores[task] for task in tasks if task in row.scores]
        return (len(row.missing(tasks)), -(average if average is not None else sum(scores)))

    groups: dict[tuple[str, str, str, bool], list[Row]] = {}
    for row in rows:
        groups.setdefault(row.first_stage_key, []).append(row)
    return [
        row
        for group in sorted(groups.values(), key=lambda group: min(map(rank, group)))
        for row in sorted(group, key=lambda row: (row.reranker is not None, rank(row)))
    ]


def _complete_mean(values: Sequence[float], total: int) -> float | None:
    """Return the mean, or None if there are no values or fewer than ``total``."""
    return sum(values) / len(values) if values and len(values) == total else None
