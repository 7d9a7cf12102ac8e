"""The content of the report: systems, tasks, published scores, and the sentences about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bge_eval.leaderboard.costs import RATES, SIZES, Costs, size_name
from bge_eval.leaderboard.ranks import Rank
from bge_eval.leaderboard.significance import Standing
from bge_eval.leaderboard.trend import Series
from bge_eval.measures.mteb_keys import CUTOFFS
from bge_eval.report.deployment import Curve
from bge_eval.report.queries import QueryGroup

_COSTS = {
    name[0].upper() + name[1:]: field
    for name, field in {**RATES, "seconds": "seconds", **SIZES}.items()
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
    name: str = ""
    """The model and its second stage, without settings."""
    rank: Rank | None = None
    """Its rank by the Borda count, and the interval of its rank by the mean."""
    settings: str = ""
    """Settings that are not the model's own, by value, e.g. ``query prompt “query: ”``."""


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
class PartialScore:
    """The score of some of a task's subsets, where a result has no more."""

    score: float
    """The mean over these subsets, 0 to 1."""
    subsets: str
    """The subsets for people, e.g. "zh" or "3 of 12 subsets"."""


@dataclass(frozen=True, slots=True)
class PairOnTask:
    """Two systems compared on the queries of one task."""

    first: int
    """Index of the first system."""
    second: int
    """Index of the second system."""
    difference: float
    """The second's score minus the first's."""
    wins: int
    """Queries on which the second is better."""
    ties: int
    """Queries on which both are equal."""
    losses: int
    """Queries on which the second is worse."""
    p: float
    """Two-sided p-value, not corrected."""
    corrected: float
    """p-value corrected for all pairs of the task."""
    corrected_for_tasks: float
    """p-value corrected for all pairs of all tasks."""


@dataclass(frozen=True, slots=True)
class Task:
    """One column of the leaderboard."""

    name: str
    """mteb's task name, with the subsets where the column is not the whole task."""
    task: str
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
    languages: Mapping[str, tuple[float | None, ...]] = field(default_factory=dict)
    """Language, e.g. "deu-Latn" → score of every system on its subsets in that language."""
    partial: tuple[PartialScore | None, ...] = ()
    """The score of a part of the task, for systems that have no more; None for others."""
    pairs: tuple[PairOnTask, ...] = ()
    """Every pair of systems with values for the same queries."""


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
    series: tuple[Series, ...] = ()
    """Checkpoints of one training among the systems, in the order of their steps."""
    curves: tuple[Curve, ...] = ()
    """What shorter, compressed and indexed vectors cost."""

    @property
    def heading(self) -> str:
        """Return the page's title: the suite, or else its tasks or their number."""
        if self.title:
            return self.title
        if len(self.tasks) <= _FEW:
            return listed([task.name for task in self.tasks])
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
        text = f"{listed(parts)}{f', run on {_span(days)}' if days else ''}."
        first = self._first
        return f"{text} {first}" if first else text

    @property
    def _first(self) -> str:
        """Return the sentence that names the best system; "" for a single system.

        Only complete rows are compared: the best of those few that finished is not the best.
        """
        if len(self.systems) < 2:
            return ""
        complete = sum(system.mean is not None for system in self.systems)
        if complete < len(self.systems):
            total = f"{len(self.systems)} systems"
            tasks = "the task" if len(self.tasks) == 1 else "all tasks"
            return f"{complete} of {total} have a score on {tasks}, so none is called the best."
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
        few = listed(tied) if len(tied) <= _FEW else _number(len(tied), "other")
        return f"{text}; no significant difference to {few}."

    @property
    def measure_heading(self) -> str:
        """Return the measure's name, capitalised for a heading."""
        return (
            self.measure if self.measure[:2] == "nD" else self.measure[0].upper() + self.measure[1:]
        )

    @property
    def types(self) -> tuple[str, ...]:
        """Return the task types, in the order of the tasks."""
        return tuple(dict.fromkeys(task.type for task in self.tasks))

    @property
    def languages(self) -> tuple[str, ...]:
        """Return the languages of the tasks, e.g. ("deu-Latn", "eng-Latn")."""
        return tuple(sorted({language for task in self.tasks for language in task.languages}))

    @property
    def has_pairs(self) -> bool:
        """Return whether any pair of systems could be tested."""
        return any(task.pairs for task in self.tasks)

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
        return listed(sorted({s.costs.machine for s in self.systems if s.costs.machine}))

    def cost_cells(self, system: System) -> list[tuple[float | None, str]]:
        """Return a system's cost under every heading: the value to sort by, and its text."""
        values = [getattr(system.costs, _COSTS[name]) for name in self.cost_headings]
        return [
            (value, _cost(name, value))
            for name, value in zip(self.cost_headings, values, strict=True)
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


def listed(words: Sequence[str]) -> str:
    """Return words as a list in a sentence, e.g. ``a, b and c``."""
    return ", ".join(words[:-1]) + " and " + words[-1] if len(words) > 1 else "".join(words)


def _span(days: Sequence[str]) -> str:
    return days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
