"""Measures by name, and their value for single queries.

A measure is written as ir_measures writes it: ``nDCG@10``, ``RR@10``, ``R@100``, ``MAP@100``,
``P@5``, ``Success@1``. mteb's keys (``ndcg_at_10``) are translated here and nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from bge_eval.errors import UsageError, did_you_mean
from bge_eval.records import Measure
from bge_eval.search.ranking import ranked

CUTOFFS = (1, 3, 5, 10, 20, 100, 1000)
"""The cutoffs that mteb computes for every retrieval task."""

_MTEB_KEYS = {
    "nDCG": "ndcg_at_{}",
    "RR": "mrr_at_{}",
    "R": "recall_at_{}",
    "MAP": "map_at_{}",
    "P": "precision_at_{}",
    "Success": "hit_rate_at_{}",
}
_OTHER_NAMES = {"mrr": "RR", "ap": "MAP", "recall": "R", "precision": "P", "hit_rate": "Success"}
_PYTREC = {"nDCG": "ndcg_cut", "R": "recall", "MAP": "map_cut", "P": "P", "Success": "success"}

PER_QUERY = (Measure("nDCG", 10), Measure("RR", 10), Measure("R", 100))
"""The measures that are saved for every single query."""


def mteb_key(measure: Measure) -> str:
    """Return a measure's key in mteb's score dictionary."""
    return _MTEB_KEYS[measure.name].format(measure.cutoff)


def measure_of_key(key: str) -> Measure | None:
    """Return the measure that one of mteb's keys stands for, or None."""
    for name, form in _MTEB_KEYS.items():
        match = re.fullmatch(form.format(r"(\d+)"), key)
        if match:
            return Measure(name, int(match[1]))
    return None


def parse_measure(text: str) -> Measure:
    """Read a measure's name, letter case aside.

    Raises:
        UsageError: there is no such measure, or mteb does not compute that cutoff.
    """
    match = re.fullmatch(r"(?P<name>[A-Za-z_]+)@(?P<cutoff>\d+)", text.strip())
    names = {name.casefold(): name for name in _MTEB_KEYS} | _OTHER_NAMES
    if match is None or match["name"].casefold() not in names:
        examples = [f"{name}@10" for name in _MTEB_KEYS]
        raise UsageError(
            f"'{text}' is no measure.{did_you_mean(text, examples)} Measures are"
            f" {', '.join(_MTEB_KEYS)} with a cutoff, such as nDCG@10 or R@100."
        )
    cutoff = int(match["cutoff"])
    if cutoff not in CUTOFFS:
        raise UsageError(
            f"'{text}': results hold the cutoffs {', '.join(map(str, CUTOFFS))}, not {cutoff}."
        )
    return Measure(names[match["name"].casefold()], cutoff)


def per_query(
    run: Mapping[str, Mapping[str, float]],
    qrels: Mapping[str, Mapping[str, int]],
    measures: Sequence[Measure] = PER_QUERY,
) -> dict[str, list[float]]:
    """Compute measures for every judged query.

    nDCG, R, MAP, P and Success are pytrec_eval's; RR with a cutoff, which trec_eval lacks, is
    one over the rank of the first relevant document within the cutoff, in trec_eval's order.
    A query without a retrieved document scores 0.

    Args:
        run: query id → document id → score.
        qrels: query id → document id → grade.
        measures: what to compute.

    Returns:
        Query id → values in the order of the measures, e.g. ``{"q1": [0.63, 0.5, 1.0]}``.
    """
    import pytrec_eval

    wanted = {f"{_PYTREC[m.name]}.{m.cutoff}" for m in measures if m.name in _PYTREC}
    evaluator = pytrec_eval.RelevanceEvaluator({q: dict(d) for q, d in qrels.items()}, wanted)
    computed = evaluator.evaluate({q: dict(d) for q, d in run.items()})
    values: dict[str, list[float]] = {}
    for query, judged in qrels.items():
        row = []
        for measure in measures:
            if measure.name == "RR":
                row.append(reciprocal_rank(run.get(query, {}), judged, measure.cutoff))
            else:
                key = f"{_PYTREC[measure.name]}_{measure.cutoff}"
                row.append(float(computed.get(query, {}).get(key, 0.0)))
        values[query] = row
    return values


def reciprocal_rank(scores: Mapping[str, float], judged: Mapping[str, int], cutoff: int) -> float:
    """Return one over the rank of the first relevant document, 0 beyond the cutoff."""
    for rank, document in enumerate(ranked(scores, cutoff), start=1):
        if judged.get(document, 0) > 0:
            return 1.0 / rank
    return 0.0
