"""Paired randomisation tests of every pair of systems at once.

The sign flips of `bge_eval.statistics.randomisation` do not depend on the systems, so one draw
serves all pairs: a test of 105 pairs costs one matrix product. The p-value of one pair is that of
its own test; the p-values of several pairs are not corrected here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from bge_eval.statistics.intervals import CONFIDENCE, Interval
from bge_eval.statistics.randomisation import (
    EXACT_UP_TO,
    randomisation_p_value,
    tail_probability,
)
from bge_eval.statistics.samples import CELLS, RESAMPLES, TIE, Values

_ENOUGH = 10
"""Extreme flips among the random ones from which on their share is a good p-value."""


@dataclass(frozen=True, slots=True)
class PairTest:
    """The second system of a pair against the first."""

    first: int
    """Index of the first system."""
    second: int
    """Index of the second system."""
    difference: float
    """The second's mean minus the first's."""
    interval: Interval | None
    """95% interval of the difference; None for a single query."""
    p_value: float
    """Two-sided p-value, above 0; not corrected."""
    wins: int
    """Queries on which the second is better."""
    ties: int
    """Queries on which both are equal."""
    losses: int
    """Queries on which the second is worse."""


def compare_all_pairs(
    groups: Sequence[Values],
    weights: Sequence[float] = (1.0,),
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> list[PairTest]:
    """Test every pair of systems by a weighted sum of means over groups of queries.

    Args:
        groups: values, one ``(n_systems, n_queries)`` array per group of queries.
        weights: weight of each group's mean.
        seed: seed of the random sign flips.
        resamples: number of random sign flips.

    Returns:
        One test per pair, ``(0, 1), (0, 2), …``; none for fewer than two queries or systems.
    """
    if not groups or sum(group.shape[1] for group in groups) < 2:
        return []
    pairs = list(combinations(range(len(groups[0])), 2))
    raw = [np.concatenate([group[b] - group[a] for group in groups]) for a, b in pairs]
    scale = np.concatenate(
        [
            np.full(group.shape[1], weight / group.shape[1])
            for group, weight in zip(groups, weights, strict=True)
        ]
    )
    terms = [np.where(np.abs(x) > TIE, x * scale, 0.0) for x in raw]
    many = [index for index, x in enumerate(terms) if np.count_nonzero(x) > EXACT_UP_TO]
    p_values = _drawn_p_values([terms[index] for index in many], seed, resamples)
    by_pair = dict(zip(many, p_values, strict=True))
    sizes = [group.shape[1] for group in groups]
    return [
        PairTest(
            first=a,
            second=b,
            difference=float((x * scale).sum()),
            interval=_interval(np.split(x, np.cumsum(sizes)[:-1]), weights),
            p_value=by_pair[index] if index in by_pair else _exact_p_value(terms[index]),
            wins=int((x > TIE).sum()),
            ties=int((np.abs(x) <= TIE).sum()),
            losses=int((x < -TIE).sum()),
        )
        for index, ((a, b), x) in enumerate(zip(pairs, raw, strict=True))
    ]


def _exact_p_value(terms: Values) -> float:
    """Return the p-value over all sign flips of a few differing queries."""
    differing = terms[terms != 0]
    return randomisation_p_value([differing])[0] if len(differing) else 1.0


def _drawn_p_values(terms: Sequence[Values], seed: int, resamples: int) -> list[float]:
    """Return the p-values of several pairs from the same random sign flips."""
    if not terms:
        return []
    matrix = np.array(terms).T  # (queries, pairs)
    thresholds = np.abs(matrix.sum(axis=0)) - 1e-12 * np.abs(matrix).sum(axis=0)
    extreme = np.zeros(len(terms), dtype=np.int64)
    generator = np.random.default_rng(seed)
    size = max(1, CELLS // (len(matrix) + len(terms)))
    for start in range(0, resamples, size):
        count = min(size, resamples - start)
        bits = generator.integers(0, 256, (count, -(-len(matrix) // 8)), dtype=np.uint8)
        signs = np.unpackbits(bits, axis=1, count=len(matrix)) * 2.0 - 1.0
        extreme += np.count_nonzero(np.abs(signs @ matrix) >= thresholds, axis=0)
    return [
        (int(count) + 1) / (resamples + 1)
        if count >= _ENOUGH
        else tail_probability(x[x != 0], float(threshold))[0]
        for count, x, threshold in zip(extreme, terms, thresholds, strict=True)
    ]


def _interval(differences: Sequence[Values], weights: Sequence[float]) -> Interval | None:
    """Return Student's t interval of a weighted sum of means, Welch's degrees of freedom."""
    from scipy.special import stdtrit

    if min(map(len, differences)) < 2:
        return None
    mean = sum(w * float(x.mean()) for x, w in zip(differences, weights, strict=True))
    parts = [
        w**2 * float(x.var(ddof=1)) / len(x) for x, w in zip(differences, weights, strict=True)
    ]
    variance = sum(parts)
    if variance <= TIE**2:
        return Interval(mean, mean)
    spread = sum(part**2 / (len(x) - 1) for part, x in zip(parts, differences, strict=True))
    reach = float(stdtrit(variance**2 / spread, (1 + CONFIDENCE) / 2)) * variance**0.5
    return Interval(mean - reach, mean + reach)
