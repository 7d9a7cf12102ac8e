"""``bge-eval watch``: evaluate the checkpoints of a training as they appear."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bge_eval.cli.defaults import show_configuration
from bge_eval.cli.grouped import grouped
from bge_eval.cli.options.data import DataFlags
from bge_eval.cli.options.machine import MachineFlags
from bge_eval.cli.options.model import ModelFlags
from bge_eval.cli.options.printed import PrintFlags
from bge_eval.cli.options.reranker import RerankerFlags
from bge_eval.cli.options.served import ServerFlags
from bge_eval.cli.options.watching import CheckpointFlags, WatchFlags
from bge_eval.cli.quiet import prepare
from bge_eval.cli.tracked import Undelivered, show_undelivered
from bge_eval.errors import NotReadyError, StorageError
from bge_eval.training.checkpoints import Checkpoint, find_checkpoints, keep_links

if TYPE_CHECKING:
    from bge_eval.cli.outcome import Outcome
    from bge_eval.cli.tracked import Trackers
    from bge_eval.progress import Progress
    from bge_eval.results.finished import Report
    from bge_eval.suites.catalogue import PlannedTask


@grouped
def watch(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="The trainer's output folder.")],
    watching: WatchFlags,
    running: CheckpointFlags,
    data: DataFlags,
    printed: PrintFlags,
    machine: MachineFlags,
) -> None:
    """Evaluate every checkpoint of a training once, as soon as it is complete.

    The table and the best checkpoint are printed at the end; what is saved is what bge-eval run
    saves, so the same command continues. Exit code 1: --patience ran out. With --track, all
    checkpoints are one run of the tracker, each at its step.

    Examples:
      bge-eval watch ./checkpoints --tasks SciFact --data-dir ./datasets --device cpu

      bge-eval watch ./checkpoints --tasks SciFact --until-steps 5000 --keep-best 2

      bge-eval watch ./checkpoints --tasks SciFact --idle 600 --patience 3 --signal stop-training

      bge-eval watch ./checkpoints --tasks SciFact --track tensorboard=./runs
    """
    if printed.show_config:
        show_configuration(context)
        return
    prepare(offline=data.offline)
    machine.check()
    watching.check(data)
    checkpoints = find_checkpoints(folder)
    from bge_eval.cli.columns import measure_and_key
    from bge_eval.cli.console import TerminalProgress

    measure_and_key(printed.metric)
    trackers = data.tracking.trackers(offline=data.offline)
    progress = TerminalProgress(quiet=printed.quiet)
    if data.dry_run:
        _list(checkpoints)
        return
    sender = Sender(trackers, printed.metric, progress) if trackers else None
    watcher = _Watcher(folder, watching, running.model, data, machine, progress, sender)
    watcher.check()
    stopped = watcher.run()
    watcher.show(printed)
    if stopped:
        raise typer.Exit(1)
    if sender is not None and sender.undelivered:
        raise typer.Exit(sender.undelivered[0].error.exit_code)


@dataclass(slots=True)
class Sender:
    """Sends checkpoints to trackers; what one has not taken is sent again with the next."""

    trackers: Trackers
    """The trackers."""
    metric: str
    """The measure, as it was typed."""
    progress: Progress
    """Told of what was sent."""
    undelivered: list[Undelivered] = field(default_factory=list)
    """The trackers that have not taken the last checkpoints."""
    _waiting: list[Report] = field(default_factory=list)

    def send(self, outcome: Outcome) -> None:
        """Send a checkpoint, and those that a tracker has not taken."""
        self._waiting += outcome.reports
        board = replace(outcome, reports=self._waiting).board(self.metric)
        self.undelivered = self.trackers.send(board, self.metric, self.progress, training=True)
        if not self.undelivered:
            self._waiting.clear()
        for each in self.undelivered:
            self.progress.note(f"{each.error} It is tried again with the next checkpoint.")


@dataclass(slots=True)
class _Watcher:
    """Evaluates checkpoints until one of the reasons to stop."""

    folder: Path
    watching: WatchFlags
    model: ModelFlags
    data: DataFlags
    machine: MachineFlags
    progress: Progress
    sender: Sender | None
    reports: dict[Checkpoint, Report] = field(default_factory=dict)
    seen: set[Checkpoint] = field(default_factory=set)

    def check(self) -> None:
        """Refuse tasks, prompts and an index that no checkpoint could be run with.

        Raises:
            UsageError: there is no such task, or faiss makes no such index.
            MissingError: a file that an option names is not there.
        """
        from bge_eval.cli.records import model_options
        from bge_eval.search.engines import engine

        options = model_options(self.model, ServerFlags(), self.machine, offline=self.data.offline)
        engine(options.index)
        self.progress.note("Loading mteb and torch …")
        self._plan()

    def run(self) -> bool:
        """Evaluate what comes; return whether the patience ran out."""
        last = time.monotonic()
        while not self._is_stopped():
            checkpoint = self._next()
            if checkpoint is not None:
                self._evaluate(checkpoint)
                if self._is_patience_over():
                    return True
                last = time.monotonic()
                continue
            until, idle = self.watching.until_steps, self.watching.idle
            if until is not None and any(each.step >= until for each in self.reports):
                self.progress.note(f"The checkpoint of step {until} is evaluated.")
                return False
            if idle is not None and time.monotonic() - last >= idle:
                self.progress.note(f"No new checkpoint for {idle:g} seconds.")
                return False
            time.sleep(self.watching.every)
        return False

    def show(self, printed: PrintFlags) -> None:
        """Print the table, and the best checkpoint with what cannot be told from it."""
        if not self.reports:
            self.progress.note(f"There was no complete checkpoint in {self.folder}.")
            return
        outcome = self._outcome(self.reports.values())
        if (ranking := self._ranking()) and (line := _evidence(outcome, self.reports, ranking)):
            self.progress.note(line)
        if self.sender is not None:
            show_undelivered(self.sender.undelivered, self.data.output)
        outcome.show(printed, self.progress)

    def _outcome(self, reports: Iterable[Report]) -> Outcome:
        from bge_eval.cli.outcome import planned_outcome

        names, output = self.watching.task_names, self.data.output
        return planned_outcome(list(reports), self._plan(), names, output)

    def _is_stopped(self) -> bool:
        file = self.watching.stop_file
        if file is not None and file.exists():
            self.progress.note(f"{file} exists: nothing more is evaluated.")
            return True
        return False

    def _next(self) -> Checkpoint | None:
        """Return a complete checkpoint that was not evaluated, None if there is none."""
        waiting = [each for each in find_checkpoints(self.folder) if each not in self.seen]
        if self.watching.newest_first:
            waiting.reverse()
        return next((each for each in waiting if each.is_complete()), None)

    def _plan(self) -> list[PlannedTask]:
        from bge_eval.suites.catalogue import plan
        from bge_eval.suites.cutting import refuse_mixed

        watching = self.watching
        planned = plan(watching.task_names, watching.subset or [], watching.lang or [])
        planned = self.data.cut.apply(planned)
        refuse_mixed(planned)
        return planned

    def _evaluate(self, checkpoint: Checkpoint) -> None:
        from bge_eval.cli.evaluating import Evaluation
        from bge_eval.cli.opening import Opener
        from bge_eval.cli.records import evaluate_options
        from bge_eval.results.finished import Report

        self.seen.add(checkpoint)
        model = replace(self.model, model=[str(checkpoint.folder)])
        none = RerankerFlags()
        opener = Opener(model, none, ServerFlags(), self.machine, self.data.offline, self.progress)
        try:
            models, _ = opener.open()
            options = evaluate_options(self.data, none)
            (report,) = Evaluation(self._plan(), options, None, self.progress).run(models, None)
        except NotReadyError as error:
            if not checkpoint.folder.is_dir():
                self.progress.note(f"{checkpoint.name} was removed before it was evaluated.")
                return
            report = Report(failed={checkpoint.name: error})
        if report.failed and not checkpoint.folder.is_dir():
            self.progress.note(f"{checkpoint.name} was removed while it was evaluated.")
            return
        self.reports[checkpoint] = report
        self._after(checkpoint)

    def _after(self, checkpoint: Checkpoint) -> None:
        """Print how the checkpoint stands, and renew the links to the best."""
        ranking = self._ranking()
        if checkpoint not in ranking:
            self.progress.note(f"{checkpoint.name} has no score.")
            return
        if self.sender is not None:
            self.sender.send(self._outcome([self.reports[checkpoint]]))
        scores = self._scores()
        best = ranking[0]
        self.progress.note(
            f"{checkpoint.name}: {scores[checkpoint]:.5f}; best: {best.name} {scores[best]:.5f}"
        )
        if self.watching.keep_best is not None:
            kept = ranking[: self.watching.keep_best]
            keep_links(kept, self.watching.links_in(self.data.output))

    def _scores(self) -> dict[Checkpoint, float]:
        """Return the mean main score of every checkpoint that has all tasks."""
        from bge_eval.results.saved import SavedResult

        scores = {}
        for checkpoint, report in self.reports.items():
            if report.done and not report.failed and not report.left:
                last = [SavedResult(paths[-1]).main_score() for paths in report.done.values()]
                scores[checkpoint] = sum(last) / len(last)
        return scores

    def _ranking(self) -> list[Checkpoint]:
        """Return the checkpoints with scores, best first; of equal ones the earlier step."""
        scores = self._scores()
        return sorted(scores, key=lambda each: (-scores[each], each.step))

    def _is_patience_over(self) -> bool:
        patience, ranking = self.watching.patience, self._ranking()
        if patience is None or not ranking:
            return False
        later = sorted(each.step for each in ranking if each.step > ranking[0].step)
        if len(later) < patience:
            return False
        text = f"{len(later)} checkpoints after {ranking[0].name} are no better."
        self.progress.note(text)
        if self.watching.signal is not None:
            _write(self.watching.signal, text)
        return True


def _evidence(
    outcome: Outcome, reports: Mapping[Checkpoint, Report], ranking: Sequence[Checkpoint]
) -> str:
    """Return a sentence that names the best checkpoint, and those that cannot be told from it.

    Args:
        outcome: the results of all checkpoints.
        reports: what each checkpoint's evaluation has left.
        ranking: the checkpoints with scores, best first.
    """
    from bge_eval.leaderboard.significance import Evidence
    from bge_eval.measures.mteb_keys import MAIN_KEY

    board = outcome.board("main")
    tasks = [column.task for column in board.columns]
    standings = Evidence(board, MAIN_KEY).mean({task: 1 / len(tasks) for task in tasks})
    by_folder = {next(iter(row.results.values())).parent: n for n, row in enumerate(board.rows)}
    rows = {}
    for checkpoint, report in reports.items():
        paths = [path for paths in report.done.values() for path in paths]
        if paths and paths[0].parent in by_folder:
            rows[checkpoint] = standings[by_folder[paths[0].parent]]
    others = [(each, rows.get(each)) for each in ranking[1:]]
    tied = [each.name for each, row in others if row and (row.tied or row.rank == 1)]
    below = [
        each.name for each, row in others if row and row.tested and not row.tied and row.rank > 1
    ]
    line = f"Best: {ranking[0].name}."
    if tied:
        line += f" It cannot be told from {', '.join(tied)} (p of 0.05 or more, corrected)."
    if below:
        line += f" It is better than {', '.join(below)} (p below 0.05, corrected)."
    return line


def _list(checkpoints: Iterable[Checkpoint]) -> None:
    """Print the checkpoints and whether each is complete."""
    from bge_eval.cli.console import stdout
    from bge_eval.cli.formats.terminal import terminal_table

    rows = [
        (each.name, str(each.step), "complete" if each.is_complete() else "being written")
        for each in checkpoints
    ]
    stdout.print(terminal_table(("checkpoint", "step", "state"), rows, left=(0, 2)))


def _write(path: Path, text: str) -> None:
    """Write the signal that a training reads."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise StorageError(error, path, "Choose another --signal.") from error
