"""``bge-eval report``: saved results as one HTML page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bge_eval.cli.columns import (
    as_run,
    columns_for,
    labelled,
    looked_up,
    measure_and_key,
    named,
    published_beside,
    refuse_unknown,
    suite_title,
)
from bge_eval.cli.grouped import grouped
from bge_eval.cli.options.saved import PartFlags, SavedFlags
from bge_eval.cli.table import with_models

if TYPE_CHECKING:
    from bge_eval.leaderboard.board import Leaderboard
    from bge_eval.leaderboard.rows import Row


@dataclass(frozen=True, slots=True)
class PageFlags:
    """What the page shows and where it is written."""

    output: Annotated[Path, typer.Option("--output", "-o", help="The page that is written.")] = (
        Path("report.html")
    )
    metric: Annotated[
        str,
        typer.Option(help="main (every task's own main score), nDCG@10, RR@10, R@100 …"),
    ] = "main"
    published: Annotated[
        bool,
        typer.Option(
            "--published/--no-published", help="Show where published models stand on these tasks."
        ),
    ] = True
    curve: Annotated[
        list[Path] | None,
        typer.Option(
            help="A curve to show, written by bge-eval curve --format json. Repeatable.",
        ),
    ] = None
    title: Annotated[str, typer.Option(help="The page's heading. Default: what is on it.")] = ""


@grouped
def report(saved: SavedFlags, parts: PartFlags, flags: PageFlags) -> None:
    """Write saved results as one HTML page.

    The page needs no other file and opens no connection, so it can be mailed, kept and printed.

    Examples:
      bge-eval report

      bge-eval report results/runs --tasks beir -o beir.html

      bge-eval report --curve curve.json
    """
    from bge_eval.cli.console import stderr, stdout
    from bge_eval.cli.show import notes
    from bge_eval.errors import MissingError, UsageError
    from bge_eval.leaderboard.reading import leaderboard
    from bge_eval.report.deployment import read_curve
    from bge_eval.report.gathering import gather
    from bge_eval.report.page import pieces
    from bge_eval.results.saved import find_results

    if flags.output.is_dir():
        raise UsageError(f"--output {flags.output} is a folder; give the name of a file in it.")
    curves = [read_curve(path) for path in flags.curve or []]
    measure, key = measure_and_key(flags.metric)
    paths = find_results(saved.folders)
    names = saved.task_names
    columns = columns_for(names, parts, lambda: leaderboard(paths, measure="", key=key).tasks)
    heading = flags.title or (suite_title(names, parts) if names else "")
    board = leaderboard(paths, measure=measure, key=key, columns=columns, title=heading)
    board = named(with_models(board if columns else labelled(board), saved), key)
    if not board.rows:
        refuse_unknown(columns)
        wanted = ", ".join(column.heading for column in columns) or "any task"
        raise MissingError(f"No result there has {measure} on {wanted}.")
    if board.averaged != board.tasks:
        raise UsageError(
            "The page has one mean over its tasks, and whole tasks, or cuts of different kinds,"
            f" have none together: {', '.join(board.tasks)}. Choose with --tasks."
        )
    stderr.print("Gathering the queries …", style="dim")
    others = _others(board, key) if flags.published else []
    content = gather(board, key=key, published=others, notes=notes(board), curves=curves)
    _write(flags.output, pieces(content))
    size = flags.output.stat().st_size
    stdout.print(f"{flags.output} ({size / 1e6:.1f} MB)", markup=False, soft_wrap=True)


def _others(board: Leaderboard, key: str) -> list[Row]:
    """Return published rows over the splits and subsets that the runs have."""
    from bge_eval.leaderboard.published import KEYS
    from bge_eval.leaderboard.rows import Aggregates

    known = [column for column in looked_up(board.columns, whole=True) if column.type]
    if key not in KEYS or not known:
        return []
    from bge_eval.results.saved import SavedResult

    saved = {
        column.task: [
            SavedResult(row.results[column.task]).scores
            for row in board.rows
            if column.task in row.results
        ]
        for column in known
    }
    columns = [as_run(column, saved[column.task]) for column in known]
    return published_beside(columns, key, Aggregates.RECOMPUTED)


def _write(output: Path, pieces: Iterator[str]) -> None:
    """Put the page in place in one step, so that a half-written one is never seen."""
    from bge_eval.results.whole import whole_file

    output.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(output) as file:
        file.writelines(pieces)
