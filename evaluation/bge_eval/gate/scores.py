"""Judge scores: a paired test of each measure and each average, corrected for all tests."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from bge_eval.gate.baseline import Baseline
from bge_eval.gate.entry import PartValues
from bge_eval.gate.outcome import Finding, Status
from bge_eval.gate.pairing import Pair
from bge_eval.gate.rules import MAIN, Rule, Rules
from bge_eval.results.cut import averaged
from bge_eval.statistics.corrections import holm
from bge_eval.statistics.paired import Comparison, compare_means
from bge_eval.statistics.samples import TIE


@dataclass(frozen=True, slots=True)
class ScoreTest:
    """A score in the baseline and in the run, not judged yet."""

    task: str
    """mteb's task name, or the name of an average."""
    measure: str
    """The measure's display name."""
    before: float
    """The baseline's score, 0 to 1."""
    after: float
    """The run's score, 0 to 1."""
    rule: Rule
    """The rule that applies."""
    comparison: Comparison | None
    """Paired statistics over queries; None without values of the same queries."""


@dataclass(frozen=True, slots=True)
class Averages:
    """The means over tasks that the rules judge."""

    tests: list[ScoreTest]
    """One test for each mean of which every task is present."""
    missing: dict[str, Finding]
    """Name of the mean → a finding that names the missing tasks."""


def task_tests(pair: Pair) -> tuple[list[ScoreTest], list[Finding]]:
    """Return a test for each measure of a task, and a finding for each missing measure."""
    tests = []
    missing = []
    for measure in dict.fromkeys(pair.rule.measures):
        name = pair.before.name(measure)
        sides = (("baseline", pair.before), ("run", pair.after))
        lacking = [side for side, entry in sides if measure not in entry.scores]
        if lacking:
            text = _missing_measure(name, lacking)
            missing.append(Finding(pair.task, name, Status.MISSING, text))
            continue
        before, after = pair.before.scores[measure], pair.after.scores[measure]
        values = pair.before.values(measure), pair.after.values(measure)
        comparison = _comparison([values])
        tests.append(ScoreTest(pair.task, name, before, after, pair.rule, comparison))
    return tests, missing


def average_tests(
    baseline: Baseline,
    pairs: Sequence[Pair],
    rules: Rules,
    suites: Mapping[str, Collection[str]],
) -> Averages:
    """Return a test for each mean over tasks that the rules judge.

    Args:
        baseline: its tasks are averaged; those inside an aggregate count through it.
        pairs: the tasks that can be compared.
        rules: the rules.
        suites: suite → its tasks.
    """
    by_task = {pair.task: pair for pair in pairs}
    wanted: dict[str, tuple[Collection[str], Rule]] = {}
    if rules.average is not None:
        inner = {part for entry in baseline.entries.values() for part in entry.aggregate_of}
        outer = averaged(task for task in baseline.entries if task not in inner)
        wanted["average of the baseline's tasks"] = (outer, rules.average)
    for suite, rule in rules.suite_averages.items():
        wanted[f"average of {suite}"] = (suites[suite], rule)
    averages = Averages([], {})
    for name, (tasks, rule) in wanted.items():
        lacking = [task for task in tasks if task not in by_task]
        if not tasks:
            text = "The baseline's tasks are cut in different ways, so they have no mean."
            averages.missing[name] = Finding(name, "", Status.MISSING, text)
        elif lacking:
            text = f"{len(lacking)} of {len(tasks)} tasks are missing: {', '.join(lacking)}."
            averages.missing[name] = Finding(name, "", Status.MISSING, text)
        else:
            averages.tests.append(_average_test(name, [by_task[task] for task in tasks], rule))
    return averages


def judge_scores(tests: Sequence[ScoreTest]) -> list[Finding]:
    """Return a finding for each test; p-values are corrected for these tests together (Holm)."""
    p_values = {
        index: test.comparison.p_value
        for index, test in enumerate(tests)
        if test.rule.significant and test.comparison is not None
    }
    corrected = dict(zip(p_values, holm([*p_values.values()]), strict=True))
    return [_finding(test, corrected.get(index)) for index, test in enumerate(tests)]


def _missing_measure(name: str, lacking: Sequence[str]) -> str:
    if len(lacking) == 2:
        return f"The baseline and the run have no {name}."
    advice = " --update with these rules adds it." if lacking == ["baseline"] else ""
    return f"The {lacking[0]} has no {name}.{advice}"


def _average_test(name: str, pairs: Sequence[Pair], rule: Rule) -> ScoreTest:
    measures = {pair.before.main for pair in pairs}
    measure = measures.pop() if len(measures) == 1 else "main score"
    before = sum(pair.before.scores[MAIN] for pair in pairs) / len(pairs)
    after = sum(pair.after.scores[MAIN] for pair in pairs) / len(pairs)
    values = [(pair.before.values(MAIN), pair.after.values(MAIN)) for pair in pairs]
    return ScoreTest(name, measure, before, after, rule, _comparison(values))


def _comparison(tasks: Sequence[tuple[PartValues, PartValues]]) -> Comparison | None:
    """Compare per-query values: the mean over tasks of the means over their parts.

    Returns:
        The comparison, or None if a task has no values or the two sides have other queries.
    """
    before, after, weights = [], [], []
    for first, second in tasks:
        if not first or first.keys() != second.keys():
            return None
        if any(first[part].keys() != second[part].keys() for part in first):
            return None
        for part, values in first.items():
            before.append(list(values.values()))
            after.append([second[part][query] for query in values])
            weights.append(1 / len(first) / len(tasks))
    return compare_means(before, after, weights)


def _finding(test: ScoreTest, p_value: float | None) -> Finding:
    tolerance = test.rule.tolerance(test.before)
    change = test.after - test.before
    insignificant = p_value is not None and p_value >= test.rule.alpha
    evidence = ""
    if test.rule.significant:
        evidence = (
            ", judged by the score alone (no per-query values to test)"
            if p_value is None
            else f", p = {p_value:.2g}"
        )
    if change < -tolerance - TIE:
        text = f"Lost {-change:.5f}, more than the {tolerance:.5f} allowed"
        if insignificant:
            status, text = Status.DROPPED, f"{text}, but not significantly{evidence}."
        else:
            status, text = Status.REGRESSED, f"{text}{evidence}."
    elif change > tolerance + TIE:
        text = f"Gained {change:.5f}"
        if insignificant:
            status, text = Status.PASSED, f"{text}, not significantly{evidence}."
        else:
            status, text = Status.IMPROVED, f"{text}{evidence}: update the baseline."
    else:
        status = Status.PASSED
        text = "Unchanged." if abs(change) <= TIE else f"Within {tolerance:.5f}{evidence}."
    return Finding(
        test.task, test.measure, status, text, test.before, test.after, test.comparison, p_value
    )
