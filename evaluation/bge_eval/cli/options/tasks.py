"""Options that choose tasks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

import typer


@dataclass(frozen=True, slots=True)
class TaskFlags:
    """The tasks that ``bge-eval run`` evaluates."""

    tasks: Annotated[
        list[str],
        typer.Option(
            help="A suite (beir), a task (SciFact), a folder of your own (./tickets) or a task"
            " class (module:Class). Several: with commas, with spaces, or repeat."
        ),
    ]
    more_tasks: Annotated[list[str] | None, typer.Argument(hidden=True, metavar="TASKS")] = None
    """The names after the first in ``--tasks SciFact NFCorpus``; typer reads them as arguments."""
    subset: Annotated[
        list[str] | None,
        typer.Option(help="Only these subsets (languages) of tasks that have several; repeat."),
    ] = None
    lang: Annotated[
        list[str] | None,
        typer.Option(help="Only tasks and subsets of these languages (eng, zho, de); repeat."),
    ] = None

    @property
    def names(self) -> list[str]:
        """The names of suites, tasks and folders, in the order typed."""
        return split_names([*self.tasks, *(self.more_tasks or [])])


def split_names(values: Iterable[str] | None) -> list[str]:
    """Return the names in the values of an option that may be repeated and take commas."""
    return [name for value in values or () for name in value.split(",") if name]
