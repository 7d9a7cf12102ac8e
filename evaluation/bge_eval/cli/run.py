"""``bge-eval run``: evaluate, save, print the table."""

from __future__ import annotations

import os
import shlex
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bge_eval.cli.formats.printable import print_error
from bge_eval.cli.formats.registry import Format
from bge_eval.cli.grouped import grouped
from bge_eval.cli.options.data import DataFlags
from bge_eval.cli.options.machine import MachineFlags
from bge_eval.cli.options.model import ModelFlags
from bge_eval.cli.options.reranker import RerankerFlags
from bge_eval.cli.options.saved import DEFAULT_RUNS
from bge_eval.cli.options.served import ServerFlags
from bge_eval.cli.options.tasks import TaskFlags
from bge_eval.cli.quiet import DEBUG, prepare
from bge_eval.errors import UsageError

if TYPE_CHECKING:
    from bge_eval.cli.opening import Blend
    from bge_eval.evaluation import Options, Preview, Report
    from bge_eval.leaderboard.board import Leaderboard
    from bge_eval.models.base import Model
    from bge_eval.progress import Progress
    from bge_eval.rerank.reranker import Reranker
    from bge_eval.suites.catalogue import PlannedTask


@dataclass(frozen=True, slots=True)
class PrintFlags:
    """What is printed, and in which format."""

    metric: Annotated[
        str,
        typer.Option(help="Measure of the table: main (each task's own), nDCG@10, RR@10, R@100 …"),
    ] = "main"
    form: Annotated[Format, typer.Option("--format", help="Format of the table.")] = Format.TERMINAL
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print no progress and no notes; errors stay.")
    ] = False


@grouped
def run(
    tasks: TaskFlags,
    model: ModelFlags,
    reranker: RerankerFlags,
    server: ServerFlags,
    data: DataFlags,
    printed: PrintFlags,
    machine: MachineFlags,
) -> None:
    """Evaluate a model on tasks, save the results, print the table.

    Examples:
      bge-eval run --model builtin:all-MiniLM-L6-v2 --tasks demo

      bge-eval run --model BAAI/bge-base-en-v1.5 --tasks beir

      bge-eval run --model ./my-model --tasks SciFact --data-dir ./datasets --offline

      bge-eval run --model BAAI/bge-base-en-v1.5 --reranker BAAI/bge-reranker-base --tasks SciFact

      bge-eval run --model http://localhost:7997 --api infinity --tasks ./tickets

      bge-eval run --fuse rrf --model bm25 --model BAAI/bge-base-en-v1.5 --tasks SciFact
    """
    prepare(offline=data.offline)
    from bge_eval.cli.columns import measure_and_key
    from bge_eval.cli.console import TerminalProgress

    machine.check()
    measure_and_key(printed.metric)
    progress = TerminalProgress(quiet=printed.quiet)
    progress.note("Loading mteb and torch …")

    from bge_eval.cli.opening import Opener, blend
    from bge_eval.cli.records import evaluate_options
    from bge_eval.suites.catalogue import plan

    planned = plan(tasks.names, tasks.subset or [], tasks.lang or [])
    fusion = blend(model)
    opener = Opener(model, reranker, server, machine, data.offline, progress)
    models, second = opener.open()
    evaluation = _Evaluation(planned, evaluate_options(data, reranker), second, progress)
    if data.dry_run:
        _print_previews(evaluation, models)
        return
    reports = evaluation.run(models, fusion)
    paths = [path for report in reports for path in _paths(report)]
    if paths:
        board = _board(paths, planned, tasks.names, printed.metric)
        board = replace(board, gaps=_gaps(reports))
        _print(board, paths, printed, machine.profile)
        progress.note(f"Results are in {data.output}. {_next_commands(data.output)}")
    # CSV has no place for reasons.
    _exit_on_failure(reports, told=bool(paths) and printed.form is not Format.CSV)


@dataclass(frozen=True, slots=True)
class _Evaluation:
    """The tasks that every model is evaluated on, and how."""

    tasks: Sequence[PlannedTask]
    options: Options
    reranker: Reranker | None
    progress: Progress

    def run(self, models: Sequence[Model], fusion: Blend | None) -> list[Report]:
        """Evaluate the models one after another, then their fusion; the last is reranked."""
        if fusion is None and self.options.label and len(models) > 1:
            raise UsageError("--label names one row, and several --model make one row each.")
        if fusion is None:
            return [self._one(model, self.reranker) for model in models]
        reports = [self._part(model) for model in models]
        runs = [self._saved(model, report) for model, report in zip(models, reports, strict=True)]
        fused = self._one(fusion.model(runs, self.progress), self.reranker)
        return [report for report in (*reports, fused) if report is not None]

    def preview(self, model: Model) -> list[Preview]:
        """Return what one model would run."""
        from bge_eval.evaluation import preview

        return preview(
            model, self.tasks, self.options, reranker=self.reranker, progress=self.progress
        )

    def _part(self, model: Model) -> Report | None:
        """Evaluate one part of a fusion; None for saved runs, whose results exist."""
        from bge_eval.cli.opening import introduce

        if model.is_saved:
            introduce(model, self.progress)
            return None
        unnamed = replace(self, options=replace(self.options, label=""))
        return unnamed._one(model, None)

    def _saved(self, model: Model, report: Report | None) -> Model:
        """Return the runs that a part has left."""
        from bge_eval.models.saved_runs import open_runs

        if report is None:
            return model
        paths = _paths(report)
        if not paths:
            raise next(iter(report.failed.values()))
        return open_runs(paths[0].parent, self.progress)

    def _one(self, model: Model, reranker: Reranker | None) -> Report:
        from bge_eval.cli.opening import introduce
        from bge_eval.evaluation import evaluate

        introduce(model, self.progress)
        return evaluate(model, self.tasks, self.options, reranker=reranker, progress=self.progress)


def _print_previews(evaluation: _Evaluation, models: Sequence[Model]) -> None:
    """Print what each model would run."""
    from bge_eval.cli.console import stdout
    from bge_eval.cli.formats.terminal import terminal_table
    from bge_eval.cli.opening import introduce

    for model in models:
        introduce(model, evaluation.progress)
        rows = [(task.task, _state(task), task.origin or "–") for task in evaluation.preview(model)]
        stdout.print(terminal_table(("task", "state", "data"), rows, left=(0, 1, 2)))


def _state(task: Preview) -> str:
    if not task.stages:
        return "data missing"
    if task.saved == task.stages:
        return "done"
    return f"to run ({task.saved} of {task.stages} parts done)" if task.saved else "to run"


def _next_commands(output: Path) -> str:
    """Return what people usually type after a run."""
    folder = "" if output == DEFAULT_RUNS else f" {shlex.quote(str(output))}"
    return f"Next: bge-eval table{folder}, bge-eval report{folder}"


def _paths(report: Report) -> list[Path]:
    """Return the result files of a report, tasks in order."""
    return [path for paths in report.done.values() for path in paths]


def _board(
    paths: Sequence[Path], tasks: Sequence[PlannedTask], names: Sequence[str], metric: str
) -> Leaderboard:
    """Return the table of the results that this run made or reused."""
    from bge_eval.cli.columns import labelled, measure_and_key, named, suite_title
    from bge_eval.leaderboard.reading import leaderboard

    measure, key = measure_and_key(metric)
    columns = [task.name for task in tasks]
    title = suite_title(names)
    board = leaderboard(paths, measure=measure, key=key, tasks=columns, title=title)
    return named(labelled(board), key)


def _print(board: Leaderboard, paths: Sequence[Path], printed: PrintFlags, profile: bool) -> None:
    from bge_eval.cli.console import stderr, stdout
    from bge_eval.cli.profile import show_profiles
    from bge_eval.cli.show import show

    show(board, printed.form, stdout)
    if profile:
        show_profiles(paths, stderr)


def _gaps(reports: Sequence[Report]) -> dict[str, str]:
    """Return the reason of every task that has no score."""
    from bge_eval.errors import one_line

    gaps = {
        name: one_line(error, None) for report in reports for name, error in report.failed.items()
    }
    left = [name for report in reports for name in report.left]
    return gaps | dict.fromkeys(left, "It was not begun: --fail-fast stops at the first failure.")


def _exit_on_failure(reports: Sequence[Report], *, told: bool) -> None:
    """Print every task that failed and exit with the gravest of their codes.

    Args:
        reports: what was evaluated, model by model.
        told: the table shows the reasons, which are not repeated.
    """
    failed = [failure for report in reports for failure in report.failed.items()]
    for name, error in failed:
        reason = "The reason is under the table." if told else error
        print_error(f"{name} was not evaluated. {reason}")
        if os.environ.get(DEBUG):
            traceback.print_exception(error)
    if failed:
        raise typer.Exit(max(error.exit_code for _, error in failed))
