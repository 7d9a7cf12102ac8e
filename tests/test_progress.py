"""What a person is told while a run goes on: the pace of the tasks, a sign of life in a log."""

from __future__ import annotations

from collections.abc import Iterator
from io import StringIO

import pytest
from rich.console import Console

from bge_eval.cli import console
from bge_eval.cli.console import Heartbeat
from bge_eval.progress import Pace, Progress, duration


class Clock:
    """Seconds that the test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.6, "1 min"),
        (91, "1 min 31 s"),
        (3600, "1 h"),
        (12_000, "3 h 20 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_time_left_is_in_proportion_to_the_texts_left() -> None:
    clock = Clock()
    pace = Pace({"small": 100, "saved": 9_000, "large": 900}, clock)
    clock.now = 20
    assert pace.finished("small") == "in 20 s; 1 of 3 tasks done, about 33 min left"
    # A result that was saved before says nothing about the speed.
    assert pace.finished("saved", ran=False) == "in 0.0 s; 2 of 3 tasks done, about 3 min left"
    clock.now = 220
    assert pace.finished("large") == "in 3 min 20 s; 3 of 3 tasks done"


def test_nothing_is_said_of_the_time_left_before_anything_ran() -> None:
    pace = Pace({"saved": 10, "other": 10}, Clock())
    assert pace.finished("saved", ran=False) == "in 0.0 s; 1 of 2 tasks done"


@pytest.fixture
def lines() -> Iterator[list[str]]:
    yield []


def test_a_log_shows_that_a_long_phase_goes_on(lines: list[str]) -> None:
    clock, progress = Clock(), Progress()
    beat = Heartbeat("encode corpus", 10_000, "documents", lines.append, clock)
    with progress.step("encode corpus", 10_000, "documents") as counter:
        shown = beat.of(counter, 10_000)
        for _ in range(9):
            clock.now += 10
            shown.advance(1000, 64_000)
    assert lines == [
        "encode corpus: 3,000 of 10,000 documents, 100/s, about 1 min 10 s left",
        "encode corpus: 6,000 of 10,000 documents, 100/s, about 40 s left",
        "encode corpus: 9,000 of 10,000 documents, 100/s, about 10 s left",
    ]
    assert progress.profile.counts == {"encode corpus": 9000}
    assert progress.profile.tokens == {"encode corpus": 576_000}


def test_a_short_phase_prints_nothing(lines: list[str]) -> None:
    clock, progress = Clock(), Progress()
    with progress.step("encode queries", 10, "queries") as counter:
        beat = Heartbeat("encode queries", 10, "queries", lines.append, clock).of(counter, 10)
        clock.now = 29
        beat.advance(5)
        clock.now = 31
        beat.advance(5)  # the last ones: the phase is over
    assert lines == []


def test_both_sides_of_pairs_are_never_more_than_the_total(lines: list[str]) -> None:
    clock, progress = Clock(), Progress()
    beat = Heartbeat("encode", 12_500, "texts", lines.append, clock)
    for _ in range(2):
        with progress.step("encode", 12_500, "texts") as counter:
            shown = beat.of(counter, 12_500)
            for _ in range(5):
                clock.now += 31
                shown.advance(2_500)
    assert [line.partition(" texts")[0] for line in lines] == [
        *(f"encode: {count:,} of 12,500" for count in (2_500, 5_000, 7_500, 10_000)),
        *(f"encode: {count:,} of 25,000" for count in (15_000, 17_500, 20_000, 22_500)),
    ]
    assert lines[-1].endswith("about 31 s left")


@pytest.mark.parametrize(
    ("parts", "total"),
    [
        ([(100, 100), (40, 40)], 140),  # one whole after another
        ([(100, 60), (100, 40)], 100),  # two chunks of one whole
        ([(100, 60), (100, 40), (40, 40)], 140),
        ([(100, 120)], 200),  # a wrong total is no reason for a count beyond it
    ],
)
def test_a_bar_that_is_entered_again_grows(
    parts: list[tuple[int, int]], total: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "stderr", Console(file=StringIO(), force_terminal=True))
    progress = console.TerminalProgress()
    with progress.step("measure", len(parts), "parts"):
        for whole, finished in parts:
            with progress.step("encode", whole, "texts") as step:
                step.advance(finished)
        assert progress._bars is not None
        bar = next(each for each in progress._bars.tasks if each.description == "encode")
        assert (bar.completed, bar.total) == (sum(done for _, done in parts), total)
