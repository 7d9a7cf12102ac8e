"""Options of the commands that read saved results: which results, which columns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from bge_eval.cli.options.tasks import Languages, Subsets, split_names

DEFAULT_RUNS = Path("results/runs")
"""The folder of results where a command names none."""

RunFolders = Annotated[
    list[Path] | None,
    typer.Argument(help="Result folders. Default: results/runs.", show_default=False),
]
OnlyModels = Annotated[
    list[str] | None,
    typer.Option(help="Only rows whose name contains this; repeat for several."),
]


@dataclass(frozen=True, slots=True)
class SavedFlags:
    """The saved results that a command reads."""

    runs: RunFolders = None
    tasks: Annotated[
        list[str] | None,
        typer.Option(
            "--tasks",
            "-t",
            help="Only a suite or tasks; repeat. Default: every task with a result.",
        ),
    ] = None
    models: OnlyModels = None

    @property
    def folders(self) -> list[Path]:
        """The folders of results."""
        return self.runs or [DEFAULT_RUNS]

    @property
    def task_names(self) -> list[str]:
        """The suites and tasks; empty for all."""
        return split_names(self.tasks)

    @property
    def model_names(self) -> list[str]:
        """The texts of which one must be in a row's name; empty for all rows."""
        return self.models or []

    def is_wanted(self, label: str) -> bool:
        """Whether a row's name contains one of the wanted texts, letter case aside."""
        texts = [text.casefold() for text in self.model_names]
        return not texts or any(text in label.casefold() for text in texts)


@dataclass(frozen=True, slots=True)
class PartFlags:
    """The subsets of the tasks that a table is of."""

    subset: Subsets = None
    lang: Languages = None

    @property
    def subsets(self) -> list[str]:
        """The subsets; empty for all."""
        return split_names(self.subset)

    @property
    def languages(self) -> list[str]:
        """The languages; empty for all."""
        return split_names(self.lang)

    def __bool__(self) -> bool:
        """Whether any is chosen."""
        return bool(self.subsets or self.languages)
