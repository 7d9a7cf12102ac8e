"""The leaderboard as cells, before they are written in one form or another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bge_eval.cli.formats.blocks import Cell, Grid, GridLine
from bge_eval.leaderboard.board import MEAN_TASK, MEAN_TYPE, Leaderboard, Mean
from bge_eval.leaderboard.costs import RATES, SIZES, Costs, size_name
from bge_eval.leaderboard.rows import Row

if TYPE_CHECKING:
    from bge_eval.leaderboard.losses import Loss, Losses
    from bge_eval.leaderboard.ranks import Rank
    from bge_eval.leaderboard.significance import Standing
    from bge_eval.leaderboard.zero_shot import ZeroShot

COSTS = {"seconds": "seconds", **RATES, **SIZES}
"""Heading of a cost → its field of `Costs`."""


MORE_THAN_CHANCE = "†"
"""Mark of a loss that is more than chance."""


@dataclass(frozen=True, slots=True)
class Look:
    """What the table shows besides the scores."""

    types: bool = False
    """The means by task type as columns, instead of the tasks."""
    standings: dict[str, list[Standing | None]] | None = None
    """Heading → every row's standing, to mark the best; None to mark nothing."""
    costs: list[Costs] | None = None
    """Every row's costs as columns; None for no such columns."""
    ranks: list[Rank | None] | None = None
    """Every row's ranks as columns; None for no such columns."""
    zero_shot: list[ZeroShot] | None = None
    """Every row's training on the tasks as a column; None for no such column."""
    reference: Row | None = None
    """The row that the others are shown as differences to; None for scores."""
    losses: list[Losses | None] | None = None
    """Every row's loss against its exact row as a line beneath it; None for no such lines."""


def grid(board: Leaderboard, look: Look) -> Grid:
    """Lay out the table."""
    headings = _headings(board, look)
    costs = _cost_headings(look.costs or [])
    with_dtype = any(row.dtype for row in board.rows)
    lines: list[GridLine] = []
    for index, row in enumerate(board.rows):
        cells = [Cell(row_name(board, row)), *([Cell(row.dtype)] * with_dtype)]
        cells += map(Cell, _place(look, index))
        cells += [_cell(board, look, index, heading) for heading in headings]
        if look.costs is not None:
            missing = len(row.missing(board.tasks))
            done = f" ({len(board.tasks) - missing} of {len(board.tasks)} tasks)" if missing else ""
            for name in costs:
                text = cost_text(name, look.costs[index])
                cells.append(Cell(text + done if text and name == "seconds" else text))
        lines.append(GridLine(tuple(cells)))
        blank = [Cell("")] * len(costs)
        before = [Cell("")] * (with_dtype + len(_place(look, index)))
        for word, changes in (
            ("gain", _gains(board, look, row, headings)),
            ("loss", _losses(look, index, headings)),
        ):
            if changes is not None:
                words = [Cell(f"    {word}"), *before]
                lines.append(GridLine((*words, *changes, *blank), gain=True))
    shown = [board.headings.get(heading, heading) for heading in headings]
    placed = ["Rank (Borda)", "rank by mean"] if look.ranks is not None else []
    placed += ["zero-shot"] if look.zero_shot is not None else []
    head = ("model", *(["precision"] * with_dtype), *placed, *shown, *costs)
    return Grid(
        head,
        tuple(lines),
        left=tuple(range(1 + with_dtype)),
        caption=heading(board, look),
        marked=look.standings is not None,
    )


def heading(board: Leaderboard, look: Look) -> str:
    """Return the table's title: the measure, the suite, the row of ``--diff``."""
    title = f"{board.measure}, {board.title}" if board.title else board.measure
    if look.reference is not None:
        title += f", differences to {look.reference.label}"
    return title


def values(board: Leaderboard, row: Row, types: bool) -> dict[str, float | None]:
    """Return heading → value of one row; None where something is missing."""
    if types:
        return {name: mean.value for name, mean in board.means(row).items()}
    scores: dict[str, float | None] = {task: row.scores.get(task) for task in board.tasks}
    if len(board.tasks) > 1:
        scores["average"] = row.average(board.averaged)
    return scores


def row_name(board: Leaderboard, row: Row) -> str:
    """Return a row's name in the table; a second stage is indented beneath its first, if shown."""
    mark = " *" if row.disagreements else ""
    if board.first_stage(row) is not None:
        return f"  + {row.reranker}{mark}"
    return f"{row.label}{mark}" if row.published else f"{row.label} ({row.revision[:8]}){mark}"


def weights(board: Leaderboard, heading: str) -> dict[str, float]:
    """Return task → what it counts in the mean under a heading; empty where there is none."""
    if heading == MEAN_TYPE:
        joined = board.averaged
        types = [[task for task in tasks if task in joined] for tasks in board.types.values()]
        types = [tasks for tasks in types if tasks]
        return {task: 1 / len(types) / len(tasks) for tasks in types for task in tasks}
    if heading in board.tasks:
        return {heading: 1.0}
    tasks = board.types.get(heading, board.tasks) if heading != MEAN_TASK else board.tasks
    tasks = [task for task in tasks if task in board.averaged]
    return {task: 1 / len(tasks) for task in tasks}


def cost_text(name: str, costs: Costs) -> str:
    """Return one cost for people; "" where it is not known."""
    value: float | None = getattr(costs, COSTS[name])
    if value is None:
        return ""
    if name == "parameters":
        return size_name(int(value))
    if name == "dimension":
        return str(int(value))
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def _place(look: Look, index: int) -> list[str]:
    """Return the ranks and the training of one row, as far as the look shows them."""
    texts = []
    if look.ranks is not None:
        rank = look.ranks[index]
        texts += [str(rank.borda) if rank else "–", rank_text(rank)]
    if look.zero_shot is not None:
        texts.append(look.zero_shot[index].text)
    return texts


def rank_text(rank: Rank | None) -> str:
    """Return a rank by the mean with its interval, e.g. ``3 (2–5)``; "–" without a mean."""
    if rank is None or rank.mean is None:
        return "–"
    return str(rank.mean) if rank.low is None else f"{rank.mean} ({rank.low}–{rank.high})"


def _cost_headings(costs: Sequence[Costs]) -> list[str]:
    """Return the headings of the costs that are known.

    Texts per second are shown where tokens per second of the same kind do not say as much.
    """
    known = {
        name: [getattr(cost, field) is not None for cost in costs] for name, field in COSTS.items()
    }
    tokens, texts = list(RATES)[:3], list(RATES)[3:]
    instead = dict(zip(texts, tokens, strict=True))
    return [
        name
        for name, stated in known.items()
        if any(stated)
        and (
            name not in instead
            or any(one and not two for one, two in zip(stated, known[instead[name]], strict=True))
        )
    ]


def _headings(board: Leaderboard, look: Look) -> list[str]:
    return list(values(board, board.rows[0], look.types)) if board.rows else list(board.tasks)


def _cell(board: Leaderboard, look: Look, index: int, heading: str) -> Cell:
    row = board.rows[index]
    value = values(board, row, look.types)[heading]
    if value is None:
        return Cell(_incomplete(board, row, look, heading))
    if look.reference is not None and row is not look.reference:
        before = values(board, look.reference, look.types)[heading]
        cell = Cell("–" if before is None else f"{value - before:+.5f}")
    else:
        cell = Cell(f"{value:.5f}")
    standing = (look.standings or {}).get(heading, [None] * len(board.rows))[index]
    if standing is None:
        return cell
    rank = standing.rank if standing.rank < 3 else 0
    return replace(cell, rank=rank, tied=standing.tied, untested=standing.untested)


def _incomplete(board: Leaderboard, row: Row, look: Look, heading: str) -> str:
    if look.types:
        mean: Mean = board.means(row)[heading]
        return f"– ({mean.done} of {mean.total})"
    if heading == "average":
        total = len(board.averaged)
        return f"– ({total - len(row.missing(board.averaged))} of {total} tasks)" if total else "–"
    if heading in row.partial and look.reference is None:
        partial = row.partial[heading]
        return f"{partial.value:.5f} ({partial.name})"
    return "–"


def _gains(board: Leaderboard, look: Look, row: Row, headings: Sequence[str]) -> list[Cell] | None:
    """Return a second stage's differences to its first; None for other rows."""
    first = board.first_stage(row)
    if first is None or look.reference is not None:
        return None
    before, after = values(board, first, look.types), values(board, row, look.types)
    changes = []
    for heading in headings:
        one, two = before[heading], after[heading]
        changes.append(Cell("–" if one is None or two is None else f"{two - one:+.5f}"))
    return changes


def _losses(look: Look, index: int, headings: Sequence[str]) -> list[Cell] | None:
    """Return a reduced row's differences to its exact row; None for other rows."""
    losses = look.losses[index] if look.losses is not None else None
    if losses is None:
        return None
    return [
        Cell(_loss_text(losses.by_heading[heading]) if heading in losses.by_heading else "–")
        for heading in headings
    ]


def _loss_text(loss: Loss) -> str:
    return f"{loss.text} {MORE_THAN_CHANCE}" if loss.significant else loss.text
