"""The smallest drop that a baseline can detect, before any run is compared with it.

A paired test finds a true drop with power 0.8 if the drop is z(1 − α/2) + z(0.8) standard errors of
the difference. The tasks share Holm's family: the level of one of m tests is at least α / m. To
fail, a drop must also exceed the tolerance of the rules.

The spread of the differences is that between the baseline's earlier run and this one, if there is
an earlier one on the same queries. Otherwise it is taken from the spread of the scores, with a
correlation of `CORRELATION` between two runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bge_eval.gate.baseline import Baseline
from bge_eval.gate.entry import PartValues
from bge_eval.gate.rules import MAIN, Rule, Rules
from bge_eval.statistics.samples import TIE

POWER = 0.8
"""Share of runs with the drop in which it is found."""
CORRELATION = 0.8
"""Assumed correlation of the values of a baseline and of a later run."""


@dataclass(frozen=True, slots=True)
class Detectable:
    """The smallest drop that a task, or a mean over tasks, detects."""

    title: str
    """mteb's task name, or the name of the mean."""
    drop: float
    """The drop of the main score, 0 to 1."""
    measured: bool
    """Whether the spread of differences was measured, not assumed."""


def detectable_drops(before: Baseline | None, after: Baseline, rules: Rules) -> list[Detectable]:
    """Return the smallest detectable drop of every task with per-query values, and of their mean.

    Args:
        before: the baseline before it was written; None if it is new.
        after: the baseline.
        rules: the rules it will be judged by; suites' rules are left out.
    """
    earlier = before.entries if before else {}
    errors: dict[str, tuple[float, bool]] = {}
    for task, entry in after.entries.items():
        old = earlier[task].values(MAIN) if task in earlier else {}
        if spread := _standard_error(old, entry.values(MAIN)):
            errors[task] = spread
    inner = {part for entry in after.entries.values() for part in entry.aggregate_of}
    outer = [task for task in after.entries if task not in inner]
    own = {task: rules.of(task) for task in errors}
    tests = sum(len(rules.of(task).measures) for task in after.entries)
    drops = [
        Detectable(task, _drop(error, own[task], tests, after.entries[task].scores[MAIN]), measured)
        for task, (error, measured) in errors.items()
    ]
    if len(outer) > 1 and all(task in errors for task in outer):
        error = float(np.sqrt(sum(errors[task][0] ** 2 for task in outer))) / len(outer)
        score = sum(after.entries[task].scores[MAIN] for task in outer) / len(outer)
        means = 1 + len(rules.suite_averages) if rules.average is not None else 1
        drop = _drop(error, rules.average or rules.default, means, score)
        measured = all(errors[task][1] for task in outer)
        drops.append(Detectable(f"mean of {len(outer)} tasks", drop, measured))
    return drops


def _drop(error: float, rule: Rule, tests: int, score: float) -> float:
    from scipy.special import ndtri

    beyond = rule.tolerance(score) + ndtri(POWER) * error
    if not rule.significant:
        return float(beyond)
    return float(max(beyond, (ndtri(1 - rule.alpha / tests / 2) + ndtri(POWER)) * error))


def _standard_error(
    old: Mapping[str, Mapping[str, float]], new: PartValues
) -> tuple[float, bool] | None:
    """Return the standard error of a later difference and whether it was measured, or None."""
    if not new or any(len(values) < 2 for values in new.values()):
        return None
    same = old.keys() == new.keys() and all(old[part].keys() == new[part].keys() for part in new)
    if same:
        spreads = [
            np.array([value - old[part][query] for query, value in values.items()])
            for part, values in new.items()
        ]
        if any(np.abs(spread).max() > TIE for spread in spreads):
            return _error(spreads), True
    scores = [np.array([*values.values()]) for values in new.values()]
    return _error(scores) * float(np.sqrt(2 * (1 - CORRELATION))), False


def _error(parts: list[np.ndarray[tuple[int], np.dtype[np.float64]]]) -> float:
    variance = sum(float(part.var(ddof=1)) / len(part) for part in parts)
    return float(np.sqrt(variance)) / len(parts)
