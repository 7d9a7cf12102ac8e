"""Represent vectors in fewer bytes, as deployed systems do, and search that representation.

int8 and binary follow sentence-transformers' ``quantize_embeddings``
(https://sbert.net/docs/package_reference/util/quantization.html): int8 divides each dimension's
range into 255 steps, binary keeps the sign. Documents and queries are represented alike.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from bge_eval.records import Vectors
from bge_eval.search.exact import ExactSearch, chunk_rows
from bge_eval.search.index import CALIBRATION, IdsOf, Precision, Rows

Candidates: TypeAlias = list[tuple[Rows, Vectors]]
"""For each query the rows and scores of its candidates."""


@dataclass(frozen=True, slots=True)
class Quantiser:
    """Turns float32 vectors into a representation, given back as float32 values."""

    precision: Precision
    """The representation."""
    starts: Vectors
    """``(dim,)``: the value of step 0 in each dimension; of int8 only."""
    steps: Vectors
    """``(dim,)``: the width of a step; of int8 only."""

    @classmethod
    def fitted(cls, precision: Precision, vectors: Vectors) -> Quantiser:
        """Return the quantiser of a corpus.

        Args:
            precision: the representation.
            vectors: ``(n_documents, dim)`` float32; `CALIBRATION` of them are read.
        """
        empty = np.empty(0, np.float32)
        if precision is not Precision.INT8:
            return cls(precision, empty, empty)
        sample = sample_rows(vectors, CALIBRATION)
        low, high = sample.min(axis=0), sample.max(axis=0)
        steps = (high - low) / np.float32(255)
        steps[steps == 0] = 1
        return cls(precision, low, steps)

    def represent(self, vectors: Vectors) -> Vectors:
        """Return vectors as their representation's values: ``(n, dim)`` float32.

        int8 gives whole numbers from -128 to 127, binary -1 and 1; the inner product of the latter
        is the dimension minus twice the Hamming distance.
        """
        match self.precision:
            case Precision.FLOAT16:
                return vectors.astype(np.float16).astype(np.float32)
            case Precision.INT8:
                steps = np.floor((vectors - self.starts) / self.steps)
                whole: Vectors = np.clip(steps, 0, 255) - np.float32(128)
                return whole
            case Precision.BINARY:
                return np.where(vectors > 0, np.float32(1), np.float32(-1))
            case Precision.FLOAT32:
                return vectors


@dataclass(frozen=True, slots=True)
class QuantisedSearch:
    """Every document is compared with every query, in their representation."""

    precision: Precision
    """The representation."""

    def candidates(self, queries: Vectors, vectors: Vectors, k: int, ids_of: IdsOf) -> Candidates:
        """Return the best k documents of each query.

        Args:
            queries: ``(n_queries, dim)`` float32.
            vectors: ``(n_documents, dim)`` float32, perhaps on disk; read chunk by chunk.
            k: documents for each query.
            ids_of: gives ids for rows, to order equal scores.
        """
        quantiser = Quantiser.fitted(self.precision, vectors)
        search = ExactSearch(quantiser.represent(queries), k, ids_of)
        for row, chunk in chunks(vectors, quantiser.represent):
            search.add(chunk, row)
        return search.results()


def chunks(
    vectors: Vectors, represent: Callable[[Vectors], Vectors]
) -> Iterator[tuple[int, Vectors]]:
    """Yield ``(first row, represented vectors)`` of about 64 MiB each.

    A chunk of a file is in memory until the next one is asked for.
    """
    size = chunk_rows(vectors.shape[1])
    for row in range(0, len(vectors), size):
        yield row, represent(np.asarray(vectors[row : row + size]))
        _release(vectors)


def sample_rows(vectors: Vectors, count: int) -> Vectors:
    """Return a sample of rows, drawn with seed 0 and in the corpus's order; all if few."""
    if len(vectors) <= count:
        return np.asarray(vectors)
    rows = np.sort(np.random.default_rng(0).choice(len(vectors), count, replace=False))
    sample = np.empty((count, vectors.shape[1]), np.float32)
    size = chunk_rows(vectors.shape[1])
    for start in range(0, count, size):
        sample[start : start + size] = vectors[rows[start : start + size]]
        _release(vectors)
    return sample


def _release(vectors: Vectors) -> None:
    """Give the pages of a file back to the system: those that were read count as our memory."""
    mapping = getattr(vectors, "_mmap", None)
    if mapping is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapping.madvise(mmap.MADV_DONTNEED)
