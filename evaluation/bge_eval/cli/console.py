"""Progress and notes on stderr, results on stdout."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
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
from rich.segment import Segment
from rich.text import Text

from bge_eval.cli.formats.printable import printable
from bge_eval.errors import without_home
from bge_eval.progress import Profile, Step, duration
from bge_eval.progress import Progress as Reporter

_BEAT = 30.0
"""Seconds between two lines about a phase in a log."""


class SafeConsole(Console):
    """A console that prints no control character of a text; colours and bars are rich's own.

    The user's home folder in a line is ``~``: logs are copied to where nobody need know the user.
    """

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as rich does."""
        super().print(*map(_without_home, objects), **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterator[Segment]:
        """Yield rich's segments with control characters shown as pictures."""
        for segment in super().render(renderable, options):
            if segment.control is None and not segment.text.isprintable():
                yield Segment(printable(segment.text), segment.style)
            else:
                yield segment


def _without_home(shown: Any) -> Any:
    if isinstance(shown, str):
        return without_home(shown)
    if isinstance(shown, Text) and (plain := without_home(shown.plain)) != shown.plain:
        return Text(plain, style=shown.style)
    return shown


stderr = SafeConsole(stderr=True, highlight=False)
"""Prose and progress."""

stdout = SafeConsole(highlight=False)
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

    def __init__(self, progress: Progress, task: TaskID, counter: Step, total: int | None) -> None:
        self._progress = progress
        self._task = task
        self._counter = counter
        self._total = total

    def advance(self, count: int, tokens: int = 0) -> None:
        self._counter.advance(count, tokens)
        shown = self._progress.tasks[self._progress.task_ids.index(self._task)]
        total = None if shown.total is None else int(shown.total)
        self._progress.update(
            self._task,
            total=_total(total, int(shown.completed) + count, self._total),
            advance=count,
            tokens=shown.fields["tokens"] + tokens,
        )


def _total(known: int | None, count: int, entered: int | None) -> int | None:
    """Return how many items a phase has in all.

    A phase is entered for every chunk of one whole, whose total stays, or for one whole after
    another (both sides of pairs, several splits), whose totals add up. Which of the two it is shows
    when more items are finished than were known.

    Args:
        known: the total so far; None if it is unknown.
        count: the finished items.
        entered: the total that the phase was last entered with.
    """
    if known is None or count <= known:
        return known
    return max(known + (entered or 0), count)


class Heartbeat:
    """Lines in a log that show that a long phase goes on."""

    def __init__(
        self,
        phase: str,
        total: int | None,
        unit: str,
        note: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start the clock of a phase.

        Args:
            phase: its name.
            total: number of items; None if it is unknown.
            unit: name of the items.
            note: prints one line.
            clock: seconds of a clock that never goes back.
        """
        self._phase = phase
        self._total = total
        self._unit = unit
        self._note = note
        self._clock = clock
        self._start = self._last = clock()
        self._count = 0
        self._step: Step | None = None
        self._entered = total

    def of(self, step: Step, total: int | None) -> Heartbeat:
        """Return itself as the shown step of one part of the phase.

        Args:
            step: counts the items of this part.
            total: the whole's number of items, if this is a chunk of one; else this part's.
        """
        self._step = step
        self._entered = total
        return self

    def advance(self, count: int, tokens: int = 0) -> None:
        """Count items, and print a line if the last one is half a minute old."""
        if self._step is not None:
            self._step.advance(count, tokens)
        self._count += count
        self._total = _total(self._total, self._count, self._entered)
        now = self._clock()
        if now - self._last < _BEAT or self._count == self._total:
            return
        self._last = now
        rate = self._count / (now - self._start)
        text = f"{self._phase}: {self._count:,}"
        if self._total is not None:
            text += f" of {self._total:,}"
        text += f" {self._unit}, {rate:,.0f}/s"
        if self._total is not None and rate:
            text += f", about {duration((self._total - self._count) / rate)} left"
        self._note(text)


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
        self._beats: dict[str, Heartbeat] = {}

    def fresh_profile(self) -> Profile:
        """Start the profile, and the counts of a log, of another task."""
        self._beats = {}
        return super().fresh_profile()

    @contextmanager
    def show(self, phase: str, total: int | None, unit: str, step: Step) -> Iterator[Step]:
        """Show a bar for the step; where stderr is no terminal, a line every half minute.

        A phase that is entered again while the display is up goes on with its bar.
        """
        if self._quiet or not unit:
            yield step
            return
        if not stderr.is_terminal:
            beat = self._beats.setdefault(phase, Heartbeat(phase, total, unit, self.note))
            yield beat.of(step, total)
            return
        with self._display() as bars:
            task = self._tasks.get(phase)
            if task is None:
                task = self._tasks[phase] = bars.add_task(phase, total=total, unit=unit, tokens=0)
            yield _Bar(bars, task, step, total)
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
