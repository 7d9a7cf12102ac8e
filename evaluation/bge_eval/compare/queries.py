"""Which queries gained and lost most, with their gold and their best documents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bge_eval.compare.outputs import Output
from bge_eval.records import Excerpt, Excerpts
from bge_eval.search.ranking import ranked

SHOWN = 3
"""Documents that are shown of each side."""
_TITLE = 90
"""Characters of a text that stand for a missing title."""


@dataclass(frozen=True, slots=True)
class Document:
    """A document beside a query."""

    id: str
    """Its id."""
    title: str
    """Its title, or the beginning of its text; "" where neither was kept."""
    grade: int | None
    """How it was judged; None if it was not."""


@dataclass(frozen=True, slots=True)
class Gold:
    """A relevant document, and where each side has it."""

    document: Document
    """The document."""
    before: int | None
    """Its place on the first side, 1 for the best; None if it was not retrieved."""
    after: int | None
    """Its place on the second side."""


@dataclass(frozen=True, slots=True)
class Changed:
    """A query whose value differs."""

    part: str
    """The run it belongs to, e.g. "SciFact/default/test"."""
    query: str
    """Its id."""
    text: str
    """The query; "" where it was not kept."""
    before: float
    """The first side's value."""
    after: float
    """The second side's value."""
    gold: tuple[Gold, ...]
    """Relevant documents, the highest grades first."""
    first: tuple[Document, ...]
    """The first side's best documents."""
    second: tuple[Document, ...]
    """The second side's best documents."""


def changed_queries(one: Output, two: Output, count: int) -> tuple[list[Changed], list[Changed]]:
    """Return the queries that gained most and those that lost most.

    Args:
        one: the first side on a task.
        two: the second side on the task.
        count: how many of each.

    Returns:
        Gained, greatest gain first; lost, greatest loss first. Queries without a difference are
        in neither.
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
    described: dict[tuple[str, str], Changed] = {}
    for part in dict.fromkeys(part for _, part, _ in [*gained, *lost]):
        queries = [query for _, own, query in [*gained, *lost] if own == part]
        for changed in _describe(one, two, part, queries):
            described[part, changed.query] = changed
    return (
        [described[part, query] for _, part, query in gained],
        [described[part, query] for _, part, query in lost],
    )


def _describe(one: Output, two: Output, part: str, queries: list[str]) -> list[Changed]:
    """Read a part's runs once and describe some of its queries."""
    first, second = one.sources[part], two.sources[part]
    runs = (first.run(), second.run())
    qrels = first.qrels()
    texts = _joined(first.texts(), second.texts())
    found = []
    for query in queries:
        orders = [ranked(run.get(query, {})) for run in runs]
        places = [{document: place for place, document in enumerate(o, 1)} for o in orders]
        judged = qrels.get(query, {})

        def document(id: str, judged: Mapping[str, int] = judged) -> Document:
            return Document(id, _title(texts.documents.get(id)), judged.get(id))

        gold = sorted((d for d in judged if judged[d] > 0), key=lambda d: (-judged[d], d))
        found.append(
            Changed(
                part=part,
                query=query,
                text=_plain(texts.queries.get(query, "")),
                before=one.values[part][query],
                after=two.values[part][query],
                gold=tuple(Gold(document(d), places[0].get(d), places[1].get(d)) for d in gold),
                first=tuple(map(document, orders[0][:SHOWN])),
                second=tuple(map(document, orders[1][:SHOWN])),
            )
        )
    return found


def _joined(one: Excerpts, two: Excerpts) -> Excerpts:
    return Excerpts({**two.queries, **one.queries}, {**two.documents, **one.documents})


def _plain(text: str) -> str:
    """Return a text on one line, without what would steer a terminal."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _title(excerpt: Excerpt | None) -> str:
    if excerpt is None:
        return ""
    text = _plain(excerpt.title or excerpt.text)
    return text if len(text) <= _TITLE else f"{text[: _TITLE - 1]}…"
