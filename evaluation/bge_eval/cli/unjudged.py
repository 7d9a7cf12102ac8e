"""``bge-eval rescore --unjudged`` as tables and records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.text import Text

from bge_eval.cli.formats.blocks import Block, Cell, Grid, GridLine, Output, Paragraph
from bge_eval.cli.formats.terminal import terminal_table

if TYPE_CHECKING:
    from rich.console import Console

    from bge_eval.judgements.holes import Holes

_HEAD = (
    "run", "task", "measure", "score", "judged", "if relevant", "least", "most", "condensed",
)  # fmt: skip
_KEY = (
    "score: unjudged documents count as irrelevant. judged: share of the documents within the"
    " cutoff. if relevant: every one of them relevant. least, most: over all judgements of them."
    " condensed: unjudged documents left out (Sakai 2007)."
)


@dataclass(frozen=True, slots=True)
class UnjudgedOutput(Output):
    """Measures with what unjudged documents could make of them."""

    rows: Sequence[tuple[tuple[str, str], Holes]]
    """((run, task), one measure)."""

    def terminal(self, console: Console) -> None:
        """Print one table for each run of a task."""
        for names in dict.fromkeys(names for names, _ in self.rows):
            console.print(Text(" on ".join(names), style="bold"))
            body = [_cells(row)[2:] for row in self.rows if row[0] == names]
            console.print(terminal_table(_HEAD[2:], body))
        console.print(Text(_KEY), style="dim")

    def blocks(self) -> list[Block]:
        """Return the table and its key."""
        lines = [GridLine(tuple(map(Cell, _cells(row)))) for row in self.rows]
        return [Grid(_HEAD, tuple(lines), left=(0, 1, 2)), Paragraph(_KEY)]

    def records(self) -> list[dict[str, Any]]:
        """Return one record for each run and measure."""
        return [
            {
                "run": run,
                "task": task,
                "measure": str(own.measure),
                "score": own.value,
                "judged": own.judged,
                "if_relevant": own.all_relevant,
                "least": own.low,
                "most": own.high,
                "condensed": own.condensed,
            }
            for (run, task), own in self.rows
        ]

    def content(self) -> list[dict[str, Any]]:
        """Return one record for each run and measure."""
        return self.records()


def _cells(row: tuple[tuple[str, str], Holes]) -> list[str]:
    names, own = row
    numbers = (own.value, own.judged, own.all_relevant, own.low, own.high, own.condensed)
    return [*names, str(own.measure), *("–" if n is None else f"{n:.5f}" for n in numbers)]
