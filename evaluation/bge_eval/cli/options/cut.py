"""Options of ``bge-eval run`` and ``watch`` that score a part of every task."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bge_eval.errors import UsageError
from bge_eval.results.cut import Lite

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bge_eval.suites.catalogue import PlannedTask

_PANEL = "A part of the tasks"


@dataclass(frozen=True, slots=True)
class CutFlags:
    """The first queries of every task, and smaller corpora."""

    limit: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Only the first N queries (or pairs, or texts) of every task, filed as"
            " SciFact@limit=N apart from the whole task.",
            metavar="N",
            rich_help_panel=_PANEL,
        ),
    ] = None
    lite: Annotated[
        bool,
        typer.Option(
            "--lite",
            help="Cut every corpus to the judged documents, the first ones of --lite-runs and a"
            " sample; filed as SciFact@lite=… apart from the whole task.",
            rich_help_panel=_PANEL,
        ),
    ] = False
    lite_runs: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder of saved results or of TREC runs, whose first documents stay; repeat.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    lite_top: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Documents of each query that --lite-runs keep. Default: 100.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    lite_sample: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Documents that are sampled from the corpus. Default: 1000.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    lite_seed: Annotated[
        int | None,
        typer.Option(min=0, help="Seed of the sample. Default: 0.", rich_help_panel=_PANEL),
    ] = None

    @property
    def record(self) -> Lite | None:
        """How corpora are cut; None for whole ones.

        Raises:
            UsageError: an option of --lite is given without it, or has no effect.
        """
        options = {
            "--lite-runs": self.lite_runs or None,
            "--lite-top": self.lite_top,
            "--lite-sample": self.lite_sample,
            "--lite-seed": self.lite_seed,
        }
        stated = [name for name, value in options.items() if value is not None]
        if not self.lite:
            if stated:
                raise UsageError(f"{stated[0]} belongs to --lite, which cuts the corpora; add it.")
            return None
        if self.lite_top is not None and not self.lite_runs:
            raise UsageError("--lite-top has no effect without --lite-runs FOLDER. Add it.")
        usual = Lite()
        return Lite(
            tuple(self.lite_runs or ()),
            usual.top if self.lite_top is None else self.lite_top,
            usual.sample if self.lite_sample is None else self.lite_sample,
            usual.seed if self.lite_seed is None else self.lite_seed,
        )

    def apply(self, planned: Sequence[PlannedTask]) -> list[PlannedTask]:
        """Return the tasks of which only a part is scored."""
        from bge_eval.suites.cutting import cut_tasks

        return cut_tasks(planned, self.limit, self.record)
