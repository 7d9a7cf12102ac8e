"""``bge-eval agreement``: whether cuts of tasks rank systems as the whole tasks do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from bge_eval.cli.formats.blocks import Block, Cell, Grid, GridLine, Note, Output
from bge_eval.cli.formats.registry import Format, write
from bge_eval.cli.formats.terminal import terminal_table
from bge_eval.cli.grouped import grouped
from bge_eval.cli.options.saved import SavedFlags

if TYPE_CHECKING:
    from rich.console import Console

    from bge_eval.leaderboard.agreement import Agreement

_HEAD = ("cut", "systems", "tau", "95% interval", "reversed", "shift", "best of whole, of cut")
_KEY = (
    "tau: Kendall's tau-b of the two rankings, 1 for the same order; its interval is a bootstrap"
    " over queries (2,000 draws, seed 0). reversed: pairs of systems that differ significantly on"
    " the whole task (randomised Tukey HSD, p < 0.05) and stand the other way round on the cut."
    " shift: mean of the cut's scores minus the whole's."
)


@grouped
def agreement(
    saved: SavedFlags,
    metric: Annotated[
        str, typer.Option(help="main (every task's own main score), nDCG@10, RR@10, R@100 …")
    ] = "main",
    form: Annotated[Format, typer.Option("--format", help="Format of the table.")] = (
        Format.TERMINAL
    ),
) -> None:
    """Tell whether cuts of tasks (run --limit, --lite) rank systems as the whole tasks do.

    Three or more systems must have results on the whole task and on the cut.

    Examples:
      bge-eval agreement

      bge-eval agreement results/lite --metric R@100 --format markdown
    """
    from bge_eval.cli.columns import measure_and_key
    from bge_eval.cli.console import stdout
    from bge_eval.errors import MissingError
    from bge_eval.leaderboard.agreement import LEAST, agreements
    from bge_eval.leaderboard.reading import leaderboard
    from bge_eval.results.cut import is_cut, task_of
    from bge_eval.results.saved import find_results

    measure, key = measure_and_key(metric)
    paths = find_results(saved.folders)
    names = saved.task_names
    tasks = [path.stem for path in paths if not names or task_of(path.stem) in names]
    if not any(map(is_cut, tasks)):
        raise MissingError(
            "No result there is of a cut of a task. Run some systems on the whole task, then with"
            " --lite or --limit 50 and the same --output."
        )
    board = leaderboard(paths, measure=measure, key=key, tasks=list(dict.fromkeys(tasks)))
    wanted = tuple(row for row in board.rows if saved.is_wanted(row.label))
    board = replace(board, rows=wanted)
    agreed = agreements(board, key)
    if not agreed:
        raise MissingError(
            f"No cut there has {LEAST} systems that were also scored on its whole task."
        )
    write(AgreementOutput(measure, agreed), form, stdout)


@dataclass(frozen=True, slots=True)
class AgreementOutput(Output):
    """Cuts against their whole tasks, to print."""

    measure: str
    """The measure's name."""
    agreed: Sequence[Agreement]
    """One for each cut."""

    def terminal(self, console: Console) -> None:
        """Print the table and what its columns mean."""
        body = [_cells(each) for each in self.agreed]
        console.print(Text(f"Cuts against whole tasks, {self.measure}", style="bold"))
        console.print(terminal_table(_HEAD, body, left=(0, 6)))
        console.print(Text(_KEY), style="dim")

    def blocks(self) -> list[Block]:
        """Return the table and what its columns mean."""
        lines = [GridLine(tuple(map(Cell, _cells(each)))) for each in self.agreed]
        return [Grid(_HEAD, tuple(lines), left=(0, 6), caption=self.measure), Note(_KEY)]

    def records(self) -> list[dict[str, Any]]:
        """Return one record for each cut."""
        return [
            {name: None if _is_nan(value) else value for name, value in asdict(each).items()}
            for each in self.agreed
        ]

    def content(self) -> list[dict[str, Any]]:
        """Return one record for each cut."""
        return self.records()


def _cells(each: Agreement) -> list[str]:
    interval = "–" if each.low is None else f"{each.low:.2f}…{each.high:.2f}"
    turned = "–" if each.pairs is None else f"{each.reversed} of {each.pairs}"
    same = each.best == each.best_of_cut
    best = each.best if same else f"{each.best}, {each.best_of_cut}"
    tau = "–" if math.isnan(each.tau) else f"{each.tau:.3f}"
    return [each.cut, str(each.systems), tau, interval, turned, f"{each.shift:+.4f}", best]


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)
