"""Two sides compared, task by task and over whole suites."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

import numpy as np

from bge_eval.compare.outputs import Output
from bge_eval.errors import UsageError
from bge_eval.statistics.corrections import holm
from bge_eval.statistics.paired import Comparison, compare_means
from bge_eval.statistics.samples import RESAMPLES, Values

LEVEL = 0.05
"""A difference with a smaller corrected p is called one."""

UNTESTED = "untested: a side has no values of single queries, so only scores are compared"
"""The note on lines without statistics."""


class Verdict(StrEnum):
    """What may be said of a difference."""

    BETTER = "better"
    WORSE = "worse"
    UNCLEAR = "unclear"
    """It may as well be chance."""
    SAME = "same"
    UNTESTED = "untested"
    """There are no values of single queries to test."""


@dataclass(frozen=True, slots=True)
class Line:
    """Two sides on one task, or on the mean of several."""

    title: str
    """The task's or the suite's name."""
    tasks: tuple[str, ...]
    """The tasks that are averaged; one for a task."""
    measure: str
    """The measure's name."""
    before: float
    """The first side's score, 0 to 1."""
    after: float
    """The second side's score, 0 to 1."""
    unit: str = ""
    """What was drawn: "queries" or "experiments"; "" where only scores are known."""
    statistics: Comparison | None = None
    """Interval, p-value and counts; None where only scores are known."""
    corrected: float | None = None
    """p after Holm's correction."""

    @property
    def difference(self) -> float:
        """Return ``after - before``."""
        return self.after - self.before

    @property
    def verdict(self) -> Verdict:
        """Return what may be said of the difference, at a corrected p of 0.05."""
        if self.statistics is None or self.corrected is None:
            return Verdict.UNTESTED
        if not self.statistics.wins and not self.statistics.losses:
            return Verdict.SAME
        if self.corrected > LEVEL:
            return Verdict.UNCLEAR
        return Verdict.BETTER if self.difference > 0 else Verdict.WORSE


@dataclass(frozen=True, slots=True)
class Pair:
    """One side against the first."""

    first: str
    """The first side's label."""
    second: str
    """The other side's label."""
    lines: tuple[Line, ...]
    """One for each task that both have."""
    suites: tuple[Line, ...] = ()
    """One for each suite, and for the mean of all."""
    outputs: Mapping[str, tuple[Output, Output]] = field(default_factory=dict)
    """Task → what both have."""
    notes: tuple[str, ...] = ()
    """What a person has to know."""

    @property
    def measure(self) -> str:
        """Return the measure's name, "main score" where tasks have several."""
        names = list(dict.fromkeys(line.measure for line in self.lines))
        return names[0] if len(names) == 1 else "main score"


def compare_pair(
    labels: tuple[str, str],
    outputs: Mapping[str, tuple[Output, Output]],
    suites: Sequence[tuple[str, Sequence[str]]] = (),
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    allow_different: bool = False,
    step: Callable[[str], None] = lambda task: None,
) -> Pair:
    """Compare two sides on the tasks that both have.

    Args:
        labels: their names.
        outputs: task → what the first and the second have.
        suites: (title, tasks) of the means to show; how many tasks there are is added.
        seed: of everything that is drawn.
        resamples: how much is drawn.
        allow_different: compare what is not the same, on the queries that both have.
        step: told of every task that is done.

    Raises:
        UsageError: something differs that has to be the same; names all of it.
    """
    problems = {task: _problems(*both) for task, both in outputs.items()}
    problems = {task: found for task, found in problems.items() if found}
    if problems and not allow_different:
        raise _not_comparable(labels, problems)
    lines, notes, aligned = [], [], {}
    for task, (one, two) in outputs.items():
        for label, found in zip(labels, (one, two), strict=True):
            notes += [f"{task}: {label}: {note}" for note in found.notes]
        notes += [f"{task}: compared although {found}" for found in problems.get(task, ())]
        both = _aligned(one, two)
        if both is not None and both.left_out:
            notes.append(f"{task}: {both.left_out} queries that only one side has are left out")
        aligned[task] = both
        lines.append(_line(task, one, two, both, seed, resamples))
        step(task)
    if any(line.statistics is None for line in lines):
        notes.append(UNTESTED)
    means = [
        _mean_line(title, tasks, lines, aligned, seed, resamples)
        for title, tasks in suites
        if len([task for task in tasks if task in outputs]) > 1
    ]
    return Pair(*labels, tuple(lines), tuple(means), outputs, tuple(notes))


def corrected(pairs: Sequence[Pair]) -> list[Pair]:
    """Correct all p-values of the tasks together by Holm's method, and those of the means."""
    tasks = iter(_holm([line for pair in pairs for line in pair.lines]))
    means = iter(_holm([line for pair in pairs for line in pair.suites]))
    return [
        replace(
            pair,
            lines=tuple(next(tasks) for _ in pair.lines),
            suites=tuple(next(means) for _ in pair.suites),
        )
        for pair in pairs
    ]


@dataclass(frozen=True, slots=True)
class _Aligned:
    """The same queries of two sides."""

    before: list[Values]
    after: list[Values]
    weights: list[float]
    left_out: int


def _holm(lines: Sequence[Line]) -> list[Line]:
    tested = [line.statistics.p_value for line in lines if line.statistics]
    found = iter(holm(tested))
    return [replace(line, corrected=next(found)) if line.statistics else line for line in lines]


def _problems(one: Output, two: Output) -> list[str]:
    """Say what differs that has to be the same; what is not known on a side is not held against."""
    problems = []
    for name in dict.fromkeys([*one.facts, *two.facts]):
        mine, theirs = one.facts.get(name), two.facts.get(name)
        if mine and theirs and mine != theirs:
            problems.append(f"the {name} differ{_s(name)} ({mine} against {theirs})")
    if one.values and two.values and not problems and one.unit == two.unit:
        if set(one.values) != set(two.values):
            problems.append(
                f"the runs are of {', '.join(one.values)} against {', '.join(two.values)}"
            )
        elif different := sum(
            len(set(one.values[part]) ^ set(two.values[part])) for part in one.values
        ):
            problems.append(f"only one of them has values for {different} of the {one.unit}")
    return problems


def _s(name: str) -> str:
    return "" if name.endswith("s") or name.startswith("documents") or name == "data" else "s"


def _not_comparable(labels: tuple[str, str], problems: Mapping[str, Sequence[str]]) -> UsageError:
    lines = [f"- {task}: {'; '.join(found)}" for task, found in problems.items()]
    return UsageError(
        f"{labels[0]} and {labels[1]} were not scored on the same:\n"
        + "\n".join(lines)
        + "\nRun one of them again on the other's data, leave tasks out with --tasks, or give"
        " --allow-different to compare the queries that both have."
    )


def _aligned(one: Output, two: Output) -> _Aligned | None:
    """Return the values of the queries that both sides have, in one order."""
    parts = [part for part in one.values if part in two.values]
    if not parts or one.unit != two.unit:
        return None
    total = sum(one.weights[part] for part in parts)
    before, after, weights = [], [], []
    left_out = sum(len(found) for side in (one, two) for found in side.values.values())
    for part in parts:
        mine, theirs = one.values[part], two.values[part]
        queries = [query for query in mine if query in theirs]
        if not queries:
            return None
        left_out -= 2 * len(queries)
        before.append(np.array([mine[query] for query in queries]))
        after.append(np.array([theirs[query] for query in queries]))
        weights.append(one.weights[part] / total)
    return _Aligned(before, after, weights, left_out)


def _line(
    task: str, one: Output, two: Output, both: _Aligned | None, seed: int, resamples: int
) -> Line:
    if both is None:
        return Line(task, (task,), one.measure, one.score, two.score)
    found = compare_means(both.before, both.after, both.weights, seed=seed, resamples=resamples)
    return Line(task, (task,), one.measure, found.before, found.after, one.unit, found)


def _mean_line(
    title: str,
    tasks: Sequence[str],
    lines: Sequence[Line],
    aligned: Mapping[str, _Aligned | None],
    seed: int,
    resamples: int,
) -> Line:
    """Compare the means over tasks; queries are drawn within their own task."""
    by_task = {line.title: line for line in lines}
    shown = [by_task[task] for task in tasks if task in by_task]
    of_all = f" of {len(tasks)}" if len(shown) < len(tasks) else ""
    title = f"{title}, mean of {len(shown)}{of_all}"
    names = tuple(line.title for line in shown)
    measures = {line.measure for line in shown}
    measure = measures.pop() if len(measures) == 1 else "main score"
    before, after = (
        sum(values) / len(shown)
        for values in ([line.before for line in shown], [line.after for line in shown])
    )
    groups = [aligned[name] for name in names]
    known = [group for group in groups if group is not None]
    if len(known) < len(groups):
        return Line(title, names, measure, before, after)
    units = list(dict.fromkeys(line.unit for line in shown))
    found = compare_means(
        [values for group in known for values in group.before],
        [values for group in known for values in group.after],
        [weight / len(known) for group in known for weight in group.weights],
        seed=seed,
        resamples=resamples,
    )
    return Line(title, names, measure, before, after, " and ".join(units), found)
