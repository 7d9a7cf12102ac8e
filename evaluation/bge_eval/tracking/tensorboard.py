"""TensorBoard: event files in a folder for each run, written by torch's SummaryWriter.

``<place>/<project>/<name>-<identity>/events.out.tfevents.…``; place is ``runs`` by default, as
TensorBoard's own examples have it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bge_eval.errors import UsageError
from bge_eval.tracking.runs import Point, TrackedRun
from bge_eval.tracking.tracker import Kind, Sent, Target

_FOLDER = "runs"
_LONGEST_NAME = 80


@dataclass(frozen=True, slots=True)
class TensorBoard:
    """The folder that ``tensorboard --logdir`` shows."""

    folder: Path
    """The project's folder."""

    @property
    def reads_at_once(self) -> bool:
        """Return True."""
        return True

    def sent(self, run: TrackedRun) -> Sent:
        """Return what the run's event files hold, read by TensorBoard's own reader."""
        folder = self._folder(run)
        if not folder.is_dir():
            return {}
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events: Any = EventAccumulator(str(folder), size_guidance={"scalars": 0})
        events.Reload()
        points: dict[int, dict[str, float]] = {}
        for name in events.Tags()["scalars"]:
            for scalar in events.Scalars(name):
                points.setdefault(scalar.step, {})[name] = scalar.value
        return points

    def add(self, run: TrackedRun, points: Sequence[Point]) -> None:
        """Write one more event file; the first has the settings as a text."""
        from torch.utils.tensorboard import SummaryWriter

        folder = self._folder(run)
        is_new = not folder.is_dir()
        writer: Any = SummaryWriter(log_dir=str(folder))
        try:
            if is_new:
                rows = [f"| {name} | {_cell(value)} |" for name, value in run.settings.items()]
                writer.add_text("settings", "\n".join(["| setting | value |", "|---|---|", *rows]))
            for point in points:
                for name, value in point.metrics.items():
                    writer.add_scalar(name, value, point.step, walltime=float(point.seconds))
        finally:
            writer.close()

    def _folder(self, run: TrackedRun) -> Path:
        name = re.sub(r"[^\w.+-]+", "_", run.name)[:_LONGEST_NAME].strip("._")
        return self.folder / f"{name}-{run.identity}"


def _cell(value: str) -> str:
    """Return a value as one cell of a Markdown table."""
    return " ".join(value.replace("|", "\\|").split())


def _check(target: Target) -> None:
    if target.is_address:
        raise UsageError(
            f"--track {target.tracker}={target.place}: TensorBoard has no server that takes"
            " scores. Name a folder, and show it with tensorboard --logdir."
        )


def _open(target: Target) -> TensorBoard:
    return TensorBoard((target.folder or Path(_FOLDER)) / target.project)


TENSORBOARD = Kind("TensorBoard", "tensorboard", _check, _open)
