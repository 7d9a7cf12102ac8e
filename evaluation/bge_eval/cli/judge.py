"""``bge-eval judge``: judgements of documents that nobody judged, by people or a language model."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bge_eval.cli.formats.registry import Format, write
from bge_eval.cli.grouped import grouped
from bge_eval.cli.options.tasks import split_names
from bge_eval.cli.quiet import prepare
from bge_eval.errors import UsageError
from bge_eval.judgements.agreement import LEAST_KAPPA, Agreement

if TYPE_CHECKING:
    from bge_eval.compare.outputs import Source
    from bge_eval.judgements.deciding import Decision
    from bge_eval.judgements.llm import ModelJudge
    from bge_eval.judgements.sheet import Row
    from bge_eval.measures.measure import Measure
    from bge_eval.records import Qrels
    from bge_eval.suites.scored import RetrievalPart


_AT_MOST_LOST = 10.0
"""Seconds of a judge's answers that a killed process may lose."""
_PRESUMED = (
    "The judgements hold no irrelevant documents: half of the controls are relevant documents of"
    " other queries, presumed irrelevant."
)


@dataclass(frozen=True, slots=True)
class ExportFlags:
    """The runs whose unjudged documents go into a sheet."""

    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="A [B]",
            help="One run, or two to compare: model's names, folders of results or results.",
            show_default=False,
        ),
    ]
    sheet: Annotated[Path, typer.Option(help="The sheet to write: .csv or .jsonl.")]
    tasks: Annotated[
        list[str] | None,
        typer.Option("--tasks", "-t", help="The task. Default: the only one with a run."),
    ] = None
    metric: Annotated[str, typer.Option(help="A measure with a cutoff.")] = "nDCG@10"
    most: Annotated[
        int, typer.Option(min=1, help="Most unjudged documents, those that decide most first.")
    ] = 200
    controls: Annotated[
        int, typer.Option(min=0, help="Documents that are judged already, to measure agreement.")
    ] = 40
    seed: Annotated[int, typer.Option(min=0, help="Seed of the drawing of controls.")] = 0
    data_dir: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of data sets; repeat. Default: where the run read them."),
    ] = None
    form: Annotated[Format, typer.Option("--format", help="Format of the list.")] = Format.TERMINAL


@grouped
def export(flags: ExportFlags) -> None:
    """Write the unjudged documents that decide a score or a comparison to a sheet.

    Within the cutoff, those come first whose relevance would move the mean, or the difference of
    two means, furthest; the list says how far. Controls are mixed into the sheet.

    Examples:
      bge-eval judge export my-bge --tasks SciFact --sheet sheet.csv

      bge-eval judge export bge-base my-bge --tasks SciFact --sheet sheet.jsonl --most 100
    """
    prepare(offline=True)
    from bge_eval.cli.console import TerminalProgress, stderr, stdout
    from bge_eval.cli.deciding import DecidingOutput
    from bge_eval.judgements.deciding import decide
    from bge_eval.judgements.pool import controls
    from bge_eval.judgements.sheet import writable, write_sheet
    from bge_eval.suites.scored import scored_data

    measure = _with_cutoff(flags.metric)
    if len(flags.runs) > 2:
        raise UsageError(f"Expected one run or two, not {len(flags.runs)}.")
    writable(flags.sheet)
    task, sources = _sources(flags.runs, split_names(flags.tasks))
    qrels = _common_qrels(task, sources)
    decision = decide([source.run() for source in sources], qrels, measure)
    drawn = controls(qrels, flags.controls, flags.seed)
    pairs = [(one.query, one.document) for one in decision.documents[: flags.most]]
    saved = sources[0].saved
    assert saved is not None
    with scored_data(saved.result, flags.data_dir or (), TerminalProgress()) as parts:
        rows = _rows(saved.name, pairs, drawn.pairs, parts[saved.key])
    random.Random(flags.seed).shuffle(rows)
    write_sheet(flags.sheet, rows)
    write(DecidingOutput(task, str(measure), decision.documents), flags.form, stdout)
    what = "difference" if len(sources) == 2 else "score"
    lines = [
        f"{measure} {what} {decision.value:+.5f}; {len(decision.documents):,} unjudged documents"
        f" within the cutoff, {len(pairs):,} of them and {len(drawn.pairs):,} controls are in"
        f" {flags.sheet}.",
        *([_reversal(decision)] if len(sources) == 2 else []),
        *([_PRESUMED] if drawn.presumed and drawn.pairs else []),
    ]
    for line in lines:
        stderr.print(line, markup=False, soft_wrap=True)


def _with_cutoff(metric: str) -> Measure:
    """Return the measure of a name, which has a cutoff that people can judge."""
    from bge_eval.measures.measure import parse_measure

    measure = parse_measure(metric)
    if measure.cutoff is None or measure.cutoff > 100:
        raise UsageError(f"--metric {measure}: expected a cutoff of at most 100, as in nDCG@10.")
    return measure


def _common_qrels(task: str, sources: Sequence[Source]) -> Qrels:
    """Return the judgements with which all runs of a task were scored."""
    qrels = sources[0].qrels()
    if any(source.qrels() != qrels for source in sources[1:]):
        raise UsageError(
            f"The runs of {task} were scored with different judgements; run one of them again."
        )
    return qrels


def _reversal(decision: Decision) -> str:
    """Return how many documents could reverse the order of two runs, as a sentence."""
    if reversing := decision.reversing:
        return f"The relevance of {reversing:,} of them would reverse the order of the runs."
    return "No relevance of single documents among them reverses the order of the runs."


def _sources(runs: Sequence[str], tasks: Sequence[str]) -> tuple[str, list[Source]]:
    """Return the task, and each run's only run of it."""
    from bge_eval.cli.chosen import chosen_tasks

    sources: list[Source] = []
    task = ""
    for name in runs:
        chosen = chosen_tasks(name, tasks or ([task] if task else []), None)
        if len(chosen) > 1 or len(chosen[0].sources) > 1:
            names = ", ".join(one.task for one in chosen)
            raise UsageError(
                f"{chosen[0].label} has several runs ({names}); a sheet is of one: --tasks names"
                " a task with one run."
            )
        task = chosen[0].task
        [source] = chosen[0].sources.values()
        sources.append(source)
    return task, sources


def _rows(
    task: str,
    pairs: Sequence[tuple[str, str]],
    controls: Sequence[tuple[str, str]],
    part: RetrievalPart,
) -> list[Row]:
    """Return the rows of a sheet with their whole texts; documents that are absent are left out."""
    from bge_eval.data.texts import query_texts, whole_texts
    from bge_eval.judgements.sheet import Row

    queries = dict(zip(map(str, part.queries["id"]), query_texts(part.queries), strict=True))
    documents = whole_texts(part.corpus, {document for _, document in [*pairs, *controls]})
    chosen = dict.fromkeys(pairs, False) | dict.fromkeys(controls, True)
    return [
        Row(task, query, document, queries[query], documents[document], control=control)
        for (query, document), control in chosen.items()
        if document in documents
    ]


@dataclass(frozen=True, slots=True)
class AskFlags:
    """The sheet and the model that judges it."""

    sheet: Annotated[Path, typer.Argument(help="A sheet of `judge export`.", show_default=False)]
    server: Annotated[
        str,
        typer.Option(
            help="Address of a server of OpenAI's chat interface, http://host:port. Its key, if"
            " it needs one, is read from BGE_EVAL_API_KEY."
        ),
    ]
    run: Annotated[str, typer.Option(help="The run of which the sheet is.")]
    output: Annotated[Path, typer.Option(help="The judged sheet to write: .csv or .jsonl.")]
    server_model: Annotated[
        str | None, typer.Option(help="The model's name on the server. Default: the only one.")
    ] = None
    least_kappa: Annotated[
        float,
        typer.Option(
            min=-1,
            max=1,
            help="Judge the rest only if agreement on the controls, Cohen's kappa, is at least"
            " this.",
        ),
    ] = LEAST_KAPPA
    concurrency: Annotated[int, typer.Option(min=1, max=256, help="Requests at once.")] = 8
    timeout: Annotated[float, typer.Option(min=1, help="Seconds to wait for an answer.")] = 600.0


@grouped
def ask(flags: AskFlags) -> None:
    """Let a language model judge a sheet, after measuring its agreement with judgements.

    The controls are judged first. If Cohen's kappa with the existing judgements is below
    --least-kappa, or cannot be measured, nothing else is judged and the exit code is 1. Rows that
    have a grade are not asked again.

    Examples:
      bge-eval judge ask sheet.csv --server http://localhost:8000 --run my-bge --output judged.csv
    """
    from bge_eval.cli.console import stderr
    from bge_eval.errors import MissingError
    from bge_eval.judgements.llm import ModelJudge, served_model
    from bge_eval.judgements.sheet import read_sheet, writable, write_sheet
    from bge_eval.remote.apis import Api, address
    from bge_eval.remote.client import Client, Limits

    writable(flags.output)
    rows = {(row.query_id, row.document_id): row for row in read_sheet(flags.sheet)}
    published = _published(list(rows.values()), flags.run)
    limits = Limits(concurrency=flags.concurrency, timeout=flags.timeout)
    url = address(flags.server, Api.OPENAI)
    client = Client(url, limits=limits, key_variable="BGE_EVAL_API_KEY")
    highest = max((g for grades in published.values() for g in grades.values()), default=1)
    judge = ModelJudge(client, served_model(client, flags.server_model), max(highest, 1))
    if not any(row.control for row in rows.values()):
        raise MissingError(
            f"{flags.sheet} has no controls, so agreement cannot be measured: `judge export"
            " --controls 40` puts some in."
        )
    problems: list[str] = []
    try:
        problems += _grade(judge, rows, flags.output, controls=True)
        measured = _agreement(list(rows.values()), published)
        _show(measured, judge.name)
        kappa = measured.kappa if measured else None
        if kappa is None or kappa < flags.least_kappa:
            shown = "cannot be measured" if kappa is None else f"is {kappa:.2f}"
            stderr.print(
                f"Kappa {shown}, and --least-kappa is {flags.least_kappa:g}: the unjudged documents"
                " were not judged.", style="yellow", markup=False, soft_wrap=True,
            )  # fmt: skip
            raise typer.Exit(1)
        problems += _grade(judge, rows, flags.output, controls=False)
    finally:
        write_sheet(flags.output, rows.values())
    for problem in problems[:5]:
        stderr.print(problem, style="yellow", markup=False, soft_wrap=True)
    if problems:
        stderr.print(f"{len(problems)} rows have no grade; the same command asks them again with"
                     f" {flags.output} as its sheet.", markup=False, soft_wrap=True)  # fmt: skip
        raise typer.Exit(1)


def _grade(
    judge: ModelJudge, rows: dict[tuple[str, str], Row], sheet: Path, *, controls: bool
) -> list[str]:
    """Ask for the rows without a grade; return a sentence for each unusable answer.

    The sheet is written every few seconds, so that a killed process loses few answers.
    """
    from bge_eval.cli.console import TerminalProgress
    from bge_eval.judgements.sheet import write_sheet

    waiting = [row for row in rows.values() if row.grade is None and row.control is controls]
    problems, written = [], time.monotonic()
    with TerminalProgress().step("judge", len(waiting), "documents") as step:
        for row, grade in judge.grades(waiting):
            step.advance(1)
            if isinstance(grade, str):
                problems.append(grade)
                continue
            key = (row.query_id, row.document_id)
            rows[key] = replace(row, grade=grade, judge=judge.name)
            if time.monotonic() - written >= _AT_MOST_LOST:
                write_sheet(sheet, rows.values())
                written = time.monotonic()
    return problems


@dataclass(frozen=True, slots=True)
class ReadFlags:
    """The judged sheet and the file of judgements."""

    sheet: Annotated[Path, typer.Argument(help="A judged sheet.", show_default=False)]
    run: Annotated[str, typer.Option(help="The run of which the sheet is.")]
    output: Annotated[
        Path, typer.Option(help="The judgements to write, in TREC's four columns: mine.qrels.")
    ]


@grouped
def read(flags: ReadFlags) -> None:
    """Turn a judged sheet into a file of judgements of its own, beside the published ones.

    Agreement on the controls is shown first. Controls do not become judgements.
    `bge-eval rescore RUN --more-judgements FILE` scores with both, under a name that says so.

    Examples:
      bge-eval judge read judged.csv --run my-bge --output mine.qrels
    """
    from bge_eval.cli.console import stderr
    from bge_eval.errors import MissingError, UsageError
    from bge_eval.judgements.own import own_qrels, with_own, write_own
    from bge_eval.judgements.sheet import read_sheet

    rows = read_sheet(flags.sheet)
    published = _published(rows, flags.run)
    judges = ", ".join(sorted({row.judge for row in rows if row.judge})) or "the judge"
    _show(_agreement(rows, published), judges)
    own = own_qrels(rows)
    if not own:
        raise MissingError(f"No document of {flags.sheet} has a grade, controls aside.")
    with_own(published, own, flags.sheet)
    if not flags.output.parent.is_dir():
        raise UsageError(f"--output {flags.output}: the folder does not exist.")
    write_own(flags.output, own)
    count = sum(map(len, own.values()))
    left = sum(row.grade is None for row in rows)
    stderr.print(
        f"{flags.output}: {count:,} judgements of {len(own):,} queries by {judges}; {left:,} rows"
        " have no grade.", markup=False, soft_wrap=True,
    )  # fmt: skip


def _published(rows: Sequence[Row], run: str) -> Qrels:
    """Return the judgements of the run that a sheet is of.

    Raises:
        UsageError: the sheet is of another task, or of several.
    """
    names = list(dict.fromkeys(row.task for row in rows))
    if not names:
        raise UsageError(
            "The sheet has no rows, so there is nothing to judge. `bge-eval judge export` writes"
            " one."
        )
    if len(names) > 1:
        raise UsageError(
            f"A sheet holds the documents of one task, and this one those of {', '.join(names)}."
        )
    _, [source] = _sources([run], [names[0].partition("/")[0]])
    saved = source.saved
    if saved is None or saved.name != names[0]:
        raise UsageError(f"The sheet is of {names[0]}, and --run {run} has no such run.")
    return source.qrels()


def _agreement(rows: Sequence[Row], published: Qrels) -> Agreement | None:
    """Return the agreement on the controls that are judged; None without any."""
    from bge_eval.judgements.agreement import agreement
    from bge_eval.judgements.own import control_grades

    known = [row for row in rows if row.control and row.grade is not None]
    grades = [row.grade for row in known if row.grade is not None]
    return agreement(control_grades(known, published), grades) if known else None


def _show(measured: Agreement | None, judge: str) -> None:
    """Print kappa and the confusion table."""
    from bge_eval.cli.console import stdout
    from bge_eval.cli.formats.terminal import terminal_table

    if measured is None:
        stdout.print(f"No control is judged: the agreement of {judge} is unknown.", markup=False)
        return
    kappa = "not defined" if measured.kappa is None else f"{measured.kappa:.3f}"
    stdout.print(
        f"{judge} and the existing judgements agree on {measured.share:.1%} of"
        f" {measured.documents} controls; Cohen's kappa {kappa}", markup=False,
    )  # fmt: skip
    head = ["existing grade", *(f"judged {grade}" for grade in measured.grades)]
    body = [
        [str(grade), *map(str, row)]
        for grade, row in zip(measured.grades, measured.table, strict=True)
    ]
    stdout.print(terminal_table(head, body))
