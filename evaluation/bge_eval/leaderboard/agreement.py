"""Whether a cut of a task ranks systems as the whole task does.

Systems that were scored on both are ranked by both. Kendall's tau-b tells how far the rankings
agree; its interval is a percentile bootstrap over queries, in which a query that is drawn counts in
both scores. Pairs of systems whose difference on the whole task is significant (randomised Tukey
HSD, all pairs at once) tell more: the cut must not turn them round.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from bge_eval.leaderboard.board import Leaderboard
from bge_eval.leaderboard.significance import LEVEL, Evidence
from bge_eval.results.cut import is_cut, task_of
from bge_eval.statistics.kendall import kendall

LEAST = 3
"""Fewest systems whose rankings say anything."""
_DRAWS = 2000
_CHUNK = 100
"""Draws at once."""

_Values: TypeAlias = tuple[Sequence[float], Sequence[Mapping[str, float]]]
"""Weights of the parts of a task, and query id → value in each part."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """A cut of a task against the whole of it."""

    cut: str
    """The name of the cut, such as ``SciFact@limit=50``."""
    systems: int
    """Number of systems that were scored on both."""
    tau: float
    """Kendall's tau-b, -1 to 1; NaN where all systems have the same score."""
    low: float | None
    """Lower end of its 95% interval; None without values by query."""
    high: float | None
    """Upper end."""
    pairs: int | None
    """Pairs of systems that differ significantly on the whole task; None without values."""
    reversed: int | None
    """Those that the cut orders the other way round."""
    best: str
    """The best system on the whole task."""
    best_of_cut: str
    """The best system on the cut."""
    shift: float
    """Mean over the systems of the cut's score minus the whole's."""


def agreements(board: Leaderboard, key: str) -> list[Agreement]:
    """Compare every cut among a table's columns with its whole task.

    Args:
        board: the table; cuts without their whole task, or with too few systems, are left out.
        key: the measure's key in mteb's results; `MAIN_KEY` for every task's own.
    """
    evidence = Evidence(board, key)
    agreed = []
    for task in filter(is_cut, board.tasks):
        whole = task_of(task)
        rows = [
            index
            for index, row in enumerate(board.rows)
            if whole in row.scores and task in row.scores
        ]
        if whole in board.tasks and len(rows) >= LEAST:
            agreed.append(_agreement(board, evidence, whole, task, rows))
    return agreed


def _agreement(
    board: Leaderboard, evidence: Evidence, whole: str, cut: str, rows: Sequence[int]
) -> Agreement:
    """Compare two columns over some rows."""
    scores, of_cut = (
        np.array([board.rows[row].scores[task] for row in rows]) for task in (whole, cut)
    )
    values, cut_values = ([evidence.by_query(task)[row] for row in rows] for task in (whole, cut))
    low = high = None
    if all(weights for weights, _ in (*values, *cut_values)):
        taus = _bootstrap(values, cut_values)
        if len(taus):
            low, high = (float(end) for end in np.percentile(taus, (2.5, 97.5)))
    pairs = turned = None
    if (p_values := evidence.pairs(rows, {whole: 1.0})) is not None:
        left, right = np.triu_indices(len(rows), k=1)
        significant = p_values[left, right] < LEVEL
        change = (scores[left] - scores[right]) * (of_cut[left] - of_cut[right])
        pairs, turned = int(significant.sum()), int((significant & (change < 0)).sum())
    return Agreement(
        cut,
        len(rows),
        float(kendall(scores[None], of_cut[None])[0]),
        low,
        high,
        pairs,
        turned,
        board.rows[rows[int(scores.argmax())]].label,
        board.rows[rows[int(of_cut.argmax())]].label,
        float((of_cut - scores).mean()),
    )


def _bootstrap(whole: Sequence[_Values], cut: Sequence[_Values]) -> npt.NDArray[np.float64]:
    """Return tau for every draw of queries; draws without a query of the cut are left out.

    Args:
        whole: every system's values on the whole task.
        cut: its values on the cut, whose parts are those of the whole with the same or fewer
            queries.
    """
    random = np.random.default_rng(0)
    taus = []
    for start in range(0, _DRAWS, _CHUNK):
        size = min(_CHUNK, _DRAWS - start)
        scores, of_cut = np.zeros((size, len(whole))), np.zeros((size, len(whole)))
        for place, weight in enumerate(whole[0][0]):
            queries = list(whole[0][1][place])
            counts = random.multinomial(len(queries), [1 / len(queries)] * len(queries), size=size)
            scores += weight * counts @ _matrix(whole, place, queries) / len(queries)
            asked = [number for number, query in enumerate(queries) if query in cut[0][1][place]]
            drawn = counts[:, asked]
            matrix = _matrix(cut, place, [queries[number] for number in asked])
            with np.errstate(invalid="ignore"):
                of_cut += cut[0][0][place] * (drawn @ matrix) / drawn.sum(axis=1, keepdims=True)
        taus.append(kendall(scores, of_cut))
    joined = np.concatenate(taus)
    return joined[np.isfinite(joined)]


def _matrix(
    systems: Sequence[_Values], place: int, queries: Sequence[str]
) -> npt.NDArray[np.float64]:
    """Return ``(queries, systems)`` float64 of one part."""
    return np.array([[parts[place][query] for _, parts in systems] for query in queries])
