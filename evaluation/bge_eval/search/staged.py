"""Approximate search in two stages: candidates from an index, then perhaps exact scores for them.

The index needs the whole corpus (to be trained, to find the ranges of int8), and the exact scores
need the full vectors, so the vectors are collected in a temporary file. Memory holds the index and
one chunk.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from bge_eval.errors import TemporaryError, temporary
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


class CollectedCorpus:
    """The vectors of a corpus, collected in a temporary file."""

    def __init__(self, dimension: int) -> None:
        """Start without documents.

        Args:
            dimension: length of the vectors.
        """
        self._dimension = dimension
        self._rows = 0
        with temporary(tempfile.gettempdir()):
            self._file = tempfile.TemporaryFile(buffering=0, prefix="bge-eval-")  # noqa: SIM115

    def add(self, vectors: Vectors, first_row: int) -> None:
        """Append a chunk of the corpus; see `bge_eval.search.index.Index.add`.

        Raises:
            TemporaryError: the temporary file cannot be written.
        """
        if first_row != self._rows:
            raise ValueError(f"chunk of row {first_row} after {self._rows} rows")
        content = np.ascontiguousarray(vectors, np.float32).reshape(-1).view(np.uint8).data
        try:
            with temporary(tempfile.gettempdir()):
                while content:
                    content = content[self._file.write(content) :]
        except TemporaryError:
            self._file.close()
            raise
        self._rows += len(vectors)

    @contextmanager
    def opened(self) -> Iterator[Vectors]:
        """Yield the vectors, ``(n_documents, dim)`` float32 on disk, and remove the file."""
        with self._file:
            shape = (self._rows, self._dimension)
            yield (
                np.memmap(self._file, np.float32, "r", shape=shape)
                if self._rows
                else np.empty(shape, np.float32)
            )


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
            options: the index; ``depth`` and ``rescore`` are read here.
            note: receives remarks.
            queries: ``(n_queries, dim)`` float32.
            k: documents to keep for each query.
            ids_of: gives document ids for row numbers.
        """
        self._stages = Stages(search, options, note)
        self._queries = np.ascontiguousarray(queries, np.float32)
        self._k = k
        self._ids_of = ids_of
        self._corpus = CollectedCorpus(queries.shape[1])

    def add(self, vectors: Vectors, first_row: int) -> None:
        """Append a chunk of the corpus to the file; see `bge_eval.search.index.Index.add`."""
        self._corpus.add(vectors, first_row)

    def results(self) -> Candidates:
        """Search, and return for each query the rows and scores of its best documents."""
        with self._corpus.opened() as vectors:
            return self._stages.search(self._queries, vectors, self._k, self._ids_of)


@dataclass(frozen=True, slots=True)
class Stages:
    """The two stages: candidates, then perhaps exact scores."""

    candidates: CandidateSearch
    """Finds the candidates."""
    options: IndexOptions
    """The index; ``depth`` and ``rescore`` are read here."""
    note: Callable[[str], None]
    """Receives remarks."""

    def search(self, queries: Vectors, vectors: Vectors, k: int, ids_of: IdsOf) -> Candidates:
        """Return for each query the rows and scores of its best documents.

        Args:
            queries: ``(n_queries, dim)`` float32.
            vectors: ``(n_documents, dim)`` float32, perhaps on disk.
            k: documents to keep for each query, as far as the index is asked for so many.
            ids_of: gives document ids for row numbers.
        """
        if not len(vectors):
            return [(np.empty(0, np.int64), np.empty(0, np.float32)) for _ in queries]
        k = min(k, self.options.depth or k)
        results = self.candidates.candidates(queries, vectors, self.asked(k, len(vectors)), ids_of)
        self._tell_of_short_lists(results, min(k, len(vectors)))
        top = self.options.rescore
        if top is None:
            return results
        return [
            rescored(query, vectors, result, top=top, k=k, ids_of=ids_of)
            for query, result in zip(queries, results, strict=True)
        ]

    def asked(self, k: int, documents: int) -> int:
        """Return how many candidates a query needs, for a list of k documents of a corpus."""
        return min(max(k, self.options.rescore or 0), documents)

    def _tell_of_short_lists(self, results: Candidates, wanted: int) -> None:
        """Tell of queries with fewer documents than wanted."""
        few = [len(rows) for rows, _ in results if len(rows) < wanted]
        if few:
            self.note(
                f"{self.options.name} gave {len(few):,} of {len(results):,} queries fewer than"
                f" {wanted:,} documents (as few as {min(few):,}). Search wider to find more, by"
                " --index-param or within --grid-index: nprobe=16 for IVF, efSearch=1000 for HNSW,"
                " nflip=2 for BHash."
            )


def rescored(
    query: Vectors,
    vectors: Vectors,
    candidates: tuple[Rows, Vectors],
    *,
    top: int,
    k: int,
    ids_of: IdsOf | None = None,
) -> tuple[Rows, Vectors]:
    """Score the first candidates of a query exactly; the others follow in their order.

    Which of several equal candidates are the first must not depend on the corpus's order: binary
    vectors have many of them.

    Args:
        query: ``(dim,)`` float32.
        vectors: ``(n_documents, dim)`` float32, the full vectors.
        candidates: rows and scores.
        top: how many candidates are scored.
        k: documents to keep.
        ids_of: gives ids for rows, to order equal candidates as everywhere, by descending id; None
            leaves them as they came.
    """
    rows, scores = candidates
    order = _best_first(rows, scores, ids_of)
    head = order[:top]
    tail = order[len(head) : k]
    exact = np.asarray(vectors[rows[head]]) @ query
    if not len(tail):
        best = _best_first(rows[head], exact, ids_of)[:k]
        return rows[head][best], exact[best]
    gap = np.spacing(np.abs(exact).max() + 1) * 4
    below = exact.min() - gap * np.arange(1, len(tail) + 1, dtype=np.float32)
    return np.concatenate([rows[head], rows[tail]]), np.concatenate([exact, below])


def _best_first(rows: Rows, scores: Vectors, ids_of: IdsOf | None) -> Rows:
    """Return the order of documents; see `rescored`."""
    order: Rows = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    if ids_of is not None and (ordered[1:] == ordered[:-1]).any():
        ids = ids_of(rows)
        by_id = sorted(
            range(len(rows)), key=lambda place: (scores[place], ids[place]), reverse=True
        )
        order = np.array(by_id, np.int64)
    return order
