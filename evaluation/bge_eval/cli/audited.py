"""Faults of data sets as tables and records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.text import Text

from bge_eval.cli.formats.blocks import (
    Block,
    Cell,
    Grid,
    GridLine,
    Item,
    Items,
    Output,
    Paragraph,
    Title,
)
from bge_eval.cli.formats.terminal import terminal_table

if TYPE_CHECKING:
    from rich.console import Console

    from bge_eval.audit.effects import Effect

_NONE = "–"
METHOD = (
    "without: the score with the fault repaired (duplicates made one document, affected queries or"
    " documents left out); may move: the points by which the score moves if every affected query"
    " scored 0, or 1."
)
"""What the columns of a run mean, in one line."""


@dataclass(frozen=True, slots=True)
class FaultLine:
    """One class of faults in one part of a task."""

    fault: str
    """The class."""
    count: int | None
    """Number of texts or queries that have it; None if it could not be looked for."""
    total: int
    """Number of texts or queries that could have it."""
    example: str = ""
    """One of them, by ids."""
    effect: Effect | None = None
    """What it could move in the run's score; None without a run, or without a fault."""


@dataclass(frozen=True, slots=True)
class PartAudit:
    """The faults of one part of a task."""

    task: str
    """The task."""
    part: str
    """Subset and split, e.g. "default/test"."""
    size: str
    """What it holds, e.g. "5,183 documents, 300 queries"."""
    lines: Sequence[FaultLine]
    """Every class of faults, those that were not found included."""
    run: str = ""
    """The run and its measure, e.g. "bm25: nDCG@10 0.68630"; "" without a run."""
    notes: Sequence[str] = ()
    """Remarks."""

    @property
    def title(self) -> str:
        """What is shown, in one line."""
        run = f"; {self.run}" if self.run else ""
        return f"{self.task} ({self.part}): {self.size}{run}"


@dataclass(frozen=True, slots=True)
class AuditOutput(Output):
    """Faults to print, part by part."""

    parts: Sequence[PartAudit]
    """The parts."""

    @property
    def _judged(self) -> bool:
        return any(part.run for part in self.parts)

    def terminal(self, console: Console) -> None:
        """Print one table for each part."""
        for part in self.parts:
            console.print(Text(part.title, style="bold"))
            body = [_cells(line, bool(part.run)) for line in part.lines]
            styles = ["" if line.count else "dim" for line in part.lines]
            head = _head(bool(part.run))
            console.print(terminal_table(head, body, styles=styles))
            for text in _examples(part):
                console.print(Text(text), style="dim")
            for note in part.notes:
                console.print(Text(note), style="yellow")
        if self._judged:
            console.print(Text(METHOD), style="dim")

    def blocks(self) -> list[Block]:
        """Return the tables as a document."""
        blocks: list[Block] = []
        for part in self.parts:
            head = _head(bool(part.run))
            lines = [
                GridLine(tuple(map(Cell, _cells(line, bool(part.run))))) for line in part.lines
            ]
            blocks += [Title(part.title), Grid(head, tuple(lines))]
            if remarks := [*_examples(part), *part.notes]:
                blocks.append(Items(tuple(map(Item, remarks))))
        return [*blocks, Paragraph(METHOD)] if self._judged else blocks

    def records(self) -> list[dict[str, Any]]:
        """Return one record for each class of each part."""
        return [_record(part, line) for part in self.parts for line in part.lines]

    def content(self) -> list[dict[str, Any]]:
        """Return every part with its classes and notes."""
        return [
            {
                "task": part.task,
                "part": part.part,
                "size": part.size,
                "run": part.run,
                "faults": [_record(part, line) for line in part.lines],
                "notes": list(part.notes),
            }
            for part in self.parts
        ]


def _head(judged: bool) -> tuple[str, ...]:
    more = ("queries", "without", "points", "may move") if judged else ()
    return ("fault", "found", "share", *more)


def _examples(part: PartAudit) -> list[str]:
    return [f"{line.fault}, such as {line.example}" for line in part.lines if line.example]


def _cells(line: FaultLine, judged: bool) -> list[str]:
    if line.count is None:
        cells = [line.fault, _NONE, _NONE]
    else:
        share = f"{line.count / line.total:.2%}" if line.total else _NONE
        cells = [line.fault, f"{line.count:,}", share]
    if judged:
        cells += _effect_cells(line.effect)
    return cells


def _effect_cells(effect: Effect | None) -> list[str]:
    if effect is None:
        return [_NONE] * 4
    low, high = 100 * (effect.low - effect.score), 100 * (effect.high - effect.score)
    without = points = _NONE
    if effect.repaired is not None:
        without = f"{effect.repaired:.5f}"
        points = f"{100 * (effect.repaired - effect.score):+.2f}"
    return [f"{effect.queries:,}", without, points, f"{low:+.2f} … {high:+.2f}"]


def _record(part: PartAudit, line: FaultLine) -> dict[str, Any]:
    effect = line.effect
    return {
        "task": part.task,
        "part": part.part,
        "fault": line.fault,
        "found": line.count,
        "of": line.total,
        "example": line.example,
        "queries": effect.queries if effect else None,
        "score": effect.score if effect else None,
        "without": effect.repaired if effect else None,
        "low": effect.low if effect else None,
        "high": effect.high if effect else None,
    }
