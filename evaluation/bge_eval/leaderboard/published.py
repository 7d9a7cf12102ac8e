"""Published scores of other models: one row for each model, as in MTEB's own table.

MTEB's results repository has several revisions of a model. For every task one of them counts, by
the rules of ``mteb.results.BenchmarkResults.join_revisions``: the model's main revision before
others, then one with a known version of mteb, then one with a known revision, then the newest
version of mteb.
"""

from __future__ import annotations

import csv
import gzip
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bge_eval.errors import DamagedError, UsageError
from bge_eval.leaderboard.rows import Aggregates, Column, Disagreement, Row, task_score
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
    """The model's commit, or "external" for scores from a model card."""
    version: str
    """The version of mteb that computed them, or ""."""
    data_revision: str
    """The revision of the data set, or "None"."""
    scores: dict[str, list[dict[str, str | float]]] = field(default_factory=dict)
    """Scores in mteb's layout: ``{"test": [{"hf_subset": "default", "main_score": 0.71}]}``."""


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
        aggregates: which score a task that averages others has.

    Raises:
        UsageError: the file does not hold the measure.
    """
    if key not in KEYS:
        raise UsageError(
            f"The published scores do not hold {key}. They hold {', '.join(KEYS)}: leave out"
            " --metric, or give nDCG@10, RR@10, MAP@100, R@10, R@100 or R@1000."
        )
    tasks = {task.task for column in columns for task in (column, *column.parts)}
    rows = []
    for model, by_task in read_published(tasks).items():
        main = main_revisions.get(model)
        submissions = {task: _preferred(of_task, main) for task, of_task in by_task.items()}
        row = _row(model, submissions, columns, key, aggregates)
        if row.scores:
            rows.append(row)
    return rows


def read_published(
    tasks: set[str], path: Path | None = None
) -> dict[str, dict[str, list[Submission]]]:
    """Read the published scores of some tasks.

    Args:
        tasks: mteb's task names.
        path: a file in the format of ``results/published/mteb_scores.csv.gz``, its default.

    Returns:
        Model → task → submissions, e.g.
        ``{"BAAI/bge-m3": {"SciFact": [Submission(revision="5617a9f…", …)]}}``.
    """
    path = path or published_folder() / "mteb_scores.csv.gz"
    submissions: dict[tuple[str, str, str], Submission] = {}
    models: dict[str, dict[str, list[Submission]]] = {}
    try:
        with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
            for line in csv.DictReader(file):
                if line["task"] not in tasks:
                    continue
                identity = (line["model"], line["revision"], line["task"])
                submission = submissions.get(identity)
                if submission is None:
                    submission = submissions[identity] = Submission(
                        line["revision"], line["mteb_version"], line["dataset_revision"]
                    )
                    by_task = models.setdefault(line["model"], {})
                    by_task.setdefault(line["task"], []).append(submission)
                entry: dict[str, str | float] = {"hf_subset": line["subset"]}
                entry |= {key: float(line[key]) for key in KEYS if line[key]}
                submission.scores.setdefault(line["split"], []).append(entry)
    except (OSError, EOFError, zlib.error, KeyError, ValueError) as error:
        raise DamagedError(
            f"{path} is not a readable table of published scores ({error})."
        ) from error
    return models


def parsed_version(text: str) -> tuple[int, ...] | None:
    """Return a version of mteb as numbers; None for "" and for a range of versions."""
    return tuple(map(int, text.split("."))) if re.fullmatch(r"\d+(\.\d+)*", text) else None


def _preferred(submissions: Sequence[Submission], main: str | None) -> Submission:
    """Return the submission that counts, of one model's on one task."""

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
    submissions: Mapping[str, Submission],
    columns: Sequence[Column],
    key: str,
    aggregates: Aggregates,
) -> Row:
    """Return a model's row from one submission for each task."""
    scores: dict[str, float] = {}
    disagreements: dict[str, Disagreement] = {}
    revisions: dict[str, None] = {}
    other_data = []
    for column in columns:
        parts = [_score(submissions, part, key) for part in column.parts]
        score = task_score(_score(submissions, column, key), parts, key, aggregates)
        if score.value is None:
            continue
        scores[column.task] = score.value
        if score.disagreement:
            disagreements[column.task] = score.disagreement
        sources = column.parts if score.recomputed else (column,)
        revisions.update(dict.fromkeys(submissions[source.task].revision for source in sources))
        if any(each.data_revision != submissions[each.task].data_revision for each in sources):
            other_data.append(column.task)
    return Row(
        model,
        revision=", ".join(revisions),
        settings="",
        reranker=None,
        dtype="",
        scores=scores,
        published=True,
        disagreements=disagreements,
        other_data=tuple(other_data),
    )


def _score(submissions: Mapping[str, Submission], column: Column, key: str) -> float | None:
    submission = submissions.get(column.task)
    return column.score(submission.scores, key) if submission else None
