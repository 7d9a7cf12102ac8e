"""What a tracker is told: one run for each row of a table, or for the checkpoints of a training.

Names of metrics, the same in every tracker::

    SciFact/ndcg_at_10      the task's main score, 0 to 1, or the table's measure
    SciFact/low, /high      the ends of its 95% interval over queries
    SciFact/n               the number of queries
    mean_of_15_tasks/score  the mean over all tasks of the table, with its interval; the setting of
                            this name lists them

Rows of checkpoints (``checkpoint-500``; see `bge_eval.leaderboard.steps`) of one training are the
steps of one run; the step of every other row is 0.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from bge_eval.errors import UsageError
from bge_eval.leaderboard.board import Leaderboard
from bge_eval.leaderboard.rows import Row
from bge_eval.leaderboard.significance import Evidence, Standing
from bge_eval.leaderboard.steps import step_name
from bge_eval.measures.mteb_keys import MAIN_KEY
from bge_eval.results.cut import split_name
from bge_eval.results.saved import SavedResult

_OF_A_CHECKPOINT = ("model.name", "model.revision", "result.")
"""Beginnings of settings that differ between the checkpoints of a training."""
_OTHERS = re.compile(r"[^\w.-]")


@dataclass(frozen=True, slots=True)
class Point:
    """The metrics of one step."""

    step: int
    """The checkpoint's step; 0 for a model that is no checkpoint."""
    seconds: int
    """When the newest of its results was made, in seconds since 1970."""
    metrics: Mapping[str, float]
    """Name → value; see the module's docstring."""


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """One run of a tracker."""

    identity: str
    """16 hexadecimal digits: the same for the same row, so that nothing is entered twice."""
    name: str
    """The row's name for people."""
    settings: Mapping[str, str]
    """Name → value: the model's settings, the search, the data's fingerprints, the packages."""
    points: tuple[Point, ...]
    """The steps in order."""


def tracked_runs(
    board: Leaderboard, key: str, *, name: str = "", training: bool = False
) -> list[TrackedRun]:
    """Return the runs of a table's rows.

    Args:
        board: the table; rows without a saved result are left out.
        key: the measure's key in mteb's results; `MAIN_KEY` for every task's own.
        name: the user's own name for the run; "" for the row's.
        training: every row is a checkpoint, whose folder's name ends in the step.

    Raises:
        UsageError: ``name`` names several runs, or two rows are the same step of one training.
    """
    series: dict[tuple[str, ...], list[tuple[int, Row]]] = {}
    for row in board.rows:
        if row.published or not row.results:
            continue
        parts = step_name(row.model, numbered=training)
        model = (parts.base or row.model, "steps") if parts else (row.model, row.revision)
        settings = (row.settings, row.reranker or "", row.reranker_revision)
        series.setdefault((*model, *settings), []).append((parts.step if parts else 0, row))
    if name and len(series) > 1:
        raise UsageError(
            f"'{name}' would name {len(series)} runs of a tracker. Leave the name out, or choose"
            " one row with --models."
        )
    return [_run(board, key, identity, rows, name) for identity, rows in series.items()]


def metric_name(task: str) -> str:
    """Return a task's name as every tracker takes it: letters, digits, ``_``, ``-``, ``.``."""
    return _OTHERS.sub("_", task)


def _run(
    board: Leaderboard,
    key: str,
    identity: tuple[str, ...],
    rows: list[tuple[int, Row]],
    name: str,
) -> TrackedRun:
    steps: dict[int, Row] = {}
    for step, row in sorted(rows, key=lambda each: each[0]):
        if (other := steps.setdefault(step, row)) is not row:
            raise UsageError(
                f"Two rows are step {step} of one training: {other.model} at"
                f" {other.revision[:12]} and at {row.revision[:12]}. Send them from results"
                " folders of their own, each with a --name."
            )
    first = next(iter(steps.values()))
    is_training = identity[1] == "steps"
    label = first.label
    if is_training:
        whole = replace(first, model=identity[0], title="")
        label = whole.label
    settings = [_settings(row) for row in steps.values()]
    common = {
        each: value
        for each, value in settings[0].items()
        if all(other.get(each) == value for other in settings)
        and not (is_training and each.startswith(_OF_A_CHECKPOINT))
    }
    digest = hashlib.sha256(json.dumps([*identity, name]).encode()).hexdigest()[:16]
    points = tuple(
        Point(step, _seconds(row), dict(_metrics(board, key, row))) for step, row in steps.items()
    )
    if board.averaged:
        common[_mean_name(board)] = ", ".join(board.averaged)
    return TrackedRun(digest, name or label, common, points)


def _metrics(board: Leaderboard, key: str, row: Row) -> Iterator[tuple[str, float]]:
    """Yield the metrics of one row."""
    alone = replace(board, rows=(row,))  # intervals only: no test against other rows
    evidence = Evidence(alone, key)
    for column in board.columns:
        if (standing := evidence.task(column)[0]) is not None:
            measure = column.main or MAIN_KEY if key == MAIN_KEY else key
            yield from _figures(metric_name(column.heading), measure, standing)
    tasks = board.averaged
    standing = evidence.mean(dict.fromkeys(tasks, 1 / len(tasks)))[0] if tasks else None
    if standing is not None:
        yield from _figures(_mean_name(board), "score" if key == MAIN_KEY else key, standing)


def _mean_name(board: Leaderboard) -> str:
    """Return the mean's name: means over other numbers of tasks, or cuts, never share a chart."""
    count = len(board.averaged)
    kind = split_name(board.averaged[0])[1].kind
    cut = f"_{metric_name(kind)}" if kind else ""
    return f"mean_of_{count}_task{'s' if count > 1 else ''}{cut}"


def _figures(name: str, measure: str, standing: Standing) -> Iterator[tuple[str, float]]:
    yield f"{name}/{measure}", standing.score
    for end in ("low", "high"):
        if (value := getattr(standing, end)) is not None:
            yield f"{name}/{end}", value
    if standing.queries is not None:
        yield f"{name}/n", float(standing.queries)


def _seconds(row: Row) -> int:
    """Return when the newest result of a row was made; 0 if no result says so."""
    made = [SavedResult(path).record.created for path in row.results.values()]
    return max((int(datetime.fromisoformat(text).timestamp()) for text in made if text), default=0)


def _settings(row: Row) -> dict[str, str]:
    """Return what a row's scores depend on; a value that tasks differ in has the task's name."""
    by_task: dict[str, dict[str, str]] = {}
    settings: dict[str, str] = {}
    for task, path in row.results.items():
        record = SavedResult(path).record
        if record.identity is None:
            continue
        identity = record.identity.as_dict()
        data = identity.pop("data")
        del identity["task"], identity["task_revision"]
        by_task[metric_name(task)] = dict(_flat(identity))
        settings |= dict(_flat(data, f"data.{metric_name(task)}"))
        settings[f"result.{metric_name(task)}"] = record.identity_digest
    for name in dict.fromkeys(name for own in by_task.values() for name in own):
        values = {task: own[name] for task, own in by_task.items() if name in own}
        if len(set(values.values())) == 1:
            settings[name] = next(iter(values.values()))
        else:
            settings |= {f"{name}.{task}": value for task, value in values.items()}
    return dict(sorted(settings.items()))


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield the leaves of nested settings, e.g. ("model.prompts.query", "query: ")."""
    if isinstance(value, Mapping):
        for key, inside in value.items():
            # A tracker takes fewer characters in names than prompts and packages have.
            part = _OTHERS.sub("_", str(key))
            yield from _flat(inside, f"{name}.{part}" if name else part)
    elif isinstance(value, list):
        yield name, ", ".join(map(str, value))
    elif value is not None:
        yield name, str(value)
