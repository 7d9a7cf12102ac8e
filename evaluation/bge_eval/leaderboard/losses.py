"""What a lower precision, fewer dimensions or an approximate index lose against the exact row.

The exact row is the same model with the same settings, prompts and data, in float32, with all
dimensions and exact search. The figures are those of ``bge-eval compare EXACT REDUCED``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bge_eval.errors import DamagedError
from bge_eval.leaderboard.board import Leaderboard
from bge_eval.leaderboard.rows import Row
from bge_eval.leaderboard.significance import LEVEL, Evidence
from bge_eval.results.identity import Identity, index_name
from bge_eval.results.saved import SavedResult
from bge_eval.statistics.corrections import holm
from bge_eval.statistics.paired import Comparison

_EXACT = ("", "float32")
"""Precisions that lose nothing; "" where a model has none, such as BM25."""
_COMPUTED = ("dtype", "calibration", "backend", "runtime", "saturates")
"""Facts of a model that its precision decides."""
_SEARCHED = (
    "index", "index_params", "vectors", "calibration", "rescore_top", "equal_candidates",
    "index_depth", "parts",
)  # fmt: skip
"""Facts of a search that an exact one lacks, or has otherwise."""
_OF_DATA = ("fingerprint", "splits", "subsets", "cut")
"""Facts of the data by which queries are the same."""


@dataclass(frozen=True, slots=True)
class Loss:
    """The difference of a reduced row to its exact row on one task, or in a mean."""

    difference: float
    """Reduced minus exact: below 0 for a loss."""
    comparison: Comparison | None = None
    """Interval, p-value and counts; None without values by query, text or pair."""
    corrected: float | None = None
    """p-value after Holm's correction over the row's tasks; None without ``comparison``."""

    @property
    def significant(self) -> bool:
        """Return whether it is more than chance: a corrected p-value of 0.05 or less."""
        return self.corrected is not None and self.corrected <= LEVEL

    @property
    def text(self) -> str:
        """Return the difference with its interval, e.g. ``-0.00120 [-0.00510, +0.00270]``."""
        interval = self.comparison.interval if self.comparison is not None else None
        ends = f" [{interval.low:+.5f}, {interval.high:+.5f}]" if interval is not None else ""
        return f"{self.difference:+.5f}{ends}"

    @property
    def sentence(self) -> str:
        """Return the difference with its interval and what it amounts to."""
        if self.comparison is None:
            return f"{self.text} (not tested: no values by query, or other ones)"
        if not self.comparison.wins and not self.comparison.losses:
            return f"{self.text}, the same on every query"
        return f"{self.text}, {'more' if self.significant else 'not more'} than chance"


@dataclass(frozen=True, slots=True)
class Losses:
    """What one row loses."""

    reduced: str
    """How the row is reduced, e.g. ``int8, 256 dimensions, HNSW32``."""
    exact: int
    """Place of the exact row in the table."""
    by_heading: Mapping[str, Loss] = field(default_factory=dict)
    """Heading of the table → loss, where both rows have a score of the same data."""

    def sentence(self, names: Mapping[str, str]) -> str:
        """Return all losses in one line.

        Args:
            names: heading → its name for people, where it has another one.
        """
        parts = [
            f"{names.get(heading, heading)} {loss.sentence}"
            for heading, loss in self.by_heading.items()
        ]
        return f"{self.reduced}: {'; '.join(parts)}"


Weights = Mapping[str, Mapping[str, float]]
"""Heading → task → weight in the mean that stands under it; one task of weight 1 for a task."""


def losses(board: Leaderboard, evidence: Evidence, weights: Weights) -> list[Losses | None]:
    """Return what every row loses against its exact row; None where it is exact, or has none.

    Args:
        board: the table.
        evidence: its per-query values.
        weights: what stands under its headings.
    """
    exact = exact_rows(board)
    return [
        None if other is None else _losses(board, evidence, weights, row, other)
        for row, other in enumerate(exact)
    ]


def exact_rows(board: Leaderboard) -> list[int | None]:
    """Return for every row the place of its exact row; None where it is exact, or has none.

    Where both exist, the row with all dimensions counts before one with as few as the reduced row.
    """
    facts = [_facts(row) for row in board.rows]

    def exact_of(index: int) -> int | None:
        shared: dict[int, tuple[int, int]] = {}
        for other in range(len(facts)):
            tasks = _comparable(board.rows[index], facts[index], board.rows[other], facts[other])
            if tasks:
                steps = max(len(facts[other][task].reductions) for task in tasks)
                shared[other] = (steps, -len(tasks))
        return min(shared, key=lambda other: shared[other]) if shared else None

    return list(map(exact_of, range(len(facts))))


@dataclass(frozen=True, slots=True)
class _Facts:
    """How a result was computed."""

    rest: str
    """Everything that a row and its exact row have in common."""
    reductions: Mapping[str, str]
    """Kind of reduction → its name for people; {} for an exact result."""


def _facts(row: Row) -> dict[str, _Facts]:
    """Return task → how it was computed; without results of an unknown identity."""
    facts = {}
    for task, path in row.results.items():
        try:
            identity = SavedResult(path).identity
        except DamagedError:
            continue
        if identity is not None:
            facts[task] = _Facts(_rest(identity), _reductions(identity))
    return facts


def _rest(identity: Identity) -> str:
    def without(facts: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
        return {name: value for name, value in facts.items() if name not in names}

    common = [
        identity.task,
        {name: identity.data.get(name) for name in _OF_DATA},
        without(identity.model, (*_COMPUTED, "truncate_dim")),
        without(identity.search, _SEARCHED),
        without(identity.reranker, _COMPUTED) if identity.reranker is not None else None,
    ]
    return json.dumps(common, sort_keys=True)


def _reductions(identity: Identity) -> dict[str, str]:
    reductions = {}
    if identity.dtype not in _EXACT:
        reductions["dtype"] = identity.dtype
    if dimension := identity.model.get("truncate_dim"):
        reductions["dimensions"] = f"{dimension} dimensions"
    if not identity.is_exact:
        reductions["index"] = index_name(identity.search)
    of_reranker = str((identity.reranker or {}).get("dtype") or "")
    if of_reranker not in _EXACT:
        reductions["reranker"] = f"reranker {of_reranker}"
    return reductions


def _comparable(
    row: Row, facts: Mapping[str, _Facts], other: Row, of_other: Mapping[str, _Facts]
) -> list[str]:
    """Return the tasks on which another row is a row's exact one."""
    if (row.model, row.revision) != (other.model, other.revision):
        return []
    return [
        task
        for task, own in facts.items()
        if task in of_other
        and own.rest == of_other[task].rest
        and own.reductions.keys() > of_other[task].reductions.keys() <= {"dimensions"}
        and own.reductions.items() > of_other[task].reductions.items()
    ]


def _losses(
    board: Leaderboard, evidence: Evidence, weights: Weights, row: int, exact: int
) -> Losses:
    facts, of_exact = _facts(board.rows[row]), _facts(board.rows[exact])
    tasks = _comparable(board.rows[row], facts, board.rows[exact], of_exact)
    kinds: dict[str, None] = {}
    for task in tasks:
        kept = of_exact[task].reductions
        named = [name for kind, name in facts[task].reductions.items() if kind not in kept]
        kinds[", ".join(named)] = None
    by_heading = {}
    for heading, of_heading in weights.items():
        before, after = board.rows[exact].scores, board.rows[row].scores
        if of_heading and all(task in tasks for task in of_heading):
            difference = sum(w * (after[task] - before[task]) for task, w in of_heading.items())
            tested = evidence.paired(exact, row, of_heading)
            by_heading[heading] = Loss(difference if tested is None else tested.difference, tested)
    single = [heading for heading, of_heading in weights.items() if len(of_heading) == 1]
    means = [heading for heading in by_heading if heading not in single]
    by_heading = _corrected(_corrected(by_heading, single), means)
    return Losses("; ".join(kinds), exact, by_heading)


def _corrected(by_heading: Mapping[str, Loss], headings: Sequence[str]) -> dict[str, Loss]:
    """Correct the p-values of some headings together, as ``compare`` does with tasks."""
    tested = {
        heading: loss.comparison.p_value
        for heading, loss in by_heading.items()
        if heading in headings and loss.comparison is not None
    }
    p_values = dict(zip(tested, holm(list(tested.values())), strict=True))
    return {
        heading: replace(loss, corrected=p_values.get(heading, loss.corrected))
        for heading, loss in by_heading.items()
    }


def losing(board: Leaderboard, evidence: Evidence) -> list[tuple[str, str]]:
    """Return (label, losses by task in one line) of every row that has an exact row."""
    of_tasks = {task: {task: 1.0} for task in board.tasks}
    return [
        (row.label, f"{board.rows[of_row.exact].label} in {of_row.sentence(board.headings)}")
        for row, of_row in zip(board.rows, losses(board, evidence, of_tasks), strict=True)
        if of_row is not None
    ]


def is_reduced(path: Path) -> bool:
    """Return whether a result is in a lower precision, of fewer dimensions or not searched whole.

    Args:
        path: the result; what is not recorded counts as exact.
    """
    identity = SavedResult(path).identity
    return identity is not None and bool(_reductions(identity))
