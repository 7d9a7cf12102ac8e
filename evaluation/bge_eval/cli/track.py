"""``bge-eval track``: saved scores, sent to experiment trackers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from bge_eval.cli.grouped import grouped
from bge_eval.cli.options.saved import PartFlags, SavedFlags
from bge_eval.cli.options.tracking import DEFAULT_PROJECT


@dataclass(frozen=True, slots=True)
class SendFlags:
    """Where scores are sent, and which."""

    to: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TRACKER[=PLACE]",
            help="tensorboard, mlflow, wandb or trackio, with a folder or an address behind = if"
            " need be (mlflow=http://localhost:5000); repeat for several.",
        ),
    ] = None
    project: Annotated[
        str, typer.Option(help="The trackers' project; MLflow calls it experiment.")
    ] = DEFAULT_PROJECT
    name: Annotated[
        str | None, typer.Option(help="The name of the run there. Default: the row's name.")
    ] = None
    metric: Annotated[str, typer.Option(help="main (each task's own), nDCG@10, RR@10, R@100 …")] = (
        "main"
    )
    offline: Annotated[bool, typer.Option("--offline", help="Open no connection.")] = False


@grouped
def track(saved: SavedFlags, parts: PartFlags, flags: SendFlags) -> None:
    """Send saved scores to TensorBoard, MLflow, Weights & Biases or Trackio.

    Every row is a run there: its scores by task and their mean, each with its interval, and its
    settings. Checkpoints of one training are the steps of one run. What a tracker has already is
    not entered again.

    Examples:
      bge-eval track results/runs --to tensorboard=./runs

      bge-eval track results/runs --to mlflow=http://localhost:5000 --project retrieval

      bge-eval track results/runs --tasks beir --to wandb --to trackio --models my-model
    """
    from bge_eval.cli.columns import (
        columns_for,
        labelled,
        measure_and_key,
        named,
        refuse_unknown,
        suite_title,
    )
    from bge_eval.cli.console import TerminalProgress
    from bge_eval.cli.table import with_models
    from bge_eval.cli.tracked import open_trackers, show_undelivered
    from bge_eval.errors import MissingError, UsageError
    from bge_eval.leaderboard.reading import leaderboard
    from bge_eval.results.saved import find_results

    if not flags.to:
        raise UsageError("Say where to send the scores: --to tensorboard, mlflow, wandb, trackio.")
    trackers = open_trackers(flags.to, flags.project, flags.name, offline=flags.offline)
    measure, key = measure_and_key(flags.metric)
    paths = find_results(saved.folders)
    names = saved.task_names
    columns = columns_for(names, parts, lambda: leaderboard(paths, measure="", key=key).tasks)
    title = suite_title(names, parts) if names else ""
    board = leaderboard(paths, measure=measure, key=key, columns=columns, title=title)
    board = named(with_models(board if columns else labelled(board), saved), key)
    if not board.rows:
        refuse_unknown(columns)
        raise MissingError(f"No result there has {measure} on these tasks of these models.")
    undelivered = trackers.send(board, flags.metric, TerminalProgress(quiet=False))
    show_undelivered(undelivered, saved.folders[0])
    if undelivered:
        raise typer.Exit(undelivered[0].error.exit_code)
