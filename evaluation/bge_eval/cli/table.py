"""``bge-eval table``: saved results as a leaderboard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bge_eval.cli.show import Form, notes, show
from bge_eval.leaderboard import Aggregates

if TYPE_CHECKING:
    from bge_eval.leaderboard import Column, Leaderboard, Row
    from bge_eval.suites import PlannedTask

DEFAULT_RUNS = Path("results/runs")


def table(  # one parameter for each option of the command
    runs: Annotated[
        list[Path] | None,
        typer.Argument(help="Result folders. Default: results/runs.", show_default=False),
    ] = None,
    tasks: Annotated[
        list[str] | None,
        typer.Option(help="Columns: a suite or tasks; repeat. Default: every task with a result."),
    ] = None,
    metric: Annotated[
        str,
        typer.Option(
            help="main (every task's own main score), nDCG@10, RR@10, R@100, MAP@100, P@5 …"
        ),
    ] = "main",
    types: Annotated[
        bool,
        typer.Option(
            "--types", help="Columns: the means over all tasks and by task type, as MTEB's table."
        ),
    ] = False,
    published: Annotated[
        bool,
        typer.Option("--published", help="Place the models among the published ones."),
    ] = False,
    models: Annotated[
        list[str] | None,
        typer.Option(help="Only rows whose name contains this; repeat for several."),
    ] = None,
    aggregates: Annotated[
        Aggregates,
        typer.Option(
            help="CQADupstackRetrieval: the mean of its 12 forums, or the figure as it is filed."
        ),
    ] = Aggregates.RECOMPUTED,
    form: Annotated[Form, typer.Option("--format", help="Form of the table.")] = Form.TERMINAL,
) -> None:
    """Print saved results: models as rows, tasks or task types as columns, and the averages.

    Examples:
      bge-eval table

      bge-eval table results/runs --tasks beir --metric R@100

      bge-eval table --tasks mteb-en --types --published

      bge-eval table --format csv > scores.csv
    """
    from bge_eval.cli.console import stderr, stdout
    from bge_eval.errors import MissingError
    from bge_eval.leaderboard import leaderboard
    from bge_eval.results.saved import find_results

    measure, key = _measure(metric)
    paths = [] if _only_others(runs, tasks, published) else find_results(runs or [DEFAULT_RUNS])
    names = [name for item in tasks or [] for name in item.split(",") if name]
    title, columns = (_suite(names), _columns(names)) if names else ("", [])
    board = leaderboard(
        paths, measure=measure, key=key, columns=columns, title=title, aggregates=aggregates
    )
    if published or (types and "" in board.types):
        # What the results do not say of their tasks, mteb knows.
        columns = columns or _looked_up(board.columns, whole=published)
        others = _published(columns, key, aggregates) if published else []
        board = leaderboard(
            paths,
            measure=measure,
            key=key,
            columns=columns,
            others=others,
            title=title,
            aggregates=aggregates,
        )
    board = _named(_with_models(board, models or []), key)
    if not board.rows:
        _refuse_unknown(columns)
        wanted = ", ".join(column.task for column in columns) or measure
        of_models = f" of {' or '.join(models)}" if models else ""
        raise MissingError(f"No result there{of_models} has {measure} on {wanted}.")
    if types:
        _check_types(board)
    show(board, form, stdout, types=types)
    if form is not Form.TERMINAL:
        for line in notes(board):
            stderr.print(line, style="dim", markup=False, soft_wrap=True)


def _measure(metric: str) -> tuple[str, str]:
    """Return a measure's name for people and its key in mteb's results."""
    from bge_eval.leaderboard import MAIN_KEY
    from bge_eval.measure import mteb_key, parse_measure

    if metric.strip().casefold() == "main":
        return "main score", MAIN_KEY
    measure = parse_measure(metric)
    return str(measure), mteb_key(measure)


def _named(board: Leaderboard, key: str) -> Leaderboard:
    """Give main scores the name of a measure, if it is that of every column."""
    from bge_eval.leaderboard import MAIN_KEY
    from bge_eval.measure import mteb_key, parse_measure

    ndcg = parse_measure("nDCG@10")
    if key == MAIN_KEY and {column.main for column in board.columns} == {mteb_key(ndcg)}:
        return replace(board, measure=str(ndcg))
    return board


def _only_others(runs: list[Path] | None, tasks: list[str] | None, published: bool) -> bool:
    """Whether there are no runs to look for, and published rows are enough."""
    return published and bool(tasks) and runs is None and not DEFAULT_RUNS.is_dir()


def _suite(names: Sequence[str]) -> str:
    """Return the suite's name if the columns are one suite, else ""."""
    from bge_eval.suites import suites

    return names[0] if len(names) == 1 and names[0] in suites() else ""


def _columns(names: Sequence[str]) -> list[Column]:
    """Resolve suites and tasks to columns with the splits and subsets that mteb counts.

    A name that is neither stands for itself: a collection of the user's own, now elsewhere.
    """
    from bge_eval.errors import UsageError
    from bge_eval.leaderboard import Column
    from bge_eval.suites import plan

    columns: dict[str, Column] = {}
    for name in names:
        try:
            found = [_column(task) for task in plan([name])]
        except UsageError:
            found = [Column(name)]
        for column in found:
            columns.setdefault(column.task, column)
    return list(columns.values())


def _refuse_unknown(columns: Sequence[Column]) -> None:
    """Raise the error of a name that is no suite and no task, now that no result has it either."""
    from bge_eval.suites import plan

    for column in columns:
        if not column.type:
            plan([column.task])


def _column(planned: PlannedTask) -> Column:
    from bge_eval.leaderboard import Column

    task = planned.task
    return Column(
        task=planned.name,
        type=str(task.metadata.type),
        splits=tuple(task.eval_splits),
        subsets=("default",) if planned.parts else tuple(task.hf_subsets),
        main=task.metadata.main_score,
        data_revision=task.metadata.revision,
        parts=tuple(map(_column, planned.parts)),
    )


def _looked_up(columns: Sequence[Column], *, whole: bool) -> list[Column]:
    """Return columns that results gave, completed by what mteb knows of their tasks.

    Args:
        columns: the columns as the results have them.
        whole: take mteb's splits and subsets too, for comparison with others' results; without,
            a result counts as a whole, whatever part of its task it is.
    """
    completed = []
    for column in columns:
        known = _columns([column.task])[0]
        if not known.type:
            completed.append(column)
        elif whole:
            completed.append(known)
        else:
            parts = tuple(replace(part, splits=(), subsets=()) for part in known.parts)
            completed.append(replace(known, splits=(), subsets=(), parts=parts))
    return completed


def _published(columns: Sequence[Column], key: str, aggregates: Aggregates) -> list[Row]:
    import mteb

    from bge_eval.published import published_rows

    own = {str(meta.name): meta.revision for meta in mteb.get_model_metas()}
    return published_rows(columns, key=key, main_revisions=own, aggregates=aggregates)


def _with_models(board: Leaderboard, models: Sequence[str]) -> Leaderboard:
    """Keep the rows whose name contains one of some texts, letter case aside."""
    if not models:
        return board
    wanted = [text.casefold() for text in models]
    rows = [row for row in board.rows if any(text in row.label.casefold() for text in wanted)]
    return replace(board, rows=tuple(rows))


def _check_types(board: Leaderboard) -> None:
    """Refuse means by type while a task's type is not known."""
    from bge_eval.errors import UsageError

    if unknown := board.types.get(""):
        raise UsageError(
            f"--types: the type of {', '.join(unknown)} is neither in the results nor known to"
            " mteb. Run it again, or choose other tasks with --tasks."
        )
