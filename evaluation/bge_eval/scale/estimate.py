"""What a run will take, from a sample of every task's texts, before anything long starts.

The seconds of encoding are those of some batches, scaled to the corpus (`scale.measuring`). The
seconds of searching and scoring are measured too, on vectors and runs that stand for the task's.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from bge_eval.data.sources import is_retrieval
from bge_eval.evaluation.evaluate import Preview, preview
from bge_eval.evaluation.judge import rehearse, visit_searches
from bge_eval.evaluation.options import Options
from bge_eval.models.transformer import EncoderModel
from bge_eval.progress import Progress
from bge_eval.rerank.reranker import Reranker
from bge_eval.scale.energy import Meter, gpu_identifiers
from bge_eval.scale.measuring import Cost
from bge_eval.scale.sampling import Sampling
from bge_eval.suites.catalogue import PlannedTask
from bge_eval.suites.sources import find_sources


@dataclass(frozen=True, slots=True)
class TaskEstimate:
    """What one task will take."""

    task: str
    """mteb's task name."""
    texts: int = 0
    """Queries and documents."""
    stored: int = 0
    """How many of them are expected to be in the embedding store."""
    encode: Cost = Cost()  # noqa: RUF009 (frozen)
    """Encoding the others."""
    pairs: int = 0
    """Pairs that the reranker scores."""
    rerank: Cost = Cost()  # noqa: RUF009 (frozen)
    """Scoring them."""
    load_seconds: float = 0.0
    """Seconds of reading the data."""
    search_seconds: float = 0.0
    """Seconds of searching and scoring, or of scoring alone."""
    disk_bytes: float = 0.0
    """New vectors in the store, and the saved runs."""
    memory_bytes: float = 0.0
    """Largest memory of the process while the task runs."""
    unmeasured: str = ""
    """The index whose building and searching are not counted; "" if everything is."""
    reason: str = ""
    """Why it has no estimate: its data are missing, or its result is saved."""

    @property
    def seconds(self) -> float:
        """Return the seconds of the task."""
        own = self.load_seconds + self.search_seconds
        return own + self.encode.seconds + self.rerank.seconds

    @property
    def tokens(self) -> float:
        """Return the tokens that the encoder reads."""
        return self.encode.tokens

    @property
    def joules(self) -> dict[str, float] | None:
        """Return kind of device → energy of encoding and reranking; None without a counter."""
        return (self.encode + self.rerank).joules


def estimate(
    model: EncoderModel,
    tasks: Sequence[PlannedTask],
    options: Options,
    progress: Progress,
    reranker: Reranker | None = None,
) -> list[TaskEstimate]:
    """Return what every task will take.

    Args:
        model: the encoder. The sample's vectors are not stored.
        tasks: the tasks.
        options: data folders and output folder, and the documents that are reranked.
        progress: receives every step.
        reranker: the second stage, if there is one.
    """
    sources = find_sources(tasks, options.data_dirs, offline=options.offline, available=True)
    previews = preview(model, tasks, options, reranker=reranker, progress=progress)
    done = {each.task: each for each in previews}
    estimates = []
    for planned in tasks:
        state = done[planned.name]
        for single in planned.parts or (planned,):
            if not state.stages:
                estimates.append(TaskEstimate(single.name, reason="its data are missing"))
            elif state.saved == state.stages:
                estimates.append(TaskEstimate(single.name, reason="its result is saved"))
            else:
                model.begin(single.task_name, single.prompts, single.name)
                sampling = _sampling(model, state, options, progress, reranker)
                start = time.perf_counter()
                with sources[single.name].loaded(single.task, progress):
                    single.cut_loaded()
                    loading = time.perf_counter() - start
                    estimates.append(_estimate(sampling, single, loading, progress))
    return estimates


def _sampling(
    model: EncoderModel,
    state: Preview,
    options: Options,
    progress: Progress,
    reranker: Reranker | None,
) -> Sampling:
    device = model.encoder.device
    return Sampling(
        model,
        progress,
        Meter(gpu_identifiers(device)),
        reranker=reranker,
        depth=options.rerank_top_k,
        # Of two stages, the first is saved first; of an aggregate's parts, half are first stages.
        encodes=reranker is None or state.saved < state.stages / 2,
    )


def _estimate(
    sampling: Sampling, planned: PlannedTask, loading: float, progress: Progress
) -> TaskEstimate:
    """Let mteb go through a task whose data are loaded, with a model that samples."""
    task = planned.task
    start = time.perf_counter()
    if is_retrieval(task):
        visit_searches(sampling, task, progress)
        scoring = 0.0
    else:
        rehearse(sampling, task, progress)
        scoring = max(time.perf_counter() - start - sampling.sampled_seconds, 0.0)
    parts = sampling.parts
    encode, rerank = Cost(), Cost()
    for part in parts:
        encode, rerank = encode + part.encode, rerank + part.rerank
    return TaskEstimate(
        planned.name,
        texts=sum(part.texts for part in parts),
        stored=sum(part.stored for part in parts),
        encode=encode,
        pairs=sum(part.pairs for part in parts),
        rerank=rerank,
        load_seconds=loading,
        search_seconds=scoring + sum(part.search_seconds for part in parts),
        disk_bytes=sum(part.disk_bytes for part in parts),
        memory_bytes=max((part.memory_bytes for part in parts), default=0.0),
        unmeasured=next((part.unmeasured for part in parts if part.unmeasured), ""),
    )
