"""Judge the limits of a rule that are not scores: single queries, run time and memory."""

from __future__ import annotations

from dataclasses import replace

from bge_eval.gate.outcome import Finding, Status
from bge_eval.gate.pairing import Pair
from bge_eval.statistics.samples import TIE

_GIB = 2**30
_TOKEN_RATIO = 1.25
"""Largest ratio of encoded tokens at which run times are comparable."""
_NAMED_QUERIES = 5
"""Number of dropped queries that a finding names; the rest are counted."""


def judge_limits(pair: Pair) -> list[Finding]:
    """Return a finding for each limit on queries, run time and memory in the task's rule."""
    return [*_queries(pair), *_time(pair), *_memory(pair)]


def _queries(pair: Pair) -> list[Finding]:
    """Judge the protected queries, by every measure of the rule."""
    protected = pair.rule.queries
    if not protected:
        return []
    name = f"{len(protected)} quer{'y' if len(protected) == 1 else 'ies'}"
    dropped: list[str] = []
    missing: list[str] = []
    for measure in pair.rule.measures:
        before, after = pair.before.values(measure), pair.after.values(measure)
        for query in protected:
            parts = [part for part in before if query in before[part]]
            if not parts or any(query not in after.get(part, {}) for part in parts):
                missing.append(query)
            dropped += [
                f"{query} ({pair.before.name(measure)} {before[part][query]:.4f} →"
                f" {after[part][query]:.4f})"
                for part in parts
                if after.get(part, {}).get(query, before[part][query]) < before[part][query] - TIE
            ]
    if dropped:
        more = len(dropped) - _NAMED_QUERIES
        names = ", ".join(dropped[:_NAMED_QUERIES]) + (f" and {more} more" if more > 0 else "")
        text = f"Protected queries dropped: {names}."
        return [Finding(pair.task, name, Status.REGRESSED, text)]
    if missing:
        text = f"The baseline or the run has no values for {', '.join(dict.fromkeys(missing))}."
        return [Finding(pair.task, name, Status.MISSING, text)]
    return [Finding(pair.task, name, Status.PASSED, "No protected query dropped.")]


def _time(pair: Pair) -> list[Finding]:
    limit = pair.rule.max_time_ratio
    before, after = pair.before.seconds, pair.after.seconds
    if limit is None:
        return []
    finding = Finding(pair.task, "seconds", Status.NOT_JUDGED, "", before, after)
    if not before or after is None:
        return [replace(finding, reason="The baseline or the run has no recorded run time.")]
    if pair.before.machine != pair.after.machine:
        text = (
            f"Run times of different machines are not compared (baseline"
            f" {pair.before.machine or 'unknown'}, run {pair.after.machine or 'unknown'})."
        )
        return [replace(finding, reason=text)]
    fewer, more = sorted((pair.before.tokens, pair.after.tokens))
    if more > _TOKEN_RATIO * fewer:
        text = (
            f"Encoded {pair.after.tokens:,} tokens, the baseline {pair.before.tokens:,}, because"
            " stored embeddings were used; run times are not compared. Run with --no-store."
        )
        return [replace(finding, reason=text)]
    slow = after > limit * before
    text = f"{after / before:.2f} times the baseline's run time; the limit is {limit:g}."
    return [replace(finding, status=Status.REGRESSED if slow else Status.PASSED, reason=text)]


def _memory(pair: Pair) -> list[Finding]:
    limit = pair.rule.max_memory_gib
    if limit is None:
        return []
    before, after = (
        None if entry.memory_bytes is None else entry.memory_bytes / _GIB
        for entry in (pair.before, pair.after)
    )
    finding = Finding(pair.task, "memory, GiB", Status.NOT_JUDGED, "", before, after)
    if after is None:
        return [replace(finding, reason="The run has no recorded peak memory.")]
    status = Status.REGRESSED if after > limit else Status.PASSED
    return [replace(finding, status=status, reason=f"{after:.2f} GiB; the limit is {limit:g} GiB.")]
