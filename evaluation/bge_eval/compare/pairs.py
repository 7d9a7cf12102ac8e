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
"""A difference with a smaller corrected p-value is significant."""


class Verdict(StrEnum):
    """The conclusion about a difference."""

    BETTER = "better"
    WORSE = "worse"
    UNCLEAR = "unclear"
    """Not significant."""
    SAME = "same"
    UNTESTED = "untested"
    """Only scores are compared: a side has no values by query, or both have none of the same."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The difference of two sides on one task, or in the mean over several."""

    title: str
    """The task's or the suite's name."""
    tasks: tuple[str, ...]
    """The tasks that are averaged; a single one if it is no mean."""
    measure: str
    """The measure's name."""
    before: float
    """The first side's score, 0 to 1."""
    after: float
    """The second side's score, 0 to 1."""
    unit: str = ""
    """Unit of the values: "queries" or "experiments"; "" if only scores are known."""
    statistics: Comparison | None = None
    """Interval, p-value and counts; None if only scores are known."""
    corrected: float | None = None
    """p-value after Holm's correction; None before it and without statistics."""

    @property
    def difference(self) -> float:
        """Return ``after - before``."""
        return self.after - self.before

    @property
    def verdict(self) -> Verdict:
        """Return the conclusion at a corrected p-value of 0.05."""
        if self.statistics is None or self.corrected is None:
            return Verdict.UNTESTED
        if not self.statistics.wins and not self.statistics.losses:
            return Verdict.SAME
        if self.corrected > LEVEL:
            return Verdict.UNCLEAR
        return Verdict.BETTER if self.difference > 0 else Verdict.WORSE


@dataclass(frozen=True, slots=True)
class Pair:
    """The comparison of one side with the first."""

    first: str
    """The first side's label."""
    second: str
    """The other side's label."""
    tasks: tuple[Difference, ...]
    """One for each task that both sides have."""
    means: tuple[Difference, ...] = ()
    """One for each suite, and for the mean over all tasks."""
    outputs: Mapping[str, tuple[Output, Output]] = field(default_factory=dict)
    """Task → the outputs of both sides."""
    notes: tuple[str, ...] = ()
    """Remarks to print beside the comparison."""

    @property
    def measure(self) -> str:
        """Return the measure's name; "main score" if the tasks have several."""
        names = list(dict.fromkeys(each.measure for each in self.tasks))
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
        labels: the names of the sides.
        outputs: task → the outputs of the first and the second side.
        suites: (title, tasks) of every mean; the title gets the number of tasks.
        seed: seed of the randomisation test.
        resamples: number of its random sign flips.
        allow_different: compare sides of different conditions, on the queries that both have.
        step: called with every finished task.

    Raises:
        UsageError: the sides were scored under different conditions; the message lists them.
    """
    mismatches = {
        task: of_task for task, both in outputs.items() if (of_task := differing_conditions(*both))
    }
    if mismatches and not allow_different:
        raise _not_comparable(labels, mismatches)
    differences, notes, aligned = [], [], {}
    for task, (one, two) in outputs.items():
        for label, output in zip(labels, (one, two), strict=True):
            notes += [f"{task}: {label}: {note}" for note in output.notes]
        notes += [f"{task}: compared although {each}" for each in mismatches.get(task, ())]
        both = _aligned(one, two)
        if both is not None and both.left_out:
            notes.append(f"{task}: {both.left_out} queries that only one side has are left out")
        aligned[task] = both
        differences.append(_difference(task, one, two, both, seed, resamples))
        step(task)
    untested = [each.title for each in differences if each.statistics is None]
    notes += _untested(labels, {task: outputs[task] for task in untested})
    means = [
        _mean_difference(title, tasks, differences, aligned, seed, resamples)
        for title, tasks in suites
        if len([task for task in tasks if task in outputs]) > 1
    ]
    return Pair(*labels, tuple(differences), tuple(means), outputs, tuple(notes))


def corrected(pairs: Sequence[Pair]) -> list[Pair]:
    """Correct the p-values of all pairs by Holm's method: of tasks together, of means together."""
    tasks = iter(_holm([each for pair in pairs for each in pair.tasks]))
    means = iter(_holm([each for pair in pairs for each in pair.means]))
    return [
        replace(
            pair,
            tasks=tuple(next(tasks) for _ in pair.tasks),
            means=tuple(next(means) for _ in pair.means),
        )
        for pair in pairs
    ]


@dataclass(frozen=True, slots=True)
class _Aligned:
    """The values of the queries that two sides share, one array for each part."""

    before: list[Values]
    """The first side's values."""
    after: list[Values]
    """The second side's values, in the same order of queries."""
    weights: list[float]
    """Weight of each part in the score."""
    left_out: int
    """Number of queries that only one side has."""


def _holm(differences: Sequence[Difference]) -> list[Difference]:
    p_values = iter(holm([each.statistics.p_value for each in differences if each.statistics]))
    return [
        replace(each, corrected=next(p_values)) if each.statistics else each for each in differences
    ]


def differing_conditions(one: Output, two: Output) -> list[str]:
    """Return the conditions that differ between two outputs, of those that both record."""
    mismatches = []
    for name in dict.fromkeys([*one.facts, *two.facts]):
        first, second = one.facts.get(name), two.facts.get(name)
        if first and second and first != second:
            verb = "differs" if name == "measure" else "differ"
            mismatches.append(f"the {name} {verb} ({first} against {second})")
    if one.values and two.values and not mismatches and one.unit == two.unit:
        if set(one.values) != set(two.values):
            mismatches.append(
                f"the runs are of {', '.join(one.values)} against {', '.join(two.values)}"
            )
        elif different := sum(
            len(set(one.values[part]) ^ set(two.values[part])) for part in one.values
        ):
            mismatches.append(f"only one of them has values for {different} of the {one.unit}")
    return mismatches


def _untested(labels: tuple[str, str], outputs: Mapping[str, tuple[Output, Output]]) -> list[str]:
    """Return why tasks are compared by their scores alone, a note for each reason."""
    tasks: dict[str, list[str]] = {}
    for task, both in outputs.items():
        lacking = [
            label for label, side in zip(labels, both, strict=True) if not any(side.values.values())
        ]
        if lacking:
            what = "has only scores" if len(lacking) == 1 else "have only scores"
            reason = f"{' and '.join(lacking)} {what}, no values by query, pair or text"
        elif both[0].unit != both[1].unit:
            reason = f"values are of {both[0].unit} against {both[1].unit}"
        else:
            reason = f"the sides have no {both[0].unit} in common"
        tasks.setdefault(reason, []).append(task)
    return [f"untested ({', '.join(names)}): {reason}" for reason, names in tasks.items()]


def _not_comparable(labels: tuple[str, str], mismatches: Mapping[str, Sequence[str]]) -> UsageError:
    lines = [f"- {task}: {'; '.join(of_task)}" for task, of_task in mismatches.items()]
    return UsageError(
        f"{labels[0]} and {labels[1]} were scored under different conditions:\n"
        + "\n".join(lines)
        + "\nRun one of them again on the other's data, leave these tasks out with --tasks, or"
        " give --allow-different to compare the queries that both have."
    )


def _aligned(one: Output, two: Output) -> _Aligned | None:
    """Return the values of the queries that both sides have; None if they share none."""
    parts = [part for part in one.values if part in two.values]
    if not parts or one.unit != two.unit:
        return None
    total = sum(one.weights[part] for part in parts)
    before, after, weights = [], [], []
    left_out = sum(len(values) for side in (one, two) for values in side.values.values())
    for part in parts:
        first, second = one.values[part], two.values[part]
        queries = [query for query in first if query in second]
        if not queries:
            return None
        left_out -= 2 * len(queries)
        before.append(np.array([first[query] for query in queries]))
        after.append(np.array([second[query] for query in queries]))
        weights.append(one.weights[part] / total)
    return _Aligned(before, after, weights, left_out)


def _difference(
    task: str, one: Output, two: Output, both: _Aligned | None, seed: int, resamples: int
) -> Difference:
    if both is None:
        return Difference(task, (task,), one.measure, one.score, two.score)
    tested = compare_means(both.before, both.after, both.weights, seed=seed, resamples=resamples)
    return Difference(task, (task,), one.measure, tested.before, tested.after, one.unit, tested)


def _mean_difference(
    title: str,
    tasks: Sequence[str],
    differences: Sequence[Difference],
    aligned: Mapping[str, _Aligned | None],
    seed: int,
    resamples: int,
) -> Difference:
    """Compare the means over tasks; queries are resampled within their task."""
    by_task = {each.title: each for each in differences}
    shown = [by_task[task] for task in tasks if task in by_task]
    of_all = f" of {len(tasks)}" if len(shown) < len(tasks) else ""
    title = f"{title}, mean of {len(shown)}{of_all}"
    names = tuple(each.title for each in shown)
    measures = {each.measure for each in shown}
    measure = measures.pop() if len(measures) == 1 else "main score"
    before, after = (
        sum(values) / len(shown)
        for values in ([each.before for each in shown], [each.after for each in shown])
    )
    groups = [aligned[name] for name in names]
    testable = [group for group in groups if group is not None]
    if len(testable) < len(groups):
        return Difference(title, names, measure, before, after)
    units = list(dict.fromkeys(each.unit for each in shown))
    tested = compare_means(
        [values for group in testable for values in group.before],
        [values for group in testable for values in group.after],
        [weight / len(testable) for group in testable for weight in group.weights],
        seed=seed,
        resamples=resamples,
    )
    return Difference(title, names, measure, before, after, " and ".join(units), tested)
