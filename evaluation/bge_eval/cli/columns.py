"""The columns and the measure of a table, from names of suites, tasks and measures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bge_eval.leaderboard.board import Leaderboard
    from bge_eval.leaderboard.rows import Aggregates, Column, Row
    from bge_eval.suites.catalogue import PlannedTask


def measure_and_key(metric: str) -> tuple[str, str]:
    """Return a measure's name for people and its key in mteb's results."""
    from bge_eval.measures.measure import parse_measure
    from bge_eval.measures.mteb_keys import MAIN_KEY, parse_key

    if metric.strip().casefold() == "main":
        return "main score", MAIN_KEY
    return str(parse_measure(metric)), parse_key(metric)


def named(board: Leaderboard, key: str) -> Leaderboard:
    """Give main scores the name of a measure, if it is that of every column."""
    from bge_eval.measures.measure import Measure
    from bge_eval.measures.mteb_keys import MAIN_KEY, mteb_key

    ndcg = Measure("nDCG", 10)
    if key == MAIN_KEY and {column.main for column in board.columns} == {mteb_key(ndcg)}:
        return replace(board, measure=str(ndcg))
    return board


def suite_title(names: Sequence[str]) -> str:
    """Return the suite's name if the columns are one suite, else ""."""
    from bge_eval.suites.suite_files import suites

    return names[0] if len(names) == 1 and names[0] in suites() else ""


def columns_of(names: Sequence[str]) -> list[Column]:
    """Resolve suites and tasks to columns with the splits and subsets that mteb counts.

    Any other name is taken as a task of the user's own, whose data need not be at hand.
    """
    from bge_eval.errors import UsageError
    from bge_eval.leaderboard.rows import Column
    from bge_eval.suites.catalogue import plan

    columns: dict[str, Column] = {}
    for name in names:
        try:
            resolved = [_column(task) for task in plan([name])]
        except UsageError:
            resolved = [Column(name)]
        for column in resolved:
            columns.setdefault(column.task, column)
    return list(columns.values())


def refuse_unknown(columns: Sequence[Column]) -> None:
    """Raise the error of the first name that is no suite, no task and in no result."""
    from bge_eval.suites.catalogue import plan

    for column in columns:
        if not column.type:
            plan([column.task])


def _column(planned: PlannedTask) -> Column:
    from bge_eval.leaderboard.rows import Column

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


def looked_up(columns: Sequence[Column], *, whole: bool) -> list[Column]:
    """Complete the columns of saved results with mteb's metadata of their tasks.

    Args:
        columns: the columns as the results have them.
        whole: take mteb's splits and subsets too, for comparison with others' results; without,
            a result counts as a whole, whatever part of its task it is.
    """
    completed = []
    for column in columns:
        known = columns_of([column.task])[0]
        if not known.type:
            completed.append(column)
        elif whole:
            completed.append(known)
        else:
            parts = tuple(replace(part, splits=(), subsets=()) for part in known.parts)
            completed.append(replace(known, splits=(), subsets=(), parts=parts))
    return completed


def as_run(column: Column, saved: Sequence[Mapping[str, Sequence[Mapping[str, Any]]]]) -> Column:
    """Narrow a task to the splits and subsets that its runs have, if all have the same.

    Args:
        column: the task as mteb has it.
        saved: the scores of its runs, split → one dictionary for each subset.
    """
    if column.parts:
        return column
    layouts = {
        tuple(
            sorted(
                (split, str(entry.get("hf_subset"))) for split in scores for entry in scores[split]
            )
        )
        for scores in saved
    }
    if len(layouts) != 1:
        return column
    pairs = layouts.pop()
    splits = tuple(dict.fromkeys(split for split, _ in pairs))
    subsets = tuple(dict.fromkeys(subset for _, subset in pairs))
    return replace(column, splits=splits, subsets=subsets)


def published_beside(columns: Sequence[Column], key: str, aggregates: Aggregates) -> list[Row]:
    """Return the published models' rows on some columns.

    Raises:
        UsageError: the published scores do not hold the measure.
    """
    import mteb

    from bge_eval.leaderboard.published import published_rows

    own = {str(meta.name): meta.revision for meta in mteb.get_model_metas()}
    return published_rows(columns, key=key, main_revisions=own, aggregates=aggregates)
