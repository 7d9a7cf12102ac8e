"""Progress and notes on stderr, results on stdout."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from bge_eval.progress import Progress as Reporter
from bge_eval.progress import Step

stderr = Console(stderr=True, highlight=False)
"""Prose and progress."""

stdout = Console(highlight=False)
"""Results."""


class _Rates(ProgressColumn):
    """Items and tokens a second."""

    def render(self, task: Task) -> Text:
        elapsed = task.finished_time if task.finished else task.elapsed
        if not elapsed or not task.completed:
            return Text("")
        rates = [f"{task.completed / elapsed:,.0f} {task.fields['unit']}/s"]
        if tokens := task.fields["tokens"]:
            rates.append(f"{tokens / elapsed:,.0f} tokens/s")
        return Text(", ".join(rates), style="dim")


class _Bar:
    """A step that is shown as well as counted."""

    def __init__(self, progress: Progress, task: TaskID, counter: Step) -> None:
        self._progress = progress
        self._task = task
        self._counter = counter

    def advance(self, count: int, tokens: int = 0) -> None:
        self._counter.advance(count, tokens)
        known = self._progress.tasks[self._progress.task_ids.index(self._task)].fields["tokens"]
        self._progress.update(self._task, advance=count, tokens=known + tokens)


class TerminalProgress(Reporter):
    """Bars on a terminal, plain notes otherwise."""

    def __init__(self, *, quiet: bool = False) -> None:
        """Show on stderr.

        Args:
            quiet: show nothing at all.
        """
        super().__init__()
        self._quiet = quiet
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}

    @contextmanager
    def show(self, phase: str, total: int | None, unit: str, step: Step) -> Iterator[Step]:
        """Show a bar for the step; nothing when stderr is no terminal.

        A phase that is entered again while the display is up goes on with its bar.
        """
        if self._quiet or not stderr.is_terminal or not unit:
            yield step
            return
        with self._display() as bars:
            task = self._tasks.get(phase)
            if task is None:
                task = self._tasks[phase] = bars.add_task(phase, total=total, unit=unit, tokens=0)
            yield _Bar(bars, task, step)
            if total is None:
                bars.update(task, total=bars.tasks[bars.task_ids.index(task)].completed)

    @contextmanager
    def _display(self) -> Iterator[Progress]:
        if self._bars is not None:
            yield self._bars
            return
        columns = (
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description:<15}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            _Rates(),
        )
        with Progress(*columns, console=stderr) as bars:
            self._bars = bars
            try:
                yield bars
            finally:
                self._bars = None
                self._tasks = {}

    def note(self, text: str) -> None:
        """Print one line on stderr."""
        if not self._quiet:
            stderr.print(text, style="dim", markup=False, soft_wrap=not stderr.is_terminal)
