"""The unjudged documents that decide a score or a comparison, as a table and as records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.text import Text

from bge_eval.cli.formats.blocks import Block, Cell, Grid, GridLine, Output
from bge_eval.cli.formats.terminal import terminal_table

if TYPE_CHECKING:
    from rich.console import Console

    from bge_eval.judgements.deciding import Unjudged

SHOWN = 10
"""Documents in the terminal; the other formats have all."""


@dataclass(frozen=True, slots=True)
class DecidingOutput(Output):
    """Unjudged documents to print, largest swing first."""

    task: str
    """The task."""
    measure: str
    """The measure."""
    documents: Sequence[Unjudged]
    """The documents."""

    @property
    def _head(self) -> tuple[str, ...]:
        ranks = ("rank A", "rank B") if self._compared else ("rank",)
        return ("query", "document", *ranks, "points if relevant")

    @property
    def _compared(self) -> bool:
        return any(len(one.ranks) == 2 for one in self.documents)

    def terminal(self, console: Console) -> None:
        """Print the first of them."""
        body = [_cells(one) for one in self.documents[:SHOWN]]
        console.print(Text(f"{self.task}, {self.measure}", style="bold"))
        console.print(terminal_table(self._head, body, left=(0, 1)))
        if len(self.documents) > SHOWN:
            console.print(Text(f"and {len(self.documents) - SHOWN:,} more"), style="dim")

    def blocks(self) -> list[Block]:
        """Return the table of all."""
        lines = [GridLine(tuple(map(Cell, _cells(one)))) for one in self.documents]
        return [Grid(self._head, tuple(lines), left=(0, 1), caption=self.task)]

    def records(self) -> list[dict[str, Any]]:
        """Return one record for each."""
        return [
            {
                "task": self.task,
                "measure": self.measure,
                "query_id": one.query,
                "document_id": one.document,
                "rank_a": one.ranks[0],
                "rank_b": one.ranks[1] if len(one.ranks) == 2 else None,
                "swing": one.swing,
            }
            for one in self.documents
        ]

    def content(self) -> list[dict[str, Any]]:
        """Return one record for each."""
        return self.records()


def _cells(one: Unjudged) -> list[str]:
    ranks = ["–" if rank is None else str(rank) for rank in one.ranks]
    return [one.query, one.document, *ranks, f"{100 * one.swing:+.3f}"]
