"""Options about experiment trackers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from bge_eval.errors import UsageError

if TYPE_CHECKING:
    from bge_eval.cli.tracked import Trackers

_PANEL = "Trackers"
DEFAULT_PROJECT = "bge-eval"
"""The project in every tracker where the user names none."""


@dataclass(frozen=True, slots=True)
class TrackFlags:
    """The trackers that scores are sent to after they are saved."""

    track: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TRACKER[=PLACE]",
            help="Send the scores to tensorboard, mlflow, wandb or trackio, with a folder or an"
            " address behind = if need be (mlflow=http://localhost:5000); repeat for several.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    track_project: Annotated[
        str,
        typer.Option(
            help="The trackers' project; MLflow calls it experiment.", rich_help_panel=_PANEL
        ),
    ] = DEFAULT_PROJECT
    track_name: Annotated[
        str | None,
        typer.Option(
            help="The name of the run there. Default: the row's name.", rich_help_panel=_PANEL
        ),
    ] = None

    def trackers(self, *, offline: bool) -> Trackers | None:
        """Return the trackers, checked before anything is evaluated; None without one.

        Args:
            offline: open no connection.

        Raises:
            UsageError: an option has no effect, or a tracker is unknown or cannot work.
            MissingError: a client is not installed, or has no key.
        """
        if not self.track:
            for name, value in (("project", self.track_project), ("name", self.track_name)):
                if value not in (None, DEFAULT_PROJECT):
                    raise UsageError(f"--track-{name} has no effect without --track. Add it.")
            return None
        from bge_eval.cli.tracked import open_trackers

        return open_trackers(self.track, self.track_project, self.track_name, offline=offline)
