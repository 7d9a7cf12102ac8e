"""The stages of one task: the saved result of exactly the same identity, or a new one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bge_eval.data.integrity import refuse_unscorable
from bge_eval.data.plausibility import refuse_other_data
from bge_eval.data.sources import DataSource
from bge_eval.errors import UsageError
from bge_eval.evaluation.judge import (
    Judged,
    average,
    identity_of,
    judge,
    judge_reranked,
    searches,
)
from bge_eval.evaluation.options import Options
from bge_eval.measures.per_query import PER_QUERY, per_query
from bge_eval.models.base import Model
from bge_eval.progress import Profile, Progress
from bge_eval.rerank.filing import reranked_meta
from bge_eval.rerank.reranker import Reranker
from bge_eval.rerank.second_stage import SecondStage
from bge_eval.results.identity import Identity
from bge_eval.results.locks import task_lock
from bge_eval.results.store import ResultStore, TaskOutput
from bge_eval.results.unfinished import unfinished_work
from bge_eval.suites.catalogue import PlannedTask

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask
    from mteb.models import ModelMeta


@dataclass(frozen=True, slots=True)
class _Stage:
    """A stage of a task before it runs."""

    identity: Identity
    """Everything its scores depend on."""
    meta: ModelMeta
    """mteb's record under which its result is filed."""


@dataclass(frozen=True, slots=True)
class ScoredStage:
    """A saved result."""

    path: Path
    """mteb's result file."""
    identity: Identity
    """Everything its scores depend on."""
    reused: bool
    """Whether it was saved before."""


@dataclass(frozen=True, slots=True)
class StageRunner:
    """Runs the stages of tasks for one model and its reranker, and saves what they score."""

    model: Model
    """The first stage."""
    reranker: Reranker | None
    """The second stage, if there is one."""
    store: ResultStore
    """The output folder."""
    options: Options
    """Data folders and reuse."""
    progress: Progress
    """Receives every step."""

    def run(
        self, planned: PlannedTask, sources: Mapping[str, DataSource], *, waits: bool
    ) -> list[ScoredStage]:
        """Run one task, or an aggregate's parts and then their average.

        Args:
            planned: the task.
            sources: task name → its data.
            waits: wait for another process that runs the task, and take its result.

        Raises:
            BusyError: another process runs the task, and ``waits`` is not set.
        """
        if not planned.parts:
            return self._run_single(planned, sources[planned.name], waits=waits)
        parts = [self._run_single(part, sources[part.name], waits=waits) for part in planned.parts]
        return [self._average(planned, list(stage)) for stage in zip(*parts, strict=True)]

    def find_stages(self, planned: PlannedTask, source: DataSource) -> list[Path | None]:
        """Return the saved result of each stage of one task; None for one that would be run."""
        self.model.begin(planned.task_name, planned.prompts, planned.name)
        stages = self._stages(planned.task, planned.data_identity(source))
        return [self._find(stage, quiet=True) for stage in stages]

    def _run_single(
        self, planned: PlannedTask, source: DataSource, *, waits: bool
    ) -> list[ScoredStage]:
        """Run the stages of one task whose results are not saved yet."""
        self.model.begin(planned.task_name, planned.prompts, planned.name)
        self.progress.note(f"{planned.name}: data from {source.origin}")
        stages = self._stages(planned.task, planned.data_identity(source))
        paths = [path for stage in stages if (path := self._find(stage))]
        reused = len(paths) == len(stages)
        if reused:
            self.progress.note(f"{planned.name}: already done with this identity, not run again")
        else:
            results = [self.store.result_path(stage.meta, planned.name) for stage in stages]
            with task_lock(self.store.output, results, self._waiting(planned) if waits else None):
                # Another process may have finished it since.
                paths = [path for s in stages if (path := self._find(s, quiet=True))]
                if len(paths) < len(stages):
                    paths = self._run_stages(planned, source, stages)
        return [
            ScoredStage(path, stage.identity, reused)
            for path, stage in zip(paths, stages, strict=True)
        ]

    def _waiting(self, planned: PlannedTask) -> Callable[[], None]:
        return lambda: self.progress.note(f"{planned.name}: waiting for the process that runs it")

    def _run_stages(
        self, planned: PlannedTask, source: DataSource, stages: Sequence[_Stage]
    ) -> list[Path]:
        """Run the stages of one task; a saved first stage is not run again."""
        task = planned.task
        profile = self.progress.fresh_profile()
        with source.loaded(task, self.progress):
            if source.is_copy:
                refuse_unscorable(task, source.origin)
            self._check_data(planned, source)
            planned.cut_loaded(self.progress.note)
            path = self._find(stages[0], quiet=True)
            if path is None:
                with self._unfinished(stages[0], self.model):
                    judged = judge(self.model, task, self.progress)
                    # A run that is killed after the result is saved opens no store again, and
                    # its journal would stay.
                    self.model.flush()
                    profile.worked(*self.model.worked_before(stages[0].identity.digest))
                    path = self._save(task, stages[0], judged, source.origin, profile)
            return [path, *(self._rerank(task, s, path, source.origin) for s in stages[1:])]

    def _stages(self, task: AbsTask, data: dict[str, Any]) -> list[_Stage]:
        """Return the first stage of a task, and the second where something is reranked.

        Raises:
            UsageError: the model cannot do this task, or its runs are of other data.
        """
        first = self._identity(task, data)
        self.model.check_data(task.metadata.name, data)
        if not searches(task):
            if not self.model.encodes:
                raise UsageError(
                    f"{task.metadata.name} is a task of type {task.metadata.type}: it has no"
                    " documents to search, so it needs an encoder (--model)."
                )
            return [_Stage(first, self.model.mteb_model_meta)]
        stages = [_Stage(first, self.model.mteb_model_meta)]
        if self.reranker is not None:
            stage = self._second_stage(self.reranker)
            meta = reranked_meta(self.model.mteb_model_meta, stage)
            stages.append(_Stage(self._identity(task, data, stage), meta))
        return stages

    def _check_data(self, planned: PlannedTask, source: DataSource) -> None:
        """Refuse local data that are not what their task's name says."""
        if self.options.other_data or planned.shipped or not source.is_copy:
            return
        for remark in refuse_other_data(planned.task, source.origin):
            self.progress.note(f"{planned.name}: {remark} Scores of a sample are not comparable.")

    def _find(self, stage: _Stage, *, quiet: bool = False) -> Path | None:
        """Return the saved result of exactly this identity, if there is one."""
        if self.options.overwrite:
            return None
        note = (lambda text: None) if quiet else self.progress.note
        path = self.store.find(stage.meta, stage.identity, note)
        if path is not None or quiet:
            return path
        if changed := self.store.changed_since(stage.meta, stage.identity):
            self.progress.note(
                f"{stage.identity.filed}: the saved result has another {', '.join(changed)};"
                " it is kept under replaced/ and the task runs again"
            )
        return None

    def _rerank(self, task: AbsTask, stage: _Stage, first_stage: Path, origin: str) -> Path:
        """Re-order the first stage's saved runs, score and save them."""
        assert self.reranker is not None
        depth = self.options.rerank_top_k
        runs = self.store.load_runs(first_stage)
        profile = self.progress.fresh_profile()
        second = SecondStage(runs, self.reranker, depth, stage.meta)
        with self._unfinished(stage, self.reranker):
            judged = judge_reranked(second, task, depth, self.progress)
            return self._save(task, stage, judged, origin, profile)

    def _unfinished(self, stage: _Stage, holder: object) -> AbstractContextManager[None]:
        name = f"{stage.identity.task}-{stage.identity.digest}"
        return unfinished_work(self.store.output, name, holder, self.progress.note)

    def _save(
        self, task: AbsTask, stage: _Stage, judged: Judged, origin: str, profile: Profile
    ) -> Path:
        output = TaskOutput(
            identity=stage.identity,
            runs=judged.runs,
            measures=tuple(map(str, PER_QUERY)),
            per_query={key: per_query(run, judged.qrels[key]) for key, run in judged.runs.items()},
            qrels=judged.qrels,
            texts=judged.texts,
            items=judged.items,
            origin=origin,
            settings=self.model.machine_settings(),
            profile=profile,
            task_type=task.metadata.type,
            main_measure=task.metadata.main_score,
        )
        return self.store.save(stage.meta, judged.result, output)

    def _average(self, planned: PlannedTask, parts: list[ScoredStage]) -> ScoredStage:
        """Average one stage of an aggregate's parts."""
        task, second = planned.task, parts[0].identity.reranker
        meta = self.model.mteb_model_meta
        data = {
            "layout": "aggregate",
            "parts": {part.identity.filed: part.identity.digest for part in parts},
            **({"cut": str(planned.cut)} if planned.cut else {}),
        }
        self.model.begin(planned.task_name, planned.prompts, planned.name)
        stage = _Stage(
            self._identity(task, data, second), reranked_meta(meta, second) if second else meta
        )
        path = self._find(stage)
        if path is not None:
            return ScoredStage(path, stage.identity, all(part.reused for part in parts))
        output = TaskOutput(
            stage.identity,
            aggregate_of=tuple(part.identity.filed for part in parts),
            task_type=task.metadata.type,
            main_measure=task.metadata.main_score,
        )
        result = average(task, [part.path for part in parts])
        return ScoredStage(self.store.save(stage.meta, result, output), stage.identity, False)

    def _identity(
        self, task: AbsTask, data: dict[str, Any], reranker: dict[str, Any] | None = None
    ) -> Identity:
        second = self.reranker.packages if reranker and self.reranker is not None else ()
        return identity_of(self.model, task, data, reranker, second)

    def _second_stage(self, reranker: Reranker) -> dict[str, Any]:
        return {**reranker.identity(), "top_k": self.options.rerank_top_k}
