"""The leaderboard as table, document and records."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from bge_eval.cli.formats.blocks import Block, Cell, Note, Output
from bge_eval.cli.formats.registry import Format, write
from bge_eval.cli.grid import COSTS, MORE_THAN_CHANCE, Look, grid, heading, values
from bge_eval.leaderboard.board import MEAN_TYPE, Leaderboard
from bge_eval.leaderboard.rows import Row

if TYPE_CHECKING:
    import pandas as pd

    from bge_eval.leaderboard.losses import Loss, Losses
    from bge_eval.leaderboard.ranks import Rank

_NARROWEST_NAME = 28
"""Columns that a model's name may be folded into on a narrow screen."""


_MOST_TURNED = 6
"""Up to this many lines become columns where the screen is too narrow for the tasks."""
_FRAME = 3
"""What the table puts around a column."""
_STYLES = {1: "bold", 2: "underline"}
"""Rank in a column → how it looks on the terminal."""
_FEW = 3
"""Up to this many missing tasks of a published row are named; more are counted."""


def show(board: Leaderboard, form: Format, console: Console, look: Look | None = None) -> None:
    """Print a leaderboard.

    Args:
        board: the leaderboard.
        form: the format.
        console: where to print.
        look: what it shows besides the scores; nothing by default.
    """
    write(BoardOutput(board, look or Look()), form, console)


@dataclass(frozen=True, slots=True)
class BoardOutput(Output):
    """A leaderboard to print."""

    board: Leaderboard
    """The leaderboard."""
    look: Look
    """What it shows besides the scores."""

    def terminal(self, console: Console) -> None:
        """Print models as rows; where the columns do not fit, models as columns, or in pieces."""
        _terminal(self.board, console, self.look)

    def blocks(self) -> list[Block]:
        """Return the table, and under it the reasons of gaps."""
        return [grid(self.board, self.look), *(Note(line) for line in _gaps(self.board))]

    def records(self) -> list[dict[str, Any]]:
        """Return one record for each row."""
        frame = _frame(self.board, self.look)
        rows = frame.astype(object).where(frame.notna(), None).itertuples(index=False, name=None)
        return [dict(zip(map(str, frame.columns), row, strict=True)) for row in rows]

    def content(self) -> dict[str, Any]:
        """Return rows with all that is known of them."""
        return _content(self.board, self.look)


def notes(board: Leaderboard, look: Look | None = None) -> list[str]:
    """Return the remarks beneath the table: parts of tasks, missing tasks, disagreements."""
    lines = [
        f"{row.label}: {task}: {partial.name} alone, of {partial.total} subsets; it is in no mean"
        " (--subset makes a column of it)"
        for row in board.rows
        for task, partial in row.partial.items()
    ]
    lines += _gaps(board)
    if parts := [column.heading for column in board.columns if column.part]:
        lines.append(f"Not whole tasks, but these subsets of them: {', '.join(parts)}")
    lines += _rank_notes(look.ranks if look else None)
    lines += _loss_notes(board, (look.losses if look else None) or ())
    lines += _cut_notes(board)
    machines = {cost.machine for cost in (look.costs if look else None) or () if cost.machine}
    if len(machines) > 1:
        lines.append(f"Seconds and rates are of different machines: {'; '.join(sorted(machines))}")
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


def _cut_notes(board: Leaderboard) -> list[str]:
    """Return what has no part in the averages because it is a cut of a task."""
    lines = []
    if board.apart:
        lines.append(
            f"Cuts of tasks are not in this table: {', '.join(board.apart)} (--tasks shows them)"
        )
    others = [task for task in board.tasks if task not in board.averaged]
    if others and board.averaged:
        lines.append(f"Not in the averages, which are over whole tasks: {', '.join(others)}")
    elif others:
        lines.append("No averages: the tasks are cut in different ways")
    return lines


def _rank_notes(ranks: Sequence[Rank | None] | None) -> list[str]:
    """Return what the intervals of ranks are over."""
    over = {rank.over for rank in ranks or () if rank is not None and rank.low is not None}
    return [
        "Rank by mean: in brackets the ranks that it may have; rows whose ranks overlap cannot be"
        f" told apart (randomised Tukey HSD over {what}, all rows at once, 95%)"
        for what in sorted(over)
    ]


def _loss_notes(board: Leaderboard, losses: Sequence[Losses | None]) -> list[str]:
    """Return what the lines of losses are, and against which row."""
    by_exact: dict[int, dict[str, None]] = {}
    for each in losses:
        if each is not None:
            by_exact.setdefault(each.exact, {})[each.reduced] = None
    lines = [
        f"loss of {'; '.join(reduced)}: against {board.rows[exact].label}"
        for exact, reduced in by_exact.items()
    ]
    if lines:
        lines.append(
            f"In brackets the 95% interval over queries, texts or pairs; {MORE_THAN_CHANCE} more"
            " than chance (paired randomisation test, Holm over the row's tasks, p ≤ 0.05)"
        )
    return lines


def _gaps(board: Leaderboard) -> list[str]:
    return [f"{task}: no score. {reason}" for task, reason in board.gaps.items()]


def _lacking(board: Leaderboard, row: Row) -> str:
    missing = row.missing(board.tasks)
    what = f"{len(missing)}" if len(missing) > _FEW else ", ".join(missing)
    return f"{row.model} ({what})"


def _terminal(board: Leaderboard, console: Console, look: Look) -> None:
    table = grid(board, look)
    head = list(table.head)
    shown = [[_text(cell) for cell in line.cells] for line in table.lines]
    body = [[text.plain for text in row] for row in shown]
    if look.types:
        head = [name if name == MEAN_TYPE else _spaced(name) for name in head]
    widths = [
        max(
            *(cell_len(row[i]) for row in body),
            *map(cell_len, name.split() if look.types else [name]),
        )
        for i, name in enumerate(head)
    ]
    pieces = _pieces(widths, console.width)
    dim = [line.gain for line in table.lines]
    if len(pieces) > 1 and len(body) <= _MOST_TURNED:
        console.print(_turned(head, shown, heading(board, look)))
    else:
        for columns in pieces:
            title = heading(board, look) if columns is pieces[0] else None
            console.print(_upright(head, shown, dim, [0, *columns], widths, title, len(table.left)))
    if look.standings is not None:
        key = Text.assemble(
            ("bold", "bold"),
            " best, ",
            ("underlined", "underline"),
            " second best, ",
            ", ".join(table.keys),
        )
        console.print(key)
    for line in notes(board, look):
        console.print(Text(line), style="yellow")


def _text(cell: Cell) -> Text:
    text = Text(cell.text, _STYLES.get(cell.rank, ""))
    return text.append(f" {cell.mark}", "dim not bold not underline") if cell.mark else text


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
    body: Sequence[Sequence[Text]],
    dim: Sequence[bool],
    columns: Sequence[int],
    widths: Sequence[int],
    title: str | None,
    left: int,
) -> Table:
    """Models as rows."""
    table = Table(title=title, title_justify="left")
    table.add_column(head[0], overflow="fold")
    for column in columns[1:]:
        justify: JustifyMethod = "left" if column < left else "right"
        table.add_column(head[column], justify=justify, min_width=widths[column])
    for row, gain in zip(body, dim, strict=True):
        table.add_row(*(row[column] for column in columns), style="dim" if gain else "")
    return table


def _turned(head: Sequence[str], body: Sequence[Sequence[Text]], title: str) -> Table:
    """Models as columns."""
    table = Table(title=title, title_justify="left")
    table.add_column("task", no_wrap=True)
    for row in body:
        table.add_column(Text(row[0].plain.strip()), justify="right", overflow="fold")
    for column, name in list(enumerate(head))[1:]:
        table.add_row(name, *(row[column] for row in body))
    return table


def _spaced(name: str) -> str:
    """Return a task type with the spaces at which a heading may be broken."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)


def _frame(board: Leaderboard, look: Look) -> pd.DataFrame:
    """Return the table as a data frame, with differences, marks and costs as further columns."""
    import pandas as pd

    frame = board.frame(types=look.types)
    if look.reference is not None:
        before = values(board, look.reference, look.types)
        for task, value in before.items():
            name = board.headings.get(task, task)
            changes = frame[name] - value if value is not None else None
            frame[f"difference:{name}"] = changes
    if look.standings is not None:
        marks = [
            [(name, every[index]) for name, every in look.standings.items()]
            for index in range(len(board.rows))
        ]
        for column, rank in (("best", 1), ("second", 2)):
            frame[column] = [
                ";".join(name for name, it in row if it is not None and it.rank == rank)
                for row in marks
            ]
        frame["tied_with_best"] = [
            ";".join(name for name, it in row if it is not None and it.tied) for row in marks
        ]
        frame["untested"] = [
            ";".join(name for name, it in row if it is not None and it.untested) for row in marks
        ]
    if look.ranks is not None:
        for field in ("borda", "mean", "low", "high"):
            placed = [getattr(rank, field) if rank else None for rank in look.ranks]
            frame[f"rank_{field}"] = pd.Series(placed, dtype="Int64")
    if look.zero_shot is not None:
        answers = {None: "", True: "yes", False: "no"}
        frame["zero_shot"] = [answers[each.zero_shot] for each in look.zero_shot]
        frame["trained_on"] = [";".join(each.trained_on) for each in look.zero_shot]
    if look.losses is not None:
        for heading in values(board, board.rows[0], look.types):
            own = [
                _loss_record(each.by_heading.get(heading) if each is not None else None)
                for each in look.losses
            ]
            for figure in own[0]:
                name = f"{figure}:{board.headings.get(heading, heading)}"
                frame[name] = pd.Series([record[figure] for record in own], dtype=float)
    if look.costs is not None:
        for field in COSTS.values():
            figures = [getattr(cost, field) for cost in look.costs]
            whole = field in ("parameters", "dimension")
            frame[field] = (
                pd.Series(figures, dtype="Int64") if whole else pd.Series(figures, dtype=float)
            )
    return frame


def _loss_record(loss: Loss | None) -> dict[str, float | None]:
    """Return the figures of a loss by their name in CSV."""
    tested = loss.comparison if loss is not None else None
    interval = tested.interval if tested is not None else None
    return {
        "loss": loss.difference if loss is not None else None,
        "loss_low": interval.low if interval is not None else None,
        "loss_high": interval.high if interval is not None else None,
        "loss_p": tested.p_value if tested is not None else None,
        "loss_p_holm": loss.corrected if loss is not None else None,
    }


def _loss_content(board: Leaderboard, losses: Losses | None) -> dict[str, Any] | None:
    if losses is None:
        return None
    return {
        "against": board.rows[losses.exact].label,
        "reduced": losses.reduced,
        "by": {
            name: {**asdict(loss), "significant": loss.significant}
            for name, loss in losses.by_heading.items()
        },
    }


def _content(board: Leaderboard, look: Look) -> dict[str, Any]:
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
            "average": row.average(board.averaged),
            "means": {name: asdict(mean) for name, mean in board.means(row).items()}
            if typed
            else None,
            "missing": row.missing(board.tasks),
            "partial": {
                task: {"value": it.value, "subsets": it.subsets, "total": it.total}
                for task, it in row.partial.items()
            },
            "gain": board.gain(row),
            "disagreements": {task: asdict(both) for task, both in row.disagreements.items()},
            "other_data": row.other_data,
        }
        | _extras(board, look, index)
        for index, row in enumerate(board.rows)
    ]
    return {
        "measure": board.measure,
        "suite": board.title,
        "tasks": board.tasks,
        "parts": {column.task: column.part for column in board.columns if column.part},
        "types": {column.task: column.type or None for column in board.columns},
        "gaps": dict(board.gaps),
        "rows": rows,
    }


def _extras(board: Leaderboard, look: Look, index: int) -> dict[str, Any]:
    """Return the differences, standings and costs of one row, as far as the look shows them."""
    row = board.rows[index]
    extras: dict[str, Any] = {}
    if look.reference is not None:
        before = values(board, look.reference, look.types)
        after = values(board, row, look.types)
        extras["differences"] = {
            name: value - other
            for name, value in after.items()
            if value is not None and (other := before[name]) is not None
        }
    if look.standings is not None:
        extras["standings"] = {
            name: asdict(standing) if (standing := every[index]) else None
            for name, every in look.standings.items()
        }
    if look.ranks is not None:
        extras["rank"] = asdict(rank) if (rank := look.ranks[index]) else None
    if look.losses is not None:
        extras["loss"] = _loss_content(board, look.losses[index])
    if look.zero_shot is not None:
        extras["zero_shot"] = asdict(look.zero_shot[index])
    if look.costs is not None:
        extras["costs"] = asdict(look.costs[index])
    return extras
