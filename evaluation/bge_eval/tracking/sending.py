"""Send saved scores to trackers; what a tracker has already is not entered again."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from bge_eval.errors import (
    BgeEvalError,
    MissingError,
    TrackerError,
    UsageError,
    did_you_mean,
    one_line,
)
from bge_eval.leaderboard.board import Leaderboard
from bge_eval.measures.mteb_keys import MAIN_KEY
from bge_eval.tracking.mlflow import MLFLOW
from bge_eval.tracking.runs import Point, TrackedRun, tracked_runs
from bge_eval.tracking.tensorboard import TENSORBOARD
from bge_eval.tracking.tracker import Kind, Sent, Target, Tracker, without_environment
from bge_eval.tracking.trackio import TRACKIO
from bge_eval.tracking.wandb import WANDB

TRACKERS: Mapping[str, Kind] = {
    "tensorboard": TENSORBOARD,
    "mlflow": MLFLOW,
    "wandb": WANDB,
    "trackio": TRACKIO,
}
"""Every tracker by its name; a new one is a module with its `Kind`, and an entry here."""

_CLOSE = 1e-6
"""Largest relative difference of two equal values: TensorBoard keeps float32."""
_PROJECT = re.compile(r"[\w][\w .-]{0,99}")


@dataclass(frozen=True, slots=True)
class Delivery:
    """The part of one run that one tracker has received."""

    target: Target
    """The tracker."""
    run: TrackedRun
    """The run."""
    added: int
    """Values that were entered."""
    present: int
    """Values that were there already."""

    def __str__(self) -> str:
        """Return one sentence for people."""
        place = f" in {self.target.place}" if self.target.place else ""
        before = f"; {self.present} were there already" if self.present else ""
        title = TRACKERS[self.target.tracker].title
        return f"{title}{place}: {self.added} values of {self.run.name}{before}"


def read_targets(texts: Sequence[str], project: str, *, offline: bool) -> list[Target]:
    """Parse and check ``tensorboard``, ``mlflow=http://localhost:5000``, ``wandb=./folder`` ….

    Args:
        texts: the trackers, each with its place behind ``=`` if it is not the tracker's own.
        project: the project in every tracker.
        offline: open no connection.

    Raises:
        UsageError: a name is unknown, an address holds a password, or a place does not fit.
        MissingError: a client is not installed, or has no key.
    """
    if not _PROJECT.fullmatch(project):
        raise UsageError(
            f"The project '{one_line(ValueError(project), 80)}' cannot be named so in every"
            " tracker: up to 100 letters, digits, spaces, '_', '-' and '.', the first a letter or"
            " digit."
        )
    targets = []
    for text in dict.fromkeys(texts):
        name, has_place, place = text.partition("=")
        target = Target(name.strip().casefold(), place.strip(), project, offline)
        _check(target, written=name, lacks_place=bool(has_place) and not target.place)
        targets.append(target)
    return targets


def _check(target: Target, *, written: str, lacks_place: bool) -> None:
    kind = TRACKERS.get(target.tracker)
    if kind is None:
        raise UsageError(
            f"'{written}' is no tracker.{did_you_mean(written, TRACKERS)} Trackers are"
            f" {', '.join(TRACKERS)}, each with its folder or address if need be:"
            " mlflow=http://localhost:5000"
        )
    if lacks_place:
        raise UsageError(f"'{written}=' has no folder or address behind it. Leave '=' out.")
    head = re.split("[/?#]", target.place.partition("://")[2], maxsplit=1)[0]
    if "@" in head or (target.is_address and "?" in target.place):
        raise UsageError(
            f"The address of {kind.title} has a password or a token in it, which every list of"
            " processes shows. Set it in the environment as its documentation says"
            " (MLFLOW_TRACKING_PASSWORD, WANDB_API_KEY …) and leave it out."
        )
    spec = find_spec(kind.package)
    # A folder of this name beside the user is no package: wandb makes one.
    if spec is None or spec.origin is None:
        raise MissingError(
            f"{kind.title} needs its client: pip install 'bge-eval[{target.tracker}]'"
        )
    kind.check(target)


def send(runs: Sequence[TrackedRun], target: Target) -> list[Delivery]:
    """Send runs to one tracker.

    Args:
        runs: from `bge_eval.tracking.runs.tracked_runs`.
        target: from `read_targets`.

    Returns:
        What was entered; a value that is there already is not entered again.

    Raises:
        TrackerError: the tracker cannot be used, or has another value of the same run and step.
    """
    kind = TRACKERS[target.tracker]
    # Clients print where to look; our standard output is for results.
    with redirect_stdout(io.StringIO()):
        try:
            client = kind.open(target)
            return [_deliver(client, run, target, kind.title) for run in runs]
        except BgeEvalError:
            raise
        except Exception as error:  # a client may raise anything
            reason = without_environment(one_line(error))
            raise TrackerError(
                f"{kind.title} has not taken the scores ({type(error).__name__}: {reason})."
            ) from error


def send_or_warn(
    board: Leaderboard, targets: Sequence[Target], folder: Path, *, training: bool = False
) -> None:
    """Send a table's rows to trackers; one that fails is a warning, since results are saved.

    Args:
        board: the table, of the tasks' main scores.
        targets: from `read_targets`.
        folder: the folder of results, from which they can be sent later.
        training: every row is a checkpoint of a training.
    """
    for target in targets:
        try:
            send(tracked_runs(board, MAIN_KEY, training=training), target)
        except BgeEvalError as error:
            warnings.warn(
                f"{error} The result is saved: send it later with `bge-eval track {folder} --to"
                f" {target}`.",
                stacklevel=3,
            )


def _deliver(client: Tracker, run: TrackedRun, target: Target, title: str) -> Delivery:
    sent = client.sent(run)
    missing: list[Point] = []
    present = 0
    for point in run.points:
        there = sent.get(point.step, {})
        _refuse_others(point, there, run, title)
        present += len(point.metrics.keys() & there.keys())
        left = {name: value for name, value in point.metrics.items() if name not in there}
        if left:
            missing.append(Point(point.step, point.seconds, left))
    if missing:
        client.add(run, missing)
    if missing and client.reads_at_once:
        _refuse_loss(client.sent(run), missing, run, title)
    return Delivery(target, run, sum(len(point.metrics) for point in missing), present)


def _refuse_others(point: Point, there: Mapping[str, float], run: TrackedRun, title: str) -> None:
    """Refuse to enter a second value beside another one.

    Raises:
        TrackerError: the tracker has another value.
    """
    for name, value in point.metrics.items():
        if name in there and not math.isclose(there[name], value, rel_tol=_CLOSE):
            raise TrackerError(
                f"{title} has {name} {there[name]:.5f} at step {point.step} of '{run.name}', and"
                f" the saved result {value:.5f}: another model or other data had the same name"
                " there. Delete that run in the tracker, or send this one under a name of its own"
                " (--name; --track-name of run and watch)."
            )


def _refuse_loss(there: Sent, points: Sequence[Point], run: TrackedRun, title: str) -> None:
    """Refuse a tracker that does not hold what it was sent.

    Raises:
        TrackerError: a value is missing.
    """
    for point in points:
        if absent := point.metrics.keys() - there.get(point.step, {}).keys():
            raise TrackerError(
                f"{title} does not hold {sorted(absent)[0]} of '{run.name}' after it was sent. See"
                " what the tracker's own log says, and send it again."
            )
