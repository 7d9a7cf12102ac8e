"""The leaderboard in the form that was asked for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import StrEnum

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bge_eval.leaderboard import Leaderboard, Row

_NARROWEST_NAME = 28
"""Columns that a model's name may be folded into on a narrow screen."""


class Form(StrEnum):
    """How a table is written."""

    TERMINAL = "terminal"
    MARKDOWN = "markdown"
    CSV = "csv"
    JSON = "json"


def show(board: Leaderboard, form: Form, console: Console) -> None:
    """Write the table to stdout."""
    if form is Form.TERMINAL:
        _terminal(board, console)
        return
    text = {Form.MARKDOWN: _markdown, Form.CSV: _csv, Form.JSON: _json}[form](board)
    console.file.write(text.rstrip("\n") + "\n")


def _cells(board: Leaderboard) -> tuple[list[str], list[list[str]]]:
    """Return the headings and the rows as text, a gain beneath every second stage."""
    head = ["model", "precision", *board.tasks]
    with_average = len(board.tasks) > 1
    if with_average:
        head.append("average")
    body = []
    for row in board.rows:
        scores = [_score(row.scores.get(task)) for task in board.tasks]
        body.append([_name(row), row.dtype, *scores, *([_average(board, row)] * with_average)])
        gain = board.gain(row)
        if gain is not None:
            changes = [_signed(gain.get(task)) for task in board.tasks]
            whole = sum(gain.values()) / len(gain) if len(gain) == len(board.tasks) else None
            body.append(["    gain", "", *changes, *([_signed(whole)] * with_average)])
    return head, body


def _name(row: Row) -> str:
    if row.reranker is None:
        return f"{row.label} ({row.revision[:8]})"
    return f"  + {row.reranker}"


def _score(value: float | None) -> str:
    return "–" if value is None else f"{value:.5f}"


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.5f}"


def _average(board: Leaderboard, row: Row) -> str:
    average = row.average(board.tasks)
    if average is not None:
        return _score(average)
    done = len(board.tasks) - len(row.missing(board.tasks))
    return f"– ({done} of {len(board.tasks)} tasks)"


def _heading(board: Leaderboard) -> str:
    return f"{board.measure}, {board.title}" if board.title else board.measure


def _terminal(board: Leaderboard, console: Console) -> None:
    """Print models as rows; where the tasks do not fit side by side, models as columns."""
    head, body = _cells(board)
    widths = [max(cell_len(row[i]) for row in [head, *body]) + 3 for i in range(len(head))]
    fits = min(widths[0], _NARROWEST_NAME) + sum(widths[1:]) < console.width or len(body) > 6
    table = Table(title=_heading(board), title_justify="left")
    if fits:
        table.add_column(head[0], overflow="fold")
        table.add_column(head[1])
        for name in head[2:]:
            table.add_column(name, justify="right", no_wrap=True)
        for row in body:
            style = "dim" if row[0].strip() == "gain" else ""
            table.add_row(*(Text(cell) for cell in row), style=style)
    else:
        table.add_column("task", no_wrap=True)
        for row in body:
            table.add_column(Text(row[0].strip()), justify="right", overflow="fold")
        for column, name in list(enumerate(head))[1:]:
            table.add_row(name, *(Text(row[column]) for row in body))
    console.print(table)
    for line in board.rows:
        missing = line.missing(board.tasks)
        if missing and len(board.tasks) > 1:
            console.print(
                Text(f"{line.label}: no average, {len(missing)} missing: {', '.join(missing)}"),
                style="yellow",
            )


def _markdown(board: Leaderboard) -> str:
    head, body = _cells(board)
    lines = [f"**{_heading(board)}**", "", _pipes(head)]
    lines.append(_pipes(["---", "---", *["---:"] * (len(head) - 2)]))
    return "\n".join([*lines, *(_pipes([cell.strip() for cell in row]) for row in body)])


def _pipes(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _csv(board: Leaderboard) -> str:
    text: str = board.frame().to_csv(index=False, lineterminator="\n")
    return text


def _json(board: Leaderboard) -> str:
    rows = [
        {
            "model": row.model,
            "revision": row.revision,
            "settings": row.settings,
            "reranker": row.reranker,
            "dtype": row.dtype,
            "scores": {task: row.scores.get(task) for task in board.tasks},
            "average": row.average(board.tasks),
            "missing": row.missing(board.tasks),
            "gain": board.gain(row),
        }
        for row in board.rows
    ]
    content = {"measure": board.measure, "suite": board.title, "tasks": board.tasks, "rows": rows}
    return json.dumps(content, indent=2, ensure_ascii=False)
