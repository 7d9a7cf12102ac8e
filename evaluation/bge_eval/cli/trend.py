"""``bge-eval table --trend``: the scores of series of checkpoints over their steps."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.text import Text

from bge_eval.cli.formats.blocks import Block, Cell, Grid, GridLine, Note, Output
from bge_eval.cli.formats.terminal import terminal_table
from bge_eval.leaderboard.trend import Series, Trend

if TYPE_CHECKING:
    from rich.console import Console

    from bge_eval.leaderboard.significance import Standing

_BARS = "▁▂▃▄▅▆▇█"
_WIDEST = 40
"""Steps of a sparkline; of more, evenly spaced ones are drawn."""
_FULL = 3
"""Up to this many columns are listed step by step; of more, the mean alone."""
_HEAD = ("task", "trend", "best", "95% interval", "at", "like it", "first", "last")
_NARROW = 100
"""Columns of a terminal that shows no first and last score."""
_NAME = re.compile(r"^[a-z_ -]+(?=\d+$)", re.I)
"""The words of a label with one number, such as ``checkpoint-500``."""
_KEY = (
    "trend: lowest to highest score of the task. Intervals are over queries. like it: steps that"
    " cannot be told from the best one (randomised Tukey HSD over the steps, p ≥ 0.05)."
)


def sparkline(scores: Sequence[float | None]) -> str:
    """Return scores as bars of eight heights, the lowest to the highest; a gap for None."""
    if len(scores) > _WIDEST:
        last = len(scores) - 1
        scores = [scores[round(place * last / (_WIDEST - 1))] for place in range(_WIDEST)]
    known = [score for score in scores if score is not None]
    low = min(known, default=0.0)
    room = max(known, default=0.0) - low
    top = len(_BARS) - 1
    return "".join(
        " " if score is None else _BARS[round((score - low) / room * top) if room else top // 2]
        for score in scores
    )


@dataclass(frozen=True, slots=True)
class TrendOutput(Output):
    """Series of checkpoints to print."""

    measure: str
    """The measure's name."""
    found: Sequence[tuple[Series, Sequence[Trend]]]
    """Each series, with its trends: one for each task and the mean."""

    def terminal(self, console: Console) -> None:
        """Print a line with a sparkline for each task, then the steps."""
        for series, trends in self.found:
            console.print(Text(f"{series.name}, {self.measure}", style="bold"))
            shown = len(_HEAD) - (2 if console.width < _NARROW else 0)
            body = [_summary(series, trend)[:shown] for trend in trends]
            console.print(terminal_table(_HEAD[:shown], body, left=(0, 1, 4, 5)))
            head, lines = _steps(series, _listed(trends))
            console.print(terminal_table(head, lines, left=(0,)))
        console.print(Text(_KEY), style="dim")

    def blocks(self) -> list[Block]:
        """Return both tables of each series."""
        blocks: list[Block] = []
        for series, trends in self.found:
            lines = [_summary(series, trend) for trend in trends]
            title = f"{series.name}, {self.measure}"
            blocks.append(Grid(_HEAD, _grid_lines(lines), left=(0, 1, 4, 5), caption=title))
            head, steps = _steps(series, trends)
            blocks.append(Grid(tuple(head), _grid_lines(steps)))
        return [*blocks, Note(_KEY)]

    def records(self) -> list[dict[str, Any]]:
        """Return one record for each step of each task."""
        return [
            {
                "series": series.name,
                "task": trend.heading,
                "step": series.steps[place],
                "checkpoint": series.labels[place],
                "score": it.score,
                "low": it.low,
                "high": it.high,
                "best": place == trend.best,
                "tied_with_best": place in trend.tied,
            }
            for series, trends in self.found
            for trend in trends
            for place, it in enumerate(trend.standings)
            if it is not None
        ]

    def content(self) -> dict[str, Any]:
        """Return the measure and the records."""
        return {"measure": self.measure, "steps": self.records()}


def _listed(trends: Sequence[Trend]) -> Sequence[Trend]:
    return trends if len(trends) <= _FULL else trends[-1:]


def _summary(series: Series, trend: Trend) -> list[str]:
    """Return a task's line: its sparkline, its first, last and best score."""
    scores = [it.score if it else None for it in trend.standings]
    known = [score for score in scores if score is not None]
    assert trend.best is not None
    best = trend.standings[trend.best]
    assert best is not None
    tied = [str(series.steps[place]) for place in trend.tied]
    like = ", ".join(tied) if len(tied) < _FULL else f"{len(tied)} steps"
    untested = len(known) > 1 and not best.tested
    return [
        trend.heading,
        sparkline(scores),
        f"{best.score:.5f}",
        _interval(best),
        _NAME.sub("", series.labels[trend.best]),
        "not tested" if untested else like or "none",
        f"{known[0]:.5f}",
        f"{known[-1]:.5f}",
    ]


def _steps(series: Series, trends: Sequence[Trend]) -> tuple[list[str], list[list[str]]]:
    """Return a head and a line for each step, with the score and interval of some tasks."""
    head, lines = ["step"], [[label] for label in series.labels]
    for trend in trends:
        head += [trend.heading, "95% interval"]
        for line, it in zip(lines, trend.standings, strict=True):
            line += [f"{it.score:.5f}", _interval(it)] if it else ["–", ""]
    return head, lines


def _interval(standing: Standing) -> str:
    return "" if standing.low is None else f"{standing.low:.4f}…{standing.high:.4f}"


def _grid_lines(lines: Sequence[Sequence[str]]) -> tuple[GridLine, ...]:
    return tuple(GridLine(tuple(map(Cell, line))) for line in lines)
