"""BEIR's own measures, computed by beir's functions (``beir.retrieval.custom_metrics``)."""

from __future__ import annotations

from collections.abc import Callable

from bge_eval.errors import MissingError
from bge_eval.measures.values import Values
from bge_eval.records import Qrels, Run


def capped_recall(run: Run, qrels: Qrels, cutoff: int) -> Values:
    """Compute recall with the number of relevant documents capped at the cutoff (R_cap)."""
    return _relevance_based("recall_cap", run, qrels, cutoff)


def accuracy(run: Run, qrels: Qrels, cutoff: int) -> Values:
    """Compute the share of queries with a relevant document within the cutoff."""
    return _relevance_based("top_k_accuracy", run, qrels, cutoff)


def hole(run: Run, qrels: Qrels, cutoff: int) -> Values:
    """Compute the share of top-ranked documents that no query has a judgement of."""
    function = _beir_function("hole")
    judged = {document for grades in qrels.values() for document in grades}
    per_query = dict.fromkeys(qrels, 0.0)
    for query, documents in run.items():
        grades = {document: 0 for document in documents if document in judged}
        [per_query[query]] = function({query: grades}, {query: documents}, [cutoff]).values()
    [mean] = function(qrels, run, [cutoff]).values()
    return Values(float(mean), per_query)


def _relevance_based(name: str, run: Run, qrels: Qrels, cutoff: int) -> Values:
    """Compute a measure of relevant documents: beir's mean, with its five decimals.

    A single query's value is beir's mean over that query alone. beir's functions fail on a query
    without a relevant document; it counts 0, as they count a query without a result.
    """
    function = _beir_function(name)
    computable = {
        query: documents
        for query, documents in run.items()
        if any(grade > 0 for grade in qrels[query].values())
    }
    per_query = dict.fromkeys(qrels, 0.0)
    for query, documents in computable.items():
        [per_query[query]] = function({query: qrels[query]}, {query: documents}, [cutoff]).values()
    [mean] = function(qrels, computable, [cutoff]).values()
    return Values(float(mean), per_query)


def _beir_function(name: str) -> Callable[..., dict[str, float]]:
    try:
        from beir.retrieval import custom_metrics
    except ImportError as error:
        raise MissingError(
            f"BEIR's measure {name} is computed by beir, which is not installed:"
            " pip install 'bge-eval[beir]'."
        ) from error
    function: Callable[..., dict[str, float]] = getattr(custom_metrics, name)
    return function
