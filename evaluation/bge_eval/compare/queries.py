"""The queries that gained and lost most, with their relevant and their top documents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bge_eval.compare.outputs import Output
from bge_eval.records import Excerpt, Excerpts
from bge_eval.search.ranking import ranked

SHOWN = 3
"""Number of top documents shown for each side."""
_TITLE = 90
"""Characters of a text that replace a missing title."""


@dataclass(frozen=True, slots=True)
class Document:
    """A document and its grade for one query."""

    id: str
    """Its id."""
    title: str
    """Its title, or the beginning of its text; "" if no excerpt is saved."""
    grade: int | None
    """Its grade in the qrels; None if it is not judged."""


@dataclass(frozen=True, slots=True)
class Gold:
    """A relevant document and its rank on each side."""

    document: Document
    """The document."""
    before: int | None
    """Its rank on the first side, from 1; None if it was not retrieved."""
    after: int | None
    """Its rank on the second side."""


@dataclass(frozen=True, slots=True)
class ChangedQuery:
    """A query whose value differs between the sides."""

    part: str
    """The run it belongs to, e.g. "SciFact/default/test"."""
    query: str
    """Its id."""
    text: str
    """The query; "" if no excerpt is saved."""
    before: float
    """The first side's value."""
    after: float
    """The second side's value."""
    gold: tuple[Gold, ...]
    """Relevant documents, highest grade first."""
    first: tuple[Document, ...]
    """The first side's top documents."""
    second: tuple[Document, ...]
    """The second side's top documents."""


def changed_queries(
    one: Output, two: Output, count: int
) -> tuple[list[ChangedQuery], list[ChangedQuery]]:
    """Return the queries that gained most and those that lost most.

    Args:
        one: the first side's output on a task.
        two: the second side's output on the task.
        count: the number of queries in each list.

    Returns:
        The queries that gained, greatest gain first, and those that lost, greatest loss first;
        queries with equal values are in neither list.
    """
    differences = [
        (two.values[part][query] - value, part, query)
        for part, values in one.values.items()
        if part in two.values and part in one.sources and part in two.sources
        for query, value in values.items()
        if query in two.values[part]
    ]
    gained = sorted((d for d in differences if d[0] > 1e-9), key=lambda d: (-d[0], d[1:]))[:count]
    lost = sorted(d for d in differences if d[0] < -1e-9)[:count]
    described: dict[tuple[str, str], ChangedQuery] = {}
    for part in dict.fromkeys(part for _, part, _ in [*gained, *lost]):
        queries = [query for _, own, query in [*gained, *lost] if own == part]
        for changed in _describe(one, two, part, queries):
            described[part, changed.query] = changed
    return (
        [described[part, query] for _, part, query in gained],
        [described[part, query] for _, part, query in lost],
    )


def _describe(one: Output, two: Output, part: str, queries: list[str]) -> list[ChangedQuery]:
    """Read the runs of a part and describe some of its queries."""
    first, second = one.sources[part], two.sources[part]
    runs = (first.run(), second.run())
    qrels = first.qrels()
    texts = _joined(first.texts(), second.texts())
    changed = []
    for query in queries:
        orders = [ranked(run.get(query, {})) for run in runs]
        ranks = [{document: rank for rank, document in enumerate(o, 1)} for o in orders]
        judged = qrels.get(query, {})

        def document(id: str, judged: Mapping[str, int] = judged) -> Document:
            return Document(id, _title(texts.documents.get(id)), judged.get(id))

        gold = sorted((d for d in judged if judged[d] > 0), key=lambda d: (-judged[d], d))
        changed.append(
            ChangedQuery(
                part=part,
                query=query,
                text=_plain(texts.queries.get(query, "")),
                before=one.values[part][query],
                after=two.values[part][query],
                gold=tuple(Gold(document(d), ranks[0].get(d), ranks[1].get(d)) for d in gold),
                first=tuple(map(document, orders[0][:SHOWN])),
                second=tuple(map(document, orders[1][:SHOWN])),
            )
        )
    return changed


def _joined(one: Excerpts, two: Excerpts) -> Excerpts:
    return Excerpts({**two.queries, **one.queries}, {**two.documents, **one.documents})


def _plain(text: str) -> str:
    """Return a text on one line, without the control characters of a terminal."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _title(excerpt: Excerpt | None) -> str:
    if excerpt is None:
        return ""
    text = _plain(excerpt.title or excerpt.text)
    return text if len(text) <= _TITLE else f"{text[: _TITLE - 1]}…"
