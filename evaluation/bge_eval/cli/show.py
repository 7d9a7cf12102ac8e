"""The leaderboard in the form that was asked for."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from enum import StrEnum

from rich.cells import cell_len
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from bge_eval.leaderboard import MEAN_TYPE, Leaderboard, Mean, Row

_NARROWEST_NAME = 28
"""Columns that a model's name may be folded into on a narrow screen."""


_MOST_TURNED = 6
"""So many lines are shown as columns where the screen is too narrow for the tasks."""
_FRAME = 3
"""What the table puts around a column."""
_FEW = 3
"""So many missing tasks of a published row are named; beyond, they are counted."""


class Form(StrEnum):
    """How a table is written."""

    TERMINAL = "terminal"
    MARKDOWN = "markdown"
    CSV = "csv"
    JSON = "json"


def show(board: Leaderboard, form: Form, console: Console, *, types: bool = False) -> None:
    """Write the table to stdout.

    Args:
        board: the table.
        form: how it is written.
        console: where to.
        types: the means by task type as columns, instead of the tasks.
    """
    if form is Form.TERMINAL:
        _terminal(board, console, types)
        return
    if form is Form.MARKDOWN:
        text = _markdown(board, types)
    elif form is Form.CSV:
        text = board.frame(types=types).to_csv(index=False, lineterminator="\n")
    else:
        text = _json(board)
    console.file.write(text.rstrip("\n") + "\n")


def notes(board: Leaderboard) -> list[str]:
    """Return what has to be said beneath the table: what is missing, and what disagrees."""
    lines = []
    if len(board.tasks) > 1:
        for row in board.rows:
            missing = row.missing(board.tasks)
            if missing and not row.published:
                lines.append(
                    f"{row.label}: no average, {len(missing)} missing: {', '.join(missing)}"
                )
    published = [row for row in board.rows if row.published]
    lacking = [_lacking(board, row) for row in published if row.missing(board.tasks)]
    if lacking and len(board.tasks) > 1:
        lines.append(
            f"Published rows that lack some of the {len(board.tasks)} tasks: {'; '.join(lacking)}"
        )
    for row in board.rows:
        source = "published" if row.published else "saved"
        lines += [
            f"* {row.model if row.published else row.label}: {task}: {source}"
            f" {both.stored:.6f}, over its {both.parts} parts {both.recomputed:.6f}"
            for task, both in row.disagreements.items()
        ]
    other = [task for task in board.tasks if any(task in row.other_data for row in published)]
    if other:
        scored = sum(len(board.tasks) - len(row.missing(board.tasks)) for row in published)
        lines.append(
            f"Published on another revision of the data than the task has now, or on an unstated"
            f" one: {sum(len(row.other_data) for row in published)} of {scored} scores, of"
            f" {', '.join(other)}"
        )
    return lines


def _lacking(board: Leaderboard, row: Row) -> str:
    missing = row.missing(board.tasks)
    what = f"{len(missing)}" if len(missing) > _FEW else ", ".join(missing)
    return f"{row.model} ({what})"


def _cells(board: Leaderboard, types: bool) -> tuple[list[str], list[list[str]]]:
    """Return the headings and the rows as text, a gain beneath every second stage."""
    if types:
        return _type_cells(board)
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


def _type_cells(board: Leaderboard) -> tuple[list[str], list[list[str]]]:
    head: list[str] = []
    body = []
    for row in board.rows:
        means = board.means(row)
        head = ["model", "precision", *means]
        body.append([_name(row), row.dtype, *map(_mean, means.values())])
        gain = board.gain_of_means(row)
        if gain is not None:
            body.append(["    gain", "", *(_signed(gain.get(name)) for name in means)])
    return head, body


def _name(row: Row) -> str:
    mark = " *" if row.disagreements else ""
    if row.reranker is not None:
        return f"  + {row.reranker}{mark}"
    return f"{row.label}{mark}" if row.published else f"{row.label} ({row.revision[:8]}){mark}"


def _score(value: float | None) -> str:
    return "–" if value is None else f"{value:.5f}"


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.5f}"


def _mean(mean: Mean) -> str:
    return f"– ({mean.done} of {mean.total})" if mean.value is None else _score(mean.value)


def _average(board: Leaderboard, row: Row) -> str:
    average = row.average(board.tasks)
    if average is not None:
        return _score(average)
    done = len(board.tasks) - len(row.missing(board.tasks))
    return f"– ({done} of {len(board.tasks)} tasks)"


def _heading(board: Leaderboard) -> str:
    return f"{board.measure}, {board.title}" if board.title else board.measure


def _terminal(board: Leaderboard, console: Console, types: bool) -> None:
    """Print models as rows; where the columns do not fit, models as columns, or in pieces."""
    head, body = _cells(board, types)
    if not any(row[1] for row in body):
        head, body = [head[0], *head[2:]], [[row[0], *row[2:]] for row in body]
    if types:
        head = [name if name == MEAN_TYPE else _spaced(name) for name in head]
    widths = [
        max(*(cell_len(row[i]) for row in body), *map(cell_len, name.split() if types else [name]))
        for i, name in enumerate(head)
    ]
    pieces = _pieces(widths, console.width)
    if len(pieces) > 1 and len(body) <= _MOST_TURNED:
        console.print(_turned(head, body, _heading(board)))
    else:
        for columns in pieces:
            title = _heading(board) if columns is pieces[0] else None
            console.print(_upright(head, body, [0, *columns], widths, title))
    for line in notes(board):
        console.print(Text(line), style="yellow")


def _pieces(widths: Sequence[int], screen: int) -> list[list[int]]:
    """Divide the columns after the first into groups that fit on the screen beside it."""
    first = min(widths[0], _NARROWEST_NAME) + _FRAME
    pieces: list[list[int]] = [[]]
    used = first
    for column, width in list(enumerate(widths))[1:]:
        if pieces[-1] and used + width + _FRAME >= screen:
            pieces.append([])
            used = first
        pieces[-1].append(column)
        used += width + _FRAME
    return pieces


def _upright(
    head: Sequence[str],
    body: Sequence[Sequence[str]],
    columns: Sequence[int],
    widths: Sequence[int],
    title: str | None,
) -> Table:
    """Models as rows."""
    table = Table(title=title, title_justify="left")
    table.add_column(head[0], overflow="fold")
    for column in columns[1:]:
        justify: JustifyMethod = "left" if head[column] == "precision" else "right"
        table.add_column(head[column], justify=justify, min_width=widths[column])
    for row in body:
        style = "dim" if row[0].strip() == "gain" else ""
        table.add_row(*(Text(row[column]) for column in columns), style=style)
    return table


def _turned(head: Sequence[str], body: Sequence[Sequence[str]], title: str) -> Table:
    """Models as columns."""
    table = Table(title=title, title_justify="left")
    table.add_column("task", no_wrap=True)
    for row in body:
        table.add_column(Text(row[0].strip()), justify="right", overflow="fold")
    for column, name in list(enumerate(head))[1:]:
        table.add_row(name, *(Text(row[column]) for row in body))
    return table


def _spaced(name: str) -> str:
    """Return a task type with the spaces at which a heading may be broken."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)


def _markdown(board: Leaderboard, types: bool) -> str:
    head, body = _cells(board, types)
    lines = [f"**{_heading(board)}**", "", _pipes(head)]
    lines.append(_pipes(["---", "---", *["---:"] * (len(head) - 2)]))
    return "\n".join([*lines, *(_pipes([cell.strip() for cell in row]) for row in body)])


def _pipes(cells: Sequence[str]) -> str:
    escaped = (cell.replace("|", "\\|").replace("*", "\\*") for cell in cells)
    return "| " + " | ".join(escaped) + " |"


def _json(board: Leaderboard) -> str:
    typed = "" not in board.types
    rows = [
        {
            "model": row.model,
            "revision": row.revision,
            "settings": row.settings,
            "reranker": row.reranker,
            "dtype": row.dtype,
            "published": row.published,
            "scores": {task: row.scores.get(task) for task in board.tasks},
            "average": row.average(board.tasks),
            "means": {name: asdict(mean) for name, mean in board.means(row).items()}
            if typed
            else None,
            "missing": row.missing(board.tasks),
            "gain": board.gain(row),
            "disagreements": {task: asdict(both) for task, both in row.disagreements.items()},
            "other_data": row.other_data,
        }
        for row in board.rows
    ]
    content = {
        "measure": board.measure,
        "suite": board.title,
        "tasks": board.tasks,
        "types": {column.task: column.type or None for column in board.columns},
        "rows": rows,
    }
    return json.dumps(content, indent=2, ensure_ascii=False)
