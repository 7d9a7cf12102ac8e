"""Compare runs with a baseline by rules: one finding for every score, query, time and memory."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bge_eval.gate.baseline import Baseline, Entry, PartValues
from bge_eval.gate.outcome import Finding, Note, Outcome, Status
from bge_eval.gate.rules import MAIN, Rule, Rules
from bge_eval.results.identity import differences
from bge_eval.statistics.corrections import holm
from bge_eval.statistics.paired import Comparison, compare_means
from bge_eval.statistics.samples import TIE

_DATA = ("data.fingerprint", "data.splits", "data.subsets")
"""Keys whose difference makes two scores incomparable."""
_EXPECTED = ("task", "task_revision", "data", "packages", "model.name", "model.revision")
"""Keys that may differ without a warning: a gate compares checkpoints and versions."""
_GIB = 2**30
_SAME_WORK = 1.25
"""Largest token ratio at which run times are comparable."""
_FEW = 5
"""Largest number of regressed queries listed by id; more are counted."""


def check(
    baseline: Baseline,
    entries: Mapping[str, Entry],
    rules: Rules,
    *,
    suites: Mapping[str, Collection[str]] | None = None,
    other_data: bool = False,
    extra: Sequence[str] = (),
) -> Outcome:
    """Compare runs with a baseline.

    Args:
        baseline: the baseline; each of its tasks is judged.
        entries: task → its run; a task without a run counts as missing.
        rules: the allowed losses.
        suites: suite → its tasks, for the suites that the rules name.
        other_data: compare even if the data differ, instead of reporting the task as missing.
        extra: tasks that have a run but are not in the baseline.
    """
    suites = suites or {}
    pairs: list[_Pair] = []
    findings: dict[str, list[Finding]] = {}
    notes: list[Note] = []
    for task, before in baseline.entries.items():
        after = entries.get(task)
        rule = rules.of(task, [suite for suite, tasks in suites.items() if task in tasks])
        problem = _obstacle(before, after, other_data)
        if after is None or problem:
            findings[task] = [Finding(task, "", Status.MISSING, problem)]
            continue
        pairs.append(_Pair(before, after, rule))
        findings[task] = []
    tests = [test for pair in pairs for test in _tests(pair, findings[pair.task])]
    averages = _averages(baseline, pairs, rules, suites)
    judged = _judge([*tests, *averages.tests])
    for finding in judged:
        findings.setdefault(finding.task, []).append(finding)
    for task, finding in averages.missing.items():
        findings[task] = [finding]
    for pair in pairs:
        findings[pair.task] += [*_queries(pair), *_time(pair), *_memory(pair)]
    notes += _identity_notes(pairs)
    notes += [
        Note(f"There are rules for {task}, which is not in the baseline.", warning=True)
        for task in rules.tasks
        if task not in baseline.entries
    ]
    if extra:
        notes.append(
            Note(f"Not in the baseline, so not judged: {', '.join(extra)}. --update adds them.")
        )
    models = dict.fromkeys(pair.after.model for pair in pairs)
    if len(models) > 1:
        notes.append(Note(f"The runs are of several models: {'; '.join(models)}.", warning=True))
    every = tuple(finding for found in findings.values() for finding in found)
    return Outcome(baseline, "; ".join(models), rules.origin, every, tuple(notes))


@dataclass(frozen=True, slots=True)
class _Pair:
    """A task's baseline, run and rule."""

    before: Entry
    after: Entry
    rule: Rule

    @property
    def task(self) -> str:
        return self.before.task


@dataclass(frozen=True, slots=True)
class _Test:
    """A pair of scores to be judged."""

    task: str
    what: str
    before: float
    after: float
    rule: Rule
    comparison: Comparison | None


@dataclass(frozen=True, slots=True)
class _Averages:
    """The means over tasks that the rules judge."""

    tests: list[_Test]
    missing: dict[str, Finding]


def _obstacle(before: Entry, after: Entry | None, other_data: bool) -> str:
    """Return why a task cannot be judged, or ""."""
    if after is None:
        return "There is no run of it."
    if other_data or not before.identity or not after.identity:
        return ""
    others = [
        name
        for name in differences(dict(before.identity), dict(after.identity))
        if name.startswith(_DATA)
    ]
    if not others:
        return ""
    was, now = _values(before.identity, after.identity, others[0])
    return (
        f"The baseline was made with other data ({others[0]} {was}, now {now}), so the scores"
        " cannot be compared. Update the baseline, or add --other-data."
    )


def _tests(pair: _Pair, findings: list[Finding]) -> list[_Test]:
    """Return a task's measures with their paired statistics; report absent measures."""
    tests = []
    for measure in dict.fromkeys(pair.rule.measures):
        name = pair.before.name(measure)
        sides = (("baseline", pair.before), ("run", pair.after))
        lacking = [who for who, side in sides if measure not in side.scores]
        if lacking:
            reason = f"The {' and the '.join(lacking)} have no {name}."
            if len(lacking) == 1:
                advice = " --update with these rules adds it." if lacking == ["baseline"] else ""
                reason = f"The {lacking[0]} has no {name}.{advice}"
            findings.append(Finding(pair.task, name, Status.MISSING, reason))
            continue
        before, after = pair.before.scores[measure], pair.after.scores[measure]
        values = pair.before.values(measure), pair.after.values(measure)
        comparison = _compared([values], pair.rule)
        tests.append(_Test(pair.task, name, before, after, pair.rule, comparison))
    return tests


def _compared(tasks: Sequence[tuple[PartValues, PartValues]], rule: Rule) -> Comparison | None:
    """Compare the mean over tasks of the means over their parts; None if the queries differ."""
    before, after, weights = [], [], []
    for first, second in tasks:
        same = first.keys() == second.keys()
        if (
            not first
            or not same
            or any(first[part].keys() != second[part].keys() for part in first)
        ):
            return None
        for part, values in first.items():
            before.append(list(values.values()))
            after.append([second[part][query] for query in values])
            weights.append(1 / len(first) / len(tasks))
    return compare_means(before, after, weights)


def _averages(
    baseline: Baseline,
    pairs: Sequence[_Pair],
    rules: Rules,
    suites: Mapping[str, Collection[str]],
) -> _Averages:
    by_task = {pair.task: pair for pair in pairs}
    wanted: dict[str, tuple[Collection[str], Rule]] = {}
    if rules.average is not None:
        inner = {part for entry in baseline.entries.values() for part in entry.aggregate_of}
        whole = [task for task in baseline.entries if task not in inner]
        wanted["average of the baseline's tasks"] = (whole, rules.average)
    for suite, rule in rules.suite_averages.items():
        wanted[f"average of {suite}"] = (suites[suite], rule)
    tests = []
    missing = {}
    for name, (tasks, rule) in wanted.items():
        lacking = [task for task in tasks if task not in by_task]
        if lacking:
            reason = f"{len(lacking)} of {len(tasks)} tasks are missing: {', '.join(lacking)}."
            missing[name] = Finding(name, "", Status.MISSING, reason)
            continue
        found = [by_task[task] for task in tasks]
        means = {pair.before.main for pair in found}
        before = sum(pair.before.scores[MAIN] for pair in found) / len(found)
        after = sum(pair.after.scores[MAIN] for pair in found) / len(found)
        values = [(pair.before.values(MAIN), pair.after.values(MAIN)) for pair in found]
        what = means.pop() if len(means) == 1 else "main score"
        tests.append(_Test(name, what, before, after, rule, _compared(values, rule)))
    return _Averages(tests, missing)


def _judge(tests: Sequence[_Test]) -> list[Finding]:
    """Judge every score; p-values are corrected for all of them together."""
    tested = [
        (index, test.comparison.p_value)
        for index, test in enumerate(tests)
        if test.rule.significant and test.comparison is not None
    ]
    corrected = dict(zip((index for index, _ in tested), holm([p for _, p in tested]), strict=True))
    return [_verdict(test, corrected.get(index)) for index, test in enumerate(tests)]


def _verdict(test: _Test, p_value: float | None) -> Finding:
    rule = test.rule
    allowed = rule.allowed(test.before)
    change = test.after - test.before
    by_chance = p_value is not None and p_value >= rule.alpha
    evidence = ""
    if rule.significant:
        evidence = (
            ", judged by the score alone (no values of the same queries)"
            if p_value is None
            else f", p = {p_value:.2g}"
        )
    if change < -allowed - TIE:
        if by_chance:
            status = Status.DROPPED
            reason = f"Lost {-change:.5f}, more than {allowed:.5f}, but within chance{evidence}."
        else:
            status = Status.REGRESSED
            reason = f"Lost {-change:.5f}, more than the {allowed:.5f} allowed{evidence}."
    elif change > allowed + TIE and not by_chance:
        status = Status.IMPROVED
        reason = f"Gained {change:.5f}{evidence}: update the baseline."
    else:
        status = Status.PASSED
        reason = "The same." if abs(change) <= TIE else f"Within {allowed:.5f}{evidence}."
        if change > allowed + TIE:
            reason = f"Gained {change:.5f}, within chance{evidence}."
    return Finding(
        test.task, test.what, status, reason, test.before, test.after, test.comparison, p_value
    )


def _queries(pair: _Pair) -> list[Finding]:
    """Judge the queries that must not lose anything, by every measure of the rule."""
    wanted = pair.rule.queries
    if not wanted:
        return []
    name = f"{len(wanted)} quer{'y' if len(wanted) == 1 else 'ies'}"
    lost: list[str] = []
    unknown: list[str] = []
    for measure in pair.rule.measures:
        before, after = pair.before.values(measure), pair.after.values(measure)
        for query in wanted:
            parts = [part for part in before if query in before[part]]
            if not parts or any(query not in after.get(part, {}) for part in parts):
                unknown.append(query)
            lost += [
                f"{query} ({pair.before.name(measure)} {before[part][query]:.4f} →"
                f" {after[part][query]:.4f})"
                for part in parts
                if after.get(part, {}).get(query, before[part][query]) < before[part][query] - TIE
            ]
    if lost:
        more = f" and {len(lost) - _FEW} more" if len(lost) > _FEW else ""
        reason = f"Must not lose anything, but did: {', '.join(lost[:_FEW])}{more}."
        return [Finding(pair.task, name, Status.REGRESSED, reason)]
    if unknown:
        reason = f"No values of {', '.join(dict.fromkeys(unknown))} in the baseline or the run."
        return [Finding(pair.task, name, Status.MISSING, reason)]
    return [Finding(pair.task, name, Status.PASSED, "None of them lost anything.")]


def _time(pair: _Pair) -> list[Finding]:
    limit = pair.rule.max_time_ratio
    before, after = pair.before.seconds, pair.after.seconds
    if limit is None:
        return []
    finding = Finding(pair.task, "seconds", Status.NOT_JUDGED, "", before, after)
    if not before or after is None:
        return [replace(finding, reason="The baseline or the run has no record of its time.")]
    if pair.before.machine != pair.after.machine:
        reason = (
            f"Not the baseline's machine ({pair.before.machine or 'unknown'}, now"
            f" {pair.after.machine or 'unknown'}), so times are not compared."
        )
        return [replace(finding, reason=reason)]
    fewest, most = sorted((pair.before.tokens, pair.after.tokens))
    if most > _SAME_WORK * fewest:
        reason = (
            f"Encoded {pair.after.tokens:,} tokens, the baseline {pair.before.tokens:,}: not the"
            " same work (embeddings were stored), so times are not compared. Run with --no-store."
        )
        return [replace(finding, reason=reason)]
    slow = after > limit * before
    reason = (
        f"{after / before:.2f} times the baseline's; {limit:g} {'is' if slow else 'are'} allowed."
    )
    return [replace(finding, status=Status.REGRESSED if slow else Status.PASSED, reason=reason)]


def _memory(pair: _Pair) -> list[Finding]:
    limit = pair.rule.max_memory_gib
    if limit is None:
        return []
    before, after = (
        None if side.memory_bytes is None else side.memory_bytes / _GIB
        for side in (pair.before, pair.after)
    )
    finding = Finding(pair.task, "memory, GiB", Status.NOT_JUDGED, "", before, after)
    if after is None:
        return [replace(finding, reason="The run has no record of its memory.")]
    high = after > limit
    reason = f"{after:.2f} GiB; {limit:g} GiB are allowed."
    return [replace(finding, status=Status.REGRESSED if high else Status.PASSED, reason=reason)]


def _identity_notes(pairs: Sequence[_Pair]) -> list[Note]:
    """Report each difference between the identities of baseline and runs once."""
    tasks: dict[tuple[str, bool], list[str]] = {}
    for pair in pairs:
        before, after = dict(pair.before.identity), dict(pair.after.identity)
        if not before or not after:
            who = "baseline" if not before else "run"
            reason = f"The {who} has no record of its identity, so its data are unknown"
            tasks.setdefault((reason, True), []).append(pair.task)
            continue
        for name in differences(before, after):
            was, now = _values(before, after, name)
            if name.startswith("packages."):
                reason = f"{name.removeprefix('packages.')} {was}, now {now}"
            elif name == "model.dtype":
                reason = f"The baseline was made with another precision: {was}, now {now}"
            else:
                reason = f"The baseline was made with another {name}: {was}, now {now}"
            doubtful = not name.startswith(_EXPECTED) or name.startswith(_DATA)
            tasks.setdefault((reason, doubtful), []).append(pair.task)
    every = [pair.task for pair in pairs]
    return [
        Note(f"{reason}." if found == every else f"{reason} ({', '.join(found)}).", warning)
        for (reason, warning), found in tasks.items()
    ]


def _values(before: Mapping[str, Any], after: Mapping[str, Any], name: str) -> tuple[str, str]:
    """Return both values of a key such as "model.dtype", shortened for messages."""
    shown = []
    for side in (before, after):
        value: Any = side
        rest = name
        # A key may contain a dot itself (the prompt of "STSBenchmark.v2").
        while rest and isinstance(value, Mapping):
            key = next((k for k in value if rest == k or rest.startswith(f"{k}.")), None)
            value = None if key is None else value[key]
            rest = "" if key is None else rest[len(key) + 1 :]
        text = repr(value) if isinstance(value, str) and "prompt" in name else str(value)
        short = text[:12] if name.endswith("revision") else text
        shown.append(short if len(short) <= 60 else f"{short[:59]}…")
    return (shown[0], shown[1])
