"""``bge-eval rescore``: any measure from saved runs, or from a TREC run of any tool."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bge_eval.cli.formats.registry import Format, write
from bge_eval.cli.grouped import grouped
from bge_eval.cli.options.saved import DEFAULT_RUNS
from bge_eval.cli.options.tasks import split_names
from bge_eval.cli.rescored import RescoredOutput, RescoredRow

if TYPE_CHECKING:
    from bge_eval.measures.measure import Measure
    from bge_eval.measures.values import Values
    from bge_eval.records import Qrels, Run

DEFAULT_MEASURES = ("nDCG@10", "RR@10", "R@100", "AP")
"""The measures without ``--metric``."""


@dataclass(frozen=True, slots=True)
class RescoreFlags:
    """The runs, their judgements and the measures."""

    runs: Annotated[
        list[str] | None,
        typer.Argument(
            help="Result folders, single results, TREC runs or models' names."
            " Default: results/runs.",
            show_default=False,
        ),
    ] = None
    metric: Annotated[
        list[str] | None,
        typer.Option(
            help="Measures as ir_measures writes them: nDCG@20, RR@10, R@50, AP(rel=2) …; BEIR's"
            " R_cap@100, Hole@10, beir:Accuracy@10; repeat.",
            show_default="nDCG@10 RR@10 R@100 AP",
        ),
    ] = None
    tasks: Annotated[
        list[str] | None,
        typer.Option("--tasks", "-t", help="Only these suites and tasks; repeat. Default: all."),
    ] = None
    qrels: Annotated[
        Path | None,
        typer.Option(help="Judgements for TREC runs: TREC's four columns or BEIR's tsv."),
    ] = None
    more_judgements: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Further judgements of documents that the run's own lack, such as those of"
            " `judge read`. The results' names say so.",
        ),
    ] = None
    unjudged: Annotated[
        bool,
        typer.Option(
            "--unjudged",
            help="Beside each measure: the share of judged documents, its bounds over all"
            " judgements of the others, and its value without them; and Bpref.",
        ),
    ] = False
    drop_identical_ids: Annotated[
        bool,
        typer.Option(
            "--drop-identical-ids",
            help="Drop documents with the query's own id from TREC runs, as BEIR does (ArguAna).",
        ),
    ] = False
    per_query: Annotated[bool, typer.Option("--per-query", help="One row for every query.")] = False
    form: Annotated[Format, typer.Option("--format", help="Format of the table.")] = Format.TERMINAL


@grouped
def rescore(flags: RescoreFlags) -> None:
    """Compute measures from runs and judgements, without a model.

    Saved runs are judged by the qrels saved with them, TREC runs of other tools by --qrels.
    ir_measures computes most measures, nearly all of them by pytrec_eval; BEIR's own are computed
    by beir. Equal scores are ordered as trec_eval orders them; a judged query without results
    counts with the measure's lowest value, 0 for most.

    Examples:
      bge-eval rescore --metric nDCG@20 RR@10 "AP(rel=2)"

      bge-eval rescore bm25.trec --qrels qrels/test.tsv --metric nDCG@10 R_cap@100
    """
    from bge_eval.cli.console import stderr, stdout
    from bge_eval.errors import MissingError
    from bge_eval.measures.measure import parse_measures

    places, names = _runs_and_measures(flags.runs or [], flags.metric)
    measures = parse_measures(names)
    wanted = _tasks_of(split_names(flags.tasks))
    jobs, without = _jobs(places, flags.qrels, wanted)
    if not jobs:
        raise MissingError(_no_runs(places, wanted, without))
    if flags.more_judgements:
        jobs = [replace(job, more=flags.more_judgements) for job in jobs]
    if flags.unjudged:
        _write_unjudged(jobs, measures, flags)
        return
    scored, notes = _judge(jobs, measures, drop_identical_ids=flags.drop_identical_ids)
    notes = [*(f"{task} has no run and is left out" for task in without), *notes]
    if not scored:
        raise MissingError("\n".join(notes))
    if not flags.per_query:
        scored += _means(scored, measures)
    rows = [row for one in scored for row in one.rows(measures, per_query=flags.per_query)]
    write(RescoredOutput(measures, rows, flags.per_query), flags.form, stdout)
    for note in dict.fromkeys(notes):
        stderr.print(note, style="yellow", markup=False, soft_wrap=True)


def _write_unjudged(jobs: Sequence[_Job], measures: Sequence[Measure], flags: RescoreFlags) -> None:
    """Print what unjudged documents could make of every measure."""
    from bge_eval.cli.console import TerminalProgress, stdout
    from bge_eval.cli.unjudged import UnjudgedOutput
    from bge_eval.errors import UsageError
    from bge_eval.judgements.holes import holes
    from bge_eval.measures.measure import Measure

    if flags.per_query:
        raise UsageError("--unjudged prints one line for each run; leave out --per-query.")
    shown = list(dict.fromkeys([*measures, Measure("Bpref")]))
    rows = []
    with TerminalProgress().step("rescore", len(jobs), "runs") as step:
        for job in jobs:
            run, qrels = job.read(flags.drop_identical_ids)
            rows += [((job.label, job.name), holes(run, qrels, measure)) for measure in shown]
            step.advance(1)
    write(UnjudgedOutput(rows), flags.form, stdout)


def _judge(
    jobs: Sequence[_Job], measures: Sequence[Measure], *, drop_identical_ids: bool
) -> tuple[list[_Scored], list[str]]:
    """Return the runs that could be judged, and remarks on all of them.

    Raises:
        MissingError: the only run, or its judgements, cannot be read.
    """
    from bge_eval.cli.console import TerminalProgress
    from bge_eval.errors import MissingError
    from bge_eval.measures.rescore import judge

    scored: list[_Scored] = []
    notes: list[str] = []
    with TerminalProgress().step("rescore", len(jobs), "runs") as step:
        for job in jobs:
            try:
                run, judgements = job.read(drop_identical_ids)
            except MissingError as error:
                if len(jobs) == 1:
                    raise
                notes.append(f"left out: {error}")
                continue
            scored.append(_Scored(job, judge(run, judgements, measures)))
            notes += _notes(job, run, judgements, measures)
            step.advance(1)
    return scored, notes


@dataclass(frozen=True, slots=True)
class _Job:
    """One run to judge."""

    label: str
    """The model, or the run's file."""
    task: str
    """The task; the judgements' file for a TREC run."""
    part: str
    """Subset and split, where the task has several runs."""
    source: Any
    """What reads the run and its judgements (`bge_eval.compare.outputs.Source`), or None."""
    weight: float = 1.0
    """What it counts in its task's mean."""

    more: Path | None = None
    """A file of further judgements."""

    def read(self, drop_identical_ids: bool) -> tuple[Run, Qrels]:
        from bge_eval.judgements.own import with_own
        from bge_eval.measures.rescore import without_identical_ids
        from bge_eval.results.trec import read_qrels

        run = self.source.run()
        if drop_identical_ids and self.source.run_file:
            run = without_identical_ids(run)
        qrels = self.source.qrels()
        if self.more is not None:
            qrels = with_own(qrels, read_qrels(self.more), self.more)
        return run, qrels

    def whole_corpus(self, deepest: int) -> bool:
        """Whether a saved run ends because there are no more documents, not by its depth."""
        identity = self.source.saved.result.identity if self.source.saved else None
        return identity is not None and deepest < identity.depth

    @property
    def name(self) -> str:
        name = f"{self.task}/{self.part}" if self.part else self.task
        source = self.source
        if source is not None and source.saved is not None and source.qrels_file is not None:
            name += f" [judged by {source.qrels_file.name}]"
        return f"{name} [+ {self.more.name}]" if self.more else name


@dataclass(frozen=True, slots=True)
class _Scored:
    job: _Job
    values: dict[Measure, Values]

    def rows(self, measures: Sequence[Measure], *, per_query: bool) -> Iterator[RescoredRow]:
        """Yield the run's row, or one row for each of its queries."""
        names = (self.job.label, self.job.name)
        if not per_query:
            yield RescoredRow(names, tuple(self.values[m].mean for m in measures))
            return
        for query in next(iter(self.values.values())).per_query:
            values = tuple(self.values[m].per_query[query] for m in measures)
            yield RescoredRow((*names, query), values)


def _runs_and_measures(
    arguments: Sequence[str], metric: Sequence[str] | None
) -> tuple[list[str], list[str]]:
    """Separate runs from measures: ``--metric A B`` leaves B among the arguments."""
    from bge_eval.errors import UsageError
    from bge_eval.measures.measure import parse_measures

    if not metric:
        return list(arguments), list(DEFAULT_MEASURES)
    places, names = [], list(metric)
    for text in arguments:
        if not Path(text).exists():
            try:
                parse_measures([text])
            except UsageError:
                pass
            else:
                names.append(text)
                continue
        places.append(text)
    return places, names


def _tasks_of(names: Sequence[str]) -> set[str]:
    """Return tasks by name, suites spelled out."""
    from bge_eval.suites.suite_files import suites, task_names

    known = suites()
    return {
        task for name in names for task in (task_names(known[name]) if name in known else [name])
    }


def _jobs(
    places: Sequence[str], qrels: Path | None, wanted: set[str]
) -> tuple[list[_Job], list[str]]:
    """Return the runs to judge, and the tasks that have none."""
    from bge_eval.compare.outputs import Source
    from bge_eval.compare.sides import Side, distinguish, find_side, sides_in
    from bge_eval.errors import UsageError

    sides: list[Side] = []
    for place in places or [str(DEFAULT_RUNS)]:
        whole = Path(place).is_dir() or not places
        sides += sides_in(Path(place)) if whole else [find_side(place, [DEFAULT_RUNS])]
    jobs: list[_Job] = []
    without: dict[str, None] = {}
    for side, label in zip(sides, distinguish(sides), strict=True):
        if side.published is not None:
            raise UsageError("Published scores have no runs: there is nothing to measure again.")
        if side.run_file:
            if qrels is None:
                raise UsageError(
                    f"{side.run_file} is a TREC run and needs judgements: --qrels FILE, as TREC"
                    " writes them (query 0 document grade) or as BEIR's tsv."
                )
            name = Path(qrels.name.removesuffix(".gz")).stem
            jobs.append(_Job(label, name, "", Source(None, side.run_file, qrels)))
        for task, result in side.results.items():
            if wanted and task not in wanted:
                continue
            if result.record.aggregate_of and not wanted:
                continue  # its parts are results of their own
            parts = result.runs()
            if not parts:
                without.setdefault(task)
            for part in parts:
                shown = part.name.removeprefix(f"{task}/") if len(parts) > 1 else ""
                jobs.append(_Job(label, task, shown, Source(part, None, qrels), part.weight))
    return jobs, list(without)


def _no_runs(places: Sequence[str], wanted: set[str], without: Sequence[str]) -> str:
    where = ", ".join(places) or str(DEFAULT_RUNS)
    if without:
        return f"No run in {where}: {', '.join(without)} are no retrieval tasks with saved runs."
    return f"No result in {where} is of {', '.join(sorted(wanted))}."


def _notes(job: _Job, run: Run, qrels: Qrels, measures: Sequence[Measure]) -> Iterator[str]:
    """Yield remarks on queries without results or judgements, and on a run that ends early."""
    from bge_eval.measures.rescore import depth

    lacking = [query for query in qrels if not run.get(query)]
    if lacking:
        yield (
            f"{job.label}, {job.name}: {len(lacking)} of {len(qrels)} judged queries have no"
            " result; they count 0"
        )
    if others := [query for query in run if query not in qrels]:
        yield f"{job.label}, {job.name}: {len(others)} queries are not judged and are left out"
    deepest = depth(run)
    beyond = [str(m) for m in measures if m.cutoff and m.cutoff > deepest]
    if beyond and not job.whole_corpus(deepest):
        yield (
            f"{job.label}, {job.name}: the run ends at place {deepest}; beyond it nothing counts"
            f" as found in {', '.join(beyond)}"
        )


def _means(scored: Sequence[_Scored], measures: Sequence[Measure]) -> list[_Scored]:
    """Return a row for every task of several runs: the mean over them, as mteb takes it."""
    from bge_eval.measures.values import Values

    groups: dict[tuple[str, str], list[_Scored]] = {}
    for one in scored:
        if one.job.part:
            groups.setdefault((one.job.label, one.job.task), []).append(one)
    means = []
    for (label, task), group in groups.items():
        total = sum(one.job.weight for one in group)
        values = {
            measure: Values(
                sum(one.job.weight * one.values[measure].mean for one in group) / total, {}
            )
            for measure in measures
        }
        means.append(_Scored(_Job(label, f"{task} (mean of {len(group)})", "", None), values))
    return means
