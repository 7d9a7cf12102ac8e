"""The protocol of a search index: what an engine gets and gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from bge_eval.records import Vectors

Rows: TypeAlias = npt.NDArray[np.int64]
"""Row numbers of the corpus."""
IdsOf: TypeAlias = Callable[[Rows], Sequence[str]]
"""Function from row numbers of the corpus to the document ids in those rows."""


class Index(Protocol):
    """The documents of a corpus, searched for all queries."""

    name: ClassVar[str]
    """The engine's name, in the identity of a result."""

    def __init__(self, queries: Vectors, k: int, ids_of: IdsOf) -> None:
        """Start a search.

        Args:
            queries: ``(n_queries, dim)`` float32.
            k: documents to keep for each query.
            ids_of: gives document ids for row numbers, to order equal scores.
        """

    def add(self, vectors: Vectors, first_row: int) -> None:
        """Add a chunk of the corpus.

        Args:
            vectors: ``(n_documents, dim)`` float32.
            first_row: the corpus row of the first document.
        """

    def results(self) -> list[tuple[Rows, Vectors]]:
        """Return for each query the rows and scores of its best documents, in any order."""
