"""What ``run``, ``watch`` and ``track`` send to trackers, and what they print about it."""

from __future__ import annotations

import os
import shlex
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bge_eval.cli.formats.printable import print_error
from bge_eval.cli.quiet import DEBUG
from bge_eval.errors import BgeEvalError, UsageError

if TYPE_CHECKING:
    from bge_eval.leaderboard.board import Leaderboard
    from bge_eval.progress import Progress
    from bge_eval.tracking.tracker import Target

_LONGEST_NAME = 100


@dataclass(frozen=True, slots=True)
class Undelivered:
    """A tracker that has not taken the scores."""

    target: Target
    """The tracker."""
    error: BgeEvalError
    """Why."""


@dataclass(frozen=True, slots=True)
class Trackers:
    """The trackers of one command."""

    targets: Sequence[Target]
    """The trackers, in the order typed."""
    name: str = ""
    """The user's own name for the run; "" for the row's."""

    def send(
        self, board: Leaderboard, metric: str, progress: Progress, *, training: bool = False
    ) -> list[Undelivered]:
        """Send a table's rows to every tracker, and print what each has taken.

        Args:
            board: the table.
            metric: its measure, as it was typed.
            progress: receives one line for each run and tracker.
            training: every row is a checkpoint of a training.

        Returns:
            The trackers that have not taken the scores; their errors are not printed here.
        """
        from bge_eval.cli.columns import measure_and_key
        from bge_eval.tracking.runs import tracked_runs
        from bge_eval.tracking.sending import send

        undelivered = []
        for target in self.targets:
            try:
                _, key = measure_and_key(metric)
                runs = tracked_runs(board, key, name=self.name, training=training)
                for delivery in send(runs, target):
                    progress.note(str(delivery))
            except BgeEvalError as error:
                undelivered.append(Undelivered(target, error))
        return undelivered


def open_trackers(
    texts: Sequence[str], project: str, name: str | None, *, offline: bool
) -> Trackers:
    """Parse and check the trackers of a command.

    Raises:
        UsageError: a tracker is unknown or cannot work, or a name is no line of text.
        MissingError: a client is not installed, or has no key.
    """
    from bge_eval.tracking.sending import read_targets

    if name is not None and (not name.strip() or not name.isprintable()):
        raise UsageError(
            "The name of a tracker's run must be a line of text, such as 'bge, lr 1e-5'."
        )
    if name is not None and len(name) > _LONGEST_NAME:
        raise UsageError(
            f"The name of a tracker's run has {len(name)} characters; {_LONGEST_NAME} are allowed."
        )
    return Trackers(read_targets(texts, project, offline=offline), name or "")


def show_undelivered(undelivered: Sequence[Undelivered], output: Path) -> None:
    """Print why trackers have not taken the scores, and how to send them later."""
    for each in undelivered:
        print_error(str(each.error))
        if os.environ.get(DEBUG):
            traceback.print_exception(each.error)
    if undelivered:
        to = " ".join(f"--to {shlex.quote(str(each.target))}" for each in undelivered)
        command = f"bge-eval track {shlex.quote(str(output))} {to}"
        print_error(f"The results are saved. Send them later: {command}")
