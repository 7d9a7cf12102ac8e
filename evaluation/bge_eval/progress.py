"""Progress of long steps, and the seconds of each phase.

Reading, encoding, searching and reranking report to a `Progress`. The command line shows it with
rich; a library call shows nothing. Both add up the seconds of each phase for ``run.json``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol


class Step(Protocol):
    """A step in progress."""

    def advance(self, count: int, tokens: int = 0) -> None:
        """Report ``count`` more finished items, with ``tokens`` tokens."""


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

    def add(self, phase: str, seconds: float, count: int, tokens: int) -> None:
        """Add seconds, items and tokens to a phase."""
        self.seconds[phase] = self.seconds.get(phase, 0.0) + seconds
        if count:
            self.counts[phase] = self.counts.get(phase, 0) + count
        if tokens:
            self.tokens[phase] = self.tokens.get(phase, 0) + tokens


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
