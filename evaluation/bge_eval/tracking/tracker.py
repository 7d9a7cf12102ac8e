"""The contract of a tracker, and where runs are sent."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bge_eval.errors import UsageError
from bge_eval.tracking.runs import Point, TrackedRun

_SECRET = re.compile(r"TOKEN|KEY|PASSWORD|SECRET", re.IGNORECASE)
_SHORTEST_SECRET = 6
"""Shorter values of the environment are words, such as "true"."""

Sent = Mapping[int, Mapping[str, float]]
"""Step → name of a metric → value, as a tracker holds them."""


@dataclass(frozen=True, slots=True)
class Target:
    """One tracker, and where it keeps runs."""

    tracker: str
    """Its name, e.g. "mlflow"."""
    place: str = ""
    """A folder, or a server's address; "" for what the tracker's own settings say."""
    project: str = "bge-eval"
    """The tracker's project; MLflow calls it experiment."""
    offline: bool = False
    """Open no connection."""

    @property
    def is_address(self) -> bool:
        """Whether the place is a server."""
        return self.place.startswith(("http://", "https://"))

    @property
    def folder(self) -> Path | None:
        """The folder; None for a server and for the tracker's own settings."""
        return None if self.is_address or not self.place else Path(self.place).expanduser()

    def __str__(self) -> str:
        """Return the target as it is typed."""
        return f"{self.tracker}={self.place}" if self.place else self.tracker

    def refuse_connection(self, address: str, instead: str) -> None:
        """Refuse a server where no connection may be opened.

        Raises:
            UsageError: it is refused.
        """
        if self.offline and address:
            raise UsageError(
                f"--track {self.tracker} would open a connection, and --offline forbids it."
                f" {instead}"
            )


class Tracker(Protocol):
    """A tracker's client."""

    @property
    def reads_at_once(self) -> bool:
        """Whether `sent` has a value as soon as it was entered."""

    def sent(self, run: TrackedRun) -> Sent:
        """Return the metrics of a run that are there already; {} for a new run."""

    def add(self, run: TrackedRun, points: Sequence[Point]) -> None:
        """Enter metrics of a run, which is made if need be, with its settings."""


@dataclass(frozen=True, slots=True)
class Kind:
    """How one kind of tracker is called, installed and opened."""

    title: str
    """Its name for people."""
    package: str
    """The package that holds its client; bge-eval's extra has the tracker's name."""
    check: Callable[[Target], None]
    """Refuses a target that cannot work, before anything is evaluated; opens no connection."""
    open: Callable[[Target], Tracker]
    """Opens the client."""


def without_environment(text: str) -> str:
    """Return a text without the values of tokens, keys and passwords of the environment."""
    for name, value in os.environ.items():
        if _SECRET.search(name) and len(value) >= _SHORTEST_SECRET:
            text = text.replace(value, "***")
    return text
