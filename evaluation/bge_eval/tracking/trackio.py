"""Trackio: a run in its local database, which ``trackio show --project <project>`` shows.

The database is in a folder, by default Trackio's own (TRACKIO_DIR, else in the Hugging Face
cache). ``trackio sync --project <project> --space-id <space>`` brings it to a Space.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bge_eval.errors import UsageError
from bge_eval.tracking.runs import Point, TrackedRun
from bge_eval.tracking.tracker import Kind, Sent, Target

_FOLDER = "TRACKIO_DIR"
_ELSEWHERE = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL")
_INSTEAD = (
    "Name a folder, --track trackio=./trackio, and bring it to a Space with `trackio sync`:"
    " Trackio does not tell whether a Space has taken what it was sent."
)


@dataclass(frozen=True, slots=True)
class Trackio:
    """The local database of one project."""

    project: str
    """Trackio's project."""

    @property
    def reads_at_once(self) -> bool:
        """Return True."""
        return True

    def sent(self, run: TrackedRun) -> Sent:
        """Return the run's log, read by Trackio's own reader."""
        from trackio.sqlite_storage import SQLiteStorage

        if not SQLiteStorage.get_project_db_path(self.project).exists():
            return {}
        points: dict[int, dict[str, float]] = {}
        rows: Any = SQLiteStorage.get_logs(self.project, _name(run))
        for row in rows:
            numbers = {k: float(v) for k, v in row.items() if isinstance(v, int | float)}
            points.setdefault(int(row["step"]), {}).update(numbers)
        return points

    def add(self, run: TrackedRun, points: Sequence[Point]) -> None:
        """Log metrics; an existing run is resumed."""
        import trackio

        entered: Any = trackio.init(
            project=self.project,
            name=_name(run),
            config={**run.settings, "bge_eval.identity": run.identity},
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        for point in points:
            entered.log(dict(point.metrics), step=point.step)
        trackio.finish()


def _name(run: TrackedRun) -> str:
    """Return the run's name, by which Trackio knows it, with its identity."""
    return f"{run.name} ({run.identity[:8]})"


def _check(target: Target) -> None:
    if target.is_address:
        raise UsageError(f"--track {target}: Trackio's servers are not supported. {_INSTEAD}")
    for name in _ELSEWHERE:
        if os.environ.get(name):
            raise UsageError(
                f"{name} is set, with which Trackio would send to a server. Unset it. {_INSTEAD}"
            )


def _open(target: Target) -> Trackio:
    if target.folder is not None:
        os.environ[_FOLDER] = str(target.folder.absolute())
    from trackio.utils import TRACKIO_DIR

    # Trackio reads the variable when it is imported.
    if target.folder is not None and target.folder.absolute() != TRACKIO_DIR:
        raise UsageError(
            f"Trackio keeps its runs in {TRACKIO_DIR} in this process already, and not in"
            f" {target.folder}. Name one folder only."
        )
    return Trackio(target.project)


TRACKIO = Kind("Trackio", "trackio", _check, _open)
