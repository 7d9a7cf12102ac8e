"""Bring data sets here for later use without a network, and verify what is here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bge_eval.data.expected import counts, other_counts, other_script
from bge_eval.data.finding import recognise
from bge_eval.data.sources import DataSource
from bge_eval.errors import BgeEvalError, MissingError
from bge_eval.progress import Progress

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is wrong with a task's data here; nothing, if all is well."""

    counted: Mapping[str, int]
    """What was counted, e.g. ``{"test documents": 5183, "test queries": 300}``."""
    problems: tuple[str, ...]
    """One sentence each; empty if the data are as mteb counted them."""


def fetch_dataset(task: AbsTask, data_dir: Path) -> Path:
    """Download a task's dataset repository at the revision that mteb pins.

    The hub's client resumes what was interrupted and verifies what it receives; files that are
    there already are not fetched again.

    Args:
        task: mteb's task.
        data_dir: the copy goes into a folder of the task's name below it, as
            ``hf download --local-dir`` would leave it.

    Returns:
        The folder.

    Raises:
        MissingError: the task names no repository, or it cannot be had.
    """
    from huggingface_hub import snapshot_download

    repository = str(task.metadata.dataset.get("path", ""))
    revision = str(task.metadata.dataset.get("revision", ""))
    if "/" not in repository or repository.startswith("local/"):
        raise MissingError(f"{task.metadata.name} names no public repository; bring your own copy.")
    target = data_dir / task.metadata.name
    try:
        snapshot_download(
            repository, repo_type="dataset", revision=revision or None, local_dir=target
        )
    except Exception as error:
        # The hub's client lets errors of its HTTP library through, whichever that is by version.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise MissingError(
            f"{task.metadata.name} ({repository} at {revision[:12]}) could not be downloaded:"
            f" {reason} What arrived is kept; the same command goes on from there."
        ) from error
    recognise(task, target).check(task)
    return target


def verify(task: AbsTask, source: DataSource, progress: Progress) -> Verdict:
    """Read a task's data whole and compare them with what mteb counted.

    Reading checks every line and that every judgement's document and query exist.

    Args:
        task: mteb's task.
        source: where its data come from.
        progress: told of the reading.
    """
    try:
        with source.loaded(task, progress):
            return Verdict(counts(task), (*other_counts(task), *other_script(task)))
    except BgeEvalError as error:
        return Verdict({}, (str(error),))
