"""Compute measures from a run and its qrels, whichever tool made the run; no model is needed.

ir_measures computes most measures (MacAvaney, Macdonald and Ounis, "Streamlining Evaluation with
ir-measures", ECIR 2022), nearly all of them by pytrec_eval; a registered function computes the
others (`bge_eval.measures.registry`).

The tools break ties differently, so each of them gets a run without ties, in trec_eval's order:
by score as a 32-bit number, equal scores by document id, descending
(https://github.com/usnistgov/trec_eval, form_res_rels.c). A judged query without a retrieved
document counts with the measure's lowest value, as in mteb; a query without qrels is left out.
So does a query of which Accuracy retrieves no relevant document, which ir_measures leaves out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bge_eval.errors import DamagedError, UsageError
from bge_eval.measures.expression import ir_measure
from bge_eval.measures.measure import Measure
from bge_eval.measures.registry import Function, definition
from bge_eval.measures.values import Values
from bge_eval.records import Qrels, Run


def judge(
    run: Mapping[str, Mapping[str, float]],
    qrels: Mapping[str, Mapping[str, int]],
    measures: Sequence[Measure],
) -> dict[Measure, Values]:
    """Compute measures of a run.

    Args:
        run: query id → document id → score.
        qrels: query id → document id → grade.
        measures: from `parse_measures`.

    Returns:
        Measure → its mean and its value for every judged query.

    Raises:
        MissingError: a measure of BEIR's is asked for and beir is not installed.
        DamagedError: the run and the qrels have no query in common, or a score is not a number.
    """
    ordered = _in_trec_order({query: run[query] for query in qrels if query in run})
    if not ordered:
        raise DamagedError(
            f"The run and the qrels have no query in common: the run's are"
            f" {_first_three(run)}, the qrels' {_first_three(qrels)}."
        )
    plain = {query: dict(grades) for query, grades in qrels.items()}
    functions = {measure: _function(measure) for measure in measures}
    values = _by_ir_measures(ordered, plain, [m for m in measures if functions[m] is None])
    for measure, function in functions.items():
        if function is not None and measure.cutoff is not None:
            values[measure] = function(ordered, plain, measure.cutoff)
    return {measure: values[measure] for measure in measures}


def without_identical_ids(run: Run) -> Run:
    """Drop documents that have the query's own id, as BEIR does for ArguAna and Quora."""
    return {
        query: {document: score for document, score in scores.items() if document != query}
        for query, scores in run.items()
    }


def depth(run: Mapping[str, Mapping[str, float]]) -> int:
    """Return how many documents the longest list of a run has."""
    return max(map(len, run.values()), default=0)


def _function(measure: Measure) -> Function | None:
    entry = definition(measure.name)
    return entry.compute if entry is not None else None


def _in_trec_order(run: Mapping[str, Mapping[str, float]]) -> Run:
    """Return a run whose scores are places from the end, in the order of trec_eval."""
    import numpy as np

    ordered: Run = {}
    for query, scores in run.items():
        single = np.fromiter(scores.values(), np.float64, len(scores)).astype(np.float32)
        if np.isnan(single).any():
            raise DamagedError(f"A document of query '{query}' has a score that is not a number.")
        ranked = sorted(zip(single.tolist(), scores, strict=True))
        ordered[query] = {document: float(place) for place, (_, document) in enumerate(ranked, 1)}
    return ordered


def _by_ir_measures(run: Run, qrels: Qrels, measures: Sequence[Measure]) -> dict[Measure, Values]:
    if not measures:
        return {}
    accuracies = [measure for measure in measures if measure.name == "Accuracy"]
    numbered = [measure for measure in measures if _needs_numbers(measure)]
    others = [m for m in measures if m not in accuracies and m not in numbered]
    values = {measure: _accuracy(run, qrels, measure) for measure in accuracies}
    values |= _calculated(run, qrels, others)
    if numbered:
        numbers = {query: str(number) for number, query in enumerate(qrels, start=1)}
        documents = _Numbers()
        by_number = _calculated(
            {numbers[q]: {documents[d]: s for d, s in scores.items()} for q, scores in run.items()},
            {
                numbers[q]: {documents[d]: g for d, g in grades.items()}
                for q, grades in qrels.items()
            },
            numbered,
        )
        for measure, found in by_number.items():
            per_query = {query: found.per_query[number] for query, number in numbers.items()}
            values[measure] = Values(found.mean, per_query)
    return values


class _Numbers(dict[str, str]):
    """A number for every document's id, in the order in which they come."""

    def __missing__(self, document: str) -> str:
        self[document] = f"d{len(self)}"
        return self[document]


def _needs_numbers(measure: Measure) -> bool:
    """Tell whether gdeval computes a measure, which reads no ids of queries but numbers."""
    return measure.name == "ERR" or (measure.name == "nDCG" and "exp-log2" in measure.parameters)


def _accuracy(run: Run, qrels: Qrels, measure: Measure) -> Values:
    """Compute ir_measures' Accuracy: relevant documents before others, of all pairs.

    ir_measures has no value for a query without a relevant document, which counts 0 here, and
    divides by zero where every document is relevant, which is 1.
    """
    import ir_measures

    parsed = ir_measure(str(measure))
    per_query = dict.fromkeys(qrels, 0.0)
    for query, scores in run.items():
        try:
            computed: Any = ir_measures.calc([parsed], {query: qrels[query]}, {query: scores})
        except ZeroDivisionError:
            per_query[query] = 1.0
            continue
        for value in computed.per_query:
            per_query[query] = float(value.value)
    return Values(sum(per_query.values()) / len(per_query), per_query)


def _calculated(run: Run, qrels: Qrels, measures: Sequence[Measure]) -> dict[Measure, Values]:
    """Let ir_measures compute measures."""
    import subprocess

    import ir_measures

    if not measures:
        return {}
    by_ir_measure: dict[Any, Measure] = {ir_measure(str(m)): m for m in measures}
    try:
        computed: Any = ir_measures.calc(list(by_ir_measure), qrels, run)
    except (
        ValueError,
        RuntimeError,
        KeyError,
        OSError,
        subprocess.CalledProcessError,
    ) as error:
        raise UsageError(
            f"ir_measures cannot compute {', '.join(map(str, measures))} here ({error})."
        ) from error
    per_query: dict[Measure, dict[str, float]] = {measure: {} for measure in measures}
    for value in computed.per_query:
        per_query[by_ir_measure[value.measure]][value.query_id] = float(value.value)
    return {
        measure: Values(
            float(computed.aggregated[theirs]),
            {query: per_query[measure][query] for query in qrels},
        )
        for theirs, measure in by_ir_measure.items()
    }


def _first_three(queries: Iterable[str]) -> str:
    first = [f"'{query}'" for query in list(queries)[:3]]
    return ", ".join(first) + " …" if first else "none"
