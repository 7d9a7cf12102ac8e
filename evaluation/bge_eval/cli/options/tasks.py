"""Options that choose tasks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from bge_eval.errors import UsageError


def complete_tasks(incomplete: str) -> list[str]:
    """Return the suites, and the tasks that their files name, which start with a text."""
    from bge_eval.suites.suite_files import suites

    known = suites()
    names = [*known, *dict.fromkeys(task for suite in known.values() for task in suite.tasks)]
    return [name for name in names if name.casefold().startswith(incomplete.casefold())]


Subsets: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(help="Only these subsets (languages) of tasks that have several; repeat."),
]
"""``--subset``, of every command that takes it."""
Languages: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(help="Only tasks and subsets of these languages (eng, zho, de); repeat."),
]
"""``--lang``, of every command that takes it."""


@dataclass(frozen=True, slots=True)
class NamedTasks:
    """The tasks of a command."""

    tasks: Annotated[
        list[str] | None,
        typer.Option(
            "--tasks",
            "-t",
            help="A suite (beir), a task (SciFact), a folder of your own (./tickets), a collection"
            " of ir_datasets (ir:vaswani) or a task class (module:Class). Several: with commas,"
            " with spaces, or repeat.",
            autocompletion=complete_tasks,
        ),
    ] = None
    more_tasks: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TASKS",
            help="The same without --tasks.",
            autocompletion=complete_tasks,
        ),
    ] = None
    subset: Subsets = None
    lang: Languages = None

    @property
    def names(self) -> list[str]:
        """The names of suites, tasks and folders, in the order typed.

        Raises:
            UsageError: there is none.
        """
        names = split_names([*(self.tasks or []), *(self.more_tasks or [])])
        if not names:
            raise UsageError(
                "No task was given. Name a suite, a task or a folder: --tasks beir, --tasks SciFact"
                " or --tasks ./tickets; `bge-eval tasks` lists the suites."
            )
        return names


@dataclass(frozen=True, slots=True)
class TaskFlags(NamedTasks):
    """The tasks that ``bge-eval run`` evaluates, or the file of an experiment."""

    more_tasks: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TASKS",
            help="The same without --tasks: bge-eval run ./tickets --model bm25; or the file of an"
            " experiment: bge-eval run experiment.toml",
            autocompletion=complete_tasks,
        ),
    ] = None

    @property
    def experiment(self) -> Path | None:
        """The file of an experiment, which is named in the place of tasks; None without one.

        Raises:
            UsageError: there is something beside it.
        """
        files = [name for name in self.more_tasks or [] if name.endswith(".toml")]
        if len(files) > 1 or (files and len(self.more_tasks or []) > 1):
            raise UsageError(
                f"An experiment runs alone: {' '.join(self.more_tasks or [])}. Its file names the"
                " tasks, or --tasks does."
            )
        return Path(files[0]) if files else None


def split_names(values: Iterable[str] | None) -> list[str]:
    """Return the names in the values of an option that may be repeated and take commas."""
    parts = [part.strip() for value in values or () for part in value.split(",")]
    return [part for part in parts if part]
