"""The tables of published scores that ``bge-eval reproduce`` runs, one file in ``tasks/reproduce``.

::

    description = "…"
    source = "MTEB's public results at commit f4cc6c8b"

    [defaults]                        # of every score below
    model = "builtin:all-MiniLM-L6-v2"
    tolerance = 1e-4

    [[score]]
    task = "SciFact"
    subset = "zh"                     # of a task that has several
    measure = "R@100"                 # left out: the task's main score
    score = 0.925

    [[published]]                     # the scores are those of results/published
    models = ["BAAI/bge-base-en-v1.5"]
    tasks = ["mteb-en"]
    without = ["Clustering"]          # task types
    tolerance = 1e-3
    close = 5e-3
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from bge_eval.errors import DamagedError, UsageError, did_you_mean, one_line
from bge_eval.resources import tasks_folder

MAIN = "main"
"""The name of a task's own main score."""
CLOSE = 10.0
"""A score within this many tolerances is close, where a table states no other bound."""


class Verdict(StrEnum):
    """What a score here amounts to beside the published one."""

    OK = "OK"
    """Within the tolerance."""
    CLOSE = "close"
    """Not within it, but within the wider bound."""
    OFF = "off"
    FAILED = "failed"
    """The task was not evaluated."""
    MISSING = "missing"
    """The model or the data are not at hand."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One published score."""

    table: str
    """The name of its table."""
    model: str
    """The model, as ``--model`` takes it."""
    task: str
    """mteb's task name."""
    score: float
    """The published score, 0 to 1."""
    tolerance: float
    """Largest difference of a score that is reproduced."""
    close: float
    """Largest difference of a score that is close."""
    source: str
    """Where it was published."""
    subset: str = ""
    """The subset of the task; "" for those that mteb counts."""
    measure: str = MAIN
    """`MAIN` or a measure's name."""

    @property
    def words(self) -> list[str]:
        """The options of ``bge-eval run`` that give the score."""
        subset = ["--subset", self.subset] if self.subset else []
        return ["--model", self.model, "--tasks", self.task, *subset]

    @property
    def heading(self) -> str:
        """The task for people, with its subset."""
        return f"{self.task}/{self.subset}" if self.subset else self.task

    def verdict(self, score: float) -> Verdict:
        """Return what a score amounts to beside the published one."""
        # Scores are rounded decimals, whose difference is off in its last bits.
        difference = round(abs(score - self.score), 9)
        if difference <= self.tolerance:
            return Verdict.OK
        return Verdict.CLOSE if difference <= self.close else Verdict.OFF


@dataclass(frozen=True, slots=True)
class Block:
    """Published scores of some models on some tasks, which ``results/published`` holds."""

    models: tuple[str, ...]
    """Models of the hub."""
    tasks: tuple[str, ...]
    """Suites and tasks."""
    without: tuple[str, ...]
    """Task types that are left out."""
    tolerance: float
    """As of a `Claim`."""
    close: float
    """As of a `Claim`."""


@dataclass(frozen=True, slots=True)
class Table:
    """One file."""

    name: str
    """The file's stem, which ``bge-eval reproduce`` takes."""
    description: str
    """One sentence that describes it."""
    source: str
    """Where its scores were published."""
    claims: tuple[Claim, ...]
    """The scores that it states."""
    blocks: tuple[Block, ...]
    """The scores that it refers to."""


def tables() -> dict[str, Table]:
    """Read every table. Name → table, in alphabetical order.

    Raises:
        DamagedError: a file is no TOML, or has an unknown or a missing key.
    """
    return {path.stem: read_table(path) for path in sorted(_folder().glob("*.toml"))}


def named_tables(names: list[str]) -> list[Table]:
    """Return the tables of some names, or all of them.

    Raises:
        UsageError: there is no such table.
    """
    known = tables()
    for name in names:
        if name not in known and not name.endswith(".toml"):
            raise UsageError(
                f"There is no table '{name}'.{did_you_mean(name, known)} Tables:"
                f" {', '.join(known)}; or name a .toml file of your own."
            )
    return [known[n] if n in known else read_table(Path(n)) for n in names] or [*known.values()]


def read_table(path: Path) -> Table:
    """Read one file.

    Raises:
        DamagedError: it is no TOML, or has an unknown or a missing key.
    """
    try:
        content: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DamagedError(f"{path} is no readable TOML file ({one_line(error)}).") from error
    reader = _Reader(path)
    reader.check(content, {"description", "source", "defaults", "score", "published"}, "the top")
    source = reader.text(content, "source")
    defaults = content.get("defaults", {})
    reader.check(defaults, {"model", "tolerance", "close"}, "[defaults]")
    return Table(
        path.stem,
        reader.text(content, "description"),
        source,
        tuple(reader.claim({**defaults, **e}, source) for e in reader.entries(content, "score")),
        tuple(reader.block({**defaults, **e}) for e in reader.entries(content, "published")),
    )


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads the entries of one file."""

    path: Path

    def entries(self, content: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
        value = content.get(name, [])
        if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
            raise DamagedError(f"{self.path}: [[{name}]] is a list of tables.")
        return value

    def claim(self, entry: Mapping[str, Any], source: str) -> Claim:
        keys = {"model", "task", "subset", "measure", "score", "tolerance", "close"}
        self.check(entry, keys, "[[score]]")
        tolerance = self.number(entry, "tolerance")
        return Claim(
            self.path.stem,
            self.text(entry, "model"),
            self.text(entry, "task"),
            self.number(entry, "score"),
            tolerance,
            self.number(entry, "close") if "close" in entry else CLOSE * tolerance,
            source,
            self.text(entry, "subset") if "subset" in entry else "",
            self.text(entry, "measure") if "measure" in entry else MAIN,
        )

    def block(self, entry: Mapping[str, Any]) -> Block:
        keys = {"model", "models", "tasks", "without", "tolerance", "close"}
        self.check(entry, keys, "[[published]]")
        tolerance = self.number(entry, "tolerance")
        return Block(
            self.texts(entry, "models"),
            self.texts(entry, "tasks"),
            self.texts(entry, "without") if "without" in entry else (),
            tolerance,
            self.number(entry, "close") if "close" in entry else CLOSE * tolerance,
        )

    def check(self, entry: Any, keys: set[str], place: str) -> None:
        if not isinstance(entry, dict):
            raise DamagedError(f"{self.path}, {place}: expected a table, not {entry!r}.")
        for name in entry:
            if name not in keys:
                raise DamagedError(
                    f"{self.path}, {place}: '{name}' is no key.{did_you_mean(name, sorted(keys))}"
                    f" Keys: {', '.join(sorted(keys))}."
                )

    def text(self, entry: Mapping[str, Any], name: str) -> str:
        if not isinstance(value := entry.get(name), str) or not value:
            raise DamagedError(f"{self.path}: {name} is a text, not {value!r}.")
        return value

    def texts(self, entry: Mapping[str, Any], name: str) -> tuple[str, ...]:
        value = entry.get(name)
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise DamagedError(f"{self.path}: {name} is a list of texts, not {value!r}.")
        return tuple(value)

    def number(self, entry: Mapping[str, Any], name: str) -> float:
        value = entry.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise DamagedError(f"{self.path}: {name} is a number from 0 to 1, not {value!r}.")
        return float(value)


def _folder() -> Path:
    return tasks_folder() / "reproduce"
