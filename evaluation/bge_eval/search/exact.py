"""Exact top-k by inner product, block by block, ties broken as pytrec_eval does.

The search reads the corpus once and keeps the best k documents of each query, so memory does not
grow with the corpus. Almost all of the time is one matrix product: numpy selects again only the
scores that reach their query's k-th best so far. On a GPU faiss multiplies and selects.

trec_eval orders equal scores by document id, descending
(https://github.com/usnistgov/trec_eval, form_res_rels.c), and mteb keeps the same ones at the
cut, so ties at the k-th place are settled here by id.

A matrix product sums in another order at the edges of its panels, so that identical vectors get
scores that differ in the last digit, depending on their row. A fingerprint of four bytes per
document identifies them, and their scores are made equal in the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from threadpoolctl import ThreadpoolController

from bge_eval.records import Vectors
from bge_eval.search.index import IdsOf, Rows

Prints = npt.NDArray[np.uint32]
"""Fingerprints of vectors."""

_CHUNK_BYTES = 64 * 2**20
_CHUNK_ROWS = (1024, 65536)
_GPU_K_LIMIT = 2048
"""The deepest list that faiss returns on a GPU
(https://github.com/facebookresearch/faiss/wiki/Faiss-on-the-GPU)."""
_BLOCK_BYTES = 4 * 2**20
"""Scores of one block: few enough to stay in the processor's cache until they are selected."""
_BLOCK_ROWS = (256, 8192)
_PART_QUERIES = 64
"""Fewest queries worth a thread of their own."""
_LANES = 16
"""Documents that BLAS multiplies at once; blocks are a multiple of it."""
_ROUNDING = 1e-5
"""Largest relative difference between scores of identical vectors."""
_LOOKED_UP_AT_ONCE = 1 << 20
"""Fingerprints compared together, to take little memory."""
_REDUCED_AT_ONCE = 64
"""Queries reduced together: few enough for their scores and rows to stay in the core's cache."""
_ROOM = 8_000_000
"""Kept scores up to which every query gets room for as many new ones."""


def chunk_rows(dimension: int) -> int:
    """Return how many documents to encode and search at once: about 64 MiB of vectors."""
    low, high = _CHUNK_ROWS
    return max(low, min(high, _CHUNK_BYTES // (4 * dimension)))


def unit_rows(vectors: Vectors) -> Vectors:
    """Scale rows to unit L2 norm, so that the inner product is the cosine; zero rows stay zero."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    norms[norms == 0] = 1
    scaled: Vectors = np.divide(vectors, norms, dtype=np.float32)
    return scaled


@dataclass(frozen=True, slots=True)
class Kept:
    """The best documents of one query in a part of a corpus, scored as they came."""

    rows: Rows
    """``(n,)``: their rows in the whole corpus."""
    scores: Vectors
    """``(n,)`` float32."""
    prints: Prints
    """``(n,)``: the fingerprints of their vectors."""


def merged(parts: Sequence[Sequence[Kept]], k: int, ids_of: IdsOf) -> list[tuple[Rows, Vectors]]:
    """Merge the searches of the parts of a corpus, as one search of the whole would have ended.

    Args:
        parts: for each part, the best k documents of every query.
        k: documents to keep for each query.
        ids_of: gives document ids for row numbers; called only to order equal scores.

    Returns:
        For each query the rows and scores of its best documents, in any order.
    """
    results = []
    for of_query in zip(*parts, strict=True):
        rows = np.concatenate([kept.rows for kept in of_query])
        scores = np.concatenate([kept.scores for kept in of_query])
        prints = np.concatenate([kept.prints for kept in of_query])
        if len(rows) > k:
            cut = np.partition(scores, len(scores) - k)[len(scores) - k]
            tied = np.flatnonzero(scores == cut)
            ids = ids_of(rows[tied])
            by_id = sorted(range(len(tied)), key=ids.__getitem__, reverse=True)
            above = np.flatnonzero(scores > cut)
            best = np.sort(np.concatenate([above, tied[by_id[: k - len(above)]]]))
            rows, scores, prints = rows[best], scores[best], prints[best]
        _equalise(scores, prints)
        results.append((rows, scores))
    return results


class ExactSearch:
    """The best k documents of every query among all chunks added so far."""

    name: ClassVar[str] = "flat"
    """faiss's name for an index without compression, in the identity of every result."""

    def __init__(self, queries: Vectors, k: int, ids_of: IdsOf) -> None:
        """Start a search.

        Args:
            queries: ``(n_queries, dim)`` float32.
            k: documents to keep for each query.
            ids_of: gives document ids for row numbers; called only to order equal scores.
        """
        queries = np.ascontiguousarray(queries, np.float32)
        gpu = _gpu_resources() if k < _GPU_K_LIMIT else None
        self._blas = ThreadpoolController().select(user_api="blas")
        threads = max([1, *(library.num_threads for library in self._blas.lib_controllers)])
        parts = 1 if gpu is not None else min(threads, len(queries) // _PART_QUERIES + 1)
        self._parts = [
            _Best(part, k, ids_of, gpu) for part in np.array_split(queries, parts) if len(part)
        ]
        self._pool = ThreadPoolExecutor(parts) if parts > 1 else None
        self._prints: list[tuple[int, Prints]] = []

    def add(self, vectors: Vectors, first_row: int) -> None:
        """Search one chunk of the corpus.

        Args:
            vectors: ``(n_documents, dim)`` float32.
            first_row: the corpus row of the chunk's first document.
        """
        documents = np.ascontiguousarray(vectors, np.float32)
        if self._pool is None:
            for part in self._parts:
                part.add(documents, first_row)
            self._prints.append((first_row, _prints(documents)))
            return
        # One thread for each share of the queries, in which BLAS starts none: then the matrix
        # product and the selection both use every core.
        with self._blas.limit(limits=1):
            done = [self._pool.submit(part.add, documents, first_row) for part in self._parts]
            self._prints.append((first_row, _prints(documents)))
            for future in done:
                future.result()

    def results(self) -> list[tuple[Rows, Vectors]]:
        """Return for each query the rows and scores of its best documents, in any order."""
        copies = self._copies()
        results = self._kept()
        if copies is not None:
            for rows, scores in results:
                _equalise(scores, copies[rows])
        return results

    def kept(self) -> list[Kept]:
        """Return each query's best documents of a part of a corpus, to be merged with others."""
        prints = np.zeros(
            max((row + len(each) for row, each in self._prints), default=0), np.uint32
        )
        for first, each in self._prints:
            prints[first : first + len(each)] = each
        return [Kept(rows, scores, prints[rows]) for rows, scores in self._kept()]

    def _kept(self) -> list[tuple[Rows, Vectors]]:
        if self._pool is not None:
            self._pool.shutdown()
        return [result for part in self._parts for result in part.results()]

    def _copies(self) -> Prints | None:
        """Return by row the fingerprint if it is not unique, else 0; None if all are unique."""
        rows = max((first + len(prints) for first, prints in self._prints), default=0)
        copies = np.zeros(rows, np.uint32)
        for first, prints in self._prints:
            copies[first : first + len(prints)] = prints
        in_order = np.sort(copies)
        several = np.unique(in_order[1:][in_order[1:] == in_order[:-1]])
        if not len(several):
            return None
        # numpy's isin takes tens of bytes for each document.
        for start in range(0, rows, _LOOKED_UP_AT_ONCE):
            block = copies[start : start + _LOOKED_UP_AT_ONCE]
            place = np.searchsorted(several, block)
            place[place == len(several)] = 0
            block[several[place] != block] = 0
        return copies


class _Best:
    """The best k documents so far of a share of the queries."""

    def __init__(self, queries: Vectors, k: int, ids_of: IdsOf, gpu: Any) -> None:
        self._count = len(queries)
        self._queries = queries
        self._k = k
        self._ids_of = ids_of
        self._gpu = gpu
        room = k if self._count * k <= _ROOM else max(k // 4, 64)
        self._scores = np.full((self._count, k + room), -np.inf, np.float32)
        self._rows = np.zeros((self._count, k + room), np.int64)
        self._filled = np.zeros(self._count, np.int64)
        self._reached = np.full(self._count, -np.inf, np.float32)
        low, high = _BLOCK_ROWS
        wanted = _BLOCK_BYTES // (4 * len(self._queries))
        self._block = max(low, min(high, wanted)) // _LANES * _LANES
        self._out = np.empty((len(self._queries), self._block), np.float32)
        self._mask = np.empty(self._count * self._block, np.bool_)

    def add(self, documents: Vectors, first_row: int) -> None:
        """Search one chunk; see `ExactSearch.add`."""
        if self._gpu is not None and len(documents):
            self._add_on_gpu(documents, first_row)
            return
        for start in range(0, len(documents), self._block):
            block = documents[start : start + self._block]
            whole = len(block) == self._block
            scores = np.matmul(self._queries, block.T, out=self._out if whole else None)
            self._take(scores, first_row + start)

    def results(self) -> list[tuple[Rows, Vectors]]:
        """Return rows and scores; see `ExactSearch.results`."""
        self._reduce()
        return [
            (rows[:filled].copy(), scores[:filled].copy())
            for rows, scores, filled in zip(self._rows, self._scores, self._filled, strict=True)
        ]

    def _take(self, scores: Vectors, first_row: int) -> None:
        """Keep the scores that reach the k-th best so far.

        Args:
            scores: ``(n_queries, n_documents)``.
            first_row: the corpus row of the first column.
        """
        scores = np.ascontiguousarray(scores)
        places, counts = self._reaching(scores)
        if (self._filled + counts > self._scores.shape[1]).any():
            self._reduce()
            places, counts = self._reaching(scores)
            if (self._filled + counts > self._scores.shape[1]).any():
                half = scores.shape[1] // 2
                self._take(scores[:, :half], first_row)
                self._take(scores[:, half:], first_row + half)
                return
        starts = np.repeat(np.arange(self._count) * scores.shape[1] - first_row, counts)
        self._put(counts, scores.reshape(-1)[places], places - starts)

    def _reaching(self, scores: Vectors) -> tuple[Rows, Rows]:
        """Return the flat positions of scores that reach the k-th best; their count by query."""
        # numpy's nonzero in two dimensions takes ten times as long as in one.
        mask = self._mask[: scores.size]
        np.greater_equal(scores, self._reached[:, None], out=mask.reshape(scores.shape))
        places = np.flatnonzero(mask)
        ends = np.searchsorted(places, np.arange(self._count + 1) * scores.shape[1])
        return places, np.diff(ends)

    def _put(self, counts: Rows, scores: Vectors, rows: Rows) -> None:
        """Append scores, sorted by query, to the scores that every query keeps."""
        starts = np.arange(self._count) * self._scores.shape[1] + self._filled
        before = np.cumsum(counts) - counts
        place = np.repeat(starts - before, counts) + np.arange(len(scores))
        self._scores.reshape(-1)[place] = scores
        self._rows.reshape(-1)[place] = rows
        self._filled += counts

    def _reduce(self) -> None:
        """Reduce every query to its best k, equal scores at the cut decided by descending id."""
        over = np.flatnonzero(self._filled > self._k)
        for start in range(0, len(over), _REDUCED_AT_ONCE):
            self._reduce_some(over[start : start + _REDUCED_AT_ONCE])

    def _reduce_some(self, over: Rows) -> None:
        """Reduce these queries, each of which has kept more than k."""
        k = self._k
        width = int(self._filled[over].max())
        scores, rows = self._scores[over, :width], self._rows[over, :width]
        empty = np.arange(width) >= self._filled[over, None]
        scores[empty] = -np.inf
        cut = np.partition(scores, width - k, axis=1)[:, width - k]
        kept = scores > cut[:, None]
        tied = (scores == cut[:, None]) & ~empty
        places = k - np.count_nonzero(kept, axis=1)
        for index in np.flatnonzero(np.count_nonzero(tied, axis=1) > places):
            equal = np.flatnonzero(tied[index])
            ids = self._ids_of(rows[index, equal])
            by_id = sorted(range(len(equal)), key=ids.__getitem__, reverse=True)
            tied[index, equal[by_id[places[index] :]]] = False
        chosen = np.flatnonzero(kept | tied)
        self._scores[over, :k] = scores.reshape(-1)[chosen].reshape(-1, k)
        self._rows[over, :k] = rows.reshape(-1)[chosen].reshape(-1, k)
        self._filled[over] = k
        self._reached[over] = cut

    # ── on a GPU ────────────────────────────────────────────────────────────────────────────

    def _add_on_gpu(self, documents: Vectors, first_row: int) -> None:
        scores, rows = self._nearest(self._queries, documents, self._k + 1)
        scores, rows = self._complete_ties(scores, rows, documents)
        room = self._scores.shape[1] - self._k
        for start in range(0, scores.shape[1], room):
            self._reduce()
            part = slice(start, start + room)
            query, column = np.nonzero((rows[:, part] >= 0) & (scores[:, part] > -np.inf))
            counts = np.bincount(query, minlength=self._count)
            kept = scores[:, part][query, column], first_row + rows[:, part][query, column]
            self._put(counts, *kept)

    def _nearest(self, queries: Vectors, documents: Vectors, k: int) -> tuple[Vectors, Rows]:
        import faiss

        k = min(k, len(documents))
        metric = faiss.METRIC_INNER_PRODUCT
        scores, rows = faiss.knn_gpu(self._gpu, queries, documents, k, metric=metric)
        return scores, rows.astype(np.int64, copy=False)

    def _complete_ties(
        self, scores: Vectors, rows: Rows, documents: Vectors
    ) -> tuple[Vectors, Rows]:
        """Fetch every document that ties with the k-th, where the chunk's list ends in a tie."""
        depth = scores.shape[1]
        while depth < len(documents):
            open_ended = np.flatnonzero(scores[:, self._k - 1] == scores[:, -1])
            if not len(open_ended):
                break
            depth = min(depth * 2, len(documents))
            if depth < _GPU_K_LIMIT:
                wider = self._nearest(self._queries[open_ended], documents, depth)
            else:  # thousands of copies: rare, and beyond the GPU's longest list
                depth = len(documents)
                product = np.matmul(self._queries[open_ended], documents.T)
                wider = product, np.tile(np.arange(depth), (len(open_ended), 1))
            extra = depth - scores.shape[1]
            scores = np.pad(scores, ((0, 0), (0, extra)), constant_values=-np.inf)
            rows = np.pad(rows, ((0, 0), (0, extra)), constant_values=-1)
            scores[open_ended], rows[open_ended] = wider
        return scores, rows


def _prints(documents: Vectors) -> Prints:
    """Return a fingerprint of every row: ``(n_documents,)`` uint32, never 0."""
    words: npt.NDArray[Any] = documents.view(np.uint32 if documents.shape[1] % 2 else np.uint64)
    random = np.random.default_rng(0).integers(0, 2**63, words.shape[1], np.uint64)
    sums = np.einsum("ij,j->i", words, (2 * random + 1).astype(words.dtype))
    high = sums >> np.asarray(16 if words.itemsize == 4 else 32, words.dtype)
    prints: Prints = (high ^ sums).astype(np.uint32)
    return np.maximum(prints, 1)


def _equalise(scores: Vectors, copies: Prints) -> None:
    """Give identical documents of one query the highest of their scores, in place."""
    places = np.flatnonzero(copies)
    if len(places) < 2:
        return
    places = places[np.lexsort((-scores[places], copies[places]))]
    by_print, ordered = copies[places], scores[places]
    # Different documents can share a fingerprint, but hardly ever with nearly equal scores.
    near = ordered[:-1] - ordered[1:] <= _ROUNDING * np.abs(scores).max()
    begins = np.r_[True, ~((by_print[1:] == by_print[:-1]) & near)]
    scores[places] = ordered[np.flatnonzero(begins)][np.cumsum(begins) - 1]


def _gpu_resources() -> Any:
    """Return faiss's GPU resources where faiss is installed and can use a GPU, else None."""
    try:
        import faiss
    except ImportError:
        return None
    if hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0:
        return faiss.StandardGpuResources()
    return None
