"""Published scores of other models, one row for each model, as MTEB's own table has them.

A model's figures in MTEB's results repository lie under several revisions. For every task one
of them counts, by the rules of ``mteb.results.BenchmarkResults.join_revisions``: the model's
main revision before others, then one with a known version of mteb, then one whose revision is
known, then the newest version of mteb.
"""

from __future__ import annotations

import csv
import gzip
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bge_eval.errors import DamagedError, UsageError
from bge_eval.leaderboard.board import Aggregates, Column, Row, fill
from bge_eval.resources import published_folder

KEYS = (
    "main_score",
    "ndcg_at_10",
    "mrr_at_10",
    "map_at_100",
    "recall_at_10",
    "recall_at_100",
    "recall_at_1000",
)
"""The measures that the file holds, by mteb's keys."""

_NO_REVISION = ("external", "no_revision_available")


@dataclass(frozen=True, slots=True)
class Submission:
    """The scores of one revision of a model on one task."""

    revision: str
    """The model's commit, or "external" for figures from a model card."""
    version: str
    """The version of mteb that computed them, or ""."""
    data_revision: str
    """The revision of the data set, or "None"."""
    scores: dict[str, list[dict[str, str | float]]] = field(default_factory=dict)
    """As mteb has them: ``{"test": [{"hf_subset": "default", "main_score": 0.71}]}``."""


def published_rows(
    columns: Sequence[Column],
    *,
    key: str,
    main_revisions: Mapping[str, str | None],
    aggregates: Aggregates = Aggregates.RECOMPUTED,
) -> list[Row]:
    """Return a row for every model with a published score on one of the columns.

    Args:
        columns: the tasks, with the splits and subsets that count.
        key: the measure's key, one of `KEYS`.
        main_revisions: model → the revision that mteb knows as its own.
        aggregates: which figure stands for a task that averages others.

    Raises:
        UsageError: the file does not hold the measure.
    """
    if key not in KEYS:
        raise UsageError(
            f"The published scores do not hold {key}. They hold {', '.join(KEYS)}: leave out"
            " --metric, or give nDCG@10, RR@10, MAP@100, R@10, R@100 or R@1000."
        )
    wanted = {task.task for column in columns for task in (column, *column.parts)}
    rows = []
    for model, tasks in read_published(wanted).items():
        main = main_revisions.get(model)
        chosen = {task: _preferred(found, main) for task, found in tasks.items()}
        row = _row(model, chosen, columns, key, aggregates)
        if row.scores:
            rows.append(row)
    return rows


def read_published(
    tasks: set[str], path: Path | None = None
) -> dict[str, dict[str, list[Submission]]]:
    """Read the published scores of some tasks.

    Args:
        tasks: mteb's task names.
        path: another file of the same form as ``results/published/mteb_scores.csv.gz``.

    Returns:
        Model → task → what was submitted, e.g.
        ``{"BAAI/bge-m3": {"SciFact": [Submission(revision="5617a9f…", …)]}}``.
    """
    path = path or published_folder() / "mteb_scores.csv.gz"
    found: dict[tuple[str, str, str], Submission] = {}
    models: dict[str, dict[str, list[Submission]]] = {}
    try:
        with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
            for line in csv.DictReader(file):
                if line["task"] not in tasks:
                    continue
                identity = (line["model"], line["revision"], line["task"])
                submission = found.get(identity)
                if submission is None:
                    submission = found[identity] = Submission(
                        line["revision"], line["mteb_version"], line["dataset_revision"]
                    )
                    of_model = models.setdefault(line["model"], {})
                    of_model.setdefault(line["task"], []).append(submission)
                entry: dict[str, str | float] = {"hf_subset": line["subset"]}
                entry |= {key: float(line[key]) for key in KEYS if line[key]}
                submission.scores.setdefault(line["split"], []).append(entry)
    except (OSError, EOFError, zlib.error, KeyError, ValueError) as error:
        raise DamagedError(f"{path} is no readable table of published scores ({error}).") from error
    return models


def parsed_version(text: str) -> tuple[int, ...] | None:
    """Return a version of mteb to compare by; None for none, and for a range of versions."""
    return tuple(map(int, text.split("."))) if re.fullmatch(r"\d+(\.\d+)*", text) else None


def _preferred(submissions: Sequence[Submission], main: str | None) -> Submission:
    """Return the submission that counts among those of one model on one task."""

    def rank(submission: Submission) -> tuple[bool, bool, bool, tuple[int, ...]]:
        version = parsed_version(submission.version)
        return (
            submission.revision == main,
            version is not None,
            submission.revision not in _NO_REVISION,
            version or (),
        )

    return max(submissions, key=rank)


def _row(
    model: str,
    chosen: Mapping[str, Submission],
    columns: Sequence[Column],
    key: str,
    aggregates: Aggregates,
) -> Row:
    used: dict[str, None] = {}
    row = Row(model, revision="", settings="", reranker=None, dtype="", published=True)
    for column in columns:
        parts = [_score(chosen, part, key) for part in column.parts]
        recomputed = fill(row, column, _score(chosen, column, key), parts, key, aggregates)
        if column.task not in row.scores:
            continue
        sources = column.parts if recomputed else (column,)
        used.update(dict.fromkeys(chosen[source.task].revision for source in sources))
        if any(source.data_revision != chosen[source.task].data_revision for source in sources):
            row.other_data.append(column.task)
    return replace(row, revision=", ".join(used))


def _score(chosen: Mapping[str, Submission], column: Column, key: str) -> float | None:
    submission = chosen.get(column.task)
    return column.score(submission.scores, key) if submission else None
