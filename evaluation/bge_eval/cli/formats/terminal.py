"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text


def terminal_table(
    head: Sequence[str],
    body: Sequence[Sequence[str]],
    *,
    left: Sequence[int] = (0,),
    styles: Sequence[str] = (),
) -> Table:
    """Return a table for the terminal; lines within a cell are kept.

    Args:
        head: the headings.
        body: the rows, one text for each heading.
        left: the columns of words, which may be folded; the others are numbers.
        styles: one for each row, or none.
    """
    table = Table()
    for index, name in enumerate(head):
        if index in left:
            table.add_column(name, overflow="fold")
        else:
            table.add_column(name, justify="right", no_wrap=True)
    for number, row in enumerate(body):
        table.add_row(*map(Text, row), style=styles[number] if styles else "")
    return table
