"""The gate: read baseline, rules and runs, and judge or update."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bge_eval.errors import MissingError, UsageError, did_you_mean
from bge_eval.gate.baseline import Baseline, entry_of, read_baseline, write_baseline
from bge_eval.gate.choose import Choice, baseline_path, choose, find_baseline
from bge_eval.gate.outcome import Outcome
from bge_eval.gate.rules import Rules, read_rules
from bge_eval.gate.verdict import check


@dataclass(frozen=True, slots=True)
class Request:
    """The runs to check, and their baseline."""

    baseline: str
    """A file, a name in ``results/baselines``, or a run."""
    runs: tuple[Path, ...]
    """Folders of results, or results."""
    choice: Choice = field(default_factory=Choice)
    """Selects among several runs of a task."""
    rules: Path | None = None
    """The rules file; None for the one beside the baseline, or else the default rules."""
    tasks: tuple[str, ...] = ()
    """Suites and tasks to check; () for all of the baseline."""
    other_data: bool = False
    """Whether to compare runs on different data."""


def judge(request: Request) -> Outcome:
    """Compare the runs with the baseline by the rules.

    Raises:
        MissingError: the baseline, the rules or every run is missing.
        UsageError: several runs match, or a name is unknown.
        DamagedError: a file cannot be read.
    """
    rules = _rules(request)
    baseline = find_baseline(request.baseline, _measures(rules))
    if request.tasks:
        wanted = _wanted(request.tasks, baseline.entries)
        entries = {task: entry for task, entry in baseline.entries.items() if task in wanted}
        rules = _without_others(rules, set(baseline.entries) - set(entries))
        baseline = replace(baseline, entries=entries)
    _refuse_unknown_queries(rules, baseline)
    suites = {name: suite_tasks(name) for name in {**rules.suites, **rules.suite_averages}}
    found = choose(request.runs, request.choice, baseline.entries)
    extra = [] if request.tasks else _extra(request, baseline)
    return check(
        baseline,
        {task: entry_of(result, _measures(rules)) for task, result in found.items()},
        rules,
        suites=suites,
        other_data=request.other_data,
        extra=extra,
    )


def update(request: Request) -> tuple[Baseline | None, Baseline]:
    """Write the runs into the baseline's file; its other tasks are kept.

    Returns:
        The old baseline, or None, and the new one.

    Raises:
        UsageError: the baseline is a run, or several runs match.
        MissingError: there is no run.
        DamagedError: the existing file cannot be read.
    """
    path = baseline_path(request.baseline)
    if path.is_dir() or path.suffix != ".json":
        raise UsageError(
            f"--update writes a file: a name such as 'main' for {baseline_path('main')}, or a path"
            f" that ends in .json; '{request.baseline}' is neither."
        )
    before = read_baseline(path) if path.is_file() else None
    tasks = None
    if request.tasks:
        tasks = {task for name in request.tasks for task in _members(name)}
    found = choose(request.runs, request.choice, tasks)
    if not found:
        wanted = ", ".join(request.tasks)
        raise MissingError(f"There is no run of {wanted} to write into {path}.")
    rules = _rules(request)
    written = {task: entry_of(result, _measures(rules)) for task, result in found.items()}
    inner = {part for entry in written.values() for part in entry.aggregate_of}
    kept = dict(before.entries) if before else {}
    kept |= {task: entry for task, entry in written.items() if task not in inner}
    after = Baseline(path.stem, path, kept)
    write_baseline(after)
    return before, after


def suite_tasks(name: str) -> list[str]:
    """Return the tasks of a suite.

    Raises:
        UsageError: there is no such suite.
    """
    from bge_eval.suites.suite_files import suites, task_names

    known = suites()
    if name not in known:
        raise UsageError(
            f"The rules name a suite '{name}'.{did_you_mean(name, known)} There is none of that"
            " name; `bge-eval tasks` lists them."
        )
    return task_names(known[name])


def _rules(request: Request) -> Rules:
    if request.rules is not None:
        return read_rules(request.rules)
    path = baseline_path(request.baseline)
    beside = path.with_suffix(".toml")
    return read_rules(beside) if path.suffix == ".json" and beside.is_file() else Rules()


def _measures(rules: Rules) -> list[str]:
    """Return every measure that the rules name."""
    named = [
        values.get("measures", ()) for values in (*rules.suites.values(), *rules.tasks.values())
    ]
    return list(dict.fromkeys([*rules.default.measures, *(m for names in named for m in names)]))


def _members(name: str) -> list[str]:
    """Return a suite's tasks, or the name itself: a task, or a collection of the user's own."""
    from bge_eval.suites.suite_files import suites, task_names

    suite = suites().get(name)
    return task_names(suite) if suite else [name]


def _wanted(names: Sequence[str], known: Collection[str]) -> set[str]:
    wanted = set()
    for name in names:
        members = [task for task in _members(name) if task in known]
        if not members:
            raise UsageError(
                f"--tasks {name}: the baseline has no such task.{did_you_mean(name, known)}"
                f" It has {', '.join(known)}."
            )
        wanted |= set(members)
    return wanted


def _without_others(rules: Rules, others: Collection[str]) -> Rules:
    """Return the rules without other tasks, and without averages that include them."""
    averages = {
        suite: rule
        for suite, rule in rules.suite_averages.items()
        if not any(task in others for task in suite_tasks(suite))
    }
    tasks = {task: values for task, values in rules.tasks.items() if task not in others}
    return replace(rules, tasks=tasks, average=None, suite_averages=averages)


def _refuse_unknown_queries(rules: Rules, baseline: Baseline) -> None:
    """Raise if the rules name a query that the baseline lacks: it could never regress."""
    for task, values in rules.tasks.items():
        entry = baseline.entries.get(task)
        if entry is None or not values.get("queries"):
            continue
        known = {
            query
            for parts in entry.queries.values()
            for by_query in parts.values()
            for query in by_query
        }
        unknown = [query for query in values["queries"] if query not in known]
        if unknown and known:
            raise UsageError(
                f"{rules.origin}, [task.{task}] queries: {', '.join(unknown)} is no query of the"
                f" baseline.{did_you_mean(unknown[0], known)}"
            )


def _extra(request: Request, baseline: Baseline) -> list[str]:
    """Return tasks that have a run but are not in the baseline."""
    from bge_eval.results.saved import find_results

    inner = {part for entry in baseline.entries.values() for part in entry.aggregate_of}
    tasks = dict.fromkeys(path.stem for path in find_results(request.runs))
    return [task for task in tasks if task not in baseline.entries and task not in inner]
