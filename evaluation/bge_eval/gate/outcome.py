"""The verdict as records; importing them does not import numpy."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from bge_eval.gate.baseline import Baseline

if TYPE_CHECKING:
    from bge_eval.statistics.paired import Comparison


class Status(StrEnum):
    """Verdict on one score, limit or task."""

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
    """mteb's task name, or the name of an average, e.g. "average of beir"."""
    what: str
    """The measure's name, "2 queries", "seconds", "memory, GiB", or "" for the whole task."""
    status: Status
    """The verdict."""
    reason: str
    """The reason for the verdict, one sentence."""
    before: float | None = None
    """The baseline's value: a score from 0 to 1, seconds, or GiB."""
    after: float | None = None
    """The run's value."""
    comparison: Comparison | None = None
    """Paired statistics over queries; None unless both sides have values of the same queries."""
    p_value: float | None = None
    """The p-value after Holm's correction; None if significance was not tested."""


@dataclass(frozen=True, slots=True)
class Note:
    """A remark on how far the verdict can be trusted."""

    text: str
    """One sentence."""
    warning: bool = False
    """Whether the remark puts the comparison in doubt."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The verdict on all tasks."""

    baseline: Baseline
    """The expected results."""
    model: str
    """The display names of the runs' models, joined by "; "."""
    rules: str
    """The rules' file, or "the default rules"."""
    findings: tuple[Finding, ...]
    """Findings, grouped by task in the baseline's order."""
    notes: tuple[Note, ...] = ()
    """Differences between the identities, and tasks that the baseline lacks."""

    def of(self, *statuses: Status) -> list[Finding]:
        """Return the findings with one of these statuses."""
        return [finding for finding in self.findings if finding.status in statuses]

    @property
    def exit_code(self) -> int:
        """Return 1 after a regression, 3 if a task is missing, else 0."""
        if self.of(Status.REGRESSED):
            return 1
        return 3 if self.of(Status.MISSING) else 0

    @property
    def summary(self) -> str:
        """Return the counts by status as a sentence, e.g. "1 regressed, 3 passed."."""
        counts = {status: len(self.of(status)) for status in reversed(Status)}
        return ", ".join(f"{count} {status}" for status, count in counts.items() if count) + "."
