"""The verdict: judge every task of a baseline by its run and the rules."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from bge_eval.gate.baseline import Baseline
from bge_eval.gate.entry import Entry
from bge_eval.gate.limits import judge_limits
from bge_eval.gate.outcome import Finding, Note, Outcome, Status
from bge_eval.gate.pairing import Pair, identity_notes, pairing_problem
from bge_eval.gate.rules import Rules
from bge_eval.gate.scores import ScoreTest, average_tests, judge_scores, task_tests


def check(
    baseline: Baseline,
    entries: Mapping[str, Entry],
    rules: Rules,
    *,
    suites: Mapping[str, Collection[str]] | None = None,
    other_data: bool = False,
    extra: Sequence[str] = (),
) -> Outcome:
    """Judge runs against a baseline.

    Args:
        baseline: the expected results; every task of it is judged.
        entries: task → its run; a task without a run is reported as missing.
        rules: the allowed losses.
        suites: suite → its tasks, for the suites that the rules name.
        other_data: compare runs on data other than the baseline's, instead of reporting the
            task as missing.
        extra: tasks that have a run but are not in the baseline.
    """
    suites = suites or {}
    pairs: list[Pair] = []
    tests: list[ScoreTest] = []
    findings: dict[str, list[Finding]] = {}
    for task, before in baseline.entries.items():
        after = entries.get(task)
        problem = pairing_problem(before, after, other_data=other_data)
        if after is None or problem:
            findings[task] = [Finding(task, "", Status.MISSING, problem)]
            continue
        rule = rules.of(task, [suite for suite, tasks in suites.items() if task in tasks])
        pair = Pair(before, after, rule)
        pairs.append(pair)
        measured, findings[task] = task_tests(pair)
        tests += measured
    averages = average_tests(baseline, pairs, rules, suites)
    # A mean over tasks is another question than its tasks: a family of its own.
    for finding in [*judge_scores(tests), *judge_scores(averages.tests)]:
        findings.setdefault(finding.task, []).append(finding)
    for name, finding in averages.missing.items():
        findings[name] = [finding]
    for pair in pairs:
        findings[pair.task] += judge_limits(pair)
    models = dict.fromkeys(pair.after.model for pair in pairs)
    return Outcome(
        baseline,
        "; ".join(models),
        rules.origin,
        tuple(finding for group in findings.values() for finding in group),
        (
            *identity_notes(pairs),
            *(Note(f"{pair.task}: {pair.after.doubt}.") for pair in pairs if pair.after.doubt),
            *_coverage_notes(extra, list(models)),
        ),
    )


def _coverage_notes(extra: Sequence[str], models: Sequence[str]) -> list[Note]:
    """Return notes on tasks outside the baseline, and on runs of more than one model."""
    notes = []
    if extra:
        text = f"Not judged, because not in the baseline: {', '.join(extra)}. --update adds them."
        notes.append(Note(text))
    if len(models) > 1:
        notes.append(Note(f"The runs are of different models: {'; '.join(models)}.", warning=True))
    return notes
