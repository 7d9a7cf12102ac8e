"""Rescored runs as tables and records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bge_eval.cli.formats.blocks import Block, Cell, Grid, GridLine, Output
from bge_eval.cli.formats.terminal import terminal_table

if TYPE_CHECKING:
    from rich.console import Console

    from bge_eval.measures.measure import Measure


@dataclass(frozen=True, slots=True)
class RescoredRow:
    """One run, or one query of a run."""

    names: tuple[str, ...]
    """The run, the task, and the query if there is one row for each."""
    values: tuple[float, ...]
    """One value for each measure."""

    @property
    def texts(self) -> list[str]:
        """The cells of the row."""
        return [*self.names, *(f"{value:.5f}" for value in self.values)]


@dataclass(frozen=True, slots=True)
class RescoredOutput(Output):
    """Measures of runs to print."""

    measures: Sequence[Measure]
    """The columns of numbers."""
    rows: Sequence[RescoredRow]
    """Runs, or queries of runs."""
    per_query: bool = False
    """Whether every row is a query."""

    @property
    def _names(self) -> tuple[str, ...]:
        return ("run", "task", "query") if self.per_query else ("run", "task")

    @property
    def _head(self) -> tuple[str, ...]:
        return (*self._names, *map(str, self.measures))

    @property
    def _left(self) -> tuple[int, ...]:
        return tuple(range(len(self._names)))

    def terminal(self, console: Console) -> None:
        """Print the table."""
        body = [row.texts for row in self.rows]
        console.print(terminal_table(self._head, body, left=self._left))

    def blocks(self) -> list[Block]:
        """Return the table."""
        lines = [GridLine(tuple(map(Cell, row.texts))) for row in self.rows]
        return [Grid(self._head, tuple(lines), left=self._left)]

    def records(self) -> list[dict[str, Any]]:
        """Return one record for each row."""
        return [dict(zip(self._head, (*row.names, *row.values), strict=True)) for row in self.rows]

    def content(self) -> list[dict[str, Any]]:
        """Return one record for each row."""
        return self.records()
