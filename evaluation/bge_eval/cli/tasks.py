"""``bge-eval tasks``: what can be run."""

from __future__ import annotations

from typing import Annotated

import typer


def tasks(
    name: Annotated[
        str | None, typer.Argument(metavar="SUITE", help="List the tasks of this suite.")
    ] = None,
) -> None:
    """List the suites, or the tasks of one suite and the folder names their data may have.

    Examples:
      bge-eval tasks

      bge-eval tasks beir
    """
    from rich.table import Table

    from bge_eval.cli.console import stdout
    from bge_eval.errors import UsageError, did_you_mean
    from bge_eval.suites import suites, task_names

    listing = Table(title=None)
    if name is None:
        listing.add_column("suite", no_wrap=True)
        listing.add_column("what it is")
        for suite in suites().values():
            listing.add_row(suite.name, suite.description)
    else:
        chosen = suites().get(name)
        if chosen is None:
            raise UsageError(
                f"There is no suite '{name}'.{did_you_mean(name, suites())}"
                f" Suites: {', '.join(suites())}."
            )
        listing.add_column("task", no_wrap=True)
        listing.add_column("also found in a folder named")
        for task in task_names(chosen):
            listing.add_row(task, chosen.folders.get(task, ""))
    stdout.print(listing)
