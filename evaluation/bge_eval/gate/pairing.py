"""Pairs of a baseline's entry and a run's entry, and how their identities differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bge_eval.gate.entry import Entry
from bge_eval.gate.outcome import Note
from bge_eval.gate.rules import Rule
from bge_eval.results.identity import differences, index_name

_DATA = ("data.fingerprint", "data.splits", "data.subsets")
"""Identity keys that make scores incomparable when they differ."""
_EXPECTED = ("task", "task_revision", "data", "packages", "model.name", "model.revision")
"""Identity keys that may differ without a warning: the gate compares checkpoints and versions."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One task's entry in the baseline and in the run, with the task's rule."""

    before: Entry
    """The baseline's entry."""
    after: Entry
    """The run's entry."""
    rule: Rule
    """The task's rule."""

    @property
    def task(self) -> str:
        """Return mteb's task name."""
        return self.before.task


def pairing_problem(before: Entry, after: Entry | None, *, other_data: bool) -> str:
    """Return why a task cannot be compared, or "".

    Args:
        before: the baseline's entry.
        after: the run's entry, if there is one.
        other_data: accept a run on other data than the baseline's, or of another index.
    """
    if after is None:
        return "No saved run of this task."
    if other_data or not before.identity or not after.identity:
        return ""
    names = differences(dict(before.identity), dict(after.identity))
    searches = [index_name(entry.identity.get("search", {})) for entry in (before, after)]
    if searches[0] != searches[1]:
        return (
            f"Baseline and run were searched differently (baseline {searches[0]}, run"
            f" {searches[1]}), so a difference is not the model's alone. Give runs of the same"
            " index, or pass --other-data to compare anyway."
        )
    changed = [name for name in names if name.startswith(_DATA)]
    if not changed:
        return ""
    old, new = _values(before.identity, after.identity, changed[0])
    return (
        f"Baseline and run used different data ({changed[0]}: baseline {old}, run {new}), so the"
        " scores cannot be compared. Update the baseline, or pass --other-data to compare anyway."
    )


def identity_notes(pairs: Sequence[Pair]) -> list[Note]:
    """Return one note for each difference between the identities, with the tasks that have it."""
    tasks: dict[tuple[str, bool], list[str]] = {}
    for pair in pairs:
        before, after = dict(pair.before.identity), dict(pair.after.identity)
        if not before or not after:
            side = "baseline" if not before else "run"
            text = f"The {side} has no recorded identity, so its data cannot be verified"
            tasks.setdefault((text, True), []).append(pair.task)
            continue
        for name in differences(before, after):
            old, new = _values(before, after, name)
            text = f"{name.removeprefix('packages.')} differs: baseline {old}, run {new}"
            doubtful = not name.startswith(_EXPECTED) or name.startswith(_DATA)
            tasks.setdefault((text, doubtful), []).append(pair.task)
    all_tasks = [pair.task for pair in pairs]
    return [
        Note(f"{text}." if affected == all_tasks else f"{text} ({', '.join(affected)}).", warning)
        for (text, warning), affected in tasks.items()
    ]


def _values(before: Mapping[str, Any], after: Mapping[str, Any], name: str) -> tuple[str, str]:
    """Return both values of an identity key such as "model.dtype", shortened for display."""
    shown = []
    for identity in (before, after):
        value: Any = identity
        rest = name
        # A key may itself contain a dot, e.g. a prompt for "STSBenchmark.v2".
        while rest and isinstance(value, Mapping):
            key = next((k for k in value if rest == k or rest.startswith(f"{k}.")), None)
            value = None if key is None else value[key]
            rest = "" if key is None else rest[len(key) + 1 :]
        text = repr(value) if isinstance(value, str) and "prompt" in name else str(value)
        short = text[:12] if name.endswith("revision") else text
        shown.append(short if len(short) <= 60 else f"{short[:59]}…")
    return (shown[0], shown[1])
