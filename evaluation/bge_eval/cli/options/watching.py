"""Options of ``bge-eval watch`` about the checkpoints: order, when to stop, which to keep."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from bge_eval.cli.options.data import DataFlags
from bge_eval.cli.options.index import IndexFlags
from bge_eval.cli.options.model import FamilyFlags, ModelFlags, PromptFlags, SettingFlags
from bge_eval.cli.options.tasks import Languages, Subsets, complete_tasks, split_names
from bge_eval.errors import UsageError

_PANEL = "Watching"


@dataclass(frozen=True, slots=True)
class WatchFlags:
    """The tasks, the order of checkpoints, and the reasons to stop."""

    tasks: Annotated[
        list[str] | None,
        typer.Option(
            "--tasks",
            "-t",
            help="A suite, a task or a folder of your own; with commas, or repeat.",
            autocompletion=complete_tasks,
        ),
    ] = None
    subset: Subsets = None
    lang: Languages = None
    newest_first: Annotated[
        bool,
        typer.Option(
            "--newest-first",
            help="Evaluate the last step first. Default: in order.",
            rich_help_panel=_PANEL,
        ),
    ] = False
    every: Annotated[
        float,
        typer.Option(
            min=0.1, help="Seconds between two looks at the folder.", rich_help_panel=_PANEL
        ),
    ] = 10.0
    until_steps: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Stop when a checkpoint of this step or later is evaluated, and those before it.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    idle: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Stop when no checkpoint has come for so many seconds; 0 evaluates what is here.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    stop_file: Annotated[
        Path | None,
        typer.Option(help="Stop when this file exists.", rich_help_panel=_PANEL),
    ] = None
    keep_best: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Keep the N best checkpoints as hard links, which stay when the trainer removes"
            " its own.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    best_folder: Annotated[
        Path | None,
        typer.Option(
            help="Folder of these links. Default: best/ in the output folder.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    patience: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Stop, with exit code 1, when so many later checkpoints are no better than the"
            " best.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    signal: Annotated[
        Path | None,
        typer.Option(
            help="File that is written when the patience runs out, for the training to read.",
            rich_help_panel=_PANEL,
        ),
    ] = None

    @property
    def task_names(self) -> list[str]:
        """The names of suites, tasks and folders, in the order typed."""
        return split_names(self.tasks)

    def links_in(self, output: Path) -> Path:
        """Return the folder of links to the best checkpoints."""
        return self.best_folder or output / "best"

    def check(self, data: DataFlags) -> None:
        """Refuse options that contradict each other or have no effect.

        Raises:
            UsageError: there are such options, or no task.
        """
        if not self.task_names:
            raise UsageError("No task was given. Name a suite, a task or a folder: --tasks SciFact")
        if self.best_folder is not None and self.keep_best is None:
            raise UsageError("--best-folder has no effect without --keep-best. Add it.")
        if self.signal is not None and self.patience is None:
            raise UsageError("--signal has no effect without --patience. Add it.")
        data.check()


@dataclass(frozen=True, slots=True)
class CheckpointFlags:
    """How each checkpoint is run: the options of a model, without its name."""

    settings: SettingFlags = field(default_factory=SettingFlags)
    prompting: PromptFlags = field(default_factory=PromptFlags)
    searching: IndexFlags = field(default_factory=IndexFlags)
    family: FamilyFlags = field(default_factory=FamilyFlags)

    @property
    def model(self) -> ModelFlags:
        """The options of a model that has no name yet."""
        return ModelFlags(
            settings=self.settings,
            prompting=self.prompting,
            searching=self.searching,
            family=self.family,
        )
