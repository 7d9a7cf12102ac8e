"""``bge-eval check``: fail a build when a score dropped."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bge_eval.cli.formats.registry import Format, write
from bge_eval.cli.grouped import grouped
from bge_eval.cli.options.saved import DEFAULT_RUNS
from bge_eval.cli.options.tasks import split_names

if TYPE_CHECKING:
    from bge_eval.gate.gate import Request


@dataclass(frozen=True, slots=True)
class CheckFlags:
    """The baseline, the runs and the rules of the gate."""

    baseline: Annotated[
        str,
        typer.Option(
            help="A baseline's file, its name in results/baselines, or a run to compare with."
        ),
    ]
    runs: Annotated[
        list[Path] | None,
        typer.Argument(help="Folders of runs. Default: results/runs.", show_default=False),
    ] = None
    update: Annotated[
        bool, typer.Option("--update", help="Write the runs into the baseline's file.")
    ] = False
    tasks: Annotated[
        list[str] | None,
        typer.Option("--tasks", "-t", help="Only these suites and tasks of the baseline; repeat."),
    ] = None
    model: Annotated[
        str,
        typer.Option(
            help="Of several runs of a task: the one of this name, or part of a name or revision."
        ),
    ] = ""
    latest: Annotated[
        bool, typer.Option("--latest", help="Of several runs of a task: the newest.")
    ] = False
    rules: Annotated[
        Path | None,
        typer.Option(
            help="What may be lost, in TOML. Default: the .toml beside the baseline, if there is"
            " one; else half a point that is more than chance.",
            show_default=False,
        ),
    ] = None
    other_data: Annotated[
        bool,
        typer.Option(
            "--other-data", help="Compare although the baseline has other data or another index."
        ),
    ] = False
    junit: Annotated[
        Path | None, typer.Option(help="Write the verdict as JUnit XML too.", show_default=False)
    ] = None
    form: Annotated[Format, typer.Option("--format", help="Format of the verdict.")] = (
        Format.TERMINAL
    )


@grouped
def check(flags: CheckFlags) -> None:
    """Compare saved runs with a baseline; exit 1 if a score dropped, 3 if a task is missing.

    In a GitHub workflow it also writes annotations and the step's summary.

    Examples:
      bge-eval check --update --baseline main

      bge-eval check --baseline main --latest --junit check.xml

      bge-eval check ./new-runs --baseline ./old-runs --rules rules.toml
    """
    from bge_eval.cli.console import stdout
    from bge_eval.cli.show_check import VerdictOutput, markdown
    from bge_eval.errors import BgeEvalError
    from bge_eval.gate import gate
    from bge_eval.gate.github import (
        in_actions,
        workflow_command,
        workflow_commands,
        write_summary,
    )
    from bge_eval.gate.junit import write_junit
    from bge_eval.gate.selection import Selection

    request = gate.Request(
        baseline=flags.baseline,
        runs=tuple(flags.runs or [DEFAULT_RUNS]),
        selection=Selection(flags.model, flags.latest),
        rules=flags.rules,
        tasks=tuple(split_names(flags.tasks)),
        other_data=flags.other_data,
    )
    try:
        if flags.update:
            _update(request)
            return
        outcome = gate.judge(request)
    except BgeEvalError as error:
        if in_actions():
            typer.echo(workflow_command("error", "bge-eval check", str(error)), err=True)
        raise
    write(VerdictOutput(outcome), flags.form, stdout)
    if in_actions():
        # Actions reads commands from both streams; stdout holds the verdict alone.
        for line in workflow_commands(outcome):
            typer.echo(line, err=True)
        write_summary(markdown(outcome))
    if flags.junit is not None:
        write_junit(outcome, flags.junit)
    if outcome.exit_code:
        raise typer.Exit(outcome.exit_code)


def _update(request: Request) -> None:
    """Write the baseline and show what that changed."""
    from bge_eval.cli.console import stderr, stdout
    from bge_eval.cli.show_check import detectable, updated
    from bge_eval.gate.gate import rules_of, update
    from bge_eval.gate.power import detectable_drops

    before, after = update(request)
    stdout.print(updated(before, after))
    if drops := detectable_drops(before, after, rules_of(request)):
        stdout.print(detectable(drops))
    stderr.print(f"{after.path} is written; commit it.", style="dim", markup=False)
