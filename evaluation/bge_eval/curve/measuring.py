"""Measure every setting of a curve on every task, from one encoding.

A model is opened once for each dimension. All of them read the embedding store, which keeps
vectors before they are truncated, so the second dimension encodes nothing. mteb runs each task with
the exact search, as ``bge-eval run`` does; the other settings search the same vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from bge_eval.curve.grid import Axes
from bge_eval.data.plausibility import refuse_other_data
from bge_eval.data.sources import DataSource
from bge_eval.encode.cache import cache_folder
from bge_eval.errors import UsageError
from bge_eval.evaluation.judge import judge, searches
from bge_eval.measures.per_query import PER_QUERY, per_query
from bge_eval.models.dense import DenseModel
from bge_eval.progress import Progress
from bge_eval.records import Qrels, Run
from bge_eval.search.index import IndexOptions
from bge_eval.search.trials import Trial, Trials
from bge_eval.statistics.samples import Values
from bge_eval.suites.catalogue import PlannedTask

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask

MEASURES = tuple(map(str, PER_QUERY))
"""nDCG@10, RR@10 and R@100."""
Opener = Callable[[int | None], DenseModel]
"""Opens the model with its first dimensions only; None keeps all."""


@dataclass(frozen=True, slots=True)
class Group:
    """The queries of one split and subset of a task, searched by one setting."""

    task: str
    """mteb's task name."""
    weight: float
    """Its share in the mean over tasks; the weights of all groups add up to 1."""
    trial: Trial
    """Recall, size and speed."""
    values: Mapping[str, Values]
    """Measure → its value for every query, ``(n_queries,)`` float64."""


@dataclass(frozen=True, slots=True)
class Point:
    """One setting of the curve on all tasks."""

    dimension: int
    """Dimensions of the vectors."""
    truncated: bool
    """Whether the model has more of them."""
    options: IndexOptions
    """The index, its parameters, the representation, rescoring, depth."""
    groups: tuple[Group, ...]
    """One for each split and subset of each task."""


@dataclass(frozen=True, slots=True)
class Measuring:
    """What the tasks of a curve have in common."""

    open: Opener
    """Opens the model with some dimensions."""
    axes: Axes
    """The settings."""
    progress: Progress
    """Receives every step."""
    other_data: bool = False
    """Accept local data whose size or script is not the one expected of the task."""
    indexes: Path | None = None
    """The folder of trained indexes; None for the one that ``bge-eval run`` uses."""

    def points(
        self, tasks: Sequence[PlannedTask], sources: Mapping[str, DataSource]
    ) -> list[Point]:
        """Measure all settings on all tasks.

        Args:
            tasks: the tasks.
            sources: task name → its data.

        Returns:
            One point for each setting: the full vectors first, and the exact search first in each
            dimension.

        Raises:
            UsageError: a task searches no corpus, or a dimension is not smaller than the model's.
        """
        refuse_without_search(tasks)
        grid = self.axes.grid()
        models: dict[int | None, DenseModel] = {}
        groups: dict[tuple[int, int], list[Group]] = {}
        for planned, share in _singles(tasks):
            with sources[planned.name].loaded(planned.task, self.progress):
                self._check_data(planned, sources[planned.name])
                planned.cut_loaded(self.progress.note)
                for place, dimension in enumerate(self._dimensions()):
                    full = groups.get((0, 0))
                    if not self._is_smaller(dimension, full):
                        continue
                    if dimension not in models:
                        models[dimension] = self.open(dimension)
                    self.progress.fresh_profile()  # its counts are of one dimension
                    of_settings = self._settings(models[dimension], planned, grid)
                    for number, (trials, values) in enumerate(of_settings):
                        weights = share / len(trials)
                        groups.setdefault((place, number), []).extend(
                            Group(planned.name, weights, trial, value)
                            for trial, value in zip(trials, values, strict=True)
                        )
        return [
            Point(found[0].trial.dimension, place > 0, grid[number], tuple(found))
            for (place, number), found in sorted(groups.items(), key=lambda item: item[0])
        ]

    def _dimensions(self) -> list[int | None]:
        """Return the dimensions, all of the model's first: they are the reference."""
        return [None, *(each for each in self.axes.dimensions if each is not None)]

    def _is_smaller(self, dimension: int | None, full: Sequence[Group] | None) -> bool:
        """Return whether a dimension is to be tried.

        Raises:
            UsageError: it was asked for and is not smaller than the model's.
        """
        if dimension is None or full is None or dimension < full[0].trial.dimension:
            return True
        if self.axes.dimensions == Axes().dimensions:
            return False
        raise UsageError(
            f"--grid-dim {dimension}: the model has {full[0].trial.dimension} dimensions; name"
            " fewer."
        )

    def _check_data(self, planned: PlannedTask, source: DataSource) -> None:
        if self.other_data or planned.shipped or not source.is_copy:
            return
        for remark in refuse_other_data(planned.task, source.origin):
            self.progress.note(f"{planned.name}: {remark} Scores of a sample are not comparable.")

    def _settings(
        self, model: DenseModel, planned: PlannedTask, grid: Sequence[IndexOptions]
    ) -> Iterator[tuple[list[Trial], list[Mapping[str, Values]]]]:
        """Yield for every setting its trials, and the values of the measures, one by split."""
        task = planned.task
        model.begin(planned.task_name, planned.prompts, planned.name)
        model.identity(task.metadata)  # refuses a task that the model cannot do
        folder = self.indexes or cache_folder() / "indexes"
        trials = Trials(grid, folder, self.progress, model.files.name, self.axes.depth)
        model.search_by(trials.start)
        judged = judge(model, task, self.progress)
        drop = bool(cast("Any", task).ignore_identical_ids)
        for number in range(len(grid)):
            done: list[Trial] = []
            values: list[Mapping[str, Values]] = []
            for search, (key, run) in zip(trials.searched, judged.runs.items(), strict=True):
                trial = search.done[number]
                ranked = _run(list(run), trial, search.ids, drop_identical=drop)
                values.append(_values(ranked, judged.qrels[key]))
                done.append(trial)
            yield done, values


def refuse_without_search(tasks: Sequence[PlannedTask]) -> None:
    """Refuse tasks that search no corpus.

    Raises:
        UsageError: a task is of another type; the message names it.
    """
    for planned, _ in _singles(tasks):
        if not searches(planned.task) or "Reranking" in _type(planned.task):
            raise UsageError(
                f"{planned.name} is a task of type {_type(planned.task)}, which searches no"
                " corpus, so that no index serves it. Name retrieval tasks."
            )


def _type(task: AbsTask) -> str:
    return str(task.metadata.type)


def _singles(tasks: Sequence[PlannedTask]) -> Iterator[tuple[PlannedTask, float]]:
    """Yield single tasks, an aggregate's parts among them, with their share in the mean."""
    for planned in tasks:
        parts = planned.parts or (planned,)
        for part in parts:
            yield part, 1 / len(tasks) / len(parts)


def _run(queries: list[str], trial: Trial, ids: Mapping[int, str], *, drop_identical: bool) -> Run:
    """Return a trial's rankings by id, without each query's own document if it is dropped."""
    run: Run = {}
    for query, (rows, scores) in zip(queries, trial.rankings, strict=True):
        ranking = {
            ids[row]: score for row, score in zip(rows.tolist(), scores.tolist(), strict=True)
        }
        if drop_identical:
            ranking.pop(query, None)
        run[query] = ranking
    return run


def _values(run: Run, qrels: Qrels) -> dict[str, Values]:
    rows = np.array(list(per_query(run, qrels).values()), np.float64).reshape(-1, len(MEASURES))
    return {measure: rows[:, column] for column, measure in enumerate(MEASURES)}
