"""The protocol of a search index: what an engine gets and gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from bge_eval.errors import UsageError
from bge_eval.records import Vectors

Rows: TypeAlias = npt.NDArray[np.int64]
"""Row numbers of the corpus."""
IdsOf: TypeAlias = Callable[[Rows], Sequence[str]]
"""Function from row numbers of the corpus to the document ids in those rows."""

CALIBRATION = 10_000
"""Documents, drawn with seed 0, whose smallest and largest values are the ranges of int8."""


class Precision(StrEnum):
    """How the vectors are represented that an index searches."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    INT8 = "int8"
    BINARY = "binary"


@dataclass(frozen=True, slots=True)
class IndexOptions:
    """Which index searches, over which representation of the vectors."""

    name: str = "flat"
    """``flat`` is the exact search; anything else is a faiss factory string (``HNSW32``)."""
    params: tuple[tuple[str, float], ...] = ()
    """faiss's parameters of the index, such as ``("efSearch", 64)``, sorted by name."""
    precision: Precision = Precision.FLOAT32
    """The representation of documents and queries."""
    rescore: int | None = None
    """How many of a query's first documents are scored again with the full vectors."""
    depth: int | None = None
    """How many documents the index is asked for; None for as many as the measures need, 1000."""

    @classmethod
    def checked(
        cls,
        name: str,
        params: Mapping[str, float],
        precision: Precision = Precision.FLOAT32,
        rescore: int | None = None,
        depth: int | None = None,
    ) -> IndexOptions:
        """Return the record of options as a user gives them.

        Raises:
            UsageError: options have no effect on this index.
        """
        name = "flat" if name.casefold() == "flat" else name
        if params and name == "flat":
            raise UsageError(
                f"--index-param {', '.join(params)} has no effect on the exact search. Name an"
                " index of faiss, such as --index HNSW32."
            )
        if depth is not None and name == "flat":
            raise UsageError(
                "--index-depth has no effect on --index flat, which compares every document. Name"
                " an index of faiss, such as --index HNSW32."
            )
        options = cls(name, tuple(sorted(params.items())), precision, rescore, depth)
        if rescore is not None and replace(options, rescore=None).is_exact:
            raise UsageError(
                "--rescore-top has no effect on the exact search over full vectors. Name another"
                " --index or --vectors."
            )
        return options

    @property
    def is_exact(self) -> bool:
        """Whether the search is exact over float32 vectors."""
        return self.name == "flat" and self.precision is Precision.FLOAT32

    def identity(self) -> dict[str, Any]:
        """Return the facts that scores depend on; those of an exact search are its name alone."""
        facts: dict[str, Any] = {"index": self.name}
        if self.params:
            facts["index_params"] = dict(self.params)
        if self.precision is not Precision.FLOAT32:
            facts["vectors"] = str(self.precision)
        if self.precision is Precision.INT8:
            facts["calibration"] = f"{CALIBRATION} documents of the corpus, seed 0"
        if self.rescore is not None:
            facts["rescore_top"] = self.rescore
            facts["equal_candidates"] = "by id"  # earlier: in the corpus's order
        if self.depth is not None:
            facts["index_depth"] = self.depth
        return facts

    def experiment(self) -> dict[str, str | int | float]:
        """Return what names a result's folder: nothing for the exact search."""
        facts = self.identity()
        params = facts.pop("index_params", {})
        for told_by_others in ("calibration", "equal_candidates"):
            facts.pop(told_by_others, None)
        if self.name == "flat":
            del facts["index"]
        return {**facts, **params}


class Index(Protocol):
    """The documents of a corpus, searched for all queries.

    An engine is a function that starts one: ``start(queries, k, ids_of, documents)``, with
    ``queries`` ``(n_queries, dim)`` float32, ``k`` documents to keep for each, ``ids_of``, which
    gives the ids of rows to order equal scores, and the number of ``documents`` that will be added.
    """

    def add(self, vectors: Vectors, first_row: int) -> None:
        """Add a chunk of the corpus.

        Args:
            vectors: ``(n_documents, dim)`` float32.
            first_row: the corpus row of the first document.
        """

    def results(self) -> list[tuple[Rows, Vectors]]:
        """Return for each query the rows and scores of its best documents, in any order."""


Engine: TypeAlias = Callable[[Vectors, int, IdsOf, int], Index]
"""Starts a search: ``(queries, k, ids_of, documents)``; see `Index`."""
