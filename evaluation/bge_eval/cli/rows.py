"""A plain table of text in the form that was asked for."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text


class Form(StrEnum):
    """How a table is written."""

    TERMINAL = "terminal"
    MARKDOWN = "markdown"
    CSV = "csv"
    JSON = "json"


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


def markdown_table(
    head: Sequence[str], body: Sequence[Sequence[str]], *, left: Sequence[int] = (0,)
) -> str:
    """Return a table in Markdown."""
    rule = ["---" if index in left else "---:" for index in range(len(head))]
    return "\n".join([_pipes(head), "| " + " | ".join(rule) + " |", *map(_pipes, body)])


def csv_table(records: Sequence[Mapping[str, Any]]) -> str:
    """Return records of the same keys as CSV; None is an empty cell."""
    output = io.StringIO()
    writer = csv.DictWriter(output, list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return output.getvalue()


def write(text: str, console: Console) -> None:
    """Write text to stdout as it is."""
    console.file.write(text.rstrip("\n") + "\n")


def as_json(content: Any) -> str:
    """Return content as JSON for people and programs."""
    return json.dumps(content, indent=2, ensure_ascii=False)


def escaped(text: str) -> str:
    """Return text in which Markdown finds nothing to interpret."""
    for mark in "\\`*_<>[]|":
        text = text.replace(mark, f"\\{mark}")
    return text


def _pipes(cells: Sequence[str]) -> str:
    return "| " + " | ".join(escaped(cell) for cell in cells) + " |"
