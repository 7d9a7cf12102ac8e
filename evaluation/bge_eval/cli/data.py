"""``bge-eval data``: bring data sets here, and verify those that are here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bge_eval.cli.quiet import prepare


def fetch(
    tasks: Annotated[list[str], typer.Option(help="Suites and tasks; repeat.")],
    data_dir: Annotated[Path, typer.Option(help="Where the copies go.")],
    lang: Annotated[list[str] | None, typer.Option(help="Only tasks of these languages.")] = None,
) -> None:
    """Download the dataset repositories of tasks, to be carried to a closed network.

    What is there already is not fetched again; what was interrupted goes on.

    Examples:
      bge-eval data fetch --tasks c-mteb --data-dir ./datasets
    """
    prepare()
    from bge_eval.cli.console import TerminalProgress
    from bge_eval.data.fetch import fetch_dataset
    from bge_eval.errors import BgeEvalError
    from bge_eval.suites import plan

    progress = TerminalProgress()
    names = [name for item in tasks for name in item.split(",") if name]
    planned = [part for task in plan(names, (), lang or ()) for part in (task.parts or (task,))]
    failed = 0
    for number, part in enumerate(planned, start=1):
        if part.shipped or part.code:
            whence = "comes with bge-eval" if part.shipped else "loads its own data"
            progress.note(f"[{number}/{len(planned)}] {part.name}: {whence}")
            continue
        try:
            folder = fetch_dataset(part.task, data_dir)
        except BgeEvalError as error:
            failed += 1
            typer.echo(f"Error: {error}", err=True)
        else:
            progress.note(f"[{number}/{len(planned)}] {part.name}: {folder}")
    if failed:
        typer.echo(f"{failed} of {len(planned)} data sets could not be fetched.", err=True)
        raise typer.Exit(3)


def check(
    tasks: Annotated[list[str], typer.Option(help="Suites and tasks; repeat.")],
    data_dir: Annotated[list[Path], typer.Option(help="Folders of data sets; repeat.")],
    subset: Annotated[list[str] | None, typer.Option(help="Only these subsets; repeat.")] = None,
    lang: Annotated[list[str] | None, typer.Option(help="Only these languages; repeat.")] = None,
) -> None:
    """Read local data sets whole and compare them with mteb's own counts.

    Every line is checked, and that every judgement's document and query exist.

    Examples:
      bge-eval data check --tasks SciFact --data-dir ./datasets
    """
    prepare(offline=True)
    from rich.table import Table
    from rich.text import Text

    from bge_eval.cli.console import TerminalProgress, stdout
    from bge_eval.data.fetch import Verdict, verify
    from bge_eval.errors import BgeEvalError
    from bge_eval.suites import plan

    progress = TerminalProgress()
    names = [name for item in tasks for name in item.split(",") if name]
    planned = plan(names, subset or (), lang or ())
    parts = [part for task in planned for part in (task.parts or (task,))]
    table = Table("task", "found", "counted", "verdict")
    bad = 0
    for part in parts:
        origin = ""
        try:
            source = part.source(data_dir, offline=True)
            source.check(part.task)
            origin = source.origin
            verdict = verify(part.task, source, progress)
        except BgeEvalError as error:
            verdict = Verdict({}, (str(error),))
        bad += bool(verdict.problems)
        counted = ", ".join(f"{number:,} {name}" for name, number in verdict.counted.items())
        said = Text(
            " ".join(verdict.problems) or "ok", style="red" if verdict.problems else "green"
        )
        table.add_row(part.name, origin, counted, said)
    stdout.print(table)
    if bad:
        typer.echo(f"{bad} of {len(parts)} data sets are missing or not as expected.", err=True)
        raise typer.Exit(3)
