"""Reranking rows: a query with its relevant and its other candidates on one line.

::

    <folder>/<split>.jsonl      {"query": "…", "positive": ["…"], "negative": ["…"]}
    a dataset repository        the same three columns in one configuration

They become a retrieval task with candidate lists, with the ids that mteb's own conversion of
this old format gives (``mteb.abstasks.text.reranking``); a query needs at least one positive
and one negative.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from bge_eval.data.files import Place, records
from bge_eval.errors import DamagedError


def is_candidates(place: Place) -> bool:
    """Tell whether a rows file holds reranking rows, by its first line."""
    first = next(records(place), None)
    return first is not None and {"query", "positive", "negative"} <= set(first[1])


def load_candidates(place: Place, split: str) -> dict[str, Any]:
    """Read a file of reranking rows into the form of a retrieval split with candidate lists.

    Returns:
        ``corpus`` and ``queries`` tables, ``relevant_docs`` and ``top_ranked``.

    Raises:
        DamagedError: names file and line of what is wrong.
    """
    rows = ((f"{place}, line {number}", record) for number, record in records(place))
    return split_of_candidates(rows, split, str(place))


def split_of_candidates(
    rows: Iterable[tuple[str, Mapping[str, Any]]], split: str, origin: str
) -> dict[str, Any]:
    """Turn reranking rows into the form of a retrieval split with candidate lists.

    Args:
        rows: where a row stands, for messages, and the row with query, positive and negative.
        split: the split, of which mteb makes the ids.
        origin: where all of them stand.

    Raises:
        DamagedError: a row is not as it must be, or none is left.
    """
    from datasets import Dataset

    corpus: list[dict[str, str]] = []
    queries: list[dict[str, str]] = []
    qrels: dict[str, dict[str, int]] = {}
    candidates: dict[str, list[str]] = {}
    for where, record in rows:
        lists = {name: _texts(record, name, where) for name in ("positive", "negative")}
        if not isinstance(record.get("query"), str):
            raise DamagedError(f"{where}: query is missing or no text.")
        if not lists["positive"] or not lists["negative"]:
            continue
        query = f"{split}_query{len(queries)}"
        queries.append({"id": query, "text": record["query"]})
        for prefix, name, grade in (("apositive", "positive", 1), ("negative", "negative", 0)):
            for place_in_list, text in enumerate(lists[name]):
                document = f"{prefix}_{query}_{place_in_list:05d}"
                corpus.append({"id": document, "title": "", "text": text})
                qrels.setdefault(query, {})[document] = grade
                candidates.setdefault(query, []).append(document)
    if not queries:
        raise DamagedError(
            f"{origin} holds no query with at least one positive and one negative candidate."
        )
    return {
        "corpus": Dataset.from_list(corpus),
        "queries": Dataset.from_list(queries),
        "relevant_docs": qrels,
        "top_ranked": candidates,
    }


def _texts(record: Mapping[str, Any], name: str, where: str) -> list[str]:
    texts = record.get(name)
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise DamagedError(f"{where}: {name} is no list of texts.")
    return texts
