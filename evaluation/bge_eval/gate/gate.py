"""Judge saved runs against a baseline, or update the baseline: what ``check`` calls."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bge_eval.errors import MissingError, UsageError, did_you_mean
from bge_eval.gate.baseline import Baseline, read_baseline, write_baseline
from bge_eval.gate.entry import entry_of
from bge_eval.gate.outcome import Outcome
from bge_eval.gate.rules import Rules, read_rules
from bge_eval.gate.selection import Selection, baseline_path, find_baseline, select_runs
from bge_eval.gate.verdict import check


@dataclass(frozen=True, slots=True)
class Request:
    """Which runs to judge, against which baseline and rules."""

    baseline: str
    """A file, a name in ``results/baselines``, or a run."""
    runs: tuple[Path, ...]
    """Folders of results, or single results."""
    selection: Selection = field(default_factory=Selection)
    """Which of several runs of a task to judge."""
    rules: Path | None = None
    """The rules file; None for the .toml beside the baseline, or else the default rules."""
    tasks: tuple[str, ...] = ()
    """Suites and tasks to judge; () for all tasks of the baseline."""
    other_data: bool = False
    """Compare runs on data other than the baseline's."""


def judge(request: Request) -> Outcome:
    """Read the baseline, the rules and the runs, and return the verdict.

    Raises:
        MissingError: the baseline or the rules file is missing, or there are no runs at all.
        UsageError: several runs of a task match, or a name is unknown.
        DamagedError: a file cannot be read.
    """
    rules = rules_of(request)
    baseline = find_baseline(request.baseline, _measures(rules))
    _refuse_unknown_tasks(rules, baseline)
    if request.tasks:
        wanted = _wanted(request.tasks, baseline.entries)
        entries = {task: entry for task, entry in baseline.entries.items() if task in wanted}
        rules = _restricted(rules, set(baseline.entries) - set(entries))
        baseline = replace(baseline, entries=entries)
    _refuse_unknown_queries(rules, baseline)
    suites = {name: suite_tasks(name) for name in {**rules.suites, **rules.suite_averages}}
    runs = select_runs(request.runs, request.selection, baseline.entries)
    extra = [] if request.tasks else _extra(request, baseline)
    return check(
        baseline,
        {task: entry_of(result, _measures(rules)) for task, result in runs.items()},
        rules,
        suites=suites,
        other_data=request.other_data,
        extra=extra,
    )


def rules_of(request: Request) -> Rules:
    """Return the rules that a request names, those beside its baseline, or the default rules.

    Raises:
        MissingError: the file does not exist.
        DamagedError: the file is not TOML.
        UsageError: a table, key or value is invalid.
    """
    if request.rules is not None:
        return read_rules(request.rules)
    path = baseline_path(request.baseline)
    beside = path.with_suffix(".toml")
    return read_rules(beside) if path.suffix == ".json" and beside.is_file() else Rules()


def update(request: Request) -> tuple[Baseline | None, Baseline]:
    """Write the runs into the baseline's file; its other tasks stay unchanged.

    Returns:
        The baseline before the update, None if it is new, and after it.

    Raises:
        UsageError: the baseline is not a .json file, or several runs of a task match.
        MissingError: there are no runs.
        DamagedError: the existing baseline cannot be read.
    """
    path = baseline_path(request.baseline)
    if path.is_dir() or path.suffix != ".json":
        raise UsageError(
            f"--update cannot write '{request.baseline}'. Give --baseline a name, e.g. 'main' for"
            f" {baseline_path('main')}, or a path that ends in .json."
        )
    before = read_baseline(path) if path.is_file() else None
    tasks = None
    if request.tasks:
        tasks = {task for name in request.tasks for task in _members(name)}
    runs = select_runs(request.runs, request.selection, tasks)
    if not runs:
        raise MissingError(
            f"There are no saved runs of {', '.join(request.tasks)} to write into {path}."
        )
    rules = rules_of(request)
    new = {task: entry_of(result, _measures(rules)) for task, result in runs.items()}
    inner = {part for entry in new.values() for part in entry.aggregate_of}
    entries = dict(before.entries) if before else {}
    entries |= {task: entry for task, entry in new.items() if task not in inner}
    after = Baseline(path.stem, path, entries)
    write_baseline(after)
    return before, after


def suite_tasks(name: str) -> list[str]:
    """Return the tasks of a suite.

    Raises:
        UsageError: there is no such suite.
    """
    from bge_eval.suites.suite_files import suites, task_names

    catalogue = suites()
    if name not in catalogue:
        raise UsageError(
            f"The rules name an unknown suite '{name}'.{did_you_mean(name, catalogue)}"
            " `bge-eval tasks` lists the suites."
        )
    return task_names(catalogue[name])


def _measures(rules: Rules) -> list[str]:
    """Return every measure that the rules name."""
    tables = (*rules.suites.values(), *rules.tasks.values())
    named = [measure for table in tables for measure in table.get("measures", ())]
    return list(dict.fromkeys([*rules.default.measures, *named]))


def _members(name: str) -> list[str]:
    """Return a suite's tasks, or a task's own name."""
    from bge_eval.suites.suite_files import suites, task_names

    suite = suites().get(name)
    return task_names(suite) if suite else [name]


def _wanted(names: Sequence[str], tasks: Collection[str]) -> set[str]:
    """Return the tasks of a baseline that --tasks names."""
    wanted = set()
    for name in names:
        members = [task for task in _members(name) if task in tasks]
        if not members:
            raise UsageError(
                f"--tasks {name}: the baseline has no such task.{did_you_mean(name, tasks)}"
                f" It has {', '.join(tasks)}."
            )
        wanted |= set(members)
    return wanted


def _restricted(rules: Rules, excluded: Collection[str]) -> Rules:
    """Drop the rules of excluded tasks, and the averages that include one."""
    averages = {
        suite: rule
        for suite, rule in rules.suite_averages.items()
        if not any(task in excluded for task in suite_tasks(suite))
    }
    tasks = {task: values for task, values in rules.tasks.items() if task not in excluded}
    return replace(rules, tasks=tasks, average=None, suite_averages=averages)


def _refuse_unknown_tasks(rules: Rules, baseline: Baseline) -> None:
    """Refuse rules of tasks that the baseline lacks: a misspelt task would have no rule."""
    unknown = [task for task in rules.tasks if task not in baseline.entries]
    if unknown:
        raise UsageError(
            f"{rules.origin}, [task.{unknown[0]}]: the baseline has no such task."
            f"{did_you_mean(unknown[0], baseline.entries)} It has {', '.join(baseline.entries)}."
            " Correct the name, remove the table, or add the task's run with --update."
        )


def _refuse_unknown_queries(rules: Rules, baseline: Baseline) -> None:
    """Refuse query ids that the baseline lacks: a misspelt query would never be seen to drop."""
    for task, values in rules.tasks.items():
        entry = baseline.entries.get(task)
        if entry is None or not values.get("queries"):
            continue
        saved = {
            query
            for parts in entry.queries.values()
            for by_query in parts.values()
            for query in by_query
        }
        unknown = [query for query in values["queries"] if query not in saved]
        if unknown and saved:
            raise UsageError(
                f"{rules.origin}, [task.{task}] queries: the baseline has no query"
                f" {', '.join(unknown)}.{did_you_mean(unknown[0], saved)}"
            )


def _extra(request: Request, baseline: Baseline) -> list[str]:
    """Return the tasks that have a run but are not in the baseline."""
    from bge_eval.results.saved import find_results

    inner = {part for entry in baseline.entries.values() for part in entry.aggregate_of}
    tasks = dict.fromkeys(path.stem for path in find_results(request.runs))
    return [task for task in tasks if task not in baseline.entries and task not in inner]
