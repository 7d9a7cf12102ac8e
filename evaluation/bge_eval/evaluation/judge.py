"""The border to mteb's task machinery: mteb's own task classes compute every score.

Other modules pass mteb's tasks along; only this one runs them and reads what they hold.
"""

from __future__ import annotations

import math
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from bge_eval.data.integrity import refuse_unwritable_ids
from bge_eval.data.texts import excerpts
from bge_eval.errors import DamagedError
from bge_eval.evaluation.predictions import items_of
from bge_eval.models.base import Model
from bge_eval.progress import Progress
from bge_eval.records import Excerpts, Qrels, Run, SplitKey
from bge_eval.rerank.second_stage import SecondStage
from bge_eval.results.cut import task_of
from bge_eval.results.identity import Identity, packages
from bge_eval.results.store import Items

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask
    from mteb.results import TaskResult

SEARCH_DEPTH = 1000
"""Documents kept for every query; mteb's deepest cutoff."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A task's scores, and the runs that mteb scored."""

    result: TaskResult
    """mteb's result."""
    runs: Mapping[SplitKey, Run]
    """The scored runs; none for tasks without a search."""
    qrels: Mapping[SplitKey, Qrels]
    """The judgements of every run."""
    texts: Mapping[SplitKey, Excerpts]
    """Excerpts of every run's queries and documents, for people."""
    items: Mapping[SplitKey, Items] = field(default_factory=dict)
    """The pairs or texts of a task without a search, where their values are understood."""


def searches(task: AbsTask) -> bool:
    """Return whether a task searches documents."""
    from mteb.abstasks.retrieval import AbsTaskRetrieval

    return isinstance(task, AbsTaskRetrieval)


def search_identity(task: AbsTask, index: Mapping[str, Any]) -> dict[str, Any]:
    """Return how a task's documents are searched; empty for tasks without a search.

    Args:
        task: the task.
        index: the model's index and its parameters.
    """
    if not searches(task):
        return {}
    return {
        **index,
        "top_k": SEARCH_DEPTH,
        "drop_identical_ids": bool(cast("Any", task).ignore_identical_ids),
    }


def identity_of(
    model: Model,
    task: AbsTask,
    data: dict[str, Any],
    reranker: dict[str, Any] | None = None,
    also: Sequence[str] = (),
) -> Identity:
    """Return everything that the scores of one stage of a task depend on.

    Args:
        model: the first stage.
        task: the task.
        data: the identity of its data.
        reranker: the second stage, if it is the one.
        also: packages beside the model's whose version can change a score.
    """
    return Identity(
        task=task.metadata.name,
        task_revision=str(task.metadata.dataset.get("revision", "")),
        model=model.identity(task.metadata),
        data=data,
        search=search_identity(task, model.index_facts),
        reranker=reranker,
        packages=packages(*sorted({*model.packages, *also})),
    )


def visit_searches(model: Searching, task: AbsTask, progress: Progress) -> None:
    """Let mteb prepare every search of a task whose data are loaded, and score none.

    Args:
        model: indexes and searches each corpus, in the order of an evaluation.
        task: a task that searches.
        progress: receives the time.
    """
    visitor = _Visitor(model)
    with progress.step("measure"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The task .* is superseded by")
        for split in task.eval_splits:
            for subset in task.hf_subsets:
                with suppress(_VisitedError):
                    _scores_of(visitor, task, split, [subset])


def rehearse(model: Any, task: AbsTask, progress: Progress) -> None:
    """Let mteb score a stand-in on a task without a search whose data are loaded; forget it.

    Args:
        model: a stand-in with mteb's ``encode``, ``similarity`` and ``similarity_pairwise``.
        task: a task that searches nothing.
        progress: receives the time.
    """
    _evaluated(model, task, progress)


def judge(model: Model, task: AbsTask, progress: Progress) -> Judged:
    """Let mteb score a model on a task whose data are loaded."""
    if not searches(task):  # mteb calls encode and similarity
        with tempfile.TemporaryDirectory() as folder:
            result = _evaluated(model, task, progress, Path(folder))
            _refuse_no_number(result)
            return Judged(result, {}, {}, {}, items_of(task, Path(folder)))
    recorder = _Recorder(model)
    return _judged(_evaluated(recorder, task, progress), recorder.runs, task)


def judge_reranked(stage: SecondStage, task: AbsTask, depth: int, progress: Progress) -> Judged:
    """Let mteb score a reranked run on a task whose data are loaded.

    Args:
        stage: the first stage with its first ``depth`` documents re-ordered.
        task: the retrieval task.
        depth: documents of each query that are re-ordered.
        progress: receives the time of the measuring.
    """
    head = None
    if depth < SEARCH_DEPTH:
        stage.head_only = True
        head = _evaluated(_Recorder(stage), task, progress)
        stage.head_only = False
    # The whole run comes last: a task that judges answers keeps what it last judged.
    recorder = _Recorder(stage)
    result = _evaluated(recorder, task, progress)
    if head is not None:
        result = _up_to_depth(head, result, depth)
    return _judged(result, recorder.runs, task)


def average(task: AbsTask, parts: Sequence[Path]) -> TaskResult:
    """Average the saved results of an aggregate's parts, as mteb's aggregate class does."""
    from mteb.results import TaskResult

    results = [TaskResult.from_disk(path) for path in parts]
    for result in results:  # mteb does not know the names of cuts
        result.task_name = task_of(result.task_name)
    averaged: TaskResult = cast("Any", task).combine_task_results(results)
    return averaged


class Searching(Protocol):
    """The part of mteb's SearchProtocol that a search calls."""

    @property
    def mteb_model_meta(self) -> Any:
        """Return mteb's record of the model."""

    @property
    def index(self) -> Callable[..., None]:
        """Return the function that keeps a corpus for the next search."""

    @property
    def search(self) -> Callable[..., Run]:
        """Return the function that searches it."""


class _VisitedError(Exception):
    """A search was visited; mteb has nothing to score."""


class _Visitor:
    """Passes mteb's searches on and ends each evaluation before the scoring."""

    def __init__(self, model: Searching) -> None:
        self.mteb_model_meta = model.mteb_model_meta
        self.index = model.index
        self._search = model.search

    def search(self, queries: Any, **kwargs: Any) -> Run:
        self._search(queries, **kwargs)
        raise _VisitedError


class _Recorder:
    """A model's search for mteb, which keeps the runs that mteb scored.

    mteb removes identical ids from the same dictionary, after the cut at 1000, so the kept runs
    are exactly those that were scored.
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


def _judged(result: TaskResult, runs: Mapping[SplitKey, Run], task: AbsTask) -> Judged:
    dataset: Any = task.dataset
    parts = {(subset, split): dataset[subset][split] for subset, split in runs}
    qrels = {key: part["relevant_docs"] for key, part in parts.items()}
    texts = {
        key: excerpts(part["queries"], part["corpus"], runs[key], qrels[key])
        for key, part in parts.items()
    }
    return Judged(result, runs, qrels, texts)


def _evaluated(
    model: _Recorder | Model, task: AbsTask, progress: Progress, predictions: Path | None = None
) -> TaskResult:
    import mteb

    with progress.step("measure"), warnings.catch_warnings():
        # A suite names the version of a task that its benchmark has; a newer one is no news.
        warnings.filterwarnings("ignore", message="The task .* is superseded by")
        if task.metadata.modalities == ["text"]:
            return _evaluated_on_texts(model, task, predictions)
        # mteb checks whether the model takes images or audio.
        results = mteb.evaluate(model, task, cache=None, co2_tracker=False, show_progress_bar=False)
    result: TaskResult = results.task_results[0]
    return result


def _evaluated_on_texts(
    model: _Recorder | Model, task: AbsTask, predictions: Path | None
) -> TaskResult:
    """Do what ``mteb.evaluate`` does with a task of texts, split by split.

    ``mteb.evaluate`` imports sentence-transformers, to recognise its models. That takes seconds,
    also where all vectors are stored or another library computes.
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
            scores[split] |= _scores_of(model, task, split, names, predictions, timer)
    return TaskResult.from_task_results(
        task,
        scores,
        evaluation_time=time.perf_counter() - start,
        date=datetime.now(tz=UTC),
        evaluation_phases=timer.phases or None,
    )


def _refuse_no_number(result: TaskResult) -> None:
    """Refuse a main score that is not a number: a correlation with equal similarities, say."""
    for split, entries in result.scores.items():
        for entry in entries:
            if not math.isfinite(cast("Any", entry)["main_score"]):
                raise DamagedError(
                    f"{result.task_name} ({split}, {cast('Any', entry)['hf_subset']}): the main"
                    " score is not a number. The model finds all pairs equally similar, or its"
                    " vectors are damaged."
                )


def _scores_of(
    model: Any,
    task: AbsTask,
    split: str,
    subsets: list[str],
    predictions: Path | None = None,
    timer: Any = None,
) -> Mapping[str, Any]:
    """Return mteb's scores of some subsets of one split."""
    from mteb.timing import TimingStack

    scores: Mapping[str, Any] = task.evaluate(
        model,
        split,
        subsets_to_run=subsets,
        encode_kwargs={"show_progress_bar": False, "batch_size": 32},
        prediction_folder=predictions,
        timer=timer or TimingStack(),
    )
    return scores


def _up_to_depth(head: TaskResult, whole: TaskResult, depth: int) -> TaskResult:
    """Take measures up to the depth from the reranked head, the others from the whole run.

    Ranking measures are equal in both. mteb's nAUC is not: its confidence is the spread of all
    scores of a query, and the scores of the tail only carry an order.
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
