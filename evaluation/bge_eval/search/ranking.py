"""The order of documents, one rule everywhere: by score, equal scores by descending id.

trec_eval orders so (https://github.com/usnistgov/trec_eval, form_res_rels.c), pytrec_eval and mteb
with it.
"""

from __future__ import annotations

from collections.abc import Mapping


def ranked(scores: Mapping[str, float], k: int | None = None) -> list[str]:
    """Return the documents of a query, best first.

    Args:
        scores: document id → score.
        k: how many to return; None for all.
    """
    return sorted(scores, key=lambda document: (scores[document], document), reverse=True)[:k]


def best(scores: Mapping[str, float], k: int | None = None) -> dict[str, float]:
    """Return the documents of a query with their scores, best first; see `ranked`."""
    return {document: scores[document] for document in ranked(scores, k)}
