"""Choose the engine that searches: the exact search, or an approximate one.

A new engine is one file with a class that follows `bge_eval.search.index.Index`, and one line here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bge_eval.records import Vectors
from bge_eval.search.exact import ExactSearch
from bge_eval.search.faiss_index import FaissIndex, check_factory
from bge_eval.search.index import Engine, IdsOf, Index, IndexOptions
from bge_eval.search.precisions import QuantisedSearch
from bge_eval.search.staged import CandidateSearch, StagedSearch

EXACT = IndexOptions()
"""The search that a model gets unless its options name another."""


def engine(
    options: IndexOptions,
    folder: Path | None = None,
    note: Callable[[str], None] = lambda text: None,
    model: str = "",
) -> Engine:
    """Return the engine of some options.

    Args:
        options: the index, its parameters, the representation of the vectors.
        folder: where trained indexes are kept; None keeps none.
        note: receives remarks, such as queries that got fewer documents than asked for.
        model: name of the model, written beside a kept index.

    Raises:
        UsageError: faiss knows no such index or parameter, or options contradict each other.
        MissingError: faiss is not installed.
    """
    if options.is_exact:
        return _exact
    if options.name != "flat":
        check_factory(options)

    def start(queries: Vectors, k: int, ids_of: IdsOf, documents: int) -> Index:
        search: CandidateSearch = QuantisedSearch(options.precision)
        if options.name != "flat":
            check_factory(options, queries.shape[1], documents)  # before the corpus is encoded
            search = FaissIndex(options, folder, note, model)
        return StagedSearch(search, options, note, queries, k, ids_of)

    return start


def _exact(queries: Vectors, k: int, ids_of: IdsOf, documents: int) -> Index:
    return ExactSearch(queries, k, ids_of)
