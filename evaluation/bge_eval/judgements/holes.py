"""What the documents that nobody judged hide in a score.

A measure counts an unjudged document as irrelevant, which depresses a system that retrieves what
earlier systems did not (Buckley and Voorhees, "Retrieval Evaluation with Incomplete Information",
SIGIR 2004). Condensed lists leave such documents out (Sakai, "Alternatives to Bpref", SIGIR 2007).
The bounds follow Moffat and Zobel's residual ("Rank-biased precision", TOIS 2008): the least and
the greatest value that any judgement of the unjudged documents within the cutoff could give.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from bge_eval.measures.measure import Measure
from bge_eval.measures.rescore import depth, judge
from bge_eval.records import Qrels, Run
from bge_eval.search.ranking import best, ranked

DEEPEST = 20
"""Largest cutoff for which bounds are computed; a deeper one has too many judgements to try."""
_AT_ONCE = 20_000
"""Judgements that are tried in one call."""


@dataclass(frozen=True, slots=True)
class Holes:
    """One measure of a run, and what unjudged documents could make of it; all of 0 to 1."""

    measure: Measure
    """The measure."""
    value: float
    """Its value, unjudged documents counted as irrelevant."""
    judged: float
    """Share of the documents within the cutoff that are judged (Judged@k)."""
    all_relevant: float | None
    """Its value if every unjudged document within the cutoff were relevant."""
    low: float | None
    """The least value that judgements of them could give; None without a small cutoff."""
    high: float | None
    """The greatest value that judgements of them could give."""
    condensed: float
    """Its value with unjudged documents taken out of the run."""


def holes(run: Run, qrels: Qrels, measure: Measure) -> Holes:
    """Return a measure with its share of judged documents, its bounds and its condensed value.

    Relevant means of the highest grade that the judgements have. nDCG and recall count how many
    documents are relevant in all, so their value with every document relevant may be lower than
    the measure itself; the bounds take this into account.

    Raises:
        DamagedError: the run and the qrels have no query in common.
    """
    cutoff = measure.cutoff or depth(run)
    value = judge(run, qrels, [measure])[measure].mean
    judged = Measure("Judged", max(cutoff, 1))
    share = judge(run, qrels, [judged])[judged].mean
    condensed = judge(condensed_run(run, qrels), qrels, [measure])[measure].mean
    every = low = high = None
    if measure.cutoff is not None:
        tries = []
        for query in qrels:
            unjudged = unjudged_within(run, qrels, query, measure.cutoff)
            tries.append((query, frozenset(unjudged)))
        every = _mean(values_if(run, qrels, measure, tries))
    if measure.cutoff is not None and measure.cutoff <= DEEPEST:
        low, high = _bounds(run, qrels, measure, measure.cutoff)
    return Holes(measure, value, share, every, low, high, condensed)


def condensed_run(run: Run, qrels: Qrels) -> Run:
    """Return a run without its unjudged documents; a query keeps its place without any."""
    return {
        query: {d: score for d, score in scores.items() if d in qrels.get(query, {})}
        for query, scores in run.items()
    }


def unjudged_within(run: Run, qrels: Qrels, query: str, cutoff: int) -> list[str]:
    """Return the unjudged documents of a query within a cutoff, best first."""
    judged = qrels[query]
    return [d for d in ranked(run.get(query, {}), cutoff) if d not in judged]


def values_if(
    run: Run, qrels: Qrels, measure: Measure, tries: Sequence[tuple[str, Collection[str]]]
) -> list[float]:
    """Return a measure's value of single queries under further judgements.

    Args:
        run: the run.
        qrels: the judgements.
        measure: a measure with a cutoff.
        tries: (query, documents that are judged relevant as well).

    Returns:
        One value for each try.
    """
    grade = max((g for grades in qrels.values() for g in grades.values()), default=1) or 1
    heads = {query: best(run.get(query, {}), measure.cutoff) for query in {q for q, _ in tries}}
    values: list[float] = []
    for start in range(0, len(tries), _AT_ONCE):
        block = tries[start : start + _AT_ONCE]
        tried_run = {str(place): heads[query] for place, (query, _) in enumerate(block)}
        tried_qrels = {
            str(place): {**qrels[query], **dict.fromkeys(relevant, grade)}
            for place, (query, relevant) in enumerate(block)
        }
        judged = judge(tried_run, tried_qrels, [measure])[measure].per_query
        values += [judged[str(place)] for place in range(len(block))]
    return values


def _bounds(run: Run, qrels: Qrels, measure: Measure, cutoff: int) -> tuple[float, float]:
    """Return the least and the greatest mean over all judgements of the unjudged documents.

    For a given number of relevant ones among them, a measure that rewards early documents is
    greatest if they are the first and least if they are the last; so for each number both are
    tried, and no other judgement needs to be.
    """
    tries: list[tuple[str, Collection[str]]] = []
    for query in qrels:
        unjudged = unjudged_within(run, qrels, query, cutoff)
        tries.append((query, ()))
        for count in range(1, len(unjudged) + 1):
            tries += [(query, unjudged[:count]), (query, unjudged[-count:])]
    by_query: dict[str, list[float]] = {}
    for (query, _), value in zip(tries, values_if(run, qrels, measure, tries), strict=True):
        by_query.setdefault(query, []).append(value)
    return _mean(map(min, by_query.values())), _mean(map(max, by_query.values()))


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers)
