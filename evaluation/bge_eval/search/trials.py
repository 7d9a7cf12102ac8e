"""One corpus searched by several indexes and representations, each with its speed and its size.

The exact search over float32 vectors comes first: the recall of the others is the share of its
documents that they return. Speed is faiss's: queries one by one give the latency, all together the
queries per second. The representation of queries is not timed, their rescoring is.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bge_eval.progress import Progress
from bge_eval.records import Vectors
from bge_eval.search.exact import ExactSearch
from bge_eval.search.faiss_index import FaissIndex, OpenIndex, check_factory
from bge_eval.search.index import IdsOf, IndexOptions, Precision, Rows
from bge_eval.search.precisions import Candidates, QuantisedSearch, chunks
from bge_eval.search.staged import CandidateSearch, CollectedCorpus, Stages, rescored

HEAD = 101
"""Documents of each query that a trial keeps: R@100 needs 100, beside the query's own document."""
RECALL_AT = (10, 100)
"""Depths of the recall."""
_TIMED_QUERIES = 1000
_TIMED_SECONDS = 4.0
_FEWEST_TIMED = 20
_REPEATS = 3
_BYTES = {Precision.FLOAT32: 4.0, Precision.FLOAT16: 2.0, Precision.INT8: 1.0}
_BYTES[Precision.BINARY] = 1 / 8


@dataclass(frozen=True, slots=True)
class Speed:
    """The speed of one search with some threads."""

    threads: int
    """Threads that faiss and BLAS use."""
    queries: int
    """Queries that were searched together."""
    seconds: float
    """Wall seconds of searching them together, the fastest of three times."""
    latencies: tuple[float, ...]
    """Wall seconds of single queries, one after another."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One index over one representation of a corpus's vectors."""

    options: IndexOptions
    """The index, its parameters, the representation, rescoring, depth."""
    dimension: int
    """Dimensions of the vectors."""
    documents: int
    """Documents of the corpus."""
    rankings: tuple[tuple[Rows, Vectors], ...]
    """For each query the rows and scores of its first `HEAD` documents, best first."""
    recalls: tuple[npt.NDArray[np.float64], ...]
    """For each depth of `RECALL_AT` every query's share of the exact search's documents."""
    index_bytes: float
    """Size of the index with its codes: what a server holds in memory."""
    full_bytes: float
    """Size of the full vectors where they are needed besides, for rescoring; else 0."""
    build_seconds: float | None
    """Wall seconds of training and building, once; None where a kept index does not state them."""
    speeds: tuple[Speed, ...]
    """The speed with one thread, and with all."""


@dataclass(slots=True)
class Trials:
    """An engine that tries several indexes: pass `start` where an engine is expected."""

    grid: Sequence[IndexOptions]
    """What is tried."""
    folder: Path | None
    """Where trained indexes are kept; None keeps none."""
    progress: Progress
    """Receives every trial as a step, and remarks."""
    model: str
    """Name of the model, written beside a kept index."""
    depth: int
    """Documents that flat searches are asked for while they are timed."""
    searched: list[_TrialSearch] = field(default_factory=list)
    """One for every search, in their order."""

    def start(self, queries: Vectors, k: int, ids_of: IdsOf, documents: int) -> _TrialSearch:
        """Start a search; see `bge_eval.search.index.Engine`."""
        for options in self.grid:
            # Before the corpus is encoded.
            check_factory(_served(options), queries.shape[1], documents)
        search = _TrialSearch(self, queries, k, ids_of)
        self.searched.append(search)
        return search


class _TrialSearch:
    """Collects a corpus, searches it exactly, then by every index of the grid."""

    def __init__(self, trials: Trials, queries: Vectors, k: int, ids_of: IdsOf) -> None:
        self._trials = trials
        self._queries = np.ascontiguousarray(queries, np.float32)
        self._k = k
        self._ids_of = ids_of
        self._corpus = CollectedCorpus(queries.shape[1])
        self.done: list[Trial] = []
        self.ids: dict[int, str] = {}

    def add(self, vectors: Vectors, first_row: int) -> None:
        """Append a chunk of the corpus; see `bge_eval.search.index.Index.add`."""
        self._corpus.add(vectors, first_row)

    def results(self) -> Candidates:
        """Try every index; return the exact search's results."""
        with self._corpus.opened() as vectors:
            search = ExactSearch(self._queries, self._k, self._ids_of)
            for row, chunk in chunks(vectors, lambda chunk: chunk):
                search.add(chunk, row)
            exact = search.results()
            best = self._heads(exact)
            grid, progress = self._trials.grid, self._trials.progress
            with progress.step("indexes", len(grid), "settings") as step:
                for options in grid:
                    self.done.append(self._trial(options, vectors, exact, best))
                    step.advance(1)
        return exact

    def _trial(
        self, options: IndexOptions, vectors: Vectors, exact: Candidates, best: Candidates
    ) -> Trial:
        trials = self._trials
        flat, served = options.name == "flat", _served(options)
        folder = None if flat else trials.folder
        index = FaissIndex(served, folder, trials.progress.note, trials.model)
        opened = index.opened(vectors)
        search: CandidateSearch = QuantisedSearch(options.precision) if flat else _Opened(opened)
        stages = Stages(search, options, trials.progress.note)
        heads = best
        if not options.is_exact:
            hits = stages.search(self._queries, vectors, self._k, self._ids_of)
            heads = self._heads(hits)
        rows, dimension = vectors.shape
        k = min(options.depth or trials.depth, rows)
        timed = _Timed(opened, options, vectors, self._queries[:_TIMED_QUERIES], k)
        codes = rows * dimension * _BYTES[options.precision]
        return Trial(
            options=options,
            dimension=dimension,
            documents=rows,
            rankings=tuple(heads),
            recalls=tuple(_recall(heads, best, depth) for depth in RECALL_AT),
            index_bytes=codes if flat else opened.bytes,
            full_bytes=4.0 * rows * dimension if options.rescore is not None else 0.0,
            build_seconds=opened.build_seconds,
            speeds=timed.speeds(),
        )

    def _heads(self, results: Candidates) -> Candidates:
        """Return the first `HEAD` documents of every query, equal scores by descending id."""
        cut = [_cut(rows, scores) for rows, scores in results]
        every = np.unique(np.concatenate([rows for rows, _ in cut])) if cut else np.empty(0, int)
        new = np.array([row for row in every.tolist() if row not in self.ids], np.int64)
        if len(new):
            self.ids |= dict(zip(new.tolist(), self._ids_of(new), strict=True))
        heads = []
        for rows, scores in cut:
            keys = [
                (score, self.ids[row])
                for row, score in zip(rows.tolist(), scores.tolist(), strict=True)
            ]
            order = sorted(range(len(keys)), key=keys.__getitem__, reverse=True)[:HEAD]
            heads.append((rows[order], scores[order]))
        return heads


@dataclass(frozen=True, slots=True)
class _Opened:
    """Candidates from an index that is open already."""

    index: OpenIndex

    def candidates(self, queries: Vectors, vectors: Vectors, k: int, ids_of: IdsOf) -> Candidates:
        return self.index.search(self.index.represent(queries), k)


@dataclass(frozen=True, slots=True)
class _Timed:
    """Measures the speed of an open index."""

    index: OpenIndex
    options: IndexOptions
    vectors: Vectors
    queries: Vectors
    k: int

    def speeds(self) -> tuple[Speed, ...]:
        """Return the speed with one thread and with all."""
        import faiss

        if not len(self.queries) or not len(self.vectors):
            return ()
        every = faiss.omp_get_max_threads()
        represented = self.index.represent(self.queries)
        return tuple(self._speed(represented, threads) for threads in (1, every))

    def _speed(self, represented: Any, threads: int) -> Speed:
        count = len(represented)
        with _threads(threads):
            self._seconds(represented, 0, 1)  # the first one reads the index from the disk
            latencies: list[float] = []
            while len(latencies) < count:
                latencies.append(self._seconds(represented, len(latencies), len(latencies) + 1))
                if len(latencies) >= _FEWEST_TIMED and sum(latencies) > _TIMED_SECONDS:
                    break
            together = len(latencies)
            seconds = min(self._seconds(represented, 0, together) for _ in range(_REPEATS))
        return Speed(threads, together, seconds, tuple(latencies))

    def _seconds(self, represented: Any, start: int, stop: int) -> float:
        """Return the wall seconds of searching some of the queries together."""
        part, top = slice(start, stop), self.options.rescore
        asked = min(max(self.k, top or 0), len(self.vectors))
        begin = time.perf_counter()
        if top is None:
            self.index.index.search(represented[part], asked)
        else:
            results = self.index.search(represented[part], asked)
            for query, result in zip(self.queries[part], results, strict=True):
                rescored(query, self.vectors, result, top=top, k=self.k)
        return time.perf_counter() - begin


def _served(options: IndexOptions) -> IndexOptions:
    """Return the options of faiss's index whose speed is that of some options."""
    return replace(options, name="Flat") if options.name == "flat" else options


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Set the number of threads of faiss and BLAS."""
    import faiss
    from threadpoolctl import threadpool_limits

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(count)
    try:
        with threadpool_limits(count):
            yield
    finally:
        faiss.omp_set_num_threads(before)


def _cut(rows: Rows, scores: Vectors) -> tuple[Rows, Vectors]:
    """Leave out documents that are not among the best `HEAD`, whatever their ids."""
    if len(rows) <= HEAD:
        return rows, scores
    least = np.partition(scores, len(scores) - HEAD)[len(scores) - HEAD]
    kept = scores >= least
    return rows[kept], scores[kept]


def _recall(heads: Candidates, best: Candidates, depth: int) -> npt.NDArray[np.float64]:
    """Return every query's share of the exact search's first documents."""
    shares = [
        len(np.intersect1d(rows[:depth], exact[:depth])) / max(1, len(exact[:depth]))
        for (rows, _), (exact, _) in zip(heads, best, strict=True)
    ]
    return np.asarray(shares, np.float64)
