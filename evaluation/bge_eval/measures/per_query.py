"""The values of every query that are saved with a run, as mteb computes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bge_eval.measures.measure import Measure
from bge_eval.measures.registry import definition
from bge_eval.search.ranking import ranked

PER_QUERY = (Measure("nDCG", 10), Measure("RR", 10), Measure("R", 100))
"""The measures that are saved for every query."""


def per_query(
    run: Mapping[str, Mapping[str, float]],
    qrels: Mapping[str, Mapping[str, int]],
    measures: Sequence[Measure] = PER_QUERY,
) -> dict[str, list[float]]:
    """Compute measures that mteb's results hold for every judged query.

    nDCG, R, AP, P and Success are pytrec_eval's; RR with a cutoff, which trec_eval lacks, is
    one over the rank of the first relevant document within the cutoff, in trec_eval's order.
    A query without a retrieved document scores 0.

    Args:
        run: query id → document id → score.
        qrels: query id → document id → grade.
        measures: the measures, each with a cutoff.

    Returns:
        Query id → values in the order of the measures, e.g. ``{"q1": [0.63, 0.5, 1.0]}``.
    """
    import pytrec_eval

    names = {measure: _pytrec_eval_name(measure) for measure in measures if measure.name != "RR"}
    requested = {f"{name}.{measure.cutoff}" for measure, name in names.items()}
    evaluator = pytrec_eval.RelevanceEvaluator({q: dict(d) for q, d in qrels.items()}, requested)
    computed = evaluator.evaluate({q: dict(d) for q, d in run.items()})
    values: dict[str, list[float]] = {}
    for query, judged in qrels.items():
        row = []
        for measure in measures:
            if measure in names:
                key = f"{names[measure]}_{measure.cutoff}"
                row.append(float(computed.get(query, {}).get(key, 0.0)))
            else:
                row.append(_reciprocal_rank(run.get(query, {}), judged, measure.cutoff))
        values[query] = row
    return values


def _pytrec_eval_name(measure: Measure) -> str:
    entry = definition(measure.name)
    if entry is None or not entry.pytrec_eval or measure.cutoff is None or measure.parameters:
        raise ValueError(f"{measure} is not a measure that mteb's results hold")
    return entry.pytrec_eval


def _reciprocal_rank(
    scores: Mapping[str, float], judged: Mapping[str, int], cutoff: int | None
) -> float:
    """Return one over the rank of the first relevant document, 0 beyond the cutoff."""
    for rank, document in enumerate(ranked(scores, cutoff), start=1):
        if judged.get(document, 0) > 0:
            return 1.0 / rank
    return 0.0
