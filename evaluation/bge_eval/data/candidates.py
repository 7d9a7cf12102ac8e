"""Reranking rows: a query with its relevant and its other candidates on one line.

::

    <folder>/<split>.jsonl      {"query": "…", "positive": ["…"], "negative": ["…"]}

They become a retrieval task with candidate lists, with the ids that mteb's own conversion of
this old format gives (``mteb.abstasks.text.reranking``): positives sort before negatives in a
tie, and a query needs at least one of each.
"""

from __future__ import annotations

from typing import Any

from bge_eval.data.files import Place, records
from bge_eval.errors import DamagedError


def is_candidates(place: Place) -> bool:
    """Tell whether a rows file holds reranking rows, by its first line."""
    first = next(records(place), None)
    return first is not None and {"query", "positive", "negative"} <= set(first[1])


def load_candidates(place: Place, split: str) -> dict[str, Any]:
    """Read reranking rows into the form of a retrieval split with candidate lists.

    Returns:
        ``corpus`` and ``queries`` tables, ``relevant_docs`` and ``top_ranked``.

    Raises:
        DamagedError: names file and line of what is wrong.
    """
    from datasets import Dataset

    corpus: list[dict[str, str]] = []
    queries: list[dict[str, str]] = []
    qrels: dict[str, dict[str, int]] = {}
    candidates: dict[str, list[str]] = {}
    index = -1
    for number, record in records(place):
        lists = {name: record.get(name) for name in ("positive", "negative")}
        for name, texts in lists.items():
            if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
                raise DamagedError(f"{place}, line {number}: {name} is no list of texts.")
        if not isinstance(record.get("query"), str):
            raise DamagedError(f"{place}, line {number}: query is missing or no text.")
        if not lists["positive"] or not lists["negative"]:
            continue
        index += 1
        query = f"{split}_query{index}"
        queries.append({"id": query, "text": record["query"]})
        for prefix, name, grade in (("apositive", "positive", 1), ("negative", "negative", 0)):
            for place_in_list, text in enumerate(lists[name] or []):
                document = f"{prefix}_{query}_{place_in_list:05d}"
                corpus.append({"id": document, "title": "", "text": text})
                qrels.setdefault(query, {})[document] = grade
                candidates.setdefault(query, []).append(document)
    if not queries:
        raise DamagedError(
            f"{place} holds no query with at least one positive and one negative candidate."
        )
    return {
        "corpus": Dataset.from_list(corpus),
        "queries": Dataset.from_list(queries),
        "relevant_docs": qrels,
        "top_ranked": candidates,
    }
