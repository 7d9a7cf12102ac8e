"""What one side has to say on one task: a score, and values of single queries where they exist."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from bge_eval.compare.sides import Side
from bge_eval.errors import MissingError, UsageError
from bge_eval.leaderboard.rows import Column
from bge_eval.measures.measure import Measure, parse_measure
from bge_eval.measures.mteb_keys import MAIN_KEY, measure_of_key, mteb_key
from bge_eval.measures.rescore import judge
from bge_eval.records import Excerpts, Qrels, Run
from bge_eval.results.saved import TOLERANCE, SavedResult, SavedRun
from bge_eval.results.trec import read_qrels, read_run

MAIN = "main"
"""The measure that is every task's own."""
QUERIES = "queries"
"""The unit of values of single queries."""
EXPERIMENTS = "experiments"
"""The unit of values of mteb's repetitions with other training samples."""


@dataclass(frozen=True, slots=True)
class Source:
    """A run and its judgements, read when they are asked for."""

    saved: SavedRun | None = None
    """A saved run; None for files of other tools."""
    run_file: Path | None = None
    """A TREC run."""
    qrels_file: Path | None = None
    """Its judgements, if not those of the saved run."""

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
        """Return the beginnings of texts, where they were kept."""
        return self.saved.result.texts(self.saved.key) if self.saved else Excerpts()


@dataclass(frozen=True, slots=True)
class Output:
    """One side on one task."""

    score: float
    """The task's score, 0 to 1."""
    measure: str
    """The measure's name."""
    values: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Part → query → value; empty where only the score is known."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """Part → what its mean counts in the score."""
    unit: str = ""
    """What the values are of: `QUERIES` or `EXPERIMENTS`."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """What has to be the same on both sides, as far as it is known, e.g. ``{"data": "99e2…"}``."""
    sources: Mapping[str, Source] = field(default_factory=dict)
    """Part → its run and judgements."""
    notes: tuple[str, ...] = ()
    """What a person has to know of it."""


def output(side: Side, task: str, metric: str) -> Output | None:
    """Return what a side of saved results or published scores has on a task.

    Args:
        side: who.
        task: the task's name.
        metric: `MAIN` or a measure's name.

    Returns:
        The output; None if the side has no such task, or not that measure.
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
    """Return what a TREC run is worth on a task.

    Args:
        side: whose ``run_file`` is judged.
        task: the task's name.
        metric: `MAIN` (then the other side's measure, or nDCG@10) or a measure's name.
        other: what the other side has on the task; its judgements are used if there is no file.
        qrels: a file of judgements.

    Raises:
        UsageError: there are no judgements, or those of several splits or subsets.
    """
    assert side.run_file is not None
    name = (other.measure if other else "nDCG@10") if metric == MAIN else metric
    measure = parse_measure(name)
    if qrels is None:
        sources = dict(other.sources) if other else {}
        if len(sources) != 1:
            why = f"{task} has {len(sources)} runs" if sources else "no other side has any"
            raise UsageError(
                f"{side.run_file} needs judgements, and {why}. --qrels FILE gives them, as TREC"
                " writes them or as BEIR's tsv."
            )
        [(part, theirs)] = sources.items()
        source = Source(theirs.saved, side.run_file, theirs.qrels_file)
    else:
        part = next(iter(other.sources)) if other and len(other.sources) == 1 else task
        source = Source(None, side.run_file, qrels)
    judgements = source.qrels()
    value = judge(source.run(), judgements, [measure])[measure]
    facts = {"measure": str(measure), "judgements": _digest(judgements)}
    return Output(
        value.mean, str(measure), {part: value.per_query}, {part: 1.0}, QUERIES, facts,
        {part: source},
    )  # fmt: skip


def _measure(result: SavedResult, parts: list[SavedRun], metric: str) -> Measure | None:
    """Return the measure to compute of a result's runs; None to compare by score."""
    if metric != MAIN:
        return parse_measure(metric)
    records = [result.record, *(part.result.record for part in parts)]
    keys = {record.main_measure for record in records if record.main_measure}
    return measure_of_key(keys.pop()) if len(keys) == 1 else None


def _by_query(result: SavedResult, parts: list[SavedRun], measure: Measure) -> Output:
    values, sources, digests = {}, {}, []
    for part in parts:
        source = sources[part.name] = Source(part)
        names, kept = part.result.per_query(part.key)
        if str(measure) in names:
            column = names.index(str(measure))
            values[part.name] = {query: row[column] for query, row in kept.items()}
            with suppress(MissingError):  # older results kept no judgements
                digests.append(_digest(source.qrels()))
        else:
            qrels = source.qrels()
            digests.append(_digest(qrels))
            values[part.name] = judge(source.run(), qrels, [measure])[measure].per_query
    weights = {part.name: part.weight for part in parts}
    score = sum(weights[name] * sum(found.values()) / len(found) for name, found in values.items())
    facts = {**_facts([part.result for part in parts]), "measure": str(measure)}
    if len(digests) == len(parts):
        facts["judgements"] = " ".join(digests)
    whole = Output(score, str(measure), values, weights, QUERIES, facts, sources)
    return _checked(whole, result, measure)


def _checked(found: Output, result: SavedResult, measure: Measure) -> Output:
    """Return the output by queries, or by its score where mteb's is not the queries' mean."""
    key = mteb_key(measure)
    stored = Column(result.task).score(result.scores, key) if key else None
    if stored is None or abs(stored - found.score) <= TOLERANCE:
        return found
    note = (
        f"the saved values of its queries have the mean {found.score:.5f}, but the saved score is"
        f" {stored:.5f}; it is compared by that score alone"
    )
    return Output(stored, found.measure, facts=found.facts, notes=(note,))


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
    values = _experiments(result, name) if metric == MAIN else {}
    if not values:
        return Output(score, name, facts=facts)
    weights = dict.fromkeys(values, 1 / len(values))
    note = "its experiments have other training samples, but all the same test data"
    return Output(score, name, values, weights, EXPERIMENTS, facts, notes=(note,))


def _experiments(result: SavedResult, key: str) -> dict[str, dict[str, float]]:
    """Return the values of mteb's repetitions, if the score is their mean.

    mteb draws the same training samples for every model, so repetitions pair up.
    """
    values: dict[str, dict[str, float]] = {}
    for split, entries in result.scores.items():
        for entry in entries:
            repeated = entry.get("scores_per_experiment") or []
            found = {
                f"experiment {number}": float(scores[key])
                for number, scores in enumerate(repeated, start=1)
                if isinstance(scores, dict) and isinstance(scores.get(key), int | float)
            }
            mean = sum(found.values()) / len(found) if found else float("nan")
            if not abs(mean - float(entry.get(MAIN_KEY, "nan"))) <= TOLERANCE:
                return {}
            values[f"{result.task}/{entry.get('hf_subset', 'default')}/{split}"] = found
    return values


def _facts(results: list[SavedResult]) -> dict[str, str]:
    """Return what is known of the data that results were scored on."""
    facts: dict[str, list[str]] = {}
    for result in {result.path: result for result in results}.values():
        identity = result.identity
        dropped = identity.drops_identical_ids if identity else None
        known = {
            "data": identity.fingerprint if identity else "",
            "splits": ", ".join((identity and identity.splits) or result.scores),
            "subsets": ", ".join((identity and identity.subsets) or _subsets(result)),
            "documents with the query's own id": {True: "dropped", False: "kept", None: ""}[
                dropped
            ],
        }
        for name, value in known.items():
            if value:
                facts.setdefault(name, []).append(value)
    return {name: " ".join(dict.fromkeys(values)) for name, values in facts.items()}


def _subsets(result: SavedResult) -> list[str]:
    found = (entry.get("hf_subset", "default") for e in result.scores.values() for entry in e)
    return list(dict.fromkeys(map(str, found)))


def _digest(qrels: Mapping[str, Mapping[str, int]]) -> str:
    """Return 16 hexadecimal digits of judgements, whatever the order they stand in."""
    lines = sorted(
        f"{query}\t{document}\t{grade}"
        for query, judged in qrels.items()
        for document, grade in judged.items()
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _named(metric: str) -> str:
    return "main score" if metric == MAIN else metric
