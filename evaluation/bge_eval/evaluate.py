"""Evaluate a model on tasks: find the data, run mteb on our model object, save, report.

Everything is scored by mteb's own task classes. A result of exactly the same identity is not
made twice.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from bge_eval.data.expected import refuse_other_data
from bge_eval.data.integrity import refuse_unwritable_ids
from bge_eval.data.sources import DataSource
from bge_eval.data.texts import excerpts
from bge_eval.errors import (
    BgeEvalError,
    MissingError,
    NoFolderError,
    UnforeseenError,
    UsageError,
)
from bge_eval.measures.measure import PER_QUERY, per_query
from bge_eval.models.base import Model
from bge_eval.models.fused import FusedModel
from bge_eval.models.reranker_alone import own_experiment
from bge_eval.models.saved_runs import GivenRuns
from bge_eval.progress import Profile, Progress
from bge_eval.records import Run, SplitKey
from bge_eval.rerank.reranker import Reranker
from bge_eval.rerank.second_stage import SecondStage
from bge_eval.results.identity import Identity, packages
from bge_eval.results.store import ResultStore, RunRecord
from bge_eval.suites.catalogue import PlannedTask

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask
    from mteb.models import ModelMeta
    from mteb.results import TaskResult

SEARCH_DEPTH = 1000
"""Documents kept for every query; mteb's deepest cutoff."""


@dataclass(frozen=True, slots=True)
class Options:
    """Where data come from and results go."""

    output: Path
    """The folder of results."""
    data_dirs: tuple[Path, ...] = ()
    """The user's data folders, searched in order."""
    offline: bool = False
    """Open no connection."""
    overwrite: bool = False
    """Run tasks again whose result is there."""
    dangling: bool = False
    """Accept judgements of documents that the corpus lacks."""
    other_data: bool = False
    """Accept local data of another size or script than their task's name says."""
    available: bool = False
    """Leave out tasks whose data are known to be missing, instead of refusing to start."""
    rerank_top_k: int = 100
    """Documents of each query that the reranker re-orders."""


@dataclass(slots=True)
class Report:
    """What became of the tasks."""

    done: dict[str, list[Path]] = field(default_factory=dict)
    """Task name → its result files (first stage, then second stage if there is one)."""
    reused: list[str] = field(default_factory=list)
    """Tasks of which nothing had to be run."""
    failed: dict[str, BgeEvalError] = field(default_factory=dict)
    """Task name → why it could not be run."""


def evaluate(
    model: Model,
    tasks: Sequence[PlannedTask],
    options: Options,
    *,
    reranker: Reranker | None = None,
    progress: Progress | None = None,
) -> Report:
    """Evaluate a model on tasks and save every result as it is done.

    Args:
        model: the encoder, or whatever stands in its place.
        tasks: what to run; see `bge_eval.suites.catalogue.plan`.
        options: data folders, output folder, reuse.
        reranker: an optional second stage over the first ``rerank_top_k`` documents.
        progress: told of every step; the model's own by default.

    Returns:
        What was done, reused and failed. A task that fails does not stop the others, but data
        that are known to be missing are refused before anything is encoded (or left out, with
        ``options.available``).

    Raises:
        MissingError: data of some tasks are not there.
    """
    progress = progress or model.progress
    sources = _find_sources(tasks, options, progress)
    job = _Job(model, reranker, ResultStore(options.output), options, progress)
    report = Report()
    for planned in tasks:
        if any(part.name not in sources for part in planned.parts or (planned,)):
            continue
        try:
            paths, reused = job.run(planned, sources)
        except OSError:  # a full disk, a folder that cannot be written: the next would fail too
            raise
        except Exception as error:
            failure = error if isinstance(error, BgeEvalError) else UnforeseenError(error)
            if failure is not error:
                failure.__cause__ = error
            report.failed[planned.name] = failure
            progress.note(f"{planned.name}: {failure}")
            continue
        report.done[planned.name] = paths
        if reused:
            report.reused.append(planned.name)
    return report


@dataclass(frozen=True, slots=True)
class _Scored:
    """One result, made now or found."""

    path: Path
    identity: Identity
    reused: bool


@dataclass(frozen=True, slots=True)
class _Job:
    """The model, the stages and the places of one call of `evaluate`."""

    model: Model
    reranker: Reranker | None
    store: ResultStore
    options: Options
    progress: Progress

    def run(
        self, planned: PlannedTask, sources: Mapping[str, DataSource]
    ) -> tuple[list[Path], bool]:
        """Run one task, or an aggregate's parts and then their average."""
        if not planned.parts:
            scored = self._run_single(planned, sources[planned.name])
        else:
            parts = [self._run_single(part, sources[part.name]) for part in planned.parts]
            scored = [
                self._combine(planned, [stages[index] for stages in parts])
                for index in range(len(parts[0]))
            ]
        return [stage.path for stage in scored], all(stage.reused for stage in scored)

    def _run_single(self, planned: PlannedTask, source: DataSource) -> list[_Scored]:
        task = planned.task
        self.model.task_prompts[planned.name] = planned.prompts
        self.progress.note(f"{planned.name}: data from {source.origin}")
        first = self._identity(task, asdict(source.identity(task)))
        if isinstance(self.model, GivenRuns | FusedModel):
            self.model.check_data(planned.name, first.data)
        stages: list[tuple[Identity, ModelMeta]] = [(first, self.model.mteb_model_meta)]
        searching = "top_k" in first.search
        if not searching and not hasattr(self.model, "encode"):
            raise UsageError(
                f"{planned.name} is a task of type {task.metadata.type}: it has no documents to"
                " search, so it needs an encoder (--model)."
            )
        reranking = self.reranker is not None and searching
        if reranking:
            second = self._identity(task, first.data, self._second_stage())
            stages.append((second, self._second_meta()))
        found = [path for stage in stages if (path := self._find(*stage))]
        reused = len(found) == len(stages)
        if reused:
            self.progress.note(f"{planned.name}: already done with this identity, not run again")
        else:
            profile = self.progress.fresh_profile()
            with source.loaded(task, self.progress):
                self._check_data(planned, source)
                path = self._find(*stages[0], quiet=True)
                if path is None:
                    path = self._first_stage(task, *stages[0], source.origin, profile)
                found = [path]
                if reranking:
                    runs = self.store.load_runs(path)
                    found.append(self._rerank(task, *stages[1], runs, source.origin))
        return [
            _Scored(path, identity, reused)
            for path, (identity, _) in zip(found, stages, strict=True)
        ]

    def _check_data(self, planned: PlannedTask, source: DataSource) -> None:
        """Refuse local data that are not what their task's name says."""
        if self.options.other_data or planned.shipped or not source.is_copy:
            return
        for said in refuse_other_data(planned.task, source.origin):
            self.progress.note(f"{planned.name}: {said} Scores of a sample are not comparable.")

    def _find(self, identity: Identity, meta: ModelMeta, *, quiet: bool = False) -> Path | None:
        if self.options.overwrite:
            return None
        path = self.store.find(meta, identity)
        if path is None and not quiet and (changed := self.store.changed_since(meta, identity)):
            self.progress.note(
                f"{identity.task}: the result that is there has another {', '.join(changed)};"
                " it is kept under replaced/ and the task runs again"
            )
        return path

    def _first_stage(
        self, task: AbsTask, identity: Identity, meta: ModelMeta, origin: str, profile: Profile
    ) -> Path:
        if "top_k" not in identity.search:  # no retrieval: mteb calls encode and similarity
            result = _judge(self.model, task, self.progress)
            return self._save(task, identity, meta, result, {}, origin, asdict(profile))
        recorder = _Recorder(self.model)
        result = _judge(recorder, task, self.progress)
        return self._save(task, identity, meta, result, recorder.runs, origin, asdict(profile))

    def _rerank(
        self,
        task: AbsTask,
        identity: Identity,
        meta: ModelMeta,
        first_stage: Mapping[SplitKey, Run],
        origin: str,
    ) -> Path:
        assert self.reranker is not None
        top_k = self.options.rerank_top_k
        stage = SecondStage(first_stage, self.reranker, top_k, meta)
        profile = self.progress.fresh_profile()
        recorder = _Recorder(stage)
        head = None
        if top_k < SEARCH_DEPTH:
            stage.head_only = True
            head = _judge(_Recorder(stage), task, self.progress)
            stage.head_only = False
        # Last, since what a task judges by its run (answers) is then that of what is saved.
        result = _judge(recorder, task, self.progress)
        if head is not None:
            result = _up_to_depth(head, result, top_k)
        return self._save(task, identity, meta, result, recorder.runs, origin, asdict(profile))

    def _save(
        self,
        task: AbsTask,
        identity: Identity,
        meta: ModelMeta,
        result: TaskResult,
        runs: Mapping[SplitKey, Run],
        origin: str,
        profile: dict[str, Any],
    ) -> Path:
        dataset: Any = task.dataset
        parts = {(subset, split): dataset[subset][split] for subset, split in runs}
        qrels = {key: part["relevant_docs"] for key, part in parts.items()}
        record = RunRecord(
            identity=identity,
            runs=runs,
            measures=tuple(map(str, PER_QUERY)),
            per_query={key: per_query(run, qrels[key]) for key, run in runs.items()},
            qrels=qrels,
            texts={
                key: excerpts(part["queries"], part["corpus"], runs[key], qrels[key])
                for key, part in parts.items()
            },
            origin=origin,
            settings=self.model.machine_settings(),
            profile=profile,
            task_type=task.metadata.type,
            main_measure=task.metadata.main_score,
        )
        return self.store.save(meta, result, record)

    def _combine(self, planned: PlannedTask, parts: list[_Scored]) -> _Scored:
        """Average an aggregate's parts, as mteb's own aggregate class does."""
        from mteb.results import TaskResult

        second = parts[0].identity.reranker
        meta = self._second_meta() if second else self.model.mteb_model_meta
        data = {
            "layout": "aggregate",
            "parts": {part.identity.task: part.identity.digest for part in parts},
        }
        identity = self._identity(planned.task, data, second)
        path = self._find(identity, meta)
        if path is not None:
            return _Scored(path, identity, all(part.reused for part in parts))
        task: Any = planned.task
        result = task.combine_task_results([TaskResult.from_disk(part.path) for part in parts])
        record = RunRecord(
            identity,
            aggregate_of=tuple(part.identity.task for part in parts),
            task_type=task.metadata.type,
            main_measure=task.metadata.main_score,
        )
        return _Scored(self.store.save(meta, result, record), identity, False)

    def _identity(
        self, task: AbsTask, data: dict[str, Any], reranker: dict[str, Any] | None = None
    ) -> Identity:
        return Identity(
            task=task.metadata.name,
            task_revision=str(task.metadata.dataset.get("revision", "")),
            model=self.model.identity(task.metadata),
            data=data,
            search=_search_identity(task),
            reranker=reranker,
            packages=packages(*self._packages(reranker is not None)),
        )

    def _packages(self, reranking: bool) -> tuple[str, ...]:
        reranker = self.reranker.packages if reranking and self.reranker is not None else ()
        return tuple(sorted({*self.model.packages, *reranker}))

    def _second_stage(self) -> dict[str, Any]:
        assert self.reranker is not None
        return {**self.reranker.identity(), "top_k": self.options.rerank_top_k}

    def _second_meta(self) -> ModelMeta:
        """File the second stage under the retriever, as an experiment that names the reranker."""
        stage = self._second_stage()
        experiment = dict(self.model.mteb_model_meta.experiment_kwargs or {})
        experiment["reranker"] = f"{stage['name']}@{stage['revision'][:8]}"
        experiment["rerank_top_k"] = stage["top_k"]
        own = {name: value for name, value in stage.items() if name != "top_k"}
        experiment |= own_experiment(own, "reranker_")
        return self.model.mteb_model_meta.model_copy(update={"experiment_kwargs": experiment})


class _Recorder:
    """Hands a model's search through to mteb and keeps the runs that were scored.

    mteb removes identical ids from the very dictionary it was given, after the cut at 1000, so
    what is kept here is exactly what was measured.
    """

    def __init__(self, model: Model | SecondStage) -> None:
        self.mteb_model_meta = model.mteb_model_meta
        self.runs: dict[SplitKey, Run] = {}
        self._index, self._search = model.index, model.search

    def index(self, corpus: Any, **kwargs: Any) -> None:
        refuse_unwritable_ids(corpus, "document")
        self._index(corpus, **kwargs)

    def search(self, queries: Any, *, hf_split: str, hf_subset: str, **kwargs: Any) -> Run:
        refuse_unwritable_ids(queries, "query")
        run = self._search(queries, hf_split=hf_split, hf_subset=hf_subset, **kwargs)
        self.runs[hf_subset, hf_split] = run
        return run


def _search_identity(task: AbsTask) -> dict[str, Any]:
    """Return how documents are searched; nothing for tasks that search none."""
    from mteb.abstasks.retrieval import AbsTaskRetrieval

    if not isinstance(task, AbsTaskRetrieval):
        return {}
    return {
        "index": "flat",
        "top_k": SEARCH_DEPTH,
        "drop_identical_ids": bool(task.ignore_identical_ids),
    }


def _judge(model: _Recorder | Model, task: AbsTask, progress: Progress) -> TaskResult:
    """Let mteb evaluate a model on a task whose data are loaded."""
    import mteb

    with progress.step("measure"), warnings.catch_warnings():
        # A suite names the version of a task that its benchmark has; that there is a newer one
        # is no news to whoever runs the suite.
        warnings.filterwarnings("ignore", message="The task .* is superseded by")
        if task.metadata.modalities == ["text"]:
            return _judge_texts(model, task)
        # Whether a model takes images and the like is mteb's to check.
        results = mteb.evaluate(model, task, cache=None, co2_tracker=False, show_progress_bar=False)
    result: TaskResult = results.task_results[0]
    return result


def _judge_texts(model: _Recorder | Model, task: AbsTask) -> TaskResult:
    """Do what ``mteb.evaluate`` does with a task of texts, split by split.

    That function imports sentence-transformers to find out whether it was given one of its
    models: seconds for nothing where vectors are stored or another library computes.
    """
    from mteb import TaskResult
    from mteb.abstasks import AbsTaskBitextMining
    from mteb.timing import TimingStack

    # Bitext mining encodes all its languages together.
    subsets = list(task.hf_subsets)
    together = [subsets] if isinstance(task, AbsTaskBitextMining) else [[name] for name in subsets]
    start = time.perf_counter()
    timer = TimingStack()
    scores: dict[str, dict[str, Any]] = {}
    for split in task.eval_splits:
        scores[split] = {}
        for names in together:
            scores[split] |= task.evaluate(
                model,
                split,
                subsets_to_run=names,
                encode_kwargs={"show_progress_bar": False, "batch_size": 32},
                timer=timer,
            )
    return TaskResult.from_task_results(
        task,
        scores,
        evaluation_time=time.perf_counter() - start,
        date=datetime.now(tz=UTC),
        evaluation_phases=timer.phases or None,
    )


def _up_to_depth(head: TaskResult, whole: TaskResult, depth: int) -> TaskResult:
    """Take measures up to the depth from the reranked head alone, the others from the whole run.

    Measures of the ranking agree anyway. mteb's nAUC does not: its confidence is the spread of
    all scores of a query, and the scores of the tail only carry an order.
    """
    merged = whole.model_copy(deep=True)
    for split, entries in merged.scores.items():
        tops: list[dict[str, Any]] = [dict(top) for top in head.scores[split]]
        for entry, top in zip(cast("list[dict[str, Any]]", entries), tops, strict=True):
            for key, value in top.items():
                cutoff = [int(part) for part in key.split("_") if part.isdigit()]
                if cutoff and cutoff[0] <= depth:
                    entry[key] = value
    return merged


def _find_sources(
    tasks: Sequence[PlannedTask], options: Options, progress: Progress
) -> dict[str, DataSource]:
    """Find every task's data before anything runs, and report all that are missing together."""
    sources: dict[str, DataSource] = {}
    missing: dict[str, MissingError] = {}
    singles = [part for planned in tasks for part in (planned.parts or (planned,))]
    for planned in singles:
        try:
            source = planned.source(
                options.data_dirs, offline=options.offline, dangling=options.dangling
            )
            source.check(planned.task)
        except MissingError as error:
            missing[planned.name] = error
        else:
            sources[planned.name] = source
    if missing and not options.available:
        raise _all_missing(missing, len(singles))
    for name, reason in missing.items():
        short = reason.short if isinstance(reason, NoFolderError) else str(reason)
        progress.note(f"{name} is left out: {short}")
    return sources


def _all_missing(missing: Mapping[str, MissingError], total: int) -> MissingError:
    """Report what is missing together; where was looked is said once."""
    if len(missing) == 1:
        return next(iter(missing.values()))
    lines = [f"The data of {len(missing)} of {total} tasks are missing:"]
    looked: dict[str, None] = {}
    for name, reason in missing.items():
        if isinstance(reason, NoFolderError):
            lines.append(f"- {name}: {reason.short}")
            looked.setdefault(reason.looked)
        else:
            lines.append(f"- {name}: {reason}")
    advice = "--available runs the tasks whose data are here."
    return MissingError("\n".join([*lines, *looked, advice]))
