"""One system's saved runs, as the commands that look into queries name them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bge_eval.cli.options.saved import DEFAULT_RUNS
from bge_eval.compare.outputs import Source
from bge_eval.compare.sides import Side, find_side
from bge_eval.errors import MissingError, UsageError

if TYPE_CHECKING:
    from bge_eval.results.saved import SavedResult


@dataclass(frozen=True, slots=True)
class ChosenTask:
    """One system's runs of one task."""

    label: str
    """The system's name."""
    task: str
    """The task's name; the judgements' file for a TREC run."""
    sources: dict[str, Source]
    """Name of the run among the task's runs, "" for a single run → the run and its judgements."""

    @property
    def results(self) -> list[SavedResult]:
        """The results that the runs are saved with, each once; none for a TREC run."""
        saved = [source.saved.result for source in self.sources.values() if source.saved]
        return list({result.path: result for result in saved}.values())


def chosen_tasks(place: str | None, wanted: Sequence[str], qrels: Path | None) -> list[ChosenTask]:
    """Return the runs of one system, task by task.

    Args:
        place: a model's name, a folder of results with one row, a result or a TREC run; None for
            the only row in results/runs.
        wanted: the tasks; empty for every task with a run.
        qrels: other judgements, which a TREC run needs.

    Raises:
        UsageError: several rows fit, the side has published scores alone, or a TREC run has no
            judgements.
        MissingError: there is no such system, or no run of the tasks.
    """
    side = find_side(place or str(DEFAULT_RUNS), [DEFAULT_RUNS])
    if side.published is not None:
        raise UsageError("Published scores have no runs: name a saved result or a TREC run.")
    if side.run_file is not None:
        return [_of_file(side, side.run_file, qrels)]
    chosen: list[ChosenTask] = []
    without: list[str] = []
    for task, result in side.results.items():
        if (wanted and task not in wanted) or (result.record.aggregate_of and not wanted):
            continue  # the parts of an aggregate are results of their own
        runs = result.runs()
        names = [run.name.removeprefix(f"{task}/") if len(runs) > 1 else "" for run in runs]
        sources = {name: Source(run, None, qrels) for name, run in zip(names, runs, strict=True)}
        if sources:
            # Other judgements than the saved ones: the name says so.
            title = f"{task} [judged by {qrels.name}]" if qrels else task
            chosen.append(ChosenTask(side.label, title, sources))
        else:
            without.append(task)
    if qrels is not None and sum(len(task.sources) for task in chosen) > 1:
        raise UsageError(
            f"--qrels {qrels} judges one run, and {side.label} has several: --tasks names a task"
            " with one run."
        )
    if not chosen:
        raise MissingError(_nothing(side, wanted, without))
    return chosen


def _of_file(side: Side, run_file: Path, qrels: Path | None) -> ChosenTask:
    if qrels is None:
        raise UsageError(
            f"{run_file} is a TREC run and needs judgements: --qrels FILE, as TREC writes them"
            " (query 0 document grade) or as BEIR's tsv."
        )
    name = Path(qrels.name.removesuffix(".gz")).stem
    return ChosenTask(side.label, name, {"": Source(None, run_file, qrels)})


def _nothing(side: Side, wanted: Sequence[str], without: Sequence[str]) -> str:
    if without:
        return (
            f"{side.label} has no run of {', '.join(without)}: these tasks search nothing, or"
            " mteb saved them without a run."
        )
    tasks = ", ".join(side.results)
    return f"{side.label} has no result of {', '.join(wanted)}. It has results of {tasks}."
