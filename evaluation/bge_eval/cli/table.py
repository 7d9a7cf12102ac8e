"""``bge-eval table``: saved results as a leaderboard."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bge_eval.cli.show import Form, show


def table(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(help="Result folders. Default: results/runs.", show_default=False),
    ] = None,
    tasks: Annotated[
        list[str] | None,
        typer.Option(help="Columns: a suite or tasks; repeat. Default: every task with a result."),
    ] = None,
    metric: Annotated[
        str, typer.Option(help="nDCG@10, RR@10, R@100, MAP@100, P@5, Success@1 …")
    ] = "nDCG@10",
    form: Annotated[Form, typer.Option("--format", help="Form of the table.")] = Form.TERMINAL,
) -> None:
    """Print saved results: models as rows, tasks as columns, and the average.

    Examples:
      bge-eval table

      bge-eval table results/runs --tasks beir --metric R@100

      bge-eval table --format csv > scores.csv
    """
    from bge_eval.cli.console import stdout
    from bge_eval.leaderboard import find_results, leaderboard
    from bge_eval.measure import mteb_key, parse_measure

    measure = parse_measure(metric)
    paths = find_results(runs or [Path("results/runs")])
    names = [name for item in tasks or [] for name in item.split(",") if name]
    title, columns = _columns(names)
    board = leaderboard(
        paths, measure=str(measure), key=mteb_key(measure), tasks=columns, title=title
    )
    if not board.rows:
        from bge_eval.errors import MissingError

        wanted = ", ".join(columns) or str(measure)
        raise MissingError(f"No result there has {measure} on {wanted}.")
    show(board, form, stdout)


def _columns(names: list[str]) -> tuple[str, list[str]]:
    """Resolve suites to their tasks; a plain task name stands for itself."""
    from bge_eval.suites import suites, task_names

    title = names[0] if len(names) == 1 and names[0] in suites() else ""
    columns: dict[str, None] = {}
    for name in names:
        suite = suites().get(name)
        columns.update(dict.fromkeys(task_names(suite) if suite else [name]))
    return title, list(columns)
