"""The content of the report, collected from a leaderboard and its saved results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bge_eval.leaderboard.board import Leaderboard
from bge_eval.leaderboard.costs import Costs, size_name
from bge_eval.leaderboard.rows import Column, Row
from bge_eval.leaderboard.significance import Evidence, Standing, row_costs
from bge_eval.measures.mteb_keys import CUTOFFS, MAIN_KEY, measure_of_key
from bge_eval.report.queries import QueryGroup, query_groups
from bge_eval.results.saved import SavedResult

_ACRONYMS = {"ap": "AP", "mrr": "MRR", "v": "V"}
_COSTS = {
    "Texts/s": "texts_per_second",
    "Seconds": "seconds",
    "Parameters": "parameters",
    "Dimension": "dimension",
}
_FEW = 3
"""Largest number of names that are listed; more are counted."""


@dataclass(frozen=True, slots=True)
class System:
    """One row of the leaderboard: a model, with its settings and perhaps a second stage."""

    label: str
    """Its full name."""
    short: str
    """Its short name in plots, distinct from the others."""
    revision: str
    """Hub commit or content hash."""
    dtype: str
    """Precision."""
    second_stage: bool
    """Whether it includes a reranker."""
    mean: float | None
    """Mean over all tasks; None if one is missing."""
    mean_standing: Standing | None
    """Interval and rank of the mean; None without a mean."""
    costs: Costs
    """Its time, size and speed."""
    days: tuple[str, ...] = ()
    """The days on which it was run."""
    facts: dict[str, str] = field(default_factory=dict)
    """Other settings that affect its scores: pooling, prompts, index and so on."""


@dataclass(frozen=True, slots=True)
class PublishedScore:
    """A published model's figure on one task, or its mean."""

    model: str
    """``org/model``."""
    score: float
    """0 to 1."""
    other_data: bool = False
    """Whether it was measured on another, or an unstated, revision of the data."""


@dataclass(frozen=True, slots=True)
class Task:
    """One column of the leaderboard."""

    name: str
    """mteb's task name."""
    type: str
    """mteb's task type, or ""."""
    measure: str
    """The measure's display name."""
    standings: tuple[Standing | None, ...]
    """Score, interval and rank of every system; None without a score."""
    gains: tuple[float | None, ...]
    """Gain of every reranker over its first stage; None for first stages."""
    costs: tuple[Costs | None, ...]
    """Costs of the task for every system; None without a score."""
    recall: tuple[tuple[float | None, ...] | None, ...] = ()
    """Recall of every system at `CUTOFFS`; None if unknown."""
    published: tuple[PublishedScore, ...] = ()
    """Published models, best first."""


@dataclass(frozen=True, slots=True)
class Content:
    """Everything on the page."""

    title: str
    """The suite's name, or ""."""
    measure: str
    """The measure's name for the heading."""
    systems: tuple[System, ...]
    """In the leaderboard's order."""
    tasks: tuple[Task, ...]
    """In the leaderboard's order."""
    collections: tuple[QueryGroup, ...]
    """Groups of queries that the page shows one by one."""
    cutoffs: tuple[int, ...] = CUTOFFS
    """The k of recall@k."""
    published_means: tuple[PublishedScore, ...] = ()
    """Means of published models that have every task, best first."""
    notes: tuple[str, ...] = ()
    """Notes below the leaderboard."""

    @property
    def heading(self) -> str:
        """Return the page's title: the suite, or else its tasks or their number."""
        if self.title:
            return self.title
        if len(self.tasks) <= _FEW:
            return _listed([task.name for task in self.tasks])
        return f"{_number(len(self.systems), 'system')} on {_number(len(self.tasks), 'task')}"

    @property
    def lede(self) -> str:
        """Return the page's first sentences: the numbers of systems and tasks, the best."""
        parts = []
        if self.title or len(self.tasks) <= _FEW:
            parts = [_number(len(self.systems), "system"), _number(len(self.tasks), "task")]
        queries = sum(len(collection.qrels) for collection in self.collections)
        if queries:
            parts.append(_number(queries, "judged query", "judged queries"))
        parts = parts or [_number(len(self.systems), "system")]
        days = sorted({day for system in self.systems for day in system.days})
        text = f"{_listed(parts)}{f', run on {_span(days)}' if days else ''}."
        first = self._first
        return f"{text} {first}" if first else text

    @property
    def _first(self) -> str:
        """Return the sentence that names the best system; "" for a single system."""
        if len(self.systems) < 2:
            return ""
        standings = [system.mean_standing for system in self.systems]
        best = next((i for i, it in enumerate(standings) if it is not None and it.rank == 1), None)
        if best is None:
            return ""
        tied = [
            system.short
            for system, it in zip(self.systems, standings, strict=True)
            if it is not None and it.tied
        ]
        what = self.tasks[0].measure if len(self.tasks) == 1 else "mean"
        text = f"{self.systems[best].short} has the best {what}, {self.systems[best].mean:.4f}"
        if not tied:
            return f"{text}."
        few = _listed(tied) if len(tied) <= _FEW else _number(len(tied), "other")
        return f"{text}; no significant difference to {few}."

    @property
    def measure_heading(self) -> str:
        """Return the measure's name, capitalised for a heading."""
        return (
            self.measure if self.measure[:2] == "nD" else self.measure[0].upper() + self.measure[1:]
        )

    @property
    def has_dtypes(self) -> bool:
        """Return whether any precision is known."""
        return any(system.dtype for system in self.systems)

    @property
    def has_ties(self) -> bool:
        """Return whether any system is statistically tied with the best."""
        every = [it for task in self.tasks for it in task.standings]
        every += [system.mean_standing for system in self.systems]
        return any(it.tied for it in every if it is not None)

    @property
    def has_gains(self) -> bool:
        """Return whether a reranker stands beside its first stage."""
        return any(gain is not None for task in self.tasks for gain in task.gains)

    @property
    def has_intervals(self) -> bool:
        """Return whether any score has an interval."""
        return any(
            it.low is not None for task in self.tasks for it in task.standings if it is not None
        )

    @property
    def has_recall(self) -> bool:
        """Return whether any task has recall."""
        return any(task.recall for task in self.tasks)

    @property
    def has_published(self) -> bool:
        """Return whether a published model has a score on any task."""
        return any(task.published for task in self.tasks)

    @property
    def cost_headings(self) -> tuple[str, ...]:
        """Return the headings of costs that at least one system has."""
        return tuple(
            name
            for name, field_name in _COSTS.items()
            if any(getattr(system.costs, field_name) is not None for system in self.systems)
        )

    @property
    def has_costs(self) -> bool:
        """Return whether any cost is known."""
        return bool(self.cost_headings)

    @property
    def machines(self) -> str:
        """Return the machines that times were measured on; "" if unknown."""
        return _listed(sorted({s.costs.machine for s in self.systems if s.costs.machine}))

    def cost_cells(self, system: System) -> list[tuple[float | None, str]]:
        """Return a system's cost under every heading: the value to sort by, and its text."""
        values = [getattr(system.costs, _COSTS[name]) for name in self.cost_headings]
        return [
            (value, _cost(name, value))
            for name, value in zip(self.cost_headings, values, strict=True)
        ]


def gather(
    board: Leaderboard, *, key: str, published: Sequence[Row] = (), notes: Sequence[str] = ()
) -> Content:
    """Collect the content of the report.

    Args:
        board: the leaderboard of the runs alone.
        key: the measure's key in mteb's results; `MAIN_KEY` for every task's own.
        published: rows of published models on the same columns.
        notes: notes below the leaderboard.
    """
    saved = [_saved(row, board.columns) for row in board.rows]
    evidence = Evidence(board, key)
    means = evidence.mean(dict.fromkeys(board.tasks, 1 / len(board.tasks)))
    parts: list[QueryGroup] = []
    tasks = []
    for column in board.columns:
        names = [part.task for part in column.parts] or [column.task]
        for name in names:
            having = {i: results[name] for i, results in enumerate(saved) if name in results}
            parts += query_groups(name, having)
        tasks.append(_task(board, column, key, evidence, saved, published))
    shorts = _short_labels(board.rows)
    systems = tuple(
        _system(board, row, short, mean, results)
        for row, short, mean, results in zip(board.rows, shorts, means, saved, strict=True)
    )
    others = [(row.model, row.average(board.tasks), bool(row.other_data)) for row in published]
    return Content(
        title=board.title,
        measure=board.measure,
        systems=systems,
        tasks=tuple(tasks),
        collections=tuple(parts),
        published_means=_best_first(others),
        notes=(*notes, *_without_queries(saved, shorts, parts)),
    )


def measure_name(key: str) -> str:
    """Return the display name of mteb's measure key, e.g. ``nDCG@10``, ``cosine spearman``."""
    measure = measure_of_key(key)
    if measure is not None:
        return str(measure)
    if key in ("", MAIN_KEY):
        return "main score"
    return " ".join(_ACRONYMS.get(word, word) for word in key.split("_"))


def _saved(row: Row, columns: Sequence[Column]) -> dict[str, SavedResult]:
    """Return task → result of one row, an aggregate's parts among them."""
    results = {}
    for column in columns:
        path = row.results.get(column.task)
        if path is None:
            continue
        results[column.task] = SavedResult(path)
        for part in column.parts:
            beside = path.with_name(f"{part.task}.json")
            if beside.is_file():
                results[part.task] = SavedResult(beside)
    return results


def _without_queries(
    saved: Sequence[Mapping[str, SavedResult]],
    names: Sequence[str],
    shown: Sequence[QueryGroup],
) -> list[str]:
    """Return a note for each system with runs whose queries cannot be shown."""
    lines = []
    for index, (results, name) in enumerate(zip(saved, names, strict=True)):
        seen = {collection.task for collection in shown if index in collection.results}
        lacking = [task for task, result in results.items() if result.keys and task not in seen]
        if lacking:
            lines.append(
                f"{name}: single queries of {_listed(lacking)} are not shown, because their qrels"
                " are not stored beside the result; run it again with --overwrite"
            )
    return lines


def _task(
    board: Leaderboard,
    column: Column,
    key: str,
    evidence: Evidence,
    saved: Sequence[Mapping[str, SavedResult]],
    published: Sequence[Row],
) -> Task:
    recall = tuple(_recall(results, column) for results in saved)
    figures = [
        (row.model, row.scores.get(column.task), column.task in row.other_data) for row in published
    ]
    return Task(
        name=column.task,
        type=column.type,
        measure=measure_name(column.main if key == MAIN_KEY else key),
        standings=tuple(evidence.task(column)),
        gains=tuple((board.gain(row) or {}).get(column.task) for row in board.rows),
        costs=tuple(
            row_costs(board, row, column.task) if column.task in row.results else None
            for row in board.rows
        ),
        recall=recall if any(recall) else (),
        published=_best_first(figures),
    )


def _recall(results: Mapping[str, SavedResult], column: Column) -> tuple[float | None, ...] | None:
    """Return mteb's recall at every cutoff, averaged like the score; None if unknown."""
    curves = []
    for part in column.parts or (column,):
        result = results.get(part.task)
        if result is None:
            return None
        curves.append([part.score(result.scores, f"recall_at_{k}") for k in CUTOFFS])
    means = []
    for values in zip(*curves, strict=True):
        known = [value for value in values if value is not None]
        means.append(sum(known) / len(known) if len(known) == len(values) else None)
    return tuple(means) if any(value is not None for value in means) else None


def _best_first(
    figures: Sequence[tuple[str, float | None, bool]],
) -> tuple[PublishedScore, ...]:
    known = [PublishedScore(model, score, other) for model, score, other in figures if score]
    return tuple(sorted(known, key=lambda figure: (-figure.score, figure.model)))


def _system(
    board: Leaderboard,
    row: Row,
    short: str,
    mean: Standing | None,
    results: Mapping[str, SavedResult],
) -> System:
    return System(
        label=row.label,
        short=short,
        revision=row.revision,
        dtype=row.dtype,
        second_stage=row.reranker is not None,
        mean=row.average(board.tasks),
        mean_standing=mean,
        costs=row_costs(board, row),
        days=tuple(
            sorted(
                {result.record.created[:10] for result in results.values() if result.record.created}
            )
        ),
        facts=_facts(list(results.values())),
    )


def _facts(results: Sequence[SavedResult]) -> dict[str, str]:
    """Return setting → value of the results' identities; differing values are joined."""
    values: dict[str, dict[str, None]] = {}

    def add(name: str, value: object) -> None:
        if value not in (None, "", [], {}):
            values.setdefault(name, {}).setdefault(str(value))

    for result in results:
        record, identity = result.record, result.identity
        model: Mapping[str, Any] = identity.model if identity else {}
        for name in ("pooling", "similarity", "dtype", "max_length", "truncate_dim"):
            add(name.replace("_", " "), model.get(name))
        for role, prompt in (model.get("prompts") or {}).items():
            add(f"{role} prompt", prompt)
        reranker: Mapping[str, Any] = (identity.reranker if identity else None) or {}
        add("reranker", reranker.get("name"))
        add("reranked", reranker.get("top_k"))
        add("index", identity.index if identity else "")
        add("device", record.device)
        for package in ("bge-eval", "mteb", "torch", "transformers"):
            add(package, identity.packages.get(package) if identity else "")
        add("run on", record.created[:10])
    return {name: ", ".join(distinct) for name, distinct in values.items()}


def _short_labels(rows: Sequence[Row]) -> list[str]:
    """Return short distinct names for plots."""
    one_model = len(rows) > 1 and len({row.model for row in rows}) == 1
    shorts = []
    for row in rows:
        name = row.model.rpartition("/")[2]
        if row.settings:
            name = row.settings if one_model else f"{name} [{row.settings}]"
        if row.reranker:
            first = "" if one_model and not row.settings else f"{name} "
            name = f"{first}+ {row.reranker.rpartition('/')[2]}"
        shorts.append(name)
    labels = [
        short if shorts.count(short) == 1 else row.label
        for short, row in zip(shorts, rows, strict=True)
    ]
    return [
        label if labels.count(label) == 1 else f"{label} {row.revision[:8]}"
        for label, row in zip(labels, rows, strict=True)
    ]


def _cost(name: str, value: float | None) -> str:
    if value is None:
        return ""
    if name == "Parameters":
        return size_name(int(value))
    digits = 1 if value < 100 and name != "Dimension" else 0
    return f"{value:,.{digits}f}"


def _number(count: int, one: str, several: str = "") -> str:
    return f"{count:,} {one if count == 1 else several or one + 's'}"


def _listed(words: Sequence[str]) -> str:
    return ", ".join(words[:-1]) + " and " + words[-1] if len(words) > 1 else "".join(words)


def _span(days: Sequence[str]) -> str:
    return days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
