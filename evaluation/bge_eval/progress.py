"""Progress of long steps, and the seconds of each phase.

Reading, encoding, searching and reranking report to a `Progress`. The command line shows it with
rich; a library call shows nothing. Both add up the seconds of each phase for ``run.json``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol


class Step(Protocol):
    """A step in progress."""

    def advance(self, count: int, tokens: int = 0) -> None:
        """Report ``count`` more finished items, with ``tokens`` tokens."""


@dataclass(slots=True)
class WorkDone:
    """What one of several workers did for a result: an actor of a cluster, a part of a corpus."""

    worker: str
    """Its name: "worker 2 on node-b", "part 2/3"."""
    machine: str = ""
    """Its processor or GPUs."""
    shards: int = 0
    """The shards of work that it finished."""
    items: int = 0
    """The texts and pairs in them."""
    seconds: float = 0.0
    """How long it computed."""
    retries: int = 0
    """How often it was started again, or its shards were done again, because it had died."""


@dataclass(slots=True)
class Profile:
    """Seconds, items and tokens of every phase of one evaluation, written to ``run.json``.

    The time of a phase within another (a search within the encoding of a corpus) is subtracted
    from the outer phase, so all phases add up to the whole.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    """Wall seconds by phase name (load, encode queries, encode corpus, search, rerank, measure)."""
    counts: dict[str, int] = field(default_factory=dict)
    """Items by phase name: documents, queries, pairs."""
    tokens: dict[str, int] = field(default_factory=dict)
    """Tokens by phase name, where the phase reads tokens."""
    workers: dict[str, WorkDone] = field(default_factory=dict)
    """The workers that computed elsewhere, by name; {} where this process computed alone."""

    def add(self, phase: str, seconds: float, count: int, tokens: int) -> None:
        """Add seconds, items and tokens to a phase."""
        self.seconds[phase] = self.seconds.get(phase, 0.0) + seconds
        if count:
            self.counts[phase] = self.counts.get(phase, 0) + count
        if tokens:
            self.tokens[phase] = self.tokens.get(phase, 0) + tokens

    def worked(self, *done: WorkDone) -> None:
        """Add what workers did."""
        for each in done:
            known = self.workers.setdefault(each.worker, WorkDone(each.worker, each.machine))
            known.shards += each.shards
            known.items += each.items
            known.seconds = round(known.seconds + each.seconds, 3)
            known.retries += each.retries


class Pace:
    """How long the remaining tasks will take, judged by those that have run."""

    def __init__(
        self, sizes: Mapping[str, float], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Start the clock.

        Args:
            sizes: task → its size in any unit, such as texts; the time of a task is taken to be in
                proportion.
            clock: seconds of a clock that never goes back.
        """
        self._left = dict(sizes)
        self._tasks = len(sizes)
        self._clock = clock
        self._start = clock()
        self._ran = 0.0
        self._seconds = 0.0

    def finished(self, task: str, *, ran: bool = True) -> str:
        """Take a task off the list and describe what remains.

        Args:
            task: one of the tasks.
            ran: whether it was computed; the time of one that was saved before tells nothing.

        Returns:
            Such as "in 1 min 31 s; 3 of 15 tasks done, about 12 min left".
        """
        now = self._clock()
        seconds, self._start = now - self._start, now
        size = self._left.pop(task, 0.0)
        if ran:
            self._ran += size
            self._seconds += seconds
        done = self._tasks - len(self._left)
        text = f"in {duration(seconds)}; {done} of {self._tasks} tasks done"
        if self._left and self._ran:
            left = self._seconds / self._ran * sum(self._left.values())
            text += f", about {duration(left)} left"
        return text


def duration(seconds: float) -> str:
    """Return seconds as people say them: "0.4 s", "45 s", "12 min 5 s", "3 h 20 min"."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    if hours:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    if minutes:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    return f"{rest} s"


class _Counter:
    def __init__(self) -> None:
        self.count = 0
        self.tokens = 0

    def advance(self, count: int, tokens: int = 0) -> None:
        self.count += count
        self.tokens += tokens


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence transformers' progress bars and warnings while a model is loaded."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


class Progress:
    """Progress that shows nothing and keeps the profile; a subclass overrides `show`."""

    def __init__(self) -> None:
        self.profile = Profile()
        self._inner_seconds = [0.0]

    @contextmanager
    def step(self, phase: str, total: int | None = None, unit: str = "") -> Iterator[Step]:
        """Time a phase and yield the step to report to.

        A phase may run many times, once per chunk; the profile has the sums.

        Args:
            phase: name of the phase, in the profile and on the screen.
            total: number of items, or None if it is unknown.
            unit: name of the items: "documents", "queries", "pairs".
        """
        counter = _Counter()
        start = time.perf_counter()
        self._inner_seconds.append(0.0)
        try:
            with self.show(phase, total, unit, counter) as step:
                yield step
        finally:
            elapsed = time.perf_counter() - start
            inner = self._inner_seconds.pop()
            self._inner_seconds[-1] += elapsed
            self.profile.add(phase, elapsed - inner, counter.count, counter.tokens)

    @contextmanager
    def show(self, phase: str, total: int | None, unit: str, step: Step) -> Iterator[Step]:
        """Show a step while it runs. The base class shows nothing."""
        yield step

    def note(self, text: str) -> None:
        """Show a remark that is neither a result nor an error. The base class shows nothing."""

    def fresh_profile(self) -> Profile:
        """Start the profile of another task and return it."""
        self.profile = Profile()
        return self.profile
