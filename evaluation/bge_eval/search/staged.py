"""Approximate search in two stages: candidates from an index, then perhaps exact scores for them.

The index needs the whole corpus (to be trained, to find the ranges of int8), and the exact scores
need the full vectors, so the vectors are collected in a temporary file. Memory holds the index and
one chunk.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Protocol

import numpy as np

from bge_eval.records import Vectors
from bge_eval.search.index import IdsOf, IndexOptions, Rows
from bge_eval.search.precisions import Candidates


class CandidateSearch(Protocol):
    """Finds candidates in a whole corpus."""

    def candidates(self, queries: Vectors, vectors: Vectors, k: int, ids_of: IdsOf) -> Candidates:
        """Return for each query the rows and scores of up to k documents.

        Args:
            queries: ``(n_queries, dim)`` float32.
            vectors: ``(n_documents, dim)`` float32, on disk.
            k: documents for each query.
            ids_of: gives ids for rows, to order equal scores.
        """


class StagedSearch:
    """Collects a corpus on disk and searches it when it is complete."""

    def __init__(
        self,
        search: CandidateSearch,
        options: IndexOptions,
        note: Callable[[str], None],
        queries: Vectors,
        k: int,
        ids_of: IdsOf,
    ) -> None:
        """Start a search.

        Args:
            search: finds the candidates.
            options: the index; ``rescore`` is read here.
            note: receives remarks.
            queries: ``(n_queries, dim)`` float32.
            k: documents to keep for each query.
            ids_of: gives document ids for row numbers.
        """
        self._search = search
        self._options = options
        self._note = note
        self._queries = np.ascontiguousarray(queries, np.float32)
        self._k = k
        self._ids_of = ids_of
        self._rows = 0
        self._file = tempfile.TemporaryFile(prefix="bge-eval-")  # noqa: SIM115

    def add(self, vectors: Vectors, first_row: int) -> None:
        """Append a chunk of the corpus to the file; see `bge_eval.search.index.Index.add`."""
        if first_row != self._rows:
            raise ValueError(f"chunk of row {first_row} after {self._rows} rows")
        np.ascontiguousarray(vectors, np.float32).tofile(self._file)
        self._rows += len(vectors)

    def results(self) -> Candidates:
        """Search, and return for each query the rows and scores of its best documents."""
        with self._file:
            return self._searched()

    def _searched(self) -> Candidates:
        if not self._rows:
            return [(np.empty(0, np.int64), np.empty(0, np.float32)) for _ in self._queries]
        self._file.flush()
        shape = (self._rows, self._queries.shape[1])
        vectors: Vectors = np.memmap(self._file, np.float32, "r", shape=shape)
        depth = min(max(self._k, self._options.rescore or 0), self._rows)
        results = self._search.candidates(self._queries, vectors, depth, self._ids_of)
        self._tell_of_short_lists(results, min(self._k, self._rows))
        if self._options.rescore is not None:
            results = [
                self._rescored(query, vectors, rows, scores)
                for query, (rows, scores) in zip(self._queries, results, strict=True)
            ]
        return results

    def _tell_of_short_lists(self, results: Candidates, wanted: int) -> None:
        """Tell of queries with fewer documents than wanted."""
        few = [len(rows) for rows, _ in results if len(rows) < wanted]
        if few:
            self._note(
                f"{self._options.name} gave {len(few):,} of {len(results):,} queries fewer than"
                f" {wanted:,} documents (as few as {min(few):,}). Search wider to find more:"
                " --index-param nprobe=16 for IVF, efSearch=1000 for HNSW."
            )

    def _rescored(
        self, query: Vectors, vectors: Vectors, rows: Rows, scores: Vectors
    ) -> tuple[Rows, Vectors]:
        """Score the first candidates exactly; the others follow in their order."""
        order = np.argsort(-scores, kind="stable")
        head = order[: self._options.rescore]
        tail = order[len(head) : self._k]
        exact = np.asarray(vectors[rows[head]]) @ query
        if not len(tail):
            best = np.argsort(-exact, kind="stable")[: self._k]
            return rows[head][best], exact[best]
        gap = np.spacing(np.abs(exact).max() + 1) * 4
        below = exact.min() - gap * np.arange(1, len(tail) + 1, dtype=np.float32)
        return np.concatenate([rows[head], rows[tail]]), np.concatenate([exact, below])
