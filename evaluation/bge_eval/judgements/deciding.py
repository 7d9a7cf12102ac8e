"""The unjudged documents that decide a comparison of two runs, or the score of one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bge_eval.judgements.holes import unjudged_within, values_if
from bge_eval.measures.measure import Measure
from bge_eval.measures.rescore import judge
from bge_eval.records import Qrels, Run
from bge_eval.search.ranking import ranked

_MOST_TRIES = 64
"""Numbers of documents that are tried to reverse a comparison."""


@dataclass(frozen=True, slots=True)
class Unjudged:
    """A document within the cutoff of a run that is not judged for the query."""

    query: str
    """Query id."""
    document: str
    """Document id."""
    ranks: tuple[int | None, ...]
    """Its rank in each run, from 1; None beyond the cutoff."""
    swing: float
    """How far the mean, or the difference of the means B - A, moves if it alone is relevant."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What the unjudged documents could make of a score or a comparison."""

    value: float
    """The mean of one run, or the difference of the means of two, B - A."""
    documents: tuple[Unjudged, ...]
    """The unjudged documents, largest swing first."""
    reversing: int | None
    """Fewest of them, taken by their swing, whose relevance reverses the order of two runs; None
    if all together do not, and for one run."""


def decide(runs: Sequence[Run], qrels: Qrels, measure: Measure) -> Decision:
    """Return the unjudged documents within the cutoff of one or two runs, with their swings.

    Args:
        runs: one run, or A and B.
        qrels: the judgements of both.
        measure: a measure with a cutoff.

    Raises:
        DamagedError: a run and the qrels have no query in common.
    """
    assert measure.cutoff is not None
    signs = (1.0,) if len(runs) == 1 else (-1.0, 1.0)
    ranks = [_ranks(run, qrels, measure.cutoff) for run in runs]
    pairs = list(
        dict.fromkeys(
            (query, document)
            for query in qrels
            for run in runs
            for document in unjudged_within(run, qrels, query, measure.cutoff)
        )
    )
    swings = [0.0] * len(pairs)
    value = 0.0
    for sign, run in zip(signs, runs, strict=True):
        before = judge(run, qrels, [measure])[measure].per_query
        after = values_if(run, qrels, measure, [(query, [document]) for query, document in pairs])
        value += sign * sum(before.values()) / len(qrels)
        for place, ((query, _), new) in enumerate(zip(pairs, after, strict=True)):
            swings[place] += sign * (new - before[query]) / len(qrels)
    documents = [
        Unjudged(query, document, tuple(own.get((query, document)) for own in ranks), swing)
        for (query, document), swing in zip(pairs, swings, strict=True)
    ]
    documents.sort(key=lambda one: (-abs(one.swing), one.query, one.document))
    reversing = _reversing(runs, qrels, measure, value, documents) if len(runs) == 2 else None
    return Decision(value, tuple(documents), reversing)


def _ranks(run: Run, qrels: Qrels, cutoff: int) -> dict[tuple[str, str], int]:
    return {
        (query, document): rank
        for query in qrels
        for rank, document in enumerate(ranked(run.get(query, {}), cutoff), start=1)
    }


def _reversing(
    runs: Sequence[Run],
    qrels: Qrels,
    measure: Measure,
    difference: float,
    documents: Iterable[Unjudged],
) -> int | None:
    """Return how many documents, those that help the losing side most first, reverse the order.

    Swings of one query's documents do not add up, so every number is scored anew.
    """
    helping = [one for one in documents if one.swing * difference < 0]
    if not difference or not helping:
        return None
    total, first = 0.0, len(helping)
    for place, one in enumerate(helping, start=1):
        total += abs(one.swing)
        if total > abs(difference):
            first = place
            break
    for count in range(first, min(first + _MOST_TRIES, len(helping)) + 1):
        if _difference_with(runs, qrels, measure, helping[:count]) * difference < 0:
            return count
    return None


def _difference_with(
    runs: Sequence[Run], qrels: Qrels, measure: Measure, relevant: Sequence[Unjudged]
) -> float:
    added: dict[str, set[str]] = {query: set() for query in qrels}
    for one in relevant:
        added[one.query].add(one.document)
    tries = list(added.items())
    before, after = (sum(values_if(run, qrels, measure, tries)) for run in runs)
    return (after - before) / len(qrels)
