"""Output of one side on one task: its score, and per-query values where they are saved."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from bge_eval.compare.sides import Side
from bge_eval.errors import MissingError, UsageError
from bge_eval.leaderboard.rows import Column
from bge_eval.measures.items import NOTES, item_values
from bge_eval.measures.measure import Measure, parse_measure
from bge_eval.measures.mteb_keys import MAIN_KEY, measure_of_key, mteb_key
from bge_eval.measures.rescore import judge
from bge_eval.records import Excerpts, Qrels, Run
from bge_eval.results.saved import TOLERANCE, SavedResult, SavedRun
from bge_eval.results.trec import read_qrels, read_run

MAIN = "main"
"""The name of every task's own main score."""
QUERIES = "queries"
"""Unit of per-query values."""
_NAMED = 5
"""Number of queries that a note names; the rest are counted."""


@dataclass(frozen=True, slots=True)
class Source:
    """A run and its judgements, read on demand."""

    saved: SavedRun | None = None
    """A saved run; None for files of other tools."""
    run_file: Path | None = None
    """A TREC run."""
    qrels_file: Path | None = None
    """A file of judgements; None for those of the saved run."""

    def run(self) -> Run:
        """Return the run."""
        if self.run_file is not None:
            return read_run(self.run_file)
        assert self.saved is not None
        return self.saved.result.run(self.saved.key)

    def qrels(self) -> Qrels:
        """Return the judgements."""
        if self.qrels_file is not None:
            return read_qrels(self.qrels_file)
        assert self.saved is not None
        return self.saved.result.qrels(self.saved.key)

    def texts(self) -> Excerpts:
        """Return the excerpts of texts; empty if none are saved."""
        return self.saved.result.texts(self.saved.key) if self.saved else Excerpts()


@dataclass(frozen=True, slots=True)
class Output:
    """One side on one task."""

    score: float
    """The task's score, 0 to 1."""
    measure: str
    """The measure's name."""
    values: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Part → query → value; empty if only the score is known."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """Part → weight of its mean in the score."""
    unit: str = ""
    """Unit of the values: `QUERIES`, "pairs", "texts" …; "" without values."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """Conditions that both sides must share, if recorded, e.g. ``{"data": "99e2…"}``."""
    sources: Mapping[str, Source] = field(default_factory=dict)
    """Part → its run and judgements."""
    notes: tuple[str, ...] = ()
    """Remarks to print beside the comparison."""


def output(side: Side, task: str, metric: str) -> Output | None:
    """Return the output of a side of saved results or published scores on a task.

    Args:
        side: the side.
        task: the task's name.
        metric: `MAIN` or a measure's name.

    Returns:
        The output; None if the side has no score of that task and measure.
    """
    if side.published is not None:
        score = side.scores.get(task)
        return None if score is None else Output(score, _named(metric))
    result = side.results.get(task)
    if result is None:
        return None
    parts = result.runs()
    measure = _measure(result, parts, metric)
    if parts and measure is not None:
        return _by_query(result, parts, measure)
    return _by_score(result, metric)


def judged(side: Side, task: str, metric: str, other: Output | None, qrels: Path | None) -> Output:
    """Judge a TREC run on a task.

    Args:
        side: the side whose ``run_file`` is judged.
        task: the task's name.
        metric: `MAIN` (then the other side's measure, or nDCG@10) or a measure's name.
        other: the other side's output on the task.
        qrels: a file of judgements; None for those of the other side.

    Raises:
        UsageError: there are no judgements, or they cover several splits or subsets.
    """
    assert side.run_file is not None
    name = (other.measure if other else "nDCG@10") if metric == MAIN else metric
    measure = parse_measure(name)
    if qrels is None:
        sources = dict(other.sources) if other else {}
        if len(sources) != 1:
            why = f"{task} has {len(sources)} runs" if sources else "no other side has any"
            raise UsageError(
                f"{side.run_file} needs judgements, and {why}. Give them with --qrels FILE,"
                " in TREC's format or as BEIR's tsv."
            )
        [(part, reference)] = sources.items()
        source = Source(reference.saved, side.run_file, reference.qrels_file)
    else:
        part = next(iter(other.sources)) if other and len(other.sources) == 1 else task
        source = Source(None, side.run_file, qrels)
    judgements = source.qrels()
    run = source.run()
    value = judge(run, judgements, [measure])[measure]
    facts = {"measure": str(measure), "judgements": _digest(judgements)}
    lacking = [query for query in judgements if query not in run]
    return Output(
        value.mean, str(measure), {part: value.per_query}, {part: 1.0}, QUERIES, facts,
        {part: source}, _lacking(lacking),
    )  # fmt: skip


def _lacking(queries: Sequence[str]) -> tuple[str, ...]:
    """Return a note that names the judged queries which a run lacks; none if it has all."""
    if not queries:
        return ()
    named = ", ".join(queries[:_NAMED]) + (" …" if len(queries) > _NAMED else "")
    return (f"has no documents for {len(queries)} judged queries, which score 0: {named}",)


def _measure(result: SavedResult, parts: list[SavedRun], metric: str) -> Measure | None:
    """Return the measure to compute from a result's runs; None to compare by score alone."""
    if metric != MAIN:
        return parse_measure(metric)
    records = [result.record, *(part.result.record for part in parts)]
    keys = {record.main_measure for record in records if record.main_measure}
    if len(keys) != 1:
        return None
    [key] = keys
    measure = measure_of_key(key)
    if measure is None and parts:  # a measure that mteb lacks, such as RR(rel=2)
        with suppress(UsageError):
            measure = parse_measure(key)
    return measure


def _by_query(result: SavedResult, parts: list[SavedRun], measure: Measure) -> Output:
    values, sources, digests = {}, {}, []
    for part in parts:
        source = sources[part.name] = Source(part)
        names, rows = part.result.per_query(part.key)
        if str(measure) in names:
            column = names.index(str(measure))
            values[part.name] = {query: row[column] for query, row in rows.items()}
            with suppress(MissingError):  # older results have no judgements
                digests.append(_digest(source.qrels()))
        else:
            qrels = source.qrels()
            digests.append(_digest(qrels))
            values[part.name] = judge(source.run(), qrels, [measure])[measure].per_query
    weights = {part.name: part.weight for part in parts}
    score = sum(
        weights[name] * sum(of_part.values()) / len(of_part) for name, of_part in values.items()
    )
    facts = {**_facts([part.result for part in parts]), "measure": str(measure)}
    if len(digests) == len(parts):
        facts["judgements"] = " ".join(digests)
    by_query = Output(score, str(measure), values, weights, QUERIES, facts, sources)
    return _checked(by_query, result, measure)


def _checked(by_query: Output, result: SavedResult, measure: Measure) -> Output:
    """Return the output, without per-query values if mteb's score is not their mean."""
    stored = Column(result.task).score(result.scores, mteb_key(measure) or str(measure))
    if stored is None or abs(stored - by_query.score) <= TOLERANCE:
        return by_query
    note = (
        f"the mean of its per-query values is {by_query.score:.5f}, but the saved score is"
        f" {stored:.5f}; only that score is compared"
    )
    return Output(stored, by_query.measure, facts=by_query.facts, notes=(note,))


def _by_score(result: SavedResult, metric: str) -> Output | None:
    key, name = MAIN_KEY, result.record.main_measure or "main score"
    if metric != MAIN:
        measured = mteb_key(parse_measure(metric))
        if measured is None:
            return None
        key, name = measured, metric
    column = Column(result.task)
    score = column.score(result.scores, key)
    if score is None:
        return None
    facts = _facts([result]) | {"measure": name}
    items = item_values(result) if metric == MAIN else None
    if items is None:
        return Output(score, name, facts=facts)
    values = {"/".join((result.task, *part)): each for part, each in items.values.items()}
    weights = dict.fromkeys(values, 1 / len(values))
    notes = (NOTES[items.unit],) if items.unit in NOTES else ()
    return Output(score, name, values, weights, items.unit, facts, notes=notes)


def _facts(results: list[SavedResult]) -> dict[str, str]:
    """Return the recorded conditions that results were scored under."""
    facts: dict[str, list[str]] = {}
    for result in {result.path: result for result in results}.values():
        identity = result.identity
        dropped = identity.drops_identical_ids if identity else None
        recorded = {
            "data": identity.fingerprint if identity else "",
            "splits": ", ".join((identity and identity.splits) or result.scores),
            "subsets": ", ".join((identity and identity.subsets) or _subsets(result)),
            "documents with the query's own id": {True: "dropped", False: "kept", None: ""}[
                dropped
            ],
        }
        for name, value in recorded.items():
            if value:
                facts.setdefault(name, []).append(value)
    return {name: " ".join(dict.fromkeys(values)) for name, values in facts.items()}


def _subsets(result: SavedResult) -> list[str]:
    subsets = (
        entry.get("hf_subset", "default") for entries in result.scores.values() for entry in entries
    )
    return list(dict.fromkeys(map(str, subsets)))


def _digest(qrels: Mapping[str, Mapping[str, int]]) -> str:
    """Return a digest of judgements, 16 hexadecimal digits; their order does not matter."""
    lines = sorted(
        f"{query}\t{document}\t{grade}"
        for query, judged in qrels.items()
        for document, grade in judged.items()
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _named(metric: str) -> str:
    return "main score" if metric == MAIN else metric
