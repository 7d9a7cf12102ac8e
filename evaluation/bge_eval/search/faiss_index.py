"""Candidates from a faiss index, named by faiss's factory string.

https://github.com/facebookresearch/faiss/wiki/The-index-factory lists the strings. An index is
trained on a sample of the corpus and kept, so that other search parameters need no new one.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bge_eval.errors import UsageError
from bge_eval.records import Vectors
from bge_eval.search.factory import TRAINING, is_binary, made, reason, stored_as
from bge_eval.search.faiss_gpu import on_gpu
from bge_eval.search.index import IdsOf, IndexOptions, Precision
from bge_eval.search.kept import (
    IndexFacts,
    building,
    checksum,
    is_changed,
    part_of,
    stated_seconds,
    touch,
)
from bge_eval.search.native_output import clustering_advice
from bge_eval.search.parameters import is_of_build, set_parameter
from bge_eval.search.precisions import Candidates, Quantiser, chunks, sample_rows
from bge_eval.search.training import least_documents

_GPU_DEPTH = 2048
"""Longest lists of faiss's GPU indexes."""
_NSG = re.compile(r"NSG(\d*)")
_NSG_LINKS = 32


def check_factory(
    options: IndexOptions, dimension: int | None = None, documents: int | None = None
) -> None:
    """Refuse what faiss cannot build, before anything is encoded.

    Args:
        options: the index and its parameters.
        dimension: of the vectors; None where it is not known yet.
        documents: of the corpus; None where they are not known yet.

    Raises:
        MissingError: faiss is not installed.
        UsageError: the factory string or a parameter is unknown, the index cannot compare by inner
            product, or it needs more documents.
    """
    index = made(options, dimension)
    if documents and documents < (least := least_documents(index)):
        raise UsageError(
            f"--index {options.name} needs {least:,} documents or more, and the corpus has"
            f" {documents:,}. Name a smaller index."
        )
    for name, value in options.params:
        set_parameter(index, options, name, value)


@dataclass(frozen=True, slots=True)
class OpenIndex:
    """A faiss index over a whole corpus, ready to be searched."""

    name: str
    """The factory string."""
    index: Any
    """faiss's index."""
    quantiser: Quantiser
    """Represents queries as the documents were represented."""
    is_binary: bool
    """Whether it holds bits and compares by Hamming distance."""
    bytes: int
    """Its size as faiss writes it: codes, lists, links and centroids."""
    build_seconds: float | None
    """Wall seconds of training and adding; None for a kept index that does not state them."""

    def represent(self, queries: Vectors) -> Any:
        """Return queries as `search` takes them: ``(n, dim)`` float32, or ``(n, dim / 8)`` uint8.

        Args:
            queries: ``(n_queries, dim)`` float32.
        """
        values = self.quantiser.represent(queries)
        return _bits(values) if self.is_binary else np.ascontiguousarray(values)

    def search(self, represented: Any, k: int) -> Candidates:
        """Return for each query the rows and scores of up to k documents.

        The score of a binary index is the dimension minus twice the Hamming distance.

        Args:
            represented: queries from `represent`.
            k: documents for each query.

        Raises:
            UsageError: faiss cannot search with these parameters.
        """
        try:
            scores, rows = self.index.search(represented, k)
        except RuntimeError as error:
            raise UsageError(
                f"faiss cannot search '{self.name}': {reason(error)}. Name another --index, or"
                " other values of --index-param."
            ) from error
        if self.is_binary:
            scores = (8 * represented.shape[1] - 2 * scores).astype(np.float32)
        # faiss fills up short lists with row -1.
        return [
            (row[row >= 0].astype(np.int64), score[row >= 0])
            for row, score in zip(rows, scores, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class FaissIndex:
    """Builds or reads a faiss index over a corpus and searches it."""

    options: IndexOptions
    """The factory string, its parameters, the representation of the vectors."""
    folder: Path | None
    """Where indexes are kept; None keeps none."""
    note: Callable[[str], None]
    """Receives remarks."""
    model: str = ""
    """Name of the model, written beside a kept index."""

    def candidates(self, queries: Vectors, vectors: Vectors, k: int, ids_of: IdsOf) -> Candidates:
        """Return for each query the rows and scores of up to k documents.

        The arguments are those of `bge_eval.search.staged.CandidateSearch.candidates`.

        Raises:
            UsageError: the corpus is too small for the index.
        """
        opened = self.opened(vectors)
        represented = opened.represent(queries)
        if not opened.is_binary and k <= _GPU_DEPTH:
            copy = on_gpu(opened.index, self.options.name, represented, self.note)
            opened = replace(opened, index=copy)
        return opened.search(represented, k)

    def opened(self, vectors: Vectors) -> OpenIndex:
        """Return the kept index of these vectors, or a new one, with the search's parameters set.

        Args:
            vectors: ``(n_documents, dim)`` float32, perhaps on disk; read chunk by chunk.

        Raises:
            UsageError: the corpus is too small for the index.
        """
        quantiser = Quantiser.fitted(self._precision(), vectors)
        path = None if self.folder is None else self._path(self.folder, vectors)
        index, seconds = (
            self._build(vectors, quantiser)
            if path is None
            else self._kept(path) or self._built_and_kept(path, vectors, quantiser)
        )
        for name, value in self.options.params:
            if not is_of_build(name):
                set_parameter(index, self.options, name, value)
        binary = is_binary(self.options)
        return OpenIndex(
            self.options.name, index, quantiser, binary, _size(index, path, binary), seconds
        )

    def _kept(self, path: Path) -> tuple[Any, float | None] | None:
        """Return the kept index of a file with the seconds of its building; None if there is none.

        None also if it cannot be read.
        """
        index = self._read(path)
        if index is None:
            return None
        touch(path)
        return index, stated_seconds(path)

    def _build(self, vectors: Vectors, quantiser: Quantiser) -> tuple[Any, float]:
        """Return a new index with the seconds of its building."""
        start = time.perf_counter()
        index = _built(self.options, vectors, quantiser, self.note)
        return index, time.perf_counter() - start

    def _built_and_kept(
        self, path: Path, vectors: Vectors, quantiser: Quantiser
    ) -> tuple[Any, float | None]:
        """Build an index and keep it; wait instead for another process that does so."""
        name = self.options.name
        waiting = partial(self.note, f"{name}: waiting for the process that builds this index")
        with building(path, waiting):
            kept = self._kept(path)  # another process may have kept it since
            if kept is not None:
                return kept
            index, seconds = self._build(vectors, quantiser)
            self._keep(index, path, seconds)
            return index, seconds

    def _precision(self) -> Precision:
        return Precision.BINARY if is_binary(self.options) else self.options.precision

    def _read(self, path: Path) -> Any:
        """Return the kept index of a file; None if there is none that can be read."""
        import faiss

        if not path.is_file():
            return None
        read = faiss.read_index_binary if is_binary(self.options) else faiss.read_index
        # The flag of newer releases maps all codes, the older one inverted lists alone.
        flag = getattr(faiss, "IO_FLAG_MMAP_IFC", faiss.IO_FLAG_MMAP)
        problem = "cannot be read"
        try:
            if not is_changed(path):
                return read(str(path), flag)
            problem = "has changed bytes: it cannot be read"
        except (RuntimeError, OSError):
            pass
        with suppress(OSError):  # the folder is read-only
            path.unlink()
        self.note(f"The kept index {path.name} {problem} and is built again.")
        return None

    def _keep(self, index: Any, path: Path, seconds: float) -> None:
        """Write an index, and beside it its facts."""
        import faiss

        part = part_of(path)
        binary = is_binary(self.options)
        facts = partial(
            IndexFacts,
            model=self.model,
            index=self.options.name,
            vectors=str(self._precision()),
            documents=index.ntotal,
            dimension=index.d,
            build_seconds=round(seconds, 6),
            threads=faiss.omp_get_max_threads(),
        )
        write = faiss.write_index_binary if binary else faiss.write_index
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write(index, str(part))
            facts(crc32=checksum(part)).write(path)  # first: an index without facts is not checked
            part.replace(path)
        except (RuntimeError, OSError) as error:
            self.note(
                f"The index cannot be kept in {path.parent}: {reason(error)}. It is built again"
                " next time; BGE_EVAL_CACHE names another folder."
            )
        finally:
            with suppress(OSError):  # the folder is read-only
                part.unlink(missing_ok=True)

    def _path(self, folder: Path, vectors: Vectors) -> Path:
        """Return the file of an index of exactly these vectors, built in exactly this way."""
        import faiss

        digest = hashlib.sha256()
        for _, chunk in chunks(vectors, lambda chunk: chunk):
            digest.update(np.ascontiguousarray(chunk).data)
        build = [item for item in self.options.params if is_of_build(item[0])]
        name = stored_as(self.options)
        facts = (name, build, self._precision(), vectors.shape, faiss.__version__)
        digest.update(repr(facts).encode())
        return folder / f"{digest.hexdigest()[:32]}.faiss"


def _size(index: Any, path: Path | None, binary: bool) -> int:
    """Return the bytes of an index, from its file where it has one."""
    import faiss

    with suppress(OSError):  # it is not kept, or was removed since
        if path is not None:
            return path.stat().st_size
    return int((faiss.serialize_index_binary if binary else faiss.serialize_index)(index).nbytes)


def _built(
    options: IndexOptions, vectors: Vectors, quantiser: Quantiser, note: Callable[[str], None]
) -> Any:
    """Train an index and add the corpus chunk by chunk."""
    index = made(options, vectors.shape[1])
    for name, value in options.params:
        if is_of_build(name):
            set_parameter(index, options, name, value)
    _refuse_repeated(options, vectors, quantiser)
    as_stored = _bits if is_binary(options) else np.ascontiguousarray
    try:
        if not index.is_trained:
            sample = sample_rows(vectors, TRAINING)
            with clustering_advice() as advice:
                index.train(as_stored(quantiser.represent(sample)))
            if advice.advised:
                note(
                    f"{options.name} is trained on {advice.trained:,} vectors; faiss advises"
                    f" {advice.advised:,} or more. A smaller index suits this corpus better."
                )
        for _, chunk in chunks(vectors, quantiser.represent):
            index.add(as_stored(chunk))
    except RuntimeError as error:
        raise UsageError(
            f"faiss cannot build '{options.name}' over {len(vectors):,} documents of"
            f" {vectors.shape[1]} dimensions: {reason(error)}. Name a smaller index."
        ) from error
    return index


def _refuse_repeated(options: IndexOptions, vectors: Vectors, quantiser: Quantiser) -> None:
    """Refuse NSG where more documents are equal than one has links: faiss may never end there.

    Raises:
        UsageError: they are.
    """
    graph = _NSG.search(options.name)
    if graph is None or not len(vectors):
        return
    links = int(graph[1] or _NSG_LINKS)
    weights = np.random.default_rng(0).integers(1, 2**63, vectors.shape[1], np.uint64)
    digests = [
        np.ascontiguousarray(chunk).view(np.uint32).astype(np.uint64) @ weights
        for _, chunk in chunks(vectors, quantiser.represent)
    ]
    equal = int(np.unique(np.concatenate(digests), return_counts=True)[1].max())
    if equal > links:
        raise UsageError(
            f"--index {options.name}: {equal:,} documents have the same vector. faiss's NSG may"
            f" never be built where that is more than the links of a document, {links}. Name"
            " HNSW32, or remove the duplicates."
        )


def _bits(signs: Vectors) -> Any:
    """Pack the signs of vectors: ``(n, dim / 8)`` uint8."""
    return np.packbits(signs > 0, axis=1)
