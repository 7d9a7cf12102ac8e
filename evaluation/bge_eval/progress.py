"""What long steps report while they run, and the seconds that each phase took.

Producers (reading, encoding, searching, reranking) talk to a `Progress`; the command line
shows it with rich, a library call is silent. Both keep the seconds per phase, because a run's
timings are part of its record.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol


class Step(Protocol):
    """One visible step; `advance` is called as work gets done."""

    def advance(self, count: int, tokens: int = 0) -> None:
        """Say that ``count`` more items (and ``tokens`` tokens) are done."""


@dataclass(slots=True)
class Profile:
    """Seconds and amounts by phase of one evaluation, written into ``run.json``.

    A phase that runs inside another (searching a chunk while the corpus is encoded) counts for
    itself only, so the phases add up to the whole.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    """Wall seconds by phase name (load, encode queries, encode corpus, search, rerank, measure)."""
    counts: dict[str, int] = field(default_factory=dict)
    """Items by phase name: documents, queries, pairs."""
    tokens: dict[str, int] = field(default_factory=dict)
    """Tokens by phase name, where the phase reads tokens."""

    def add(self, phase: str, seconds: float, count: int, tokens: int) -> None:
        """Add one stretch of work to a phase."""
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
    """Keep transformers from drawing bars and warning of its own while a model is loaded."""
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
    """Silent progress that still keeps the profile; the terminal's version overrides `show`."""

    def __init__(self) -> None:
        self.profile = Profile()
        self._inner_seconds = [0.0]

    @contextmanager
    def step(self, phase: str, total: int | None = None, unit: str = "") -> Iterator[Step]:
        """Time a phase and let the caller report on it.

        A phase may be entered many times (once for each chunk); its amounts add up.

        Args:
            phase: the phase's name in the profile and on the screen.
            total: how many items there will be, if that is known.
            unit: what an item is ("documents", "queries", "pairs").
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
        """Make a step visible. The base class shows nothing."""
        yield step

    def note(self, text: str) -> None:
        """Tell the person something that is neither result nor error. Silent by default."""

    def fresh_profile(self) -> Profile:
        """Start a new profile (one for each task) and return it."""
        self.profile = Profile()
        return self.profile
