"""The evaluation of a model that is being trained, as ``bge-eval run`` evaluates its checkpoint.

The model is saved to a temporary folder, and a copy is loaded from there. So the score is that of
the saved checkpoint, and the model itself stays as it is: its mode, its gradients, its device.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bge_eval.api import ModelSettings, evaluate
from bge_eval.data.scratch import scratch_folder
from bge_eval.results.cut import Lite
from bge_eval.suites.catalogue import plan
from bge_eval.suites.cutting import cut_tasks, refuse_mixed
from bge_eval.tracking.runs import metric_name
from bge_eval.tracking.sending import read_targets, send_or_warn
from bge_eval.tracking.tracker import Target

Metrics = dict[str, float]
"""Name of a metric → score, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Tasks:
    """The tasks of an evaluation during training, and how the model is run."""

    names: Sequence[str]
    """Suites, tasks and folders, as ``--tasks`` takes them."""
    data_dir: Sequence[Path] = ()
    """The user's folders of data sets."""
    output: Path | None = None
    """The folder of results; None for ``bge-eval`` in the trainer's output folder."""
    prefix: str = "bge"
    """What the names of metrics begin with."""
    settings: ModelSettings = field(default_factory=ModelSettings)
    """Settings of the model in place of its own; see `bge_eval.ModelSettings`."""
    trackers: Sequence[Target] = ()
    """Where every checkpoint's scores are sent."""
    limit: int | None = None
    """Only the first queries of every task; None for all."""
    lite: Lite | None = None
    """How corpora are cut; None for whole ones."""

    def __post_init__(self) -> None:
        """Refuse names that are no tasks, before the training begins.

        Raises:
            UsageError: a name is unknown, or a cut has no meaning for a task.
        """
        refuse_mixed(cut_tasks(plan(self.names), self.limit, self.lite))

    @property
    def mean(self) -> str:
        """Return the name of the mean over the tasks' main scores."""
        return f"{self.prefix}_mean"

    def scores_of_folder(self, folder: Path, output: Path, device: str) -> Metrics:
        """Evaluate the model in a folder.

        Args:
            folder: a saved checkpoint.
            output: the folder of results where the user names none.
            device: the device that computes, unless the settings name one.

        Returns:
            ``{"bge_SciFact": 0.64, "bge_mean": 0.64}``: every task's main score and their mean.

        Raises:
            BgeEvalError: a task could not be evaluated.
        """
        # Vectors of a model that changes with every step are not worth storing.
        settings: Any = {"device": device, "store": False, **self.settings}
        with random_states():
            results = evaluate(
                str(folder),
                list(self.names),
                data_dir=list(self.data_dir),
                output=self.output or output,
                fail_fast=True,
                limit=self.limit,
                lite=self.lite,
                **settings,
            )
            for failure in results.failures.values():
                raise failure
            scores = results.scores()
            send_or_warn(results.table(), self.trackers, results.folder, training=True)
        named = {f"{self.prefix}_{metric_name(task)}": score for task, score in scores.items()}
        return {**named, self.mean: sum(scores.values()) / len(scores)}

    def scores_of_model(
        self, save: Callable[[Path], None], trainer: Path, step: int, device: str
    ) -> Metrics:
        """Evaluate the model that a function saves; see `scores_of_folder`.

        Args:
            save: writes the model and its tokenizer into a folder.
            trainer: the trainer's output folder. Results are filed under its name and the step,
                as those of its checkpoint are.
            step: the trainer's step.
            device: the device that computes.
        """
        with scratch_folder() as scratch:
            folder = scratch / (trainer.resolve().name or "model") / f"checkpoint-{step}"
            folder.mkdir(parents=True)
            with random_states():
                save(folder)
            return self.scores_of_folder(folder, trainer / "bge-eval", device)


def device_of(model: torch.nn.Module) -> str:
    """Return the device of a model's first parameter."""
    return str(next(model.parameters()).device)


def as_tasks(
    tasks: str | Path | Sequence[str | Path],
    data_dir: str | Path | Sequence[str | Path],
    output: str | Path | None,
    prefix: str,
    settings: Mapping[str, Any],
    trackers: Sequence[Target] = (),
) -> Tasks:
    """Return the record of a callback's arguments; ``limit`` and ``lite`` are in the settings."""
    settings = dict(settings)
    limit, lite = settings.pop("limit", None), settings.pop("lite", None)
    names = [tasks] if isinstance(tasks, str | Path) else tasks
    folders = [data_dir] if isinstance(data_dir, str | Path) else data_dir
    return Tasks(
        tuple(map(str, names)),
        tuple(map(Path, folders)),
        None if output is None else Path(output),
        prefix,
        ModelSettings(**settings),  # type: ignore[typeddict-item]
        trackers,
        limit,
        lite,
    )


def as_targets(track: str | Sequence[str], project: str) -> list[Target]:
    """Return the trackers of a callback's arguments; the errors are `read_targets`'."""
    return read_targets([track] if isinstance(track, str) else track, project, offline=False)


@contextmanager
def random_states() -> Iterator[None]:
    """Give the random states of Python, numpy and torch back as they were, on every device."""
    python, of_numpy, of_torch = random.getstate(), np.random.get_state(), torch.get_rng_state()
    of_cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(of_numpy)
        torch.set_rng_state(of_torch)
        if of_cuda:
            torch.cuda.set_rng_state_all(of_cuda)
        if mps is not None:
            torch.mps.set_rng_state(mps)
