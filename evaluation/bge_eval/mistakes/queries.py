"""The judged queries of a run, each with its kind of mistake."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from bge_eval.measures.measure import Measure
from bge_eval.measures.rescore import judge
from bge_eval.records import Qrels, Run
from bge_eval.search.ranking import ranked

DEPTH = 100
"""Number of top documents in which mistakes are looked for."""


class Kind(StrEnum):
    """Kind of mistake; every query has exactly one."""

    MISSED = f"nothing relevant in the top {DEPTH}"
    JUDGED_ABOVE = "a judged false positive above the first relevant"
    UNJUDGED_ABOVE = "only unjudged documents above the first relevant"
    INCOMPLETE = f"relevant first, others not in the top {DEPTH}"
    NONE = "no mistake"


ABOVE = (Kind.JUDGED_ABOVE, Kind.UNJUDGED_ABOVE)
"""The kinds with a false positive above the first relevant document."""


@dataclass(frozen=True, slots=True)
class JudgedQuery:
    """A query with at least one relevant document, and what the run made of it."""

    part: str
    """Subset and split of the run, e.g. "zh/test"; "" where a task has a single run."""
    id: str
    """Its id."""
    value: float
    """The measure's value, 0 to 1."""
    kind: Kind
    """Its kind of mistake."""
    relevant: int
    """Number of documents judged relevant."""
    first: int | None
    """Rank of the first relevant document, from 1; None if the run has none."""
    top: tuple[str, ...]
    """The documents above the first relevant one, at most three."""


def judged_queries(part: str, run: Run, qrels: Qrels, measure: Measure) -> list[JudgedQuery]:
    """Return every query with a relevant document, in the order of the qrels.

    Args:
        part: the name of the run among the task's runs.
        run: query id → document id → score; a judged query without an entry retrieved nothing.
        qrels: the judgements; a grade above 0 is relevant.
        measure: the measure whose values the queries get.

    Raises:
        DamagedError: the run and the qrels have no query in common.
    """
    values = judge(run, qrels, [measure])[measure].per_query
    return [
        _judged(part, query, values[query], run.get(query, {}), grades)
        for query, grades in qrels.items()
        if any(grade > 0 for grade in grades.values())
    ]


def _judged(
    part: str, query: str, value: float, scores: Mapping[str, float], grades: Mapping[str, int]
) -> JudgedQuery:
    order = ranked(scores)
    relevant = {document for document, grade in grades.items() if grade > 0}
    first = next((rank for rank, doc in enumerate(order, start=1) if doc in relevant), None)
    above = order[: first - 1] if first else order
    if first is None or first > DEPTH:
        kind = Kind.MISSED
    elif any(document in grades for document in above):
        kind = Kind.JUDGED_ABOVE
    elif above:
        kind = Kind.UNJUDGED_ABOVE
    else:
        inside = relevant.intersection(order[:DEPTH])
        kind = Kind.NONE if len(inside) == min(len(relevant), DEPTH) else Kind.INCOMPLETE
    return JudgedQuery(part, query, value, kind, len(relevant), first, tuple(above[:3]))
