"""The rules: how much each task may lose against the baseline, read from a TOML file.

::

    [default]                        # every task
    max_drop = 0.005                 # scores are 0 to 1: half a point
    significant = true               # a drop fails only if it is significant
    alpha = 0.05                     # … at this level, after Holm's correction over all tests

    [suite.beir]                     # every task of the suite
    max_relative_drop = 0.01         # one per cent of the baseline's score, instead of max_drop
    average = { max_drop = 0.002 }   # and the mean over the suite's tasks

    [task.SciFact]
    measures = ["main", "R@100"]     # main: the task's own main score
    queries = ["13", "42"]           # none of these queries may drop
    max_time_ratio = 1.5             # seconds against the baseline's
    max_memory_gib = 4

    [average]                        # the mean over all tasks of the baseline
    max_drop = 0.002

For each key a task's own table takes precedence over its suites' tables, and those over the
default. ``max_drop`` and ``max_relative_drop`` count as one key: a table that sets either replaces
both.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bge_eval.errors import DamagedError, MissingError, UsageError, did_you_mean
from bge_eval.measures.measure import parse_measure
from bge_eval.measures.mteb_keys import parse_key, stored_name

MAIN = "main"
"""Name of a task's own main score."""

_AMOUNTS = ("max_drop", "max_relative_drop")
_TABLES = ("default", "suite", "task", "average")


@dataclass(frozen=True, slots=True)
class Rule:
    """The limits of one task."""

    measures: tuple[str, ...] = (MAIN,)
    """Measures to judge: "main", "nDCG@10", "R@100" …"""
    max_drop: float | None = 0.005
    """Largest drop of a score, 0 to 1; None if only the relative drop is limited."""
    max_relative_drop: float | None = None
    """Largest drop relative to the baseline's score, e.g. 0.01 for one per cent."""
    significant: bool = True
    """Whether a drop must be significant to fail, if per-query values allow a test."""
    alpha: float = 0.05
    """Significance level of that test."""
    queries: tuple[str, ...] = ()
    """Ids of queries that may not drop at all."""
    max_time_ratio: float | None = None
    """Largest ratio of the run time to the baseline's; None for no limit."""
    max_memory_gib: float | None = None
    """Largest peak memory, GiB; None for no limit."""

    def tolerance(self, before: float) -> float:
        """Return the largest allowed drop from a baseline score; the stricter of two limits."""
        limits = []
        if self.max_drop is not None:
            limits.append(self.max_drop)
        if self.max_relative_drop is not None:
            limits.append(self.max_relative_drop * abs(before))
        return min(limits)


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of a file, or the default rules."""

    default: Rule = field(default_factory=Rule)
    """The rule for every task without more specific tables."""
    suites: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Suite → the keys of its table, in the file's order."""
    tasks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Task → the keys of its table."""
    average: Rule | None = None
    """The rule for the mean over all tasks; None if that mean is not judged."""
    suite_averages: Mapping[str, Rule] = field(default_factory=dict)
    """Suite → the rule for the mean over its tasks."""
    origin: str = "the default rules"
    """The rules' file, or "the default rules"."""

    def of(self, task: str, suites: Iterable[str] = ()) -> Rule:
        """Return a task's rule.

        Args:
            task: mteb's task name.
            suites: the suites that the task belongs to.
        """
        rule = self.default
        members = set(suites)
        for suite, values in self.suites.items():
            if suite in members:
                rule = _with(rule, values)
        return _with(rule, self.tasks.get(task, {}))


def read_rules(path: Path) -> Rules:
    """Read a rules file.

    Raises:
        MissingError: the file does not exist.
        DamagedError: the file is not TOML.
        UsageError: a table, key or value is invalid; the message lists all of them.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MissingError(f"The rules file {path} does not exist.") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise DamagedError(f"{path} is not TOML ({error}).") from error
    problems = [
        f"[{name}] is not a table of the rules.{did_you_mean(name, _TABLES)} The tables are"
        " [default], [suite.NAME], [task.NAME] and [average]."
        for name in content
        if name not in _TABLES
    ]
    suites = _tables(content, "suite", problems)
    tasks = _tables(content, "task", problems)
    suite_averages = {
        name: values.pop("average") for name, values in suites.items() if "average" in values
    }
    average = content.get("average")
    checked = {
        "default": content.get("default", {}),
        **{f"suite.{name}": values for name, values in suites.items()},
        **{f"task.{name}": values for name, values in tasks.items()},
    }
    for table, values in checked.items():
        problems += _problems(table, values, _KEYS)
    averages = {f"suite.{name}.average": values for name, values in suite_averages.items()}
    if average is not None:
        averages["average"] = average
    for table, values in averages.items():
        problems += _problems(table, values, _AVERAGE_KEYS)
    if problems:
        raise UsageError(f"{path}: " + " ".join(problems))
    default = _with(Rule(), checked["default"])
    # Averages inherit the limits of [default], but not its measures, queries, time or memory.
    base = Rule(
        max_drop=default.max_drop,
        max_relative_drop=default.max_relative_drop,
        significant=default.significant,
        alpha=default.alpha,
    )
    return Rules(
        default=default,
        suites=suites,
        tasks=tasks,
        average=None if average is None else _with(base, average),
        suite_averages={name: _with(base, values) for name, values in suite_averages.items()},
        origin=str(path),
    )


def _with(rule: Rule, values: Mapping[str, Any]) -> Rule:
    if any(name in values for name in _AMOUNTS):
        rule = replace(rule, max_drop=None, max_relative_drop=None)
    lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    return replace(rule, **{**values, **lists})


def _tables(
    content: Mapping[str, Any], kind: str, problems: list[str]
) -> dict[str, dict[str, Any]]:
    entries = content.get(kind, {})
    if not isinstance(entries, dict):
        problems.append(f"'{kind}' must be tables such as [{kind}.NAME].")
        return {}
    tables = {}
    for name, values in entries.items():
        if isinstance(values, dict):
            tables[name] = dict(values)
        else:
            problems.append(f"[{kind}] {name}: write a table [{kind}.NAME] instead of a value.")
    return tables


def _number(lowest: float, highest: float) -> Any:
    def requirement(value: Any) -> str:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return "a number"
        # NaN fails every comparison, and so is refused.
        return "" if lowest <= value <= highest else f"{lowest:g} to {highest:g}"

    return requirement


def _flag(value: Any) -> str:
    return "" if isinstance(value, bool) else "true or false"


def _measures(value: Any) -> str:
    if not isinstance(value, list) or not value:
        return 'a list such as ["main", "R@100"]'
    for name in value:
        if name == MAIN:
            continue
        try:
            parse_key(str(name))
        except UsageError as error:
            return f"measures ({error})"
        stored = stored_name(parse_measure(str(name)))
        if stored != name:
            return f"written as '{stored}'"
    return ""


def _queries(value: Any) -> str:
    valid = isinstance(value, list) and all(isinstance(item, str) for item in value)
    return "" if valid else 'a list of ids in quotes such as ["13", "42"]'


_AVERAGE_KEYS = {
    "max_drop": _number(0, 1),
    "max_relative_drop": _number(0, 1),
    "significant": _flag,
    "alpha": _number(0, 1),
}
"""Key → function that returns the requirement an invalid value violates, or ""."""
_KEYS = {
    **_AVERAGE_KEYS,
    "measures": _measures,
    "queries": _queries,
    "max_time_ratio": _number(0, 1e6),
    "max_memory_gib": _number(0, 1e6),
}


def _problems(table: str, values: Any, keys: Mapping[str, Any]) -> list[str]:
    if not isinstance(values, dict):
        return [f"[{table}] must be a table."]
    problems = []
    for name, value in values.items():
        if name not in keys:
            problems.append(
                f"[{table}] {name} is not a key of this table.{did_you_mean(name, keys)} Its keys"
                f" are {', '.join(keys)}."
            )
        elif requirement := keys[name](value):
            problems.append(f"[{table}] {name} = {value!r} must be {requirement}.")
    return problems
