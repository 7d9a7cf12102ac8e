"""``bge-eval table``: saved results as a leaderboard."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

import typer

from bge_eval.cli.columns import (
    columns_for,
    labelled,
    looked_up,
    measure_and_key,
    named,
    published_beside,
    refuse_unknown,
    suite_title,
)
from bge_eval.cli.formats.registry import Format
from bge_eval.cli.grid import Look, values, weights
from bge_eval.cli.grouped import grouped
from bge_eval.cli.options.saved import DEFAULT_RUNS, PartFlags, SavedFlags
from bge_eval.cli.show import notes, show
from bge_eval.leaderboard.rows import Aggregates

if TYPE_CHECKING:
    from bge_eval.leaderboard.board import Leaderboard
    from bge_eval.leaderboard.costs import Costs
    from bge_eval.leaderboard.losses import Losses
    from bge_eval.leaderboard.ranks import Rank
    from bge_eval.leaderboard.rows import Row
    from bge_eval.leaderboard.significance import Evidence, Standing
    from bge_eval.leaderboard.zero_shot import ZeroShot


@dataclass(frozen=True, slots=True)
class TableFlags:
    """The columns and marks of a table, and its format."""

    metric: Annotated[
        str,
        typer.Option(
            help="main (every task's own main score), nDCG@10, RR@10, R@100, MAP@100, P@5 …"
        ),
    ] = "main"
    types: Annotated[
        bool,
        typer.Option(
            "--types", help="Columns: the means over all tasks and by task type, as MTEB's table."
        ),
    ] = False
    published: Annotated[
        bool,
        typer.Option("--published", help="Place the models among the published ones."),
    ] = False
    aggregates: Annotated[
        Aggregates,
        typer.Option(
            help="CQADupstackRetrieval: the mean of its 12 forums, or the figure as it is filed."
        ),
    ] = Aggregates.RECOMPUTED
    best: Annotated[
        bool,
        typer.Option(
            "--best",
            help="Mark the best and the second best, and what cannot be told from the best.",
        ),
    ] = False
    diff: Annotated[
        str | None,
        typer.Option(
            metavar="ROW", help="Show differences to the row whose name is, or contains, this."
        ),
    ] = None
    ranks: Annotated[
        bool,
        typer.Option(
            "--ranks", help="Columns: rank by the Borda count, rank by the mean with its interval."
        ),
    ] = False
    zero_shot: Annotated[
        bool,
        typer.Option("--zero-shot", help="Column: whether the model was trained on a task."),
    ] = False
    loss: Annotated[
        bool,
        typer.Option(
            "--loss/--no-loss",
            help="Show beneath a row in int8, bfloat16 or with an approximate index what it loses"
            " against the exact float32 row, with its interval.",
        ),
    ] = True
    costs: Annotated[
        bool,
        typer.Option("--costs", help="Columns: seconds, tokens a second by kind of text, sizes."),
    ] = False
    trend: Annotated[
        bool,
        typer.Option(
            "--trend",
            help="Show series of checkpoints over their steps, in place of the table.",
        ),
    ] = False
    form: Annotated[Format, typer.Option("--format", help="Format of the table.")] = Format.TERMINAL

    def check(self) -> None:
        """Refuse options that --trend does not show.

        Raises:
            UsageError: there is one.
        """
        from bge_eval.errors import UsageError

        others = ("types", "published", "best", "diff", "ranks", "zero_shot", "costs")
        stated = [f"--{name.replace('_', '-')}" for name in others if getattr(self, name)]
        if self.trend and stated:
            raise UsageError(f"--trend shows steps and no {stated[0]}: leave one of them out.")


@grouped
def table(saved: SavedFlags, parts: PartFlags, flags: TableFlags) -> None:
    """Print saved results: models as rows, tasks or task types as columns, and the averages.

    Examples:
      bge-eval table

      bge-eval table results/runs --tasks beir --metric R@100

      bge-eval table --tasks mteb-en --types --ranks --published

      bge-eval table --tasks XQuADRetrieval --subset zh

      bge-eval table --best --costs --format latex > table.tex

      bge-eval table results/training --trend

      bge-eval table --diff bge-base-en-v1.5 --format csv > differences.csv
    """
    from bge_eval.cli.console import stderr, stdout
    from bge_eval.leaderboard.significance import Evidence

    flags.check()
    board, key = _board(saved, parts, flags)
    if flags.trend:
        _show_trend(board, key, flags.form)
        return
    if flags.types:
        _check_types(board)
    evidence = Evidence(board, key)
    look = Look(
        types=flags.types,
        standings=_standings(board, evidence, flags.types) if flags.best else None,
        costs=_costs(board) if flags.costs else None,
        ranks=_ranks(board, evidence) if flags.ranks else None,
        zero_shot=_zero_shot(board) if flags.zero_shot else None,
        reference=_row_named(board, flags.diff) if flags.diff else None,
        losses=_losses(board, evidence, flags.types) if flags.loss and not flags.diff else None,
    )
    show(board, flags.form, stdout, look)
    if flags.form is not Format.TERMINAL:
        for line in notes(board, look):
            stderr.print(line, style="dim", markup=False, soft_wrap=True)


def _show_trend(board: Leaderboard, key: str, form: Format) -> None:
    """Print the scores of every series of checkpoints over its steps.

    Raises:
        MissingError: no rows are a series.
    """
    from bge_eval.cli.console import stdout
    from bge_eval.cli.formats.registry import write
    from bge_eval.cli.trend import TrendOutput
    from bge_eval.errors import MissingError
    from bge_eval.leaderboard.trend import find_series, trends

    series = find_series(board.rows)
    if not series:
        raise MissingError(
            "--trend: no two rows are checkpoints of one training. Their names end in a step, such"
            " as checkpoint-500 and checkpoint-1000, epoch_1-step_300, or --label 'step 500'. Rows:"
            f" {', '.join(row.label for row in board.rows[:8])}."
        )
    trended = [(each, trends(board, each, key)) for each in series]
    write(TrendOutput(board.measure, trended), form, stdout)


def _board(saved: SavedFlags, parts: PartFlags, flags: TableFlags) -> tuple[Leaderboard, str]:
    """Return the rows and columns, and the measure's key in mteb's results.

    Raises:
        MissingError: no result has the measure on these tasks.
    """
    from bge_eval.errors import MissingError
    from bge_eval.leaderboard.reading import leaderboard
    from bge_eval.results.saved import find_results

    measure, key = measure_and_key(flags.metric)
    paths = [] if _published_only(saved, flags) else find_results(saved.folders)
    names = saved.task_names
    title = suite_title(names, parts) if names else ""
    columns = columns_for(names, parts, lambda: leaderboard(paths, measure="", key=key).tasks)
    board = leaderboard(
        paths, measure=measure, key=key, columns=columns, title=title, aggregates=flags.aggregates
    )
    board, apart = board if columns else labelled(board), board.apart
    if flags.published or (flags.types and "" in board.types):
        # mteb knows what the results do not say of their tasks.
        columns = columns or looked_up(board.columns, whole=flags.published)
        others = published_beside(columns, key, flags.aggregates) if flags.published else []
        board = leaderboard(
            paths,
            measure=measure,
            key=key,
            columns=columns,
            others=others,
            title=title,
            aggregates=flags.aggregates,
        )
    board = replace(named(with_models(board, saved), key), apart=apart)
    if not board.rows:
        refuse_unknown(columns)
        wanted = ", ".join(column.heading for column in columns) or "any task"
        raise MissingError(f"No result there has {measure} on {wanted}.")
    return board, key


def _published_only(saved: SavedFlags, flags: TableFlags) -> bool:
    """Whether the published rows are shown without any saved run."""
    no_runs = saved.runs is None and not DEFAULT_RUNS.is_dir()
    return flags.published and bool(saved.tasks) and no_runs


def with_models(board: Leaderboard, saved: SavedFlags) -> Leaderboard:
    """Keep the rows that ``--models`` names.

    Raises:
        MissingError: there are rows, and none of these.
    """
    from bge_eval.errors import MissingError

    rows = tuple(row for row in board.rows if saved.is_wanted(row.label))
    if board.rows and not rows:
        names = ", ".join(dict.fromkeys(row.label for row in board.rows))
        raise MissingError(
            f"--models {' '.join(saved.model_names)}: no row's name contains it. Rows: {names}."
        )
    return replace(board, rows=rows)


def _check_types(board: Leaderboard) -> None:
    """Refuse means by type while a task's type is not known."""
    from bge_eval.errors import UsageError

    if unknown := board.types.get(""):
        raise UsageError(
            f"--types: the type of {', '.join(unknown)} is neither in the results nor known to"
            " mteb. Run it again, or choose other tasks with --tasks."
        )


def _standings(
    board: Leaderboard, evidence: Evidence, types: bool
) -> dict[str, list[Standing | None]]:
    """Return heading → every row's standing under it."""
    none: list[Standing | None] = [None] * len(board.rows)
    counted = {name: weights(board, name) for name in values(board, board.rows[0], types)}
    return {name: evidence.mean(each) if each else none for name, each in counted.items()}


def _losses(board: Leaderboard, evidence: Evidence, types: bool) -> list[Losses | None] | None:
    """Return what every row loses against its exact row; None if no row has one."""
    from bge_eval.leaderboard.losses import losses

    headings = values(board, board.rows[0], types)
    every = losses(board, evidence, {name: weights(board, name) for name in headings})
    return every if any(every) else None


def _costs(board: Leaderboard) -> list[Costs]:
    from bge_eval.leaderboard.costs import with_sizes
    from bge_eval.leaderboard.significance import row_costs

    return [with_sizes(row_costs(board, row), row) for row in board.rows]


def _ranks(board: Leaderboard, evidence: Evidence) -> list[Rank | None]:
    from bge_eval.leaderboard.ranks import ranks

    return ranks(board, evidence)


def _zero_shot(board: Leaderboard) -> list[ZeroShot]:
    from bge_eval.leaderboard.zero_shot import zero_shot
    from bge_eval.suites.remembered import remembered

    def ask() -> dict[str, list[str] | None]:
        import mteb

        sets = {str(meta.name): meta.get_training_datasets() for meta in mteb.get_model_metas()}
        return {model: None if names is None else sorted(names) for model, names in sets.items()}

    return zero_shot(board, remembered("training data of models", ask))


def _row_named(board: Leaderboard, name: str) -> Row:
    """Return the row of a name, whole or in part.

    Raises:
        UsageError: no row has it, or several.
    """
    from bge_eval.errors import UsageError, did_you_mean

    labels = [row.label for row in board.rows]
    rows = [row for row in board.rows if name in (row.label, row.label.rpartition("/")[2])]
    rows = rows or [row for row in board.rows if name.casefold() in row.label.casefold()]
    if len(rows) == 1:
        return rows[0]
    if not rows:
        raise UsageError(
            f"--diff {name}: no row is called so.{did_you_mean(name, labels)} Rows:"
            f" {', '.join(labels)}."
        )
    raise UsageError(
        f"--diff {name}: {len(rows)} rows have it: {', '.join(row.label for row in rows)}."
        " Give the whole name of one."
    )
