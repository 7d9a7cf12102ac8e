"""``bge-eval data audit``: faults within data sets, and what they could move in a score."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from bge_eval.cli.formats.registry import Format, write
from bge_eval.cli.grouped import grouped
from bge_eval.cli.options.tasks import split_names
from bge_eval.cli.quiet import prepare

if TYPE_CHECKING:
    from bge_eval.audit.effects import Effect
    from bge_eval.audit.faults import Fault, Finding, Texts
    from bge_eval.cli.audited import FaultLine, PartAudit
    from bge_eval.progress import Progress, Step
    from bge_eval.records import SplitKey
    from bge_eval.suites.catalogue import PlannedTask
    from bge_eval.suites.scored import RetrievalPart


@dataclass(frozen=True, slots=True)
class AuditFlags:
    """The data, what they are compared with, and the run whose score they could move."""

    tasks: Annotated[
        list[str], typer.Option("--tasks", "-t", help="Suites, tasks and own collections; repeat.")
    ]
    data_dir: Annotated[
        list[Path] | None,
        typer.Option(help="Folders of data sets; repeat. Default: the Hugging Face cache."),
    ] = None
    subset: Annotated[list[str] | None, typer.Option(help="Only these subsets; repeat.")] = None
    lang: Annotated[list[str] | None, typer.Option(help="Only these languages; repeat.")] = None
    train: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="jsonl of training data (query, pos, neg): which test queries are in it? Repeat.",
        ),
    ] = None
    run: Annotated[
        str | None,
        typer.Option(
            help="A model's name, a folder of results or one result: how much could each class of"
            " faults move its score?"
        ),
    ] = None
    metric: Annotated[str, typer.Option(help="The measure for --run.")] = "nDCG@10"
    similarity: Annotated[
        float,
        typer.Option(help="Least Jaccard similarity of near duplicates, in three-word shingles."),
    ] = 0.8
    findings: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write every single fault as one line of JSON."),
    ] = None
    form: Annotated[Format, typer.Option("--format", help="Format of the tables.")] = (
        Format.TERMINAL
    )


@grouped
def audit(flags: AuditFlags) -> None:
    """Look for duplicates, leaks, broken texts and gaps in the judgements of data sets.

    Exact and near duplicates in the corpus (MinHash, verified), queries that stand in the corpus,
    queries of the training data, empty and broken texts, queries without a relevant document.
    Tasks that search nothing are counted by mteb's own filters. With --run: the points that each
    class could move.

    Examples:
      bge-eval data audit --tasks SciFact --data-dir ./datasets --run my-bge

      bge-eval data audit --tasks ./tickets --train train.jsonl --findings faults.jsonl
    """
    prepare(offline=True)
    from bge_eval.cli.audited import AuditOutput
    from bge_eval.cli.console import TerminalProgress, stdout
    from bge_eval.data.training_queries import training_file
    from bge_eval.errors import UsageError
    from bge_eval.measures.measure import parse_measure
    from bge_eval.suites.catalogue import plan

    parse_measure(flags.metric)
    if not 0 < flags.similarity <= 1:
        raise UsageError(f"--similarity is above 0 and at most 1, not {flags.similarity:g}.")
    training = {
        key: text for path in flags.train or () for key, text in training_file(path).items()
    }
    progress = TerminalProgress()
    planned = plan(split_names(flags.tasks), flags.subset or (), flags.lang or ())
    parts = [part for task in planned for part in (task.parts or (task,))]
    audits: list[PartAudit] = []
    with _opened(flags.findings) as lines:
        asked = _Asked(flags, training, lines, progress)
        for task in parts:
            audits += _audited(task, asked)
    write(AuditOutput(audits), flags.form, stdout)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What every task is audited with."""

    flags: AuditFlags
    """The options."""
    training: Mapping[str, str]
    """The queries of ``--train``: "<file>:<line>" → text."""
    lines: TextIO | None
    """Where every single fault is written; None for nowhere."""
    progress: Progress
    """Told of the documents that were read."""


def _opened(path: Path | None) -> AbstractContextManager[TextIO | None]:
    """Open the file of ``--findings``.

    Raises:
        UsageError: its folder does not exist.
    """
    from bge_eval.errors import UsageError
    from bge_eval.results.whole import whole_file

    if path is None:
        return nullcontext()
    if not path.parent.is_dir():
        raise UsageError(f"--findings {path}: the folder {path.parent} does not exist.")
    return whole_file(path)


def _audited(planned: PlannedTask, asked: _Asked) -> list[PartAudit]:
    """Return the faults of every part of a task."""
    from bge_eval.suites.scored import retrieval_parts

    source = planned.source(asked.flags.data_dir or (), offline=True, dangling=True)
    source.check(planned.task)
    with source.loaded(planned.task, asked.progress):
        planned.cut_loaded(asked.progress.note)
        parts = retrieval_parts(planned, source)
        if not parts:
            return [_rows(planned)]
        return [_retrieval(planned.name, key, part, asked) for key, part in parts.items()]


def _rows(planned: PlannedTask) -> PartAudit:
    from bge_eval.audit.rows import row_faults
    from bge_eval.cli.audited import FaultLine, PartAudit

    faults = row_faults(planned.task)
    lines = [FaultLine(fault.name, fault.count, fault.total) for fault in faults]
    splits = ", ".join(planned.task.eval_splits)
    return PartAudit(planned.name, splits, f"{faults[0].total:,} texts or rows", lines)


def _retrieval(task: str, key: SplitKey, part: RetrievalPart, asked: _Asked) -> PartAudit:
    from bge_eval.audit.faults import Fault, find_faults
    from bge_eval.cli.audited import PartAudit
    from bge_eval.data.training_queries import other_splits

    others = other_splits(part.source, key[0], [key[1]])
    name = "/".join(key)
    size = f"{len(part.corpus):,} documents, {len(part.queries):,} queries"
    if known := {**(others or {}), **asked.training}:
        size += f", {len(known):,} training queries"
    notes = [] if known else ["no training queries are here to look for leaks: see --train"]
    with asked.progress.step("audit", len(part.corpus), "documents") as step:
        findings = find_faults(_texts(part, known, step), asked.flags.similarity)
    if asked.lines is not None:
        for finding in findings:
            line = {"task": task, "part": name, **asdict(finding)}
            asked.lines.write(json.dumps(line, ensure_ascii=False) + "\n")
    moved, run = _effects(task, key, findings, asked.flags) if asked.flags.run else ({}, "")
    shown = [
        replace(line, count=None) if line.fault == Fault.LEAKED and not known else line
        for line in _lines(findings, part, moved)
    ]
    return PartAudit(task, name, size, shown, run, notes)


def _texts(part: RetrievalPart, training: dict[str, str], step: Step) -> Texts:
    """Return the texts of a part; documents are read from disk as they are needed."""
    from bge_eval.audit.faults import Texts
    from bge_eval.data.texts import document_text, query_texts, texts_by_id

    rows = {str(id): row for row, id in enumerate(part.corpus["id"])}

    def documents() -> Iterator[tuple[str, str]]:
        for pair in texts_by_id(part.corpus):
            step.advance(1)
            yield pair

    def document(id: str) -> str:
        row = part.corpus[rows[id]]
        return document_text(row.get("title"), row["text"] or "")

    ids = map(str, part.queries["id"])
    queries = dict(zip(ids, query_texts(part.queries), strict=True))
    return Texts(documents, document, queries, part.qrels, training)


def _effects(
    task: str, key: SplitKey, findings: Sequence[Finding], flags: AuditFlags
) -> tuple[dict[Fault, Effect], str]:
    """Return what each class could move in the run's score, and the run's name and score."""
    from bge_eval.audit.effects import effects
    from bge_eval.cli.chosen import chosen_tasks
    from bge_eval.errors import MissingError
    from bge_eval.measures.measure import parse_measure
    from bge_eval.measures.rescore import judge

    measure = parse_measure(flags.metric)
    [chosen] = chosen_tasks(flags.run, [task], None)
    source = next((s for s in chosen.sources.values() if s.saved and s.saved.key == key), None)
    if source is None:
        raise MissingError(f"{chosen.label} has no run of {task} on {'/'.join(key)}.")
    run, qrels = source.run(), source.qrels()
    score = judge(run, qrels, [measure])[measure].mean
    return effects(findings, run, qrels, measure), f"{chosen.label}: {measure} {score:.5f}"


def _lines(
    findings: Sequence[Finding], part: RetrievalPart, moved: Mapping[Fault, Effect]
) -> list[FaultLine]:
    """Return one line for each class, also for those without a finding."""
    from bge_eval.audit.faults import Fault
    from bge_eval.cli.audited import FaultLine

    of_documents = (Fault.EXACT, Fault.NEAR, Fault.EMPTY, Fault.BROKEN)
    lines = []
    for fault in Fault:
        own = [finding for finding in findings if finding.fault is fault]
        documents, queries = len(part.corpus), len(part.queries)
        total = documents if fault in of_documents else queries
        if fault in (Fault.EMPTY, Fault.BROKEN):
            total += queries
        lines.append(FaultLine(str(fault), _count(fault, own), total, _example(own),
                               moved.get(fault)))  # fmt: skip
    return lines


def _count(fault: Fault, findings: Sequence[Finding]) -> int:
    """Count texts, not pairs: the documents beyond the first of a cluster, or the queries."""
    from bge_eval.audit.faults import Fault
    from bge_eval.audit.near import clusters

    if fault in (Fault.EXACT, Fault.NEAR):
        pairs = [(finding.documents[0], finding.documents[1]) for finding in findings]
        return sum(len(cluster) - 1 for cluster in clusters(pairs))
    if fault in (Fault.EMPTY, Fault.BROKEN):
        return len(findings)
    return len({finding.query for finding in findings})


def _example(findings: Sequence[Finding]) -> str:
    if not findings:
        return ""
    first = findings[0]
    names = [f"query {first.query}"] if first.query else []
    names += list(first.documents[:2])
    names += [first.other] if first.other else []
    detail = f" ({first.detail})" if first.detail else ""
    return f"{' = '.join(names)}{detail}"
