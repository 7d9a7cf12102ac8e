"""A model for mteb's tasks that computes a sample of its work and tells what the whole takes."""

from __future__ import annotations

import os
import tempfile
import time
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bge_eval.data.texts import document_texts, query_texts
from bge_eval.encode.prompts import Role
from bge_eval.encode.shards import text_keys
from bge_eval.evaluation.judge import SEARCH_DEPTH
from bge_eval.measures.per_query import per_query
from bge_eval.models.base import KeepsCorpus
from bge_eval.models.dense import candidate_rows
from bge_eval.models.form import Form
from bge_eval.models.transformer import EncoderModel
from bge_eval.progress import Progress
from bge_eval.rerank.reranker import Reranker
from bge_eval.results.trec import write_run
from bge_eval.runtime.batches import WINDOW
from bge_eval.runtime.text_encoder import Distinct, normalized
from bge_eval.scale.energy import Meter
from bge_eval.scale.indexing import IndexCost, IndexWork, index_cost
from bge_eval.scale.measuring import Cost, PairWork, encoding, scoring_pairs
from bge_eval.search.exact import ExactSearch, chunk_rows

if TYPE_CHECKING:
    from datasets import Dataset
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.types import PromptType

    from bge_eval.records import Vectors

_RERANKED_LINE = 12
"""Bytes that one line of the second stage's run takes, compressed: most of its scores only carry
the order."""
_WRITTEN = 8
"""Rankings that are written to learn what a line of the first stage's run takes."""
_WORDS = 4096
"""Random vectors that stand for words."""


@dataclass(frozen=True, slots=True)
class Part:
    """What one search of a task takes, or one call of ``encode``."""

    texts: int
    """Queries and documents."""
    stored: int
    """How many of them are expected to be in the embedding store."""
    encode: Cost
    """Encoding the others."""
    memory_bytes: float
    """Memory of the process."""
    disk_bytes: float
    """New vectors and runs."""
    search_seconds: float = 0.0
    """Seconds of searching and scoring."""
    pairs: int = 0
    """Pairs that the reranker scores."""
    rerank: Cost = Cost()  # noqa: RUF009 (frozen)
    """Scoring them."""
    unmeasured: str = ""
    """The index whose building and searching are not counted, since it is too large to be tried."""


@dataclass(frozen=True, slots=True)
class _Encoding:
    """Encoding the texts of one role that are not stored."""

    cost: Cost
    missing: float


class Sampling(KeepsCorpus):
    """An encoder behind mteb's protocols that samples, and searches nothing."""

    def __init__(
        self,
        model: EncoderModel,
        progress: Progress,
        meter: Meter,
        *,
        reranker: Reranker | None = None,
        depth: int = 0,
        encodes: bool = True,
    ) -> None:
        """Sample one task.

        Args:
            model: the encoder.
            progress: receives every step.
            meter: reads the counters of energy.
            reranker: the second stage, if there is one.
            depth: documents of each query that it scores.
            encodes: whether the first stage runs; without, its result is saved.
        """
        self._model = model
        self._progress = progress
        self._meter = meter
        self._reranker = reranker
        self._depth = depth
        self._encodes = encodes
        self._random = np.random.default_rng(0)
        self._seen: dict[Form, set[str]] = {}
        self.parts: list[Part] = []
        """What the searches and calls of the task take."""
        self.sampled_seconds = 0.0
        """Seconds that sampling has taken in calls of ``encode``."""

    @property
    def mteb_model_meta(self) -> Any:
        """Return mteb's record of the model."""
        return self._model.mteb_model_meta

    def encode(
        self,
        inputs: Any,
        *,
        task_metadata: TaskMetadata,
        prompt_type: PromptType | None = None,
        **kwargs: Any,
    ) -> Vectors:
        """Encode a sample of the texts that no call had before.

        Returns:
            ``(n_texts, dim)`` float32 of unit norm: `word_vectors`. Equal texts have equal ones.
        """
        start = time.perf_counter()
        distinct = Distinct([text for batch in inputs for text in batch["text"]])
        role = Role(prompt_type.value) if prompt_type is not None else None
        form = self._model.form(task_metadata, role)
        seen = self._seen.setdefault(form, set())
        new = [text for text in distinct.texts if text not in seen]
        if self._model.store is not None:  # else a text is encoded in every call
            seen.update(new)
        chosen = np.sort(self._random.permutation(len(new))[:WINDOW])
        work = self._encoded([new[place] for place in chosen], form, len(new))
        dimension = self._model.encoder.dimension
        self.parts.append(
            Part(
                len(new),
                round(len(new) - work.missing),
                work.cost,
                memory_bytes=_resident() + 3 * 4 * dimension * len(distinct.texts),
                disk_bytes=work.missing * self._stored_bytes(),
            )
        )
        vectors = word_vectors(distinct.texts, dimension)
        self.sampled_seconds += time.perf_counter() - start
        return distinct.spread(vectors)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Compare all with all, as the model does."""
        return self._model.similarity(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Compare row with row, as the model does."""
        return self._model.similarity_pairwise(embeddings1, embeddings2)

    def search(
        self,
        queries: Dataset,
        *,
        task_metadata: TaskMetadata,
        top_ranked: Mapping[str, Sequence[str]] | None = None,
        **kwargs: Any,
    ) -> dict[str, dict[str, float]]:
        """Encode a sample of queries and documents; the run is empty."""
        corpus = self._take_corpus()
        asked = query_texts(queries)
        rows = None if top_ranked is None else candidate_rows(corpus, queries["id"], top_ranked)
        documents = len(corpus) if rows is None else len(rows)
        chosen = np.sort(self._random.permutation(documents)[:WINDOW])
        places = chosen if rows is None else rows[chosen]
        (sample,) = list(document_texts(corpus, places, WINDOW)) or [[]]
        few = [asked[place] for place in self._random.permutation(len(asked))[:WINDOW]]
        listed = self._listed(queries, documents, SEARCH_DEPTH, top_ranked)
        dimension = self._model.encoder.dimension
        of_queries = self._encoded(few, self._model.form(task_metadata, Role.QUERY), len(asked))
        form = self._model.form(task_metadata, Role.DOCUMENT)
        of_corpus = self._encoded(sample, form, documents)
        missing = of_queries.missing + of_corpus.missing
        depth = listed // max(len(asked), 1)
        index: IndexCost | None = IndexCost()
        if self._encodes:
            work = IndexWork(len(asked), documents, dimension, depth)
            index = self._searching(work, exactly=top_ranked is not None)
        counted = index or IndexCost()
        scoring = _scoring_seconds(len(asked), depth)
        pairs, rerank = self._reranked(queries, few, sample, documents, top_ranked)
        first, second = int(self._encodes), int(self._reranker is not None)
        line: float = second * _RERANKED_LINE
        if self._encodes:  # else the first stage's run is saved already
            line += self._line_bytes(queries, corpus, depth)
        self.parts.append(
            Part(
                len(asked) + documents,
                round(len(asked) + documents - missing),
                of_queries.cost + of_corpus.cost,
                memory_bytes=_resident()
                + 3 * 4 * dimension * min(documents, chunk_rows(dimension))
                + listed * (2 * 12 + 150)
                + counted.bytes
                + counted.sample_bytes,
                disk_bytes=missing * self._stored_bytes() + listed * line + counted.bytes,
                search_seconds=counted.seconds + (first + 2 * second) * scoring,
                pairs=pairs,
                rerank=rerank,
                unmeasured="" if index is not None else self._model.index_options.name,
            )
        )
        return {}

    def _searching(self, work: IndexWork, *, exactly: bool) -> IndexCost | None:
        """Return what searching takes; None if the index of a whole corpus cannot be tried."""
        index = self._model.index_options
        if index.name != "flat" and not exactly:
            with self._progress.step("estimate index"):
                return index_cost(index, work)
        # Other representations are compared as float32 values, too.
        return IndexCost(_search_seconds(work.queries, work.documents, work.dimension))

    def _reranked(
        self,
        queries: Dataset,
        few: Sequence[str],
        sample: Sequence[str],
        documents: int,
        top_ranked: Mapping[str, Sequence[str]] | None,
    ) -> tuple[int, Cost]:
        """Return the pairs of the second stage, and what they take."""
        if self._reranker is None:
            return 0, Cost()
        pairs = self._listed(queries, documents, self._depth, top_ranked)
        work = PairWork(few, sample, pairs, min(pairs, documents))
        return pairs, scoring_pairs(self._reranker, work, self._meter, self._progress)

    @staticmethod
    def _listed(
        queries: Dataset,
        documents: int,
        depth: int,
        top_ranked: Mapping[str, Sequence[str]] | None,
    ) -> int:
        """Return the documents of all rankings together, each at most of a depth."""
        if top_ranked is None:
            return len(queries) * min(depth, documents)
        return sum(min(depth, len(top_ranked.get(query, ()))) for query in queries["id"])

    def _line_bytes(self, queries: Dataset, corpus: Dataset, depth: int) -> float:
        """Return the bytes of a line of a saved run, compressed: some random rankings' mean."""
        names: list[str] = corpus.select(range(min(len(corpus), WINDOW)))["id"]
        run = {}
        for query in queries.select(range(min(len(queries), _WRITTEN)))["id"]:
            drawn = self._random.permutation(len(names))[:depth]
            scores = self._random.random(len(drawn), np.float32)
            run[query] = {
                names[row]: float(score) for row, score in zip(drawn, scores, strict=True)
            }
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "run.tsv.gz"
            write_run(path, run, "estimate")
            size = path.stat().st_size
        return size / max(sum(map(len, run.values())), 1)

    def _stored_bytes(self) -> int:
        """Return the bytes of one vector in the store, with its key; 0 without a store."""
        stores = self._model.store is not None
        return 4 * self._model.encoder.forward.dimension + 16 if stores else 0

    def _encoded(self, sample: list[str], form: Form, whole: int) -> _Encoding:
        """Encode a sample of texts, and scale its cost to those that are not stored."""
        if not sample or not self._encodes:
            return _Encoding(Cost(), 0.0)
        inputs, prompt = self._model.inputs(sample, form)
        distinct = list(dict.fromkeys(inputs))
        missing = whole * len(distinct) / len(sample)
        reading = 0.0
        if self._model.store is not None:
            start = time.perf_counter()
            known, _ = self._model.space_of(form).get(text_keys(distinct))
            reading = (time.perf_counter() - start) * missing / len(distinct)
            distinct = [text for text, stored in zip(distinct, known, strict=True) if not stored]
            missing *= 1 - float(known.mean())
        if not distinct:
            return _Encoding(Cost(reading), 0.0)
        encoder = self._model.encoder_of(form)
        cost = encoding(encoder, distinct, prompt, self._meter, self._progress)
        return _Encoding(cost.times(missing / len(distinct)) + Cost(reading), missing)


def word_vectors(texts: Sequence[str], dimension: int) -> Vectors:
    """Return a vector for each text that stands for a model's: ``(n_texts, dim)`` float32, unit.

    It is the sum of random vectors of the text's words, rare ones more than common ones. So texts
    that share words are near, and a classifier trained on such vectors takes about as many steps as
    on a model's; on unrelated ones it takes several times as many.
    """
    table = np.random.default_rng(0).standard_normal((_WORDS, dimension), np.float32)
    places = [[zlib.crc32(word.encode()) % _WORDS for word in _words(text)] for text in texts]
    counts = np.bincount([place for row in places for place in row], minlength=_WORDS)
    table /= np.sqrt(np.maximum(counts, 1, dtype=np.float32))[:, None]
    sums = [table[row or [0]].sum(axis=0) for row in places]
    return normalized(np.array(sums, np.float32).reshape(len(texts), dimension))


def _words(text: str) -> list[str]:
    """Return the first words of a text, or its characters where it has no spaces."""
    words = text[:1000].casefold().split()
    return words if len(words) > len(text[:1000]) / 20 else [*text[:200]]


def _search_seconds(queries: int, documents: int, dimension: int) -> float:
    """Return the seconds of the exact search, measured on random vectors."""
    if not queries or not documents:
        return 0.0
    random = np.random.default_rng(0)
    asked = random.standard_normal((min(queries, 512), dimension), np.float32)
    block = random.standard_normal((min(documents, 8192), dimension), np.float32)
    search = ExactSearch(asked, SEARCH_DEPTH, lambda rows: [str(row) for row in rows])
    start = time.perf_counter()
    search.add(block, 0)
    search.results()
    return (time.perf_counter() - start) * documents / len(block) * queries / len(asked)


def _scoring_seconds(queries: int, found: int) -> float:
    """Return the seconds of the measures of runs with, on average, ``found`` documents a query."""
    if not queries or not found:
        return 0.0
    few = min(queries, 16)
    run = {
        str(query): {str(row): 1.0 - row / found for row in range(found)} for query in range(few)
    }
    start = time.perf_counter()
    per_query(run, {query: {"0": 1, "1": 1} for query in run})
    return (time.perf_counter() - start) * queries / few


def _resident() -> float:
    """Return the bytes of memory that this process holds; 0 where the system does not tell."""
    with suppress(OSError, ValueError, IndexError):
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return float(pages * os.sysconf("SC_PAGE_SIZE"))
    return 0.0
