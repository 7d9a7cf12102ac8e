"""Exact top-k by inner product with faiss, chunk by chunk, ties broken as pytrec_eval does.

The corpus passes by once; what is kept is the best k of each query, so memory does not grow
with the corpus. trec_eval orders equal scores by document id, descending
(https://github.com/usnistgov/trec_eval, form_res_rels.c), and mteb keeps the same ones at the
cut; faiss leaves the order of ties open, so ties at the k-th place are settled here by id.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from bge_eval.records import Vectors

Rows = npt.NDArray[np.int64]
IdsOf = Callable[[Rows], Sequence[str]]
"""Given row numbers of the corpus, the document ids in those rows."""

_CHUNK_BYTES = 64 * 2**20
_CHUNK_ROWS = (1024, 65536)
_GPU_K_LIMIT = 2048


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


class ExactSearch:
    """The best k documents of every query among all chunks added so far."""

    def __init__(self, queries: Vectors, k: int, ids_of: IdsOf) -> None:
        """Start a search.

        Args:
            queries: ``(n_queries, dim)`` float32.
            k: how many documents to keep for each query.
            ids_of: gives document ids for row numbers; asked only to settle ties.
        """
        self._queries = np.ascontiguousarray(queries, np.float32)
        self._k = k
        self._ids_of = ids_of
        self._scores = np.empty((len(queries), 0), np.float32)
        self._rows = np.empty((len(queries), 0), np.int64)
        self._gpu = _gpu_resources()

    def add(self, documents: Vectors, first_row: int) -> None:
        """Search one chunk.

        Args:
            documents: ``(n_documents, dim)`` float32.
            first_row: the corpus row of the chunk's first document.
        """
        if not len(documents) or not len(self._queries):
            return
        documents = np.ascontiguousarray(documents, np.float32)
        scores, rows = self._nearest(self._queries, documents, self._k + 1)
        scores, rows = self._complete_ties(scores, rows, documents)
        rows = np.where(rows >= 0, rows + first_row, -1)
        self._scores, self._rows = self._keep(
            np.concatenate([self._scores, scores], axis=1),
            np.concatenate([self._rows, rows], axis=1),
        )

    def results(self) -> list[tuple[Rows, Vectors]]:
        """Return for each query the rows and scores it kept, in no particular order."""
        return [
            (rows[rows >= 0], scores[rows >= 0])
            for rows, scores in zip(self._rows, self._scores, strict=True)
        ]

    def _nearest(self, queries: Vectors, documents: Vectors, k: int) -> tuple[Vectors, Rows]:
        k = min(k, len(documents))
        metric = faiss.METRIC_INNER_PRODUCT
        if self._gpu is not None and k <= _GPU_K_LIMIT:
            scores, rows = faiss.knn_gpu(self._gpu, queries, documents, k, metric=metric)
        else:
            scores, rows = faiss.knn(queries, documents, k, metric=metric)
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
            wider_scores, wider_rows = self._nearest(self._queries[open_ended], documents, depth)
            extra = depth - scores.shape[1]
            scores = np.pad(scores, ((0, 0), (0, extra)), constant_values=-np.inf)
            rows = np.pad(rows, ((0, 0), (0, extra)), constant_values=-1)
            scores[open_ended], rows[open_ended] = wider_scores, wider_rows
        return scores, rows

    def _keep(self, scores: Vectors, rows: Rows) -> tuple[Vectors, Rows]:
        """Reduce candidates to the best k, equal scores at the cut decided by descending id."""
        order = np.argsort(-scores, axis=1, kind="stable")
        scores = np.take_along_axis(scores, order, axis=1)
        rows = np.take_along_axis(rows, order, axis=1)
        if scores.shape[1] <= self._k:
            return scores, rows
        cut = scores[:, self._k - 1]
        tied = np.flatnonzero((cut == scores[:, self._k]) & (rows[:, self._k] >= 0))
        for query in tied:
            equal = np.flatnonzero((scores[query] == cut[query]) & (rows[query] >= 0))
            ids = self._ids_of(rows[query, equal])
            by_id = sorted(range(len(equal)), key=ids.__getitem__, reverse=True)
            rows[query, equal] = rows[query, equal[by_id]]
        return scores[:, : self._k].copy(), rows[:, : self._k].copy()


def _gpu_resources() -> Any:
    """Return faiss's GPU resources where the installed faiss has any use of a GPU, else None."""
    if hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0:
        return faiss.StandardGpuResources()
    return None
