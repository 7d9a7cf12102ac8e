"""Saved results as a table: models as rows, tasks as columns, one measure.

Reads the JSON files themselves, so that a table needs neither mteb nor torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bge_eval.errors import DamagedError, MissingError

if TYPE_CHECKING:
    import pandas as pd

_NOT_SETTINGS = ("reranker", "rerank_top_k")


@dataclass(frozen=True, slots=True)
class Entry:
    """One saved result."""

    row: tuple[str, str, str]
    """Model, revision, settings: what makes a row of the table."""
    task: str
    """mteb's task name."""
    value: float | None
    """The measure, 0 to 1; None where the result does not hold it."""
    dtype: str
    """Precision of the forward pass."""
    reranker: str | None
    """The second stage, if there is one, e.g. "BAAI/bge-reranker-base (top 100)"."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    model: str
    """``org/model``."""
    revision: str
    """Hub commit or content hash."""
    settings: str
    """Settings that are not the model's own, e.g. "dtype=bfloat16"; "" for none."""
    reranker: str | None
    """The second stage, or None."""
    dtype: str
    """Precision."""
    scores: dict[str, float] = field(default_factory=dict)
    """Task → measure, 0 to 1; missing tasks are missing."""

    def average(self, tasks: Sequence[str]) -> float | None:
        """Return the mean over all of the tasks, or None if one of them is missing."""
        if not tasks or any(task not in self.scores for task in tasks):
            return None
        return sum(self.scores[task] for task in tasks) / len(tasks)

    def missing(self, tasks: Sequence[str]) -> list[str]:
        """Return the tasks without a score."""
        return [task for task in tasks if task not in self.scores]

    @property
    def label(self) -> str:
        """Return the row's name for people."""
        name = f"{self.model} [{self.settings}]" if self.settings else self.model
        return f"{name} + {self.reranker}" if self.reranker else name


@dataclass(frozen=True, slots=True)
class Leaderboard:
    """The table, before it is given a form."""

    measure: str
    """The measure's name, e.g. "nDCG@10"."""
    tasks: tuple[str, ...]
    """Columns, in order."""
    rows: tuple[Row, ...]
    """Best average first; a second stage directly beneath its first."""
    title: str = ""
    """The suite's name, or "" for a free choice of tasks."""

    def gain(self, row: Row) -> dict[str, float] | None:
        """Return a second stage's difference to its own first stage by task, else None."""
        if row.reranker is None:
            return None
        key = (row.model, row.revision, row.settings)
        for first in self.rows:
            if first.reranker is None and (first.model, first.revision, first.settings) == key:
                return {
                    task: row.scores[task] - first.scores[task]
                    for task in self.tasks
                    if task in row.scores and task in first.scores
                }
        return None

    def frame(self) -> pd.DataFrame:
        """Return the table as a data frame; missing scores and incomplete averages are NaN."""
        import pandas as pd

        records = [
            {
                "model": row.model,
                "revision": row.revision,
                "settings": row.settings,
                "reranker": row.reranker or "",
                "dtype": row.dtype,
                **{task: row.scores.get(task) for task in self.tasks},
                "average": row.average(self.tasks),
                "tasks_done": len(self.tasks) - len(row.missing(self.tasks)),
                "tasks_total": len(self.tasks),
            }
            for row in self.rows
        ]
        columns = ["model", "revision", "settings", "reranker", "dtype", *self.tasks]
        return pd.DataFrame(records, columns=[*columns, "average", "tasks_done", "tasks_total"])


def find_results(folders: Iterable[Path]) -> list[Path]:
    """Return every result file in some output folders (or single results).

    Raises:
        MissingError: a folder is not there, or holds no results.
    """
    found: list[Path] = []
    for folder in folders:
        if folder.is_file():
            found.append(folder)
            continue
        root = folder / "results" if (folder / "results").is_dir() else folder
        inside = [
            path
            for path in sorted(root.rglob("*.json"))
            if path.name not in ("model_meta.json", "run.json")
            and (path.parent / "model_meta.json").is_file()
            and "replaced" not in path.relative_to(root).parts
        ]
        if not inside:
            what = "holds no results" if folder.is_dir() else "does not exist"
            raise MissingError(
                f"{folder} {what}. `bge-eval run --output {folder}` puts results there;"
                " without --output they are in results/runs."
            )
        found += inside
    return list(dict.fromkeys(found))


def leaderboard(
    paths: Sequence[Path],
    *,
    measure: str,
    key: str,
    tasks: Sequence[str] = (),
    title: str = "",
) -> Leaderboard:
    """Build the table.

    Args:
        paths: result files, from `find_results`.
        measure: the measure's name, for the heading.
        key: the measure's key in mteb's score dictionary.
        tasks: the columns; without any, every task that has a result.
        title: the suite's name.
    """
    cells: dict[Path, dict[str, Any]] = {}
    rows: dict[tuple[str, str, str, str | None], Row] = {}
    seen: dict[str, None] = {}
    aggregated: set[str] = set()
    for path in paths:
        if tasks and path.stem not in tasks:
            continue
        meta = cells.setdefault(path.parent, _read(path.parent / "model_meta.json"))
        record = _record(path)
        value = _score(path, record, key)
        experiment = meta.get("experiment_kwargs") or {}
        settings = ", ".join(
            f"{name}={experiment[name]}" for name in sorted(experiment) if name not in _NOT_SETTINGS
        )
        reranker = None
        if "reranker" in experiment:
            name = str(experiment["reranker"]).split("@")[0]
            reranker = f"{name} (top {experiment['rerank_top_k']})"
        row = Row(
            model=str(meta["name"]),
            revision=str(meta["revision"]),
            settings=settings,
            reranker=reranker,
            dtype=str(record.get("identity", {}).get("model", {}).get("dtype", "")),
        )
        row = rows.setdefault((row.model, row.revision, row.settings, row.reranker), row)
        seen.setdefault(path.stem)
        aggregated.update(record.get("aggregate_of", ()))
        if value is not None:
            row.scores[path.stem] = value
    # Without a choice of columns, an aggregate stands for its parts.
    columns = tuple(tasks) or tuple(task for task in seen if task not in aggregated)
    kept = [row for row in rows.values() if any(task in row.scores for task in columns)]
    return Leaderboard(measure, columns, tuple(_ordered(kept, columns)), title)


def _ordered(rows: Sequence[Row], tasks: Sequence[str]) -> list[Row]:
    """Best first by average (complete ones before others), second stages beneath their first."""

    def rank(row: Row) -> tuple[int, float]:
        average = row.average(tasks)
        done = [row.scores[task] for task in tasks if task in row.scores]
        return (len(row.missing(tasks)), -(average if average is not None else sum(done)))

    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.model, row.revision, row.settings), []).append(row)
    ordered = sorted(groups.values(), key=lambda group: min(map(rank, group)))
    return [
        row
        for group in ordered
        for row in sorted(group, key=lambda row: (row.reranker is not None, rank(row)))
    ]


def _score(path: Path, record: dict[str, Any], key: str) -> float | None:
    """Return a task's measure: the mean over its splits and subsets, as mteb takes it.

    mteb stores only the main score of an aggregate; every measure of it is the mean over its
    parts, which stand in the same folder.
    """
    parts = record.get("aggregate_of") or ()
    if parts:
        values = [_score_file(path.with_name(f"{part}.json"), key) for part in parts]
    else:
        return _score_file(path, key)
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def _score_file(path: Path, key: str) -> float | None:
    if not path.is_file():
        return None
    scores = _read(path).get("scores", {})
    values = [entry.get(key) for entries in scores.values() for entry in entries]
    known = [float(value) for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def _record(path: Path) -> dict[str, Any]:
    record = path.parent / path.stem / "run.json"
    return _read(record) if record.is_file() else {}


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DamagedError(f"{path} is no readable result ({error}).") from error
    if not isinstance(content, dict):
        raise DamagedError(f"{path} is no result file: expected a JSON object.")
    return content
