"""Packs groups of queries for the page, as gzipped blocks that the browser reads on demand.

A group has one block of queries, one block of values for each measure, and blocks of documents
and rankings for `CHUNK` queries each. So a page with a million queries opens as fast as one with
ten. In the blocks, queries, documents and systems are numbers: an id is never the name of a field,
so an id such as ``constructor`` cannot meet a field that every JavaScript object has.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bge_eval.records import Excerpt, Qrels
from bge_eval.report.queries import QueryGroup
from bge_eval.statistics.all_pairs import PairTest
from bge_eval.statistics.samples import Values

DEPTH = 10
"""Number of documents shown for a query and a system."""
TITLE_LENGTH = 160
"""Number of characters shown of a document's title."""
TEXT_LENGTH = 280
"""Number of characters shown of a document's text."""
QUERY_LENGTH = 160
"""Number of characters of a query in the list; the selected query is shown in full."""
CHUNK = 64
"""Number of queries in one block of documents."""
SCALE = 10_000
"""Values are stored as whole numbers of this fraction."""

Heads = Mapping[int, Mapping[str, tuple[list[str], dict[str, int]]]]
"""System → query id → its first documents, and the ranks of its relevant ones."""


@dataclass(frozen=True, slots=True)
class Block:
    """One block of the page."""

    name: str
    """Its name, e.g. ``queries-0``, ``values-0-2``, ``documents-0-17``."""
    content: str
    """Base64 of gzipped JSON."""


def pack(number: int, group: QueryGroup) -> Iterator[Block]:
    """Yield the blocks of a group of queries.

    Args:
        number: the group's place on the page, part of the blocks' names.
        group: the queries.
    """
    queries: dict[str, str] = {}
    documents: dict[str, Excerpt] = {}
    heads = {}
    for index in group.systems:
        texts = group.results[index].texts(group.part)
        queries.update(texts.queries)
        documents.update(texts.documents)
        heads[index] = group.results[index].heads(group.part, DEPTH, group.qrels)
    ids = group.queries
    yield Block(f"queries-{number}", _packed(_overview(group, queries, heads)))
    for measure in range(len(group.measures)):
        content = {
            "values": [_whole(group.values[index][measure]) for index in group.systems],
            "tests": [_test(test) for test in group.tests(measure)],
        }
        yield Block(f"values-{number}-{measure}", _packed(content))
    for start in range(0, len(ids), CHUNK):
        content = _documents(ids[start : start + CHUNK], group.qrels, heads, queries, documents)
        yield Block(f"documents-{number}-{start // CHUNK}", _packed(content))


def _overview(group: QueryGroup, queries: Mapping[str, str], heads: Heads) -> dict[str, Any]:
    """Return the queries of a group: ids, texts, and what they are grouped by."""
    ids, qrels = group.queries, group.qrels
    return {
        "ids": ids,
        "texts": [_cut(queries.get(query, ""), QUERY_LENGTH) for query in ids],
        "lengths": [len(queries.get(query, "")) for query in ids],
        "relevant": [sum(grade > 0 for grade in qrels[query].values()) for query in ids],
        # The rank of the first relevant document, for each system; 0 if none was retrieved.
        "first": [
            [min(heads[index][query][1].values(), default=0) for query in ids]
            for index in group.systems
        ],
    }


def _documents(
    ids: Sequence[str],
    qrels: Qrels,
    heads: Heads,
    queries: Mapping[str, str],
    documents: Mapping[str, Excerpt],
) -> dict[str, Any]:
    """Return the texts and rankings of some queries; documents are places in one list."""
    places: dict[str, int] = {}

    def place(document: str) -> int:
        return places.setdefault(document, len(places))

    entries = []
    for query in ids:
        text = queries.get(query, "")
        relevant = [[place(doc), grade] for doc, grade in qrels[query].items() if grade > 0]
        rankings = []
        for of_system in heads.values():
            head, ranks = of_system[query]
            later = [[place(doc), rank] for doc, rank in ranks.items() if rank > DEPTH]
            rankings.append([[place(doc) for doc in head], later])
        # The list of queries has short texts in full.
        shown = text if _cut(text, QUERY_LENGTH) != text else ""
        entries.append([shown, relevant, rankings])
    listed = []
    for document in places:
        excerpt = documents.get(document) or Excerpt("", "")
        listed.append(
            [document, _cut(excerpt.title, TITLE_LENGTH), _cut(excerpt.text, TEXT_LENGTH)]
        )
    return {"queries": entries, "documents": listed}


def _test(test: PairTest) -> list[float | None]:
    interval = test.interval
    ends = (interval.low, interval.high) if interval else (None, None)
    return [test.first, test.second, *(_rounded(value) for value in (*ends, test.p_value))]


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


def _whole(values: Values) -> list[int | None]:
    return [None if np.isnan(value) else round(value * SCALE) for value in values.tolist()]


def _cut(text: str, length: int) -> str:
    """Shorten a text; an ellipsis marks the cut."""
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def _packed(content: Any) -> str:
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    packed = gzip.compress(text.encode("utf-8", "replace"), compresslevel=6, mtime=0)
    return base64.b64encode(packed).decode("ascii")
