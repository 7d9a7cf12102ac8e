"""The formats by name. A new format is a value of `Format` and a writer in `WRITERS`."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING

from bge_eval.cli.formats.blocks import Output
from bge_eval.cli.formats.html import html_document
from bge_eval.cli.formats.latex import latex_document
from bge_eval.cli.formats.markdown import markdown_document
from bge_eval.cli.formats.printable import json_printable, no_formula, printable

if TYPE_CHECKING:
    from rich.console import Console


class Format(StrEnum):
    """How output is written."""

    TERMINAL = "terminal"
    MARKDOWN = "markdown"
    CSV = "csv"
    JSON = "json"
    LATEX = "latex"
    HTML = "html"


def rendered(output: Output, form: Format) -> str:
    """Return output as text of a format other than the terminal's."""
    text = WRITERS[form](output).rstrip("\n") + "\n"
    return json_printable(text) if form is Format.JSON else printable(text)


def write(output: Output, form: Format, console: Console) -> None:
    """Print output in a format.

    Args:
        output: what a command prints.
        form: the format.
        console: its width fits the terminal's format; other formats are written as they are.
    """
    if form is Format.TERMINAL:
        output.terminal(console)
    else:
        console.file.write(rendered(output, form))


def _csv(output: Output) -> str:
    records = output.records()
    if not records:
        return ""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {name: no_formula(value) for name, value in record.items()} for record in records
    )
    return text.getvalue()


def _json(output: Output) -> str:
    return json.dumps(output.content(), indent=2, ensure_ascii=False)


WRITERS: dict[Format, Callable[[Output], str]] = {
    Format.MARKDOWN: lambda output: markdown_document(output.blocks()),
    Format.CSV: _csv,
    Format.JSON: _json,
    Format.LATEX: lambda output: latex_document(output.blocks()),
    Format.HTML: lambda output: html_document(output.blocks()),
}
"""Format → what writes output in it."""
