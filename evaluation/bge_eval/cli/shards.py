"""``bge-eval shards``: which parts of which tasks are encoded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from bge_eval.results.markers import Progression


def shards(
    store: Annotated[
        Path | None,
        typer.Option(help="The store's folder. Default: in the user's cache folder."),
    ] = None,
) -> None:
    """Show which parts of which tasks are encoded (run --shard), missing or stale.

    The exit code is 1 while a part is missing or stale, so that a script can wait for all.

    Examples:
      bge-eval shards

      bge-eval shards --store /shared/store
    """
    from bge_eval.cli.console import stderr, stdout
    from bge_eval.cli.formats.terminal import terminal_table
    from bge_eval.encode.store import default_store
    from bge_eval.errors import MissingError
    from bge_eval.results.markers import progressions, read_markers

    root = store or default_store()
    listed = progressions(root, read_markers(root))
    if not listed:
        raise MissingError(
            f"{root} has no part of a task: none is finished, or the parts have another store."
            " A part is made by bge-eval run --shard 1/3 with --model and --tasks."
        )
    headings = ("model", "task", "parts", "texts", "time", "state")
    stdout.print(terminal_table(headings, [_row(each) for each in listed], left=(0, 1, 5)))
    for each in listed:
        if each.stale:
            stderr.print(f"{each.task}: {each.stale}", soft_wrap=True, highlight=False)
    if any(each.missing or each.stale for each in listed):
        raise typer.Exit(1)


def _row(progression: Progression) -> tuple[str, ...]:
    from bge_eval.progress import duration

    state = "stale" if progression.stale else "done"
    if progression.missing:
        state = f"missing {_ranges(progression.missing)}"
        state += ", stale" if progression.stale else ""
    return (
        progression.model,
        progression.task,
        f"{len(progression.done)} of {progression.count}",
        f"{progression.texts:,}",
        duration(progression.seconds),
        state,
    )


def _ranges(numbers: Sequence[int]) -> str:
    """Return sorted numbers as Slurm's --array takes them: "1-3,7"."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
