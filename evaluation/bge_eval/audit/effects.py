"""What each class of faults could move in the score of a run.

A class is repaired in the run and in its judgements, and both are scored again:

- duplicates become one document: its best place in the run, its highest grade;
- a document that is its query is taken out of that query's results and judgements;
- queries that are repeated, leaked, broken, without a relevant document, or have a broken relevant
  document are left out;
- relevant documents that the corpus lacks are no longer counted.

The range says how far the mean moves if the affected queries scored 0, or 1: no repair can move it
further.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from bge_eval.audit.faults import Fault, Finding
from bge_eval.audit.near import clusters
from bge_eval.measures.measure import Measure
from bge_eval.measures.rescore import judge
from bge_eval.records import Qrels, Run

_Number = TypeVar("_Number", int, float)


@dataclass(frozen=True, slots=True)
class Effect:
    """What one class of faults could move in a run's mean."""

    fault: Fault
    """The class."""
    queries: int
    """Number of affected queries."""
    score: float
    """The mean over all judged queries, 0 to 1."""
    repaired: float | None
    """The mean after the repair; None if no query is left."""
    low: float
    """The mean if every affected query scored 0."""
    high: float
    """The mean if every affected query scored 1."""


def effects(
    findings: Sequence[Finding], run: Run, qrels: Qrels, measure: Measure
) -> dict[Fault, Effect]:
    """Return the effect of every class that has a finding.

    Args:
        findings: the faults of the data that the run was made on.
        run: query id → document id → score.
        qrels: the judgements that the run was scored with.
        measure: the measure.

    Raises:
        DamagedError: the run and the qrels have no query in common.
    """
    values = judge(run, qrels, [measure])[measure].per_query
    total = len(values)
    score = sum(values.values()) / total
    found: dict[Fault, Effect] = {}
    for fault in Fault:
        own = [finding for finding in findings if finding.fault is fault]
        if not own:
            continue
        repaired_run, repaired_qrels, affected = _REPAIRS[fault](own, run, qrels)
        touched = [values[query] for query in affected if query in values]
        found[fault] = Effect(
            fault,
            len(touched),
            score,
            _mean(repaired_run, repaired_qrels, measure),
            score - sum(touched) / total,
            score + sum(1 - value for value in touched) / total,
        )
    return found


def _mean(run: Run, qrels: Qrels, measure: Measure) -> float | None:
    if not any(query in run for query in qrels):
        return None
    values = judge(run, qrels, [measure])[measure].per_query
    return sum(values.values()) / len(values)


def _one_document(
    findings: Sequence[Finding], run: Run, qrels: Qrels
) -> tuple[Run, Qrels, set[str]]:
    """Make every cluster of duplicates one document."""
    name: dict[str, str] = {}
    for cluster in clusters([(f.documents[0], f.documents[1]) for f in findings]):
        name.update(dict.fromkeys(cluster, cluster[0]))
    affected = {
        query
        for query, grades in qrels.items()
        if any(grade > 0 and document in name for document, grade in grades.items())
    }
    return _renamed(run, name), _renamed(qrels, name), affected


def _renamed(
    mapping: dict[str, dict[str, _Number]], name: dict[str, str]
) -> dict[str, dict[str, _Number]]:
    """Rename documents; of those with one name, the largest number counts."""
    renamed: dict[str, dict[str, _Number]] = {}
    for query, numbers in mapping.items():
        own = renamed[query] = {}
        for document, number in numbers.items():
            new = name.get(document, document)
            own[new] = max(own.get(new, number), number)
    return renamed


def _without_own_document(
    findings: Sequence[Finding], run: Run, qrels: Qrels
) -> tuple[Run, Qrels, set[str]]:
    """Take the documents that are their query out of its results and judgements."""
    gone = {(finding.query, document) for finding in findings for document in finding.documents}
    kept = {
        query: {d: grade for d, grade in grades.items() if (query, d) not in gone}
        for query, grades in qrels.items()
    }
    emptied = {
        query
        for query, grades in kept.items()
        if any(g > 0 for g in qrels[query].values()) and not any(g > 0 for g in grades.values())
    }
    cut = {
        query: {d: score for d, score in scores.items() if (query, d) not in gone}
        for query, scores in run.items()
    }
    affected = {finding.query for finding in findings}
    return cut, {query: kept[query] for query in kept if query not in emptied}, affected


def _without_queries(
    findings: Sequence[Finding], run: Run, qrels: Qrels
) -> tuple[Run, Qrels, set[str]]:
    """Leave out the queries that have the fault, or a relevant document that has it."""
    broken = {document for finding in findings for document in finding.documents}
    affected = {finding.query for finding in findings if finding.query} | {
        query
        for query, grades in qrels.items()
        if any(grade > 0 and document in broken for document, grade in grades.items())
    }
    return run, {query: qrels[query] for query in qrels if query not in affected}, affected


def _without_judgements(
    findings: Sequence[Finding], run: Run, qrels: Qrels
) -> tuple[Run, Qrels, set[str]]:
    """Leave out the judgements of absent documents, and queries that have no others."""
    gone = {(finding.query, document) for finding in findings for document in finding.documents}
    kept: Qrels = {}
    for query, grades in qrels.items():
        own = {d: grade for d, grade in grades.items() if (query, d) not in gone}
        if own == grades or any(grade > 0 for grade in own.values()):
            kept[query] = own
    return run, kept, {finding.query for finding in findings}


_Repair = Callable[[Sequence[Finding], Run, Qrels], tuple[Run, Qrels, Iterable[str]]]
_REPAIRS: dict[Fault, _Repair] = {
    Fault.EXACT: _one_document,
    Fault.NEAR: _one_document,
    Fault.QUERY_IN_CORPUS: _without_own_document,
    Fault.REPEATED: _without_queries,
    Fault.LEAKED: _without_queries,
    Fault.EMPTY: _without_queries,
    Fault.BROKEN: _without_queries,
    Fault.NO_POSITIVE: _without_queries,
    Fault.DANGLING: _without_judgements,
}
