"""Any measure from a run and its judgements, whoever made the run; no model is needed.

Measures are written and computed as ir_measures has them (``nDCG@20``, ``RR@10``, ``AP(rel=2)``;
MacAvaney, Macdonald and Ounis, "Streamlining Evaluation with ir-measures", ECIR 2022), most of
them by pytrec_eval. BEIR's own (``R_cap@100``, ``Hole@10``, ``beir:Accuracy@10``) are computed by
beir's functions.

Every tool breaks ties in its own way, so all of them are given the order that trec_eval gives:
by score as a 32-bit number, equal scores by document id, descending
(https://github.com/usnistgov/trec_eval, form_res_rels.c). A judged query without a retrieved
document counts with the measure's lowest value, as in mteb; a query that is not judged is left
out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bge_eval.errors import DamagedError, MissingError, UsageError, did_you_mean
from bge_eval.records import Qrels, Run, SplitKey
from bge_eval.results.saved import SavedResult

if TYPE_CHECKING:
    from collections.abc import Callable

EXAMPLES = ("nDCG@10", "RR@10", "R@100", "AP(rel=2)", "P@5", "Success@5", "Judged@10", "R_cap@100")
"""Names that an error message shows."""

_BEIR = {"R_cap": "recall_cap", "Hole": "hole", "Accuracy": "top_k_accuracy"}
"""BEIR's measures and its functions (``beir.retrieval.custom_metrics``)."""
_BEIR_NAME = re.compile(r"(?P<beir>beir:)?(?P<name>r_cap|hole|accuracy)@(?P<cutoff>\d+)", re.I)


@dataclass(frozen=True, slots=True)
class AnyMeasure:
    """A measure that can be computed from a run and judgements."""

    name: str
    """How it is written, e.g. "nDCG@20"; its identity."""
    beir: str = ""
    """The name of beir's function, or "" for a measure of ir_measures."""
    cutoff: int | None = None
    """How many of the first documents count; None for all."""

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Judged:
    """The values of one measure."""

    mean: float
    """Over the judged queries, as the measure's own tool takes it."""
    per_query: dict[str, float]
    """Query id → value, for every judged query."""


@dataclass(frozen=True, slots=True)
class Part:
    """One run that a result is scored on: a task, or a split or subset of one."""

    result: SavedResult
    """The result beside which it stands; for an aggregate, that of one of its parts."""
    key: SplitKey
    """(subset, split)."""

    @property
    def name(self) -> str:
        """Return the part's name, e.g. "XQuADRetrieval/zh/validation"."""
        return "/".join((self.result.task, *self.key))


def parse_measures(texts: Iterable[str]) -> list[AnyMeasure]:
    """Read measures' names, letter case aside; spaces may stand between several.

    Raises:
        UsageError: there is no such measure, or nothing installed computes it.
    """
    named = [name for text in texts for name in re.split(r"\s+(?![^(]*\))", text.strip()) if name]
    return list(dict.fromkeys(map(parse_any_measure, named)))


def parse_any_measure(text: str) -> AnyMeasure:
    """Read one measure's name, letter case aside.

    Raises:
        UsageError: as `parse_measures`.
    """
    import ir_measures as theirs

    ir_measures: Any = theirs
    if (match := _BEIR_NAME.fullmatch(text)) and (
        match["beir"] or match["name"].casefold() != "accuracy"
    ):
        name = next(name for name in _BEIR if name.casefold() == match["name"].casefold())
        prefix = "beir:" if name == "Accuracy" else ""
        cutoff = int(match["cutoff"])
        if not cutoff:
            raise UsageError(f"'{text}': a cutoff is at least 1.")
        return AnyMeasure(f"{prefix}{name}@{cutoff}", _BEIR[name], cutoff)
    known = {name.casefold(): name for name in ir_measures.measures.registry}
    spelled = re.sub(r"^\w+", lambda name: known.get(name[0].casefold(), name[0]), text)
    try:
        measure = ir_measures.parse_measure(spelled)
        measure.validate_params()
    except AssertionError as error:
        raise UsageError(
            f"'{text}' has a wrong parameter, or lacks one that it needs, such as a cutoff (@10)."
            f" Measures are written as ir_measures writes them, such as {', '.join(EXAMPLES)}."
        ) from error
    except (ValueError, NameError, KeyError, TypeError, SyntaxError) as error:
        raise UsageError(
            f"'{text}' is no measure.{did_you_mean(text, [*EXAMPLES, *known.values()])} Measures"
            f" are written as ir_measures writes them, such as {', '.join(EXAMPLES)}."
        ) from error
    try:
        computed = ir_measures.DefaultPipeline.supports(measure)
    except (ValueError, AssertionError):
        computed = False
    if not computed:
        raise UsageError(
            f"'{text}': none of ir_measures' tools that are installed computes it. pytrec_eval,"
            " which always is, computes nDCG, AP, R, P, RR, Success, Rprec, Bpref and infAP."
        )
    depth = measure.params.get("cutoff")
    if depth is not None and depth < 1:
        raise UsageError(f"'{text}': a cutoff is at least 1.")
    return AnyMeasure(str(measure), cutoff=depth)


def judge(
    run: Mapping[str, Mapping[str, float]],
    qrels: Mapping[str, Mapping[str, int]],
    measures: Sequence[AnyMeasure],
) -> dict[AnyMeasure, Judged]:
    """Compute measures of a run.

    Args:
        run: query id → document id → score.
        qrels: query id → document id → grade.
        measures: from `parse_measures`.

    Returns:
        Measure → its mean and its value for every judged query.

    Raises:
        MissingError: a measure of BEIR's is asked for and beir is not installed.
        DamagedError: the run and the judgements have no query in common.
    """
    ordered = _in_trec_order({query: run[query] for query in qrels if query in run})
    if not ordered:
        raise DamagedError(
            f"The run and the judgements have no query in common: the run's are"
            f" {_some(run)}, the judgements' {_some(qrels)}."
        )
    plain = {query: dict(judged) for query, judged in qrels.items()}
    found = _by_ir_measures(ordered, plain, [m for m in measures if not m.beir])
    for measure in measures:
        if measure.beir:
            found[measure] = _by_beir(ordered, plain, measure)
    return {measure: found[measure] for measure in measures}


def parts_of(result: SavedResult) -> list[Part]:
    """Return the runs that a result is the mean of; none for a task that searches nothing.

    For an aggregate (CQADupstackRetrieval) they are the runs of the results that it averages,
    which stand in the same folder.

    Raises:
        MissingError: one of those results is not there.
    """
    inner = result.record.get("aggregate_of") or []
    if not inner:
        return [Part(result, key) for key in result.parts]
    parts = []
    for task in inner:
        path = result.path.with_name(f"{task}.json")
        if not path.is_file():
            raise MissingError(
                f"{result.task} is the mean over {len(inner)} tasks, and {path} is not there."
            )
        parts += parts_of(SavedResult(path))
    return parts


def without_identical_ids(run: Run) -> Run:
    """Drop documents that have the query's own id, as BEIR does for ArguAna and Quora."""
    return {
        query: {document: score for document, score in scores.items() if document != query}
        for query, scores in run.items()
    }


def depth(run: Mapping[str, Mapping[str, float]]) -> int:
    """Return how many documents the longest list of a run has."""
    return max(map(len, run.values()), default=0)


def _in_trec_order(run: Mapping[str, Mapping[str, float]]) -> Run:
    """Return a run whose scores are places from the end, in the order of trec_eval."""
    import numpy as np

    ordered: Run = {}
    for query, scores in run.items():
        single = np.fromiter(scores.values(), np.float64, len(scores)).astype(np.float32)
        if np.isnan(single).any():
            raise DamagedError(f"A document of query '{query}' has no number as its score.")
        ranked = sorted(zip(single.tolist(), scores, strict=True))
        ordered[query] = {document: float(place) for place, (_, document) in enumerate(ranked, 1)}
    return ordered


def _by_ir_measures(
    run: Run, qrels: Qrels, measures: Sequence[AnyMeasure]
) -> dict[AnyMeasure, Judged]:
    import ir_measures

    if not measures:
        return {}
    theirs: dict[Any, AnyMeasure] = {ir_measures.parse_measure(m.name): m for m in measures}
    try:
        computed: Any = ir_measures.calc(list(theirs), qrels, run)
    except (ValueError, RuntimeError, KeyError, OSError) as error:
        raise UsageError(
            f"ir_measures cannot compute {', '.join(map(str, measures))} here ({error})."
        ) from error
    per_query: dict[AnyMeasure, dict[str, float]] = {measure: {} for measure in measures}
    for value in computed.per_query:
        per_query[theirs[value.measure]][value.query_id] = float(value.value)
    return {
        measure: Judged(
            float(computed.aggregated[theirs_own]), {q: per_query[measure][q] for q in qrels}
        )
        for theirs_own, measure in theirs.items()
    }


def _by_beir(run: Run, qrels: Qrels, measure: AnyMeasure) -> Judged:
    """Compute a measure by beir's function, which gives means, with five decimals.

    A single query's value is the mean over that query alone. What beir's functions cannot take,
    a query without a relevant document, counts 0, as they count a query without a result.
    """
    function = _beir_function(measure)
    fits = {
        query: documents
        for query, documents in run.items()
        if measure.beir == "hole" or any(grade > 0 for grade in qrels[query].values())
    }
    [mean] = function(qrels, fits, [measure.cutoff]).values()
    known = {document for judged in qrels.values() for document in judged}
    values = dict.fromkeys(qrels, 0.0)
    for query, documents in fits.items():
        judged = qrels[query]
        if measure.beir == "hole":  # judged for any query is judged
            judged = {document: 0 for document in documents if document in known}
        [values[query]] = function({query: judged}, {query: documents}, [measure.cutoff]).values()
    return Judged(float(mean), values)


def _beir_function(measure: AnyMeasure) -> Callable[..., dict[str, float]]:
    try:
        from beir.retrieval import custom_metrics
    except ImportError as error:
        raise MissingError(
            f"{measure} is computed by beir, which is not installed: pip install 'bge-eval[beir]'."
        ) from error
    function: Callable[..., dict[str, float]] = getattr(custom_metrics, measure.beir)
    return function


def _some(queries: Iterable[str]) -> str:
    first = [f"'{query}'" for query in list(queries)[:3]]
    return ", ".join(first) + " …" if first else "none"
