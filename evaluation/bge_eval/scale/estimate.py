"""What a run will take, from a sample of every task's texts, before anything long starts.

The seconds of encoding are those of a random sample, scaled to the corpus. The seconds of searching
and scoring are measured too, on random vectors and runs of the task's size for a few queries.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bge_eval.data.sources import is_retrieval
from bge_eval.data.texts import document_texts, query_texts
from bge_eval.encode.prompts import Role
from bge_eval.encode.shards import text_keys
from bge_eval.evaluation import Options, preview
from bge_eval.judge import SEARCH_DEPTH, rehearse, visit_searches
from bge_eval.measures.per_query import per_query
from bge_eval.models.dense import candidate_rows
from bge_eval.models.form import Form
from bge_eval.models.transformer import EncoderModel
from bge_eval.progress import Progress
from bge_eval.runtime.text_encoder import Distinct, normalized
from bge_eval.scale.energy import joules_between, read_counters
from bge_eval.search.exact import ExactSearch, chunk_rows
from bge_eval.suites.catalogue import PlannedTask
from bge_eval.suites.sources import find_sources

if TYPE_CHECKING:
    from datasets import Dataset
    from mteb.abstasks import AbsTask
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.types import PromptType

    from bge_eval.records import Vectors

SAMPLE = 384
"""Documents, and queries, of every search that are encoded for the estimate."""
_WARM_UP = 64
_RUN_LINE = 40
"""Bytes that one line of a saved run takes at most, compressed."""


@dataclass(frozen=True, slots=True)
class TaskEstimate:
    """What one task will take."""

    task: str
    """mteb's task name."""
    texts: int = 0
    """Queries and documents."""
    stored: int = 0
    """How many of them are expected to be in the embedding store."""
    tokens: float = 0.0
    """Tokens of the others, as far as the model reads them."""
    encode_seconds: float = 0.0
    """Seconds of encoding them."""
    search_seconds: float = 0.0
    """Seconds of searching and scoring, or of scoring alone."""
    disk_bytes: float = 0.0
    """New vectors in the store, and the saved run."""
    memory_bytes: float = 0.0
    """Largest memory of the process while the task runs."""
    joules: float | None = None
    """Energy of the processor, from its counter; None where it cannot be read."""
    reason: str = ""
    """Why it has no estimate: its data are missing, or its result is saved."""

    @property
    def seconds(self) -> float:
        """Return the seconds of the task."""
        return self.encode_seconds + self.search_seconds


def estimate(
    model: EncoderModel, tasks: Sequence[PlannedTask], options: Options, progress: Progress
) -> list[TaskEstimate]:
    """Return what every task will take.

    Args:
        model: the encoder. The sample's vectors are not stored.
        tasks: the tasks.
        options: data folders and output folder.
        progress: receives every step.
    """
    sources = find_sources(
        tasks,
        options.data_dirs,
        offline=options.offline,
        available=True,
        here=options.available,
    )
    done = {each.task: each for each in preview(model, tasks, options, progress=progress)}
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
                visit = visit_searches if is_retrieval(single.task) else rehearse
                sampling = _Sampling(model, progress)
                with sources[single.name].loaded(single.task, progress):
                    single.cut_loaded()
                    start = time.perf_counter()
                    visit(sampling, single.task, progress)
                    sampling.visited(single.task, time.perf_counter() - start)
                estimates.append(sampling.total(single.name))
    return estimates


@dataclass(frozen=True, slots=True)
class _Texts:
    """The cost of encoding texts of one role."""

    seconds: float
    tokens: float
    missing: float
    joules: float | None


class _Sampling:
    """A model for mteb that encodes a sample of all texts, and searches nothing."""

    def __init__(self, model: EncoderModel, progress: Progress) -> None:
        self._model = model
        self._progress = progress
        self._corpus: Dataset | None = None
        self._parts: list[TaskEstimate] = []
        self._random = np.random.default_rng(0)
        self._seen: dict[Form, set[str]] = {}
        self._encoding = 0.0

    @property
    def mteb_model_meta(self) -> Any:
        """Return mteb's record of the model."""
        return self._model.mteb_model_meta

    def total(self, task: str) -> TaskEstimate:
        """Return the sum over the searches of a task; the memory is the largest."""
        parts = self._parts
        joules = [part.joules for part in parts]
        return TaskEstimate(
            task,
            texts=sum(part.texts for part in parts),
            stored=sum(part.stored for part in parts),
            tokens=sum(part.tokens for part in parts),
            encode_seconds=sum(part.encode_seconds for part in parts),
            search_seconds=sum(part.search_seconds for part in parts),
            disk_bytes=sum(part.disk_bytes for part in parts),
            memory_bytes=max((part.memory_bytes for part in parts), default=0.0),
            joules=None if None in joules else sum(filter(None, joules)),
        )

    def visited(self, task: AbsTask, seconds: float) -> None:
        """Add the scoring of a task that searches nothing: what was not spent on encoding.

        Args:
            task: the task.
            seconds: how long it took on random vectors, with this model's sampling.
        """
        if not is_retrieval(task):
            scoring = max(seconds - self._encoding, 0.0)
            self._parts.append(TaskEstimate(task.metadata.name, search_seconds=scoring, joules=0.0))

    def encode(
        self,
        inputs: Any,
        *,
        task_metadata: TaskMetadata,
        prompt_type: PromptType | None = None,
        **kwargs: Any,
    ) -> Vectors:
        """Encode a sample of the texts that no call had before; the vectors are random.

        Equal texts of a call get equal vectors, ``(n_texts, dim)`` float32 of unit norm.
        """
        start = time.perf_counter()
        distinct = Distinct([text for batch in inputs for text in batch["text"]])
        role = Role(prompt_type.value) if prompt_type is not None else None
        form = self._model.form(task_metadata, role)
        seen = self._seen.setdefault(form, set())
        new = [text for text in distinct.texts if text not in seen]
        if self._model.store is not None:  # else a text is encoded in every call
            seen.update(new)
        chosen = np.sort(self._random.permutation(len(new))[:SAMPLE])
        cost = self._encoded([new[place] for place in chosen], form, len(new))
        dimension = self._model.encoder.dimension
        self._parts.append(
            TaskEstimate(
                task_metadata.name,
                texts=len(new),
                stored=round(len(new) - cost.missing),
                tokens=cost.tokens,
                encode_seconds=cost.seconds,
                disk_bytes=cost.missing * 4 * self._model.encoder.forward.dimension,
                memory_bytes=_resident() + 3 * 4 * dimension * len(distinct.texts),
                joules=cost.joules,
            )
        )
        vectors = self._random.standard_normal((len(distinct.texts), dimension), np.float32)
        self._encoding += time.perf_counter() - start
        return distinct.spread(normalized(vectors))

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Compare all with all, as the model does."""
        return self._model.similarity(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Compare row with row, as the model does."""
        return self._model.similarity_pairwise(embeddings1, embeddings2)

    def index(self, corpus: Dataset, **kwargs: Any) -> None:
        """Keep the corpus for the next search."""
        self._corpus = corpus

    def search(
        self,
        queries: Dataset,
        *,
        task_metadata: TaskMetadata,
        top_ranked: Mapping[str, Sequence[str]] | None = None,
        **kwargs: Any,
    ) -> dict[str, dict[str, float]]:
        """Encode a sample of queries and documents; the run is empty."""
        assert self._corpus is not None, "mteb indexes before it searches"
        corpus, self._corpus = self._corpus, None
        asked = query_texts(queries)
        rows = None if top_ranked is None else candidate_rows(corpus, queries["id"], top_ranked)
        documents = len(corpus) if rows is None else len(rows)
        chosen = np.sort(self._random.permutation(documents)[:SAMPLE])
        places = chosen if rows is None else rows[chosen]
        (sample,) = list(document_texts(corpus, places, SAMPLE)) or [[]]
        few = [asked[place] for place in self._random.permutation(len(asked))[:SAMPLE]]
        form = self._model.form(task_metadata, Role.QUERY)
        of_queries = self._encoded(few, form, len(asked))
        of_corpus = self._encoded(sample, self._model.form(task_metadata, Role.DOCUMENT), documents)
        missing = of_queries.missing + of_corpus.missing
        joules = [of_queries.joules, of_corpus.joules]
        dimension = self._model.encoder.dimension
        self._parts.append(
            TaskEstimate(
                task_metadata.name,
                texts=len(asked) + documents,
                stored=round(len(asked) + documents - missing),
                tokens=of_queries.tokens + of_corpus.tokens,
                encode_seconds=of_queries.seconds + of_corpus.seconds,
                search_seconds=_search_seconds(len(asked), documents, dimension),
                disk_bytes=missing * 4 * self._model.encoder.forward.dimension
                + len(asked) * min(documents, SEARCH_DEPTH) * _RUN_LINE,
                memory_bytes=_resident()
                + 3 * 4 * dimension * min(documents, chunk_rows(dimension))
                + len(asked) * min(documents, SEARCH_DEPTH) * (2 * 12 + 150),
                joules=None if None in joules else sum(filter(None, joules)),
            )
        )
        return {}

    def _encoded(self, sample: list[str], form: Form, whole: int) -> _Texts:
        """Encode a sample of texts, and scale its cost to those that are not stored."""
        if not sample:
            return _Texts(0.0, 0.0, 0.0, None)
        distinct = list(dict.fromkeys(sample))
        missing = whole * len(distinct) / len(sample)
        if self._model.store is not None:
            known, _ = self._model.space_of(form).get(text_keys(distinct))
            missing *= 1 - float(known.mean())
        if not missing:
            return _Texts(0.0, 0.0, 0.0, 0.0)
        encode, prompt = self._model.encoder.encode, form.prompt
        encode(distinct[:_WARM_UP], prompt)  # the first batches also compile and allocate
        counter = _Counter()
        energy, start = read_counters(), time.perf_counter()
        with self._progress.step("estimate", len(distinct), "texts"):
            encode(distinct, prompt, counter)
        seconds, scale = time.perf_counter() - start, missing / len(distinct)
        spent = joules_between(energy, read_counters())
        return _Texts(
            seconds * scale,
            counter.tokens * scale,
            missing,
            None if spent is None else spent * scale,
        )


class _Counter:
    def __init__(self) -> None:
        self.tokens = 0

    def advance(self, count: int, tokens: int = 0) -> None:
        self.tokens += tokens


def _search_seconds(queries: int, documents: int, dimension: int) -> float:
    """Return the seconds of the exact search and of scoring, measured on random vectors."""
    if not queries or not documents:
        return 0.0
    random = np.random.default_rng(0)
    asked = random.standard_normal((min(queries, 512), dimension), np.float32)
    block = random.standard_normal((min(documents, 8192), dimension), np.float32)
    search = ExactSearch(asked, SEARCH_DEPTH, lambda rows: [str(row) for row in rows])
    start = time.perf_counter()
    search.add(block, 0)
    results = search.results()
    searching = (time.perf_counter() - start) * documents / len(block) * queries / len(asked)
    few = results[:16]
    run = {
        str(place): dict(zip(map(str, rows.tolist()), scores.tolist(), strict=True))
        for place, (rows, scores) in enumerate(few)
    }
    start = time.perf_counter()
    per_query(run, {query: dict.fromkeys(list(ranking)[:2], 1) for query, ranking in run.items()})
    return searching + (time.perf_counter() - start) * queries / len(few)


def _resident() -> float:
    """Return the bytes of memory that this process holds; 0 where the system does not tell."""
    with suppress(OSError, ValueError, IndexError):
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return float(pages * os.sysconf("SC_PAGE_SIZE"))
    return 0.0
