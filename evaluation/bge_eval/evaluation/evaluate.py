"""Evaluate a model on tasks: find the data, score, save.

mteb's own task classes compute every score (`bge_eval.evaluation.judge`). A task whose result is
saved with exactly the same identity is not run again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bge_eval.data.sources import DataSource
from bge_eval.errors import StorageError, as_failure
from bge_eval.evaluation.options import Options
from bge_eval.evaluation.stages import ScoredStage, StageRunner
from bge_eval.measures.mteb_keys import measure_of_key
from bge_eval.models.base import Model
from bge_eval.progress import Pace, Progress
from bge_eval.rerank.reranker import Reranker
from bge_eval.results.finished import Report
from bge_eval.results.label import write_label
from bge_eval.results.locks import BusyError
from bge_eval.results.saved import SavedResult
from bge_eval.results.staging import remove_staged
from bge_eval.results.store import ResultStore
from bge_eval.suites.catalogue import PlannedTask
from bge_eval.suites.sources import find_sources


def evaluate(
    model: Model,
    tasks: Sequence[PlannedTask],
    options: Options,
    *,
    reranker: Reranker | None = None,
    progress: Progress | None = None,
) -> Report:
    """Evaluate a model on tasks and save every result as soon as it is scored.

    Args:
        model: the first stage: an encoder, BM25, saved runs, a reranker alone …
        tasks: the tasks to run; see `bge_eval.suites.catalogue.plan`.
        options: data folders, output folder, reuse.
        reranker: an optional second stage over the first ``rerank_top_k`` documents.
        progress: receives every step; the model's own by default.

    Returns:
        Results, reused results and failures. A task that fails does not stop the others, but
        data that are known to be missing are refused before anything is encoded (or left out,
        with ``options.available``). A task that another process is running with this model comes
        last; its result is taken from there.

    Raises:
        MissingError: data of some tasks are missing.
        StorageError: the output folder cannot be written.
    """
    progress = progress or model.progress
    sources = _sources(tasks, options, progress, available=options.available)
    remove_staged(options.output)
    runner = StageRunner(model, reranker, ResultStore(options.output), options, progress)
    try:
        return _reported(runner, [task for task in tasks if _has_data(task, sources)], sources)
    finally:
        model.flush()


def _reported(
    runner: StageRunner, tasks: Sequence[PlannedTask], sources: Mapping[str, DataSource]
) -> Report:
    """Run the tasks; those that another process is running come last."""
    tally = _Tally(Pace({planned.name: planned.texts for planned in tasks}), runner)
    pending = deque((planned, False) for planned in tasks)
    while pending:
        planned, waits = pending.popleft()
        try:
            stages = runner.run(planned, sources, waits=waits)
        except BusyError:
            tally.note(f"{planned.name}: another process runs it with this model; it comes last")
            pending.append((planned, True))
        except StorageError:  # a full disk, a folder that is gone: the next would fail too
            raise
        except Exception as error:
            tally.failed(planned, error)
            if runner.options.fail_fast:
                tally.report.left = [later.name for later, _ in pending]
                break
            if pending:
                tally.note(f"{planned.name} was not evaluated; the reason follows the other tasks.")
        else:
            tally.scored(planned, stages)
    done = tally.report.done
    tally.report.done = {task.name: done[task.name] for task in tasks if task.name in done}
    return tally.report


class _Tally:
    """Counts the tasks of one call of `evaluate` as they end."""

    def __init__(self, pace: Pace, runner: StageRunner) -> None:
        self.report = Report()
        self.note = runner.progress.note
        self._pace = pace
        self._label = runner.options.label

    def failed(self, planned: PlannedTask, error: Exception) -> None:
        """Record why a task could not be evaluated."""
        self.report.failed[planned.name] = as_failure(error, f"A file of {planned.name}")
        self._pace.finished(planned.name, ran=False)

    def scored(self, planned: PlannedTask, stages: Sequence[ScoredStage]) -> None:
        """Record the results of a task, and show the score of one that was run."""
        self.report.done[planned.name] = [stage.path for stage in stages]
        if self._label:
            write_label(stages[-1].path.parent, self._label)
        reused = all(stage.reused for stage in stages)
        rest = self._pace.finished(planned.name, ran=not reused)
        if reused:
            self.report.reused.append(planned.name)
            return
        key = planned.task.metadata.main_score
        score = SavedResult(stages[-1].path).main_score()
        self.note(f"{planned.name}: {measure_of_key(key) or key} {score:.5f} {rest}")


@dataclass(frozen=True, slots=True)
class Preview:
    """What `evaluate` would do with one task."""

    task: str
    """mteb's task name."""
    origin: str
    """The folder or repository of its data; "" where they are missing."""
    saved: int = 0
    """How many of its stages have a result with exactly this identity."""
    stages: int = 0
    """How many stages it has: 2 with a reranker, 0 where its data are missing."""


def preview(
    model: Model,
    tasks: Sequence[PlannedTask],
    options: Options,
    *,
    reranker: Reranker | None = None,
    progress: Progress | None = None,
) -> list[Preview]:
    """Find the data and the saved results of tasks, and compute nothing.

    The arguments are those of `evaluate`. Missing data are no error here.

    Raises:
        UsageError: the model cannot do one of the tasks.
    """
    progress = progress or model.progress
    sources = _sources(tasks, options, progress, available=True)
    runner = StageRunner(model, reranker, ResultStore(options.output), options, progress)
    previews = []
    for planned in tasks:
        if not _has_data(planned, sources):
            previews.append(Preview(planned.name, ""))
            continue
        singles = planned.parts or (planned,)
        origins = [sources[single.name].origin for single in singles]
        saved = [runner.find_stages(single, sources[single.name]) for single in singles]
        previews.append(
            Preview(
                planned.name,
                origins[0] if len(set(origins)) == 1 else f"{len(origins)} sets",
                sum(path is not None for paths in saved for path in paths),
                sum(map(len, saved)),
            )
        )
    return previews


def _sources(
    tasks: Sequence[PlannedTask], options: Options, progress: Progress, *, available: bool
) -> dict[str, DataSource]:
    return find_sources(
        tasks,
        options.data_dirs,
        offline=options.offline,
        dangling=options.dangling,
        available=available,
        here=options.available,
        note=progress.note,
    )


def _has_data(planned: PlannedTask, sources: Mapping[str, DataSource]) -> bool:
    return all(part.name in sources for part in planned.parts or (planned,))
