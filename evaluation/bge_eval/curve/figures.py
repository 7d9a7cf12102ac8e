"""The figures of a curve's points: means over tasks, tests against the exact search, the front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bge_eval.curve.grid import setting_name
from bge_eval.curve.measuring import Point
from bge_eval.search.trials import RECALL_AT, Speed
from bge_eval.statistics.corrections import holm
from bge_eval.statistics.paired import Comparison, compare_means

LEVEL = 0.05
"""Corrected p-values below it are called more than chance."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a setting answers, over the queries of all tasks."""

    threads: int
    """Threads of the search."""
    queries_per_second: float
    """Queries that are searched together, by the seconds that they take."""
    p50_ms: float
    """Median latency of single queries, in milliseconds."""
    p95_ms: float
    """The latency that 95% of single queries keep, in milliseconds."""


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of one setting on all tasks."""

    point: Point
    """The setting and its values by query."""
    ndcg: float
    """nDCG@10, the mean over tasks."""
    recall_at_100: float
    """R@100, the mean over tasks."""
    recalls: tuple[float, ...]
    """For each depth of `RECALL_AT` the share of the exact search's documents, the mean over tasks.
    The exact search is over float32 vectors of the same dimension."""
    bytes_per_document: float
    """Size of the index, codes and links, by the documents."""
    full_bytes_per_document: float
    """Size of the full vectors that rescoring reads besides; 0 without rescoring."""
    build_seconds: float | None
    """Seconds of building the indexes of all tasks; None where a kept one does not state them."""
    paces: tuple[Pace, ...]
    """The speed on one core, and on all."""
    comparison: Comparison
    """nDCG@10 against the exact search over full vectors, query by query."""
    corrected: float
    """The p-value after Holm's correction over all settings."""
    in_front: bool = False
    """Whether no other setting has at most its memory and a higher nDCG@10."""

    @property
    def name(self) -> str:
        """Return the setting for people, e.g. ``int8, 256 dimensions, HNSW32 efSearch=64``."""
        options = self.point.options
        parts = [
            str(options.precision),
            f"{self.point.dimension} dimensions",
            setting_name(options),
        ]
        if options.rescore is not None:
            parts.append(f"{options.rescore} rescored")
        return ", ".join(parts)

    def per_task(self) -> dict[str, float]:
        """Return the task → its nDCG@10."""
        by_task: dict[str, list[float]] = {}
        for group in self.point.groups:
            by_task.setdefault(group.task, []).append(float(group.values["nDCG@10"].mean()))
        return {task: sum(values) / len(values) for task, values in by_task.items()}


def figures(points: Sequence[Point]) -> list[Figures]:
    """Return the figures of a curve's points; the first point is the exact search they lose to."""
    reference = points[0]
    rows = [_figures(point, reference) for point in points]
    corrected = holm([row.comparison.p_value for row in rows[1:]])
    front = _front(rows)
    return [
        replace(row, corrected=p, in_front=index in front)
        for index, (row, p) in enumerate(zip(rows, [1.0, *corrected], strict=True))
    ]


def summary(row: Figures, reference: Figures) -> str:
    """Return what a setting costs against the exact search over full vectors, as a sentence."""
    statistics = row.comparison
    interval = statistics.interval
    between = f"interval {interval.low:+.4f} … {interval.high:+.4f}, " if interval else ""
    chance = "more" if row.corrected < LEVEL else "not more"
    if statistics.wins == statistics.losses == 0:
        change = "nDCG@10 of every query unchanged"
    else:
        change = (
            f"nDCG@10 {statistics.difference:+.4f} ({between}p {statistics.p_value:.2g},"
            f" {row.corrected:.2g} by Holm: {chance} than chance)"
        )
    return f"{row.name}: {_ratio(row, reference)} of the memory, {change}."


def smallest_without_loss(rows: Sequence[Figures]) -> Figures | None:
    """Return the setting of least memory whose nDCG@10 is not lower by more than chance.

    None if that is the exact search over full vectors.
    """
    kept = [row for row in rows[1:] if row.corrected >= LEVEL or row.comparison.difference >= 0]
    smaller = [row for row in kept if row.bytes_per_document < rows[0].bytes_per_document]
    return min(smaller, key=lambda row: (row.bytes_per_document, -row.ndcg), default=None)


def _ratio(row: Figures, reference: Figures) -> str:
    ratio = row.bytes_per_document / reference.bytes_per_document
    if ratio < 0.75:
        part = 1 / ratio
        return (
            f"1/{part:.0f}" if part >= 3.95 or abs(part - round(part)) < 0.05 else f"1/{part:.1f}"
        )
    return "all" if abs(ratio - 1) < 0.005 else f"{ratio:.2f} times"


def _figures(point: Point, reference: Point) -> Figures:
    groups = point.groups
    weights = [group.weight for group in groups]

    def mean(values: Sequence[float]) -> float:
        return float(np.average(values, weights=weights))

    comparison = compare_means(
        [group.values["nDCG@10"] for group in reference.groups],
        [group.values["nDCG@10"] for group in groups],
        weights,
    )
    trials = [group.trial for group in groups]
    documents = sum(trial.documents for trial in trials)
    seconds = [trial.build_seconds for trial in trials]
    return Figures(
        point=point,
        ndcg=mean([float(group.values["nDCG@10"].mean()) for group in groups]),
        recall_at_100=mean([float(group.values["R@100"].mean()) for group in groups]),
        recalls=tuple(
            mean([float(trial.recalls[place].mean()) for trial in trials])
            for place in range(len(RECALL_AT))
        ),
        bytes_per_document=sum(trial.index_bytes for trial in trials) / documents,
        full_bytes_per_document=sum(trial.full_bytes for trial in trials) / documents,
        build_seconds=None if None in seconds else sum(filter(None, seconds)),
        paces=tuple(_pace([trial.speeds[place] for trial in trials]) for place in (0, 1)),
        comparison=comparison,
        corrected=1.0,
    )


def _pace(speeds: Sequence[Speed]) -> Pace:
    latencies = np.concatenate([speed.latencies for speed in speeds])
    p50, p95 = np.percentile(latencies, (50, 95)) * 1000
    count = sum(speed.queries for speed in speeds)
    return Pace(
        threads=speeds[0].threads,
        queries_per_second=count / sum(speed.seconds for speed in speeds),
        p50_ms=float(p50),
        p95_ms=float(p95),
    )


def _front(rows: Sequence[Figures]) -> set[int]:
    """Return the places of the settings that no other one beats in memory and nDCG@10."""
    front: set[int] = set()
    best = -1.0
    order = sorted(range(len(rows)), key=lambda i: (rows[i].bytes_per_document, -rows[i].ndcg))
    for place in order:
        if rows[place].ndcg > best:
            front.add(place)
            best = rows[place].ndcg
    return front
