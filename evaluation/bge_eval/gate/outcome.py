"""The verdict as records; light, so that a command line can know them before it needs numpy."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from bge_eval.gate.baseline import Baseline

if TYPE_CHECKING:
    from bge_eval.statistics.paired import Comparison


class Status(StrEnum):
    """What became of one thing that was judged."""

    PASSED = "passed"
    IMPROVED = "improved"
    DROPPED = "dropped"
    NOT_JUDGED = "not judged"
    REGRESSED = "regressed"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the verdict."""

    task: str
    """mteb's task name, or "average" and of what."""
    what: str
    """The measure's name, "queries", "time", "memory", or "" for the task as a whole."""
    status: Status
    """The verdict."""
    said: str
    """Why, a sentence for people."""
    before: float | None = None
    """The baseline's value: a score 0 to 1, seconds, or GiB."""
    after: float | None = None
    """The run's value."""
    comparison: Comparison | None = None
    """The paired statistics over queries, where both have values of the same queries."""
    p_value: float | None = None
    """The p-value after Holm's correction, where it was asked for."""


@dataclass(frozen=True, slots=True)
class Note:
    """What has to be known to judge the verdict."""

    text: str
    """A sentence."""
    warning: bool = False
    """Whether it puts the comparison in doubt."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The verdict on all tasks."""

    baseline: Baseline
    """What was held against."""
    model: str
    """The run's name for people; several are joined."""
    rules: str
    """Where the rules are from."""
    findings: tuple[Finding, ...]
    """In the order of tasks."""
    notes: tuple[Note, ...] = ()
    """What differs between the identities, what the baseline lacks."""

    def of(self, *statuses: Status) -> list[Finding]:
        """Return the findings of some kinds."""
        return [finding for finding in self.findings if finding.status in statuses]

    @property
    def exit_code(self) -> int:
        """Return 1 after a regression, 3 if a task is missing, else 0."""
        if self.of(Status.REGRESSED):
            return 1
        return 3 if self.of(Status.MISSING) else 0

    @property
    def summary(self) -> str:
        """Return the verdict in a sentence, e.g. "1 regressed, 3 passed."."""
        counts = {status: len(self.of(status)) for status in reversed(Status)}
        return ", ".join(f"{count} {status}" for status, count in counts.items() if count) + "."
