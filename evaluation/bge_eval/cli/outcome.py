"""The outcome of ``bge-eval run``: the table, the reasons of gaps, the exit code."""

from __future__ import annotations

import os
import shlex
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from bge_eval.cli.formats.printable import print_error
from bge_eval.cli.formats.registry import Format
from bge_eval.cli.options.printed import PrintFlags
from bge_eval.cli.options.saved import DEFAULT_RUNS
from bge_eval.cli.quiet import DEBUG
from bge_eval.cli.tracked import show_undelivered

if TYPE_CHECKING:
    from bge_eval.cli.tracked import Trackers
    from bge_eval.errors import BgeEvalError
    from bge_eval.leaderboard.board import Leaderboard
    from bge_eval.progress import Progress
    from bge_eval.results.finished import Report
    from bge_eval.suites.catalogue import PlannedTask


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one or several evaluations have left."""

    reports: Sequence[Report]
    """Results and failures, model by model."""
    tasks: Sequence[str]
    """The columns of the table."""
    names: Sequence[str]
    """The suites, tasks and folders as they were typed, for the table's title."""
    output: Path
    """The folder of results."""
    trackers: Trackers | None = None
    """Where the scores are sent after they are printed; None for nowhere."""
    cuts: frozenset[str] = frozenset()
    """The ways in which tasks were cut to samples, for the table's title."""

    def show(self, printed: PrintFlags, progress: Progress) -> None:
        """Print the table, the reasons of its gaps, and what people usually type next.

        Raises:
            typer.Exit: a task failed, or a tracker has not taken the scores.
        """
        undelivered = []
        if files := self.files:
            self._print(files, printed)
            progress.note(f"Results are in {self.output}. {_next_commands(self.output)}")
            if self.trackers is not None:
                undelivered = self.trackers.send(
                    self.board(printed.metric), printed.metric, progress
                )
                show_undelivered(undelivered, self.output)
        # CSV has no place for reasons.
        _exit_on_failure(self.reports, told=bool(files) and printed.form is not Format.CSV)
        if undelivered:
            raise typer.Exit(undelivered[0].error.exit_code)

    @property
    def files(self) -> list[Path]:
        """The result files, model by model."""
        return [path for report in self.reports for paths in report.done.values() for path in paths]

    def _print(self, files: Sequence[Path], printed: PrintFlags) -> None:
        from bge_eval.cli.console import stderr, stdout
        from bge_eval.cli.profile import show_profiles
        from bge_eval.cli.show import show

        board = replace(self.board(printed.metric), gaps=_reasons(self.reports))
        show(board, printed.form, stdout)
        for line in self._losses(printed.metric):
            stderr.print(line, markup=False, soft_wrap=True)
        if printed.profile:
            show_profiles(files, stderr)

    def _losses(self, metric: str) -> list[str]:
        """Return what rows in a lower precision or with an index lose, where exact ones exist."""
        from bge_eval.cli.columns import measure_and_key
        from bge_eval.leaderboard.losses import is_reduced, losing
        from bge_eval.leaderboard.reading import leaderboard
        from bge_eval.leaderboard.significance import Evidence
        from bge_eval.results.saved import find_results

        reduced = {path.resolve() for path in self.files if is_reduced(path)}
        models = {
            path.relative_to(root).parts[0]
            for path in reduced
            if path.is_relative_to(root := (self.output / "results").resolve())
        }
        if not models:
            return []
        measure, key = measure_and_key(metric)
        saved = find_results([self.output / "results" / model for model in sorted(models)])
        board = leaderboard(saved, measure=measure, key=key, tasks=list(self.tasks))
        ours = {
            row.label
            for row in board.rows
            if reduced & {path.resolve() for path in row.results.values()}
        }
        return [line for label, line in losing(board, Evidence(board, key)) if label in ours]

    def board(self, metric: str) -> Leaderboard:
        """Return the table of the results that this run made or reused."""
        from bge_eval.cli.columns import labelled, measure_and_key, named, suite_title
        from bge_eval.leaderboard.reading import leaderboard

        measure, key = measure_and_key(metric)
        title = suite_title(self.names)
        if title and self.cuts:
            title = f"{title}@{' and '.join(sorted(self.cuts))}"
        tasks = list(self.tasks)
        board = leaderboard(self.files, measure=measure, key=key, tasks=tasks, title=title)
        return named(labelled(board), key)


def planned_outcome(
    reports: Sequence[Report],
    tasks: Sequence[PlannedTask],
    names: Sequence[str],
    output: Path,
    trackers: Trackers | None = None,
) -> Outcome:
    """Return the outcome of planned tasks; the arguments are the fields of `Outcome`."""
    cuts = frozenset(filter(None, (task.cut.kind for task in tasks)))
    return Outcome(reports, [task.name for task in tasks], names, output, trackers, cuts)


def _reasons(reports: Sequence[Report]) -> dict[str, str]:
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
    exit_with(failed, "The reason is under the table." if told else "")


def exit_with(failures: Iterable[tuple[str, BgeEvalError]], told: str = "") -> None:
    """Print tasks that failed and exit with the gravest of their codes; go on if there are none.

    Args:
        failures: tasks with their errors.
        told: what is printed in place of every reason; "" prints the reasons.
    """
    failed = list(failures)
    for name, error in failed:
        print_error(f"{name} was not evaluated. {told or error}")
        if os.environ.get(DEBUG):
            traceback.print_exception(error)
    if failed:
        raise typer.Exit(max(error.exit_code for _, error in failed))


def _next_commands(output: Path) -> str:
    """Return what people usually type after a run."""
    folder = "" if output == DEFAULT_RUNS else f" {shlex.quote(str(output))}"
    return f"Next: bge-eval table{folder}, bge-eval report{folder}"
