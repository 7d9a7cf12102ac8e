"""The records of a check's outcome; they import neither numpy nor scipy."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from bge_eval.gate.baseline import Baseline

if TYPE_CHECKING:
    from bge_eval.statistics.paired import Comparison


class Status(StrEnum):
    """The judgement of one finding."""

    PASSED = "passed"
    IMPROVED = "improved"
    DROPPED = "dropped"
    NOT_JUDGED = "not judged"
    REGRESSED = "regressed"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Finding:
    """One judged score, query list, time or memory."""

    task: str
    """mteb's task name, or the name of an average."""
    what: str
    """The measure's name, "queries", "time", "memory", or "" for the task as a whole."""
    status: Status
    """Its judgement."""
    reason: str
    """The reason, a sentence."""
    before: float | None = None
    """The baseline's value: a score 0 to 1, seconds, or GiB."""
    after: float | None = None
    """The run's value."""
    comparison: Comparison | None = None
    """Paired statistics over queries; None if the queries differ."""
    p_value: float | None = None
    """The p-value after Holm's correction; None if not tested."""


@dataclass(frozen=True, slots=True)
class Note:
    """A remark on the comparison as a whole."""

    text: str
    """A sentence."""
    warning: bool = False
    """Whether it puts the comparison in doubt."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The findings of a check."""

    baseline: Baseline
    """The baseline."""
    model: str
    """The run's label; several are joined."""
    rules: str
    """The rules file."""
    findings: tuple[Finding, ...]
    """In the order of tasks."""
    notes: tuple[Note, ...] = ()
    """Differences between the identities, and tasks that the baseline lacks."""

    def of(self, *statuses: Status) -> list[Finding]:
        """Return the findings with one of some statuses."""
        return [finding for finding in self.findings if finding.status in statuses]

    @property
    def exit_code(self) -> int:
        """Return 1 after a regression, 3 if a task is missing, else 0."""
        if self.of(Status.REGRESSED):
            return 1
        return 3 if self.of(Status.MISSING) else 0

    @property
    def summary(self) -> str:
        """Return the counts in a sentence, e.g. "1 regressed, 3 passed."."""
        counts = {status: len(self.of(status)) for status in reversed(Status)}
        return ", ".join(f"{count} {status}" for status, count in counts.items() if count) + "."
