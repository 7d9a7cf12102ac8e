"""The columns and the measure of a table, from names of suites, tasks and measures."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bge_eval.cli.options.saved import PartFlags
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


def suite_title(names: Sequence[str], parts: PartFlags | None = None) -> str:
    """Return the suite's name if the columns are one suite, with the chosen part, else ""."""
    from bge_eval.suites.suite_files import suites

    if len(names) != 1 or names[0] not in suites():
        return ""
    return " ".join([names[0], *(["/".join([*parts.subsets, *parts.languages])] if parts else [])])


def columns_of(
    names: Sequence[str], subsets: Sequence[str] = (), languages: Sequence[str] = ()
) -> list[Column]:
    """Resolve suites and tasks to columns with the splits and subsets that mteb counts.

    Any other name is taken as a task of the user's own, whose data need not be at hand.

    Args:
        names: suites and tasks.
        subsets: only these subsets of tasks that have several.
        languages: only tasks and subsets of these languages.

    Raises:
        UsageError: a task has none of the subsets, no task is of the languages, or the languages
            of a task are not known.
    """
    from bge_eval.errors import UsageError
    from bge_eval.leaderboard.rows import Column

    columns: dict[str, Column] = {}
    known: list[str] = []
    for name in names:
        resolved = _whole(name)
        if resolved is not None:
            known.append(name)
        elif languages:
            raise UsageError(
                f"--lang: the languages of {name} are not known here. Choose its subsets with"
                " --subset."
            )
        else:
            resolved = [Column(name, subsets=tuple(subsets), part="+".join(subsets))]
        for column in resolved:
            columns.setdefault(column.task, column)
    if known and (subsets or languages):
        narrowed = _asked(known, subsets, languages)
        own = [column for column in columns.values() if not column.type]
        return [*(_part_of(column, columns[column.task]) for column in narrowed), *own]
    return list(columns.values())


def _whole(name: str) -> list[Column] | None:
    """Return the columns of a suite or task; None for a task of the user's own."""
    from bge_eval.errors import UsageError

    try:
        return _asked([name])
    except UsageError:
        return None


def _asked(
    names: Sequence[str], subsets: Sequence[str] = (), languages: Sequence[str] = ()
) -> list[Column]:
    """Return columns as mteb has them, without loading it if they were asked for before.

    Raises:
        UsageError: a name is unknown, or a task has none of the subsets or languages.
    """
    from bge_eval.errors import UsageError
    from bge_eval.suites.remembered import remembered

    def ask() -> list[dict[str, Any]] | str:
        from bge_eval.suites.catalogue import plan

        try:
            return [asdict(_column(task)) for task in plan(names, subsets, languages)]
        except UsageError as error:
            return str(error)

    if any(":" in name or "/" in name or Path(name).is_dir() for name in names):
        answer = ask()  # it depends on files of the user's
    else:
        answer = remembered(f"columns {json.dumps([names, subsets, languages])}", ask)
    if isinstance(answer, str):
        raise UsageError(answer)
    return [_as_column(each) for each in answer]


def _as_column(answer: Mapping[str, Any]) -> Column:
    from bge_eval.leaderboard.rows import Column

    names = ("splits", "subsets", "present")
    lists = {name: tuple(answer[name]) for name in names}
    return Column(**{**answer, **lists, "parts": tuple(map(_as_column, answer["parts"]))})


def columns_for(
    names: Sequence[str], parts: PartFlags, saved: Callable[[], Sequence[str]]
) -> list[Column]:
    """Return the columns that the options name; none for every task with a result.

    Args:
        names: suites and tasks.
        parts: subsets and languages; without names, only tasks that have them are columns.
        saved: returns the tasks that have a result.

    Raises:
        UsageError: as `columns_of`, or no task with a result has the subsets or languages.
    """
    from bge_eval.errors import UsageError

    if names or not parts:
        return columns_of(names, parts.subsets, parts.languages)
    columns = []
    for task in saved():
        try:
            [column] = columns_of([task], parts.subsets, parts.languages)
        except UsageError:
            continue
        if not parts.subsets or set(column.subsets) & set(parts.subsets):
            columns.append(column)
    if not columns:
        what = ", ".join([*parts.subsets, *parts.languages])
        raise UsageError(f"None of the tasks with a result has {what}.")
    return columns


def labelled(board: Leaderboard) -> Leaderboard:
    """Name the subsets of columns that are not the whole of a task, as mteb has it."""
    if not any(column.present for column in board.columns):
        return board
    return replace(board, columns=tuple(map(_labelled, board.columns)))


def _labelled(column: Column) -> Column:
    from bge_eval.leaderboard.rows import Column

    if not column.present:
        return column
    whole = columns_of([column.task])[0]
    return _part_of(column, whole if whole.subsets else Column(column.task))


def _part_of(column: Column, whole: Column) -> Column:
    """Return a column with the name of its subsets, if they are not those of the whole task."""
    from bge_eval.leaderboard.rows import part_name

    subsets = column.present or column.subsets
    if set(subsets) == set(whole.subsets):
        return column
    total = len(whole.subsets) if set(subsets) < set(whole.subsets) else None
    return replace(column, part=part_name(subsets, total))


def refuse_unknown(columns: Sequence[Column]) -> None:
    """Raise the error of the first name that is no suite, no task and in no result."""
    for column in columns:
        if not column.type:
            _asked([column.task])


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
        # Each part of a cut that keeps documents of runs has its own digest, which results name.
        parts=() if planned.cut.runs else tuple(map(_column, planned.parts)),
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
            completed.append(
                replace(
                    known,
                    splits=(),
                    subsets=column.subsets,
                    parts=parts,
                    present=column.present,
                    part=column.part,
                )
            )
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
    from bge_eval.leaderboard.published import published_rows
    from bge_eval.suites.remembered import remembered

    def ask() -> dict[str, str | None]:
        import mteb

        return {str(meta.name): meta.revision for meta in mteb.get_model_metas()}

    own = remembered("main revisions of models", ask)
    return published_rows(columns, key=key, main_revisions=own, aggregates=aggregates)
