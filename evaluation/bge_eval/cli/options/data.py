"""Options of ``bge-eval run`` about where data come from and results go."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from bge_eval.cli.options.cut import CutFlags
from bge_eval.cli.options.saved import DEFAULT_RUNS
from bge_eval.cli.options.tracking import TrackFlags
from bge_eval.errors import UsageError
from bge_eval.results.label import check_label

_PANEL = "Data and results"


@dataclass(frozen=True, slots=True)
class DataFlags:
    """The folders of data and results, which data are accepted, and trackers of results."""

    data_dir: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder of data sets, each a folder or zip in it (<dir>/SciFact/corpus.jsonl …);"
            " repeat. Layouts: BEIR's, FlagEmbedding's, downloads of the hub's repositories, plain"
            " rows (docs/data.md).",
            rich_help_panel=_PANEL,
        ),
    ] = None
    offline: Annotated[
        bool, typer.Option("--offline", help="Open no connection.", rich_help_panel=_PANEL)
    ] = False
    available: Annotated[
        bool,
        typer.Option(
            "--available",
            help="Run the tasks whose data are on this machine; download none.",
            rich_help_panel=_PANEL,
        ),
    ] = False
    allow_dangling_qrels: Annotated[
        bool,
        typer.Option(
            "--allow-dangling-qrels",
            help="Accept judgements of documents that the corpus lacks.",
            rich_help_panel=_PANEL,
        ),
    ] = False
    allow_other_data: Annotated[
        bool,
        typer.Option(
            "--allow-other-data",
            help="Accept local data of another size or script than their task's name says.",
            rich_help_panel=_PANEL,
        ),
    ] = False
    fail_fast: Annotated[
        bool,
        typer.Option(
            "--fail-fast",
            help="Stop at the first task that fails. Without it the other tasks run, and the table"
            " shows the gap with its reason.",
            rich_help_panel=_PANEL,
        ),
    ] = False
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Folder of results.", rich_help_panel=_PANEL),
    ] = DEFAULT_RUNS
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="List what would run, what is done and which data are missing; compute nothing.",
            rich_help_panel=_PANEL,
        ),
    ] = False
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", help="Run again the tasks that have results.", rich_help_panel=_PANEL
        ),
    ] = False
    tracking: TrackFlags = field(default_factory=TrackFlags)

    cut: CutFlags = field(default_factory=CutFlags)

    def check(self) -> None:
        """Refuse options that have no effect.

        Raises:
            UsageError: an option of --lite without it.
        """
        _ = self.cut.record


@dataclass(frozen=True, slots=True)
class RunDataFlags(DataFlags):
    """The same, with what is told before a run and the name of its row."""

    estimate: Annotated[
        bool,
        typer.Option(
            "--estimate",
            help="Tell the time, disk and memory of the run from a sample of every task's texts.",
            rich_help_panel=_PANEL,
        ),
    ] = False
    price: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="With --estimate: the price of an hour of this machine, to tell the cost.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    label: Annotated[
        str | None,
        typer.Option(
            help="Your own name for the row, such as 'step 3000'; changes no score.",
            rich_help_panel=_PANEL,
        ),
    ] = None

    def check(self) -> None:
        """Refuse options that have no effect.

        Raises:
            UsageError: --price without --estimate, an option of --lite without it, or a label
                that is none.
        """
        if self.label is not None:
            check_label(self.label)
        DataFlags.check(self)
        if self.price is not None and not self.estimate:
            raise UsageError("--price belongs to --estimate, which tells the cost; add it.")
