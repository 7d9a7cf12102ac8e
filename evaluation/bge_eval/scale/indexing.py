"""What an index of faiss takes: built and searched over samples of vectors, and scaled.

The vectors are random, in groups as those of texts are. Samples double until one takes long enough
to be measured, or is the whole corpus; the last two tell how the seconds grow.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bge_eval.records import Vectors
from bge_eval.search.exact import unit_rows
from bge_eval.search.factory import TRAINING, made
from bge_eval.search.faiss_index import FaissIndex, OpenIndex, check_factory
from bge_eval.search.index import IndexOptions
from bge_eval.search.native_output import clustering_advice
from bge_eval.search.training import least_documents

_FEWEST = 256
"""Documents of the smallest sample, unless an index needs more."""
_MOST = 16_384
"""Documents of the largest sample: an index that needs more is not measured."""
_ENOUGH = 0.5
"""Seconds of a sample after which no larger one is taken."""
_QUERIES = 64
_GROUPS = 64
_CLUSTERED = 256
"""Most vectors of each centroid that faiss clusters; it draws so many of a larger sample."""
_STEEPEST = 1.3
"""Greatest power of the documents with which the seconds grow; graphs have about 1.2."""


@dataclass(frozen=True, slots=True)
class IndexWork:
    """A search by an index."""

    queries: int
    """Number of queries."""
    documents: int
    """Number of documents."""
    dimension: int
    """Dimensions of the vectors."""
    depth: int
    """Documents that are asked for, for each query."""


@dataclass(frozen=True, slots=True)
class IndexCost:
    """What an index takes."""

    seconds: float = 0.0
    """Seconds of training it, adding the documents and searching."""
    bytes: float = 0.0
    """Its size, in memory and kept on disk."""
    sample_bytes: float = 0.0
    """Memory of the documents that it is trained on."""


@dataclass(frozen=True, slots=True)
class _Measured:
    """A sample."""

    documents: int
    build: float
    search: float
    bytes: float


def index_cost(options: IndexOptions, work: IndexWork) -> IndexCost | None:
    """Return what building and searching an index takes, measured on samples of vectors.

    Args:
        options: an index of faiss.
        work: the search.

    Returns:
        None for an index that needs more documents than a sample has.

    Raises:
        UsageError: faiss makes no such index of so many dimensions, or of so few documents.
    """
    if not work.queries or not work.documents:
        return IndexCost()
    check_factory(options, work.dimension, work.documents)
    least = least_documents(made(options, work.dimension))
    if least > _MOST:
        return None
    vectors = _vectors(min(_MOST, work.documents), work.dimension)
    samples: list[_Measured] = []
    rows = min(max(_FEWEST, least), len(vectors))
    while True:
        opened = FaissIndex(options, None, lambda text: None).opened(vectors[:rows])
        samples.append(_measured(opened, work, vectors[:rows]))
        if rows == len(vectors) or samples[-1].build > _ENOUGH:
            break
        rows = min(2 * rows, len(vectors))
    build = _grown(samples, "build", work.documents, 1.0)
    clustered = least * _CLUSTERED
    if work.documents > max(clustered, rows):
        training = min(_training(options, opened, vectors[:rows]), samples[-1].build)
        share = training / samples[-1].build
        build = build * (1 - share) + share * _grown(samples, "build", clustered, 1.0)
    search = _grown(samples, "search", work.documents, 0.0) * work.queries / _QUERIES
    sampled = 4.0 * min(work.documents, TRAINING) * work.dimension
    return IndexCost(build + search, _bytes(samples, work.documents), sampled)


def _measured(opened: OpenIndex, work: IndexWork, vectors: Vectors) -> _Measured:
    """Search an index of a sample."""
    queries = opened.represent(vectors[np.arange(_QUERIES) % len(vectors)])
    start = time.perf_counter()
    opened.search(queries, min(work.depth, len(vectors)))
    search = time.perf_counter() - start
    return _Measured(len(vectors), opened.build_seconds or 0.0, search, opened.bytes)


def _training(options: IndexOptions, opened: OpenIndex, vectors: Vectors) -> float:
    """Return the seconds of training alone."""
    represented = opened.represent(vectors)
    index = made(options, vectors.shape[1])
    with clustering_advice():
        start = time.perf_counter()
        if not index.is_trained:
            index.train(represented)
        return time.perf_counter() - start


def _grown(samples: Sequence[_Measured], name: str, documents: int, flattest: float) -> float:
    """Return a value for more documents, by the power of them with which it grew last.

    Args:
        samples: the smallest first.
        name: the field.
        documents: their number.
        flattest: the least power that it may have grown with.
    """
    last, power = samples[-1], flattest
    value: float = getattr(last, name)
    if documents <= last.documents:
        return value
    if len(samples) > 1 and value > 0 < (before := getattr(samples[-2], name)):
        power = math.log(value / before) / math.log(last.documents / samples[-2].documents)
    power = min(max(power, flattest), _STEEPEST)
    return float(value * (documents / last.documents) ** power)


def _bytes(samples: Sequence[_Measured], documents: int) -> float:
    """Return the size of an index of more documents: centroids, and the same for each document."""
    last = samples[-1]
    if len(samples) == 1:
        return last.bytes * documents / last.documents
    step = (last.bytes - samples[-2].bytes) / (last.documents - samples[-2].documents)
    return last.bytes + step * (documents - last.documents)


def _vectors(rows: int, dimension: int) -> Vectors:
    """Return random vectors in groups: ``(rows, dim)`` float32 of unit length."""
    random = np.random.default_rng(0)
    centres = random.standard_normal((_GROUPS, dimension), np.float32)
    noise = random.standard_normal((rows, dimension), np.float32)
    return unit_rows(centres[random.integers(0, _GROUPS, rows)] + noise)
