"""Bring data sets here for later use without a network, and verify what is here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
            counted = _count(task)
    except BgeEvalError as error:
        return Verdict({}, (str(error),))
    expected = _expected(task)
    problems = tuple(
        f"{name}: {counted[name]:,} here, {expected[name]:,} in mteb's own count."
        for name in counted
        if name in expected and counted[name] != expected[name]
    )
    return Verdict(counted, problems)


def _count(task: AbsTask) -> dict[str, int]:
    counted: dict[str, int] = {}
    dataset: Any = task.dataset
    for split in task.eval_splits:
        for subset in task.hf_subsets:
            part = dataset[subset][split] if subset in dataset else dataset[split]
            if isinstance(part, Mapping) and "corpus" in part:
                pairs = {"documents": len(part["corpus"]), "queries": len(part["queries"])}
            else:
                pairs = {"samples": len(part)}
            for what, number in pairs.items():
                name = f"{split} {what}"
                counted[name] = counted.get(name, 0) + number
    return counted


def _expected(task: AbsTask) -> dict[str, int]:
    """Return mteb's own counts, where they cover exactly the subsets that are run."""
    statistics: Any = task.metadata.descriptive_stats or {}
    expected: dict[str, int] = {}
    for split in task.eval_splits:
        whole = statistics.get(split, {})
        by_subset = whole.get("hf_subset_descriptive_stats", {})
        parts = [by_subset[s] for s in task.hf_subsets if s in by_subset] or [whole]
        for key in ("documents", "queries", "samples"):
            values = [part.get(f"num_{key}") for part in parts]
            if all(isinstance(value, int) for value in values):
                expected[f"{split} {key}"] = sum(values)
    return expected
