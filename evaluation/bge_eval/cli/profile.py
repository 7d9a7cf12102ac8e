"""``--profile``: where the time of a run went."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bge_eval.progress import Profile
from bge_eval.results.record import read_record

_ORDER = ("load", "tokenise", "store", "encode", "search", "rerank", "measure")


def show_profiles(paths: Sequence[Path], console: Console) -> None:
    """Print seconds, items and rates of every phase of some results.

    Args:
        paths: result files; those without a profile are skipped.
        console: where to print.
    """
    table = Table(title="seconds by phase", title_justify="left")
    table.add_column("task")
    table.add_column("phase")
    for heading in ("seconds", "share", "items", "items/s", "tokens/s"):
        table.add_column(heading, justify="right")
    for path in paths:
        profile = read_record(path).profile or Profile()
        seconds = profile.seconds
        whole = sum(seconds.values())
        for number, phase in enumerate(sorted(seconds, key=_place)):
            spent = seconds[phase]
            count = profile.counts.get(phase)
            tokens = profile.tokens.get(phase)
            table.add_row(
                path.stem if number == 0 else "",
                phase,
                f"{spent:.2f}",
                f"{spent / whole:.0%}" if whole else "",
                f"{count:,}" if count else "",
                f"{count / spent:,.0f}" if count and spent else "",
                f"{tokens / spent:,.0f}" if tokens and spent else "",
            )
        if seconds:
            table.add_row("", "together", f"{whole:.2f}", "", "", "", "", end_section=True)
    if table.row_count:
        console.print(table)


def _place(phase: str) -> tuple[int, str]:
    for index, begin in enumerate(_ORDER):
        if phase.startswith(begin):
            return index, phase
    return len(_ORDER), phase
