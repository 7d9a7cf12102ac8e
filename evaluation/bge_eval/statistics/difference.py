"""The confidence interval of a difference between two systems, in agreement with the test.

Student's t covers too little where few queries differ: a sample of 50 queries often holds none of
the 2% that change, and then seems to have no spread. Two pseudo-queries stand for the changes that
the sample may have missed, one won by 1 and one lost by 1, as in the interval of matched
proportions (Agresti and Min, "Simple Improved Confidence Intervals for Comparing Matched
Proportions", Statistics in Medicine 24, 2005). Their weight falls with the number of queries that
differ, and with the share of those that could have: `UNSEEN` / (`UNSEEN` + differing) × ties / n.

Near 0 the randomisation test decides. Where Student's t would contradict it, the end of the
interval near 0 is the difference minus the test's critical difference; so 0 lies outside the
interval if, and only if, p is below 0.05.

``benchmarks/interval_coverage.py`` measures the coverage.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bge_eval.statistics.intervals import CONFIDENCE, Interval
from bge_eval.statistics.randomisation import Randomisation
from bge_eval.statistics.samples import TIE, Values, to_values, weighted, weighted_mean

UNSEEN = 4.0
"""Number of differing queries at which the pseudo-queries have half of their weight."""


def difference_interval(
    differences: Sequence[Sequence[float] | Values],
    weights: Sequence[float],
    test: Randomisation,
    *,
    confidence: float = CONFIDENCE,
) -> Interval | None:
    """Return the interval of a weighted mean of paired differences.

    Args:
        differences: one ``(n_queries,)`` array per group.
        weights: weight of each group's mean.
        test: their randomisation test at the level ``1 - confidence``.
        confidence: share of samples in which the interval should contain the true difference.

    Returns:
        The interval, or None if a group has a single value, whose spread is unknown.
    """
    values = [to_values(group) for group in differences]
    if min(map(len, values)) < 2:
        return None
    difference = weighted_mean(values, weights)
    reach = _half_width(values, weights, confidence)
    low, high = difference - reach, difference + reach
    if test.significant == (low <= 0 <= high):
        near = abs(difference) - test.critical
        if not test.significant:  # not even by rounding
            near = min(near, 0.0)
        low, high = (near, high) if difference >= 0 else (low, -near)
    bound = _bound(values, weights)
    return Interval(max(low, -bound), min(high, bound))


def _half_width(values: Sequence[Values], weights: Sequence[float], confidence: float) -> float:
    """Return Student's t times the standard error, the pseudo-queries' share in it included."""
    from scipy.special import stdtrit

    variance, freedom = query_variance(values, weights)
    return float(stdtrit(freedom, (1 + confidence) / 2)) * float(np.sqrt(variance))


def query_variance(values: Sequence[Values], weights: Sequence[float]) -> tuple[float, float]:
    """Return the variance of a weighted mean of paired differences, the pseudo-queries included.

    Args:
        values: one ``(n_queries,)`` array per group, of two queries or more.
        weights: weight of each group's mean.

    Returns:
        The variance over samples of queries, and its degrees of freedom.
    """
    parts = [
        (weight**2 * float(x.var(ddof=1)) / len(x), len(x) - 1)
        for x, weight in weighted(values, weights)
    ]
    variance = sum(part for part, _ in parts)
    # Welch and Satterthwaite's degrees of freedom; those of all groups where nothing varies.
    spread = sum(part**2 / freedom for part, freedom in parts)
    freedom = variance**2 / spread if spread > 0 else sum(freedom for _, freedom in parts)
    every = np.concatenate(values)
    differing = int(np.count_nonzero(np.abs(every) > TIE))
    unseen = UNSEEN / (UNSEEN + differing) * (1 - differing / len(every))
    step = max(abs(weight) / len(x) for x, weight in weighted(values, weights))
    variance += 2 * unseen * (step * max(1.0, float(np.abs(every).max()))) ** 2
    return variance, freedom


def _bound(values: Sequence[Values], weights: Sequence[float]) -> float:
    """Return the largest possible difference: of measures from 0 to 1 it is the weights' sum."""
    largest = max(float(np.abs(x).max()) for x in values)
    return sum(map(abs, weights)) if largest <= 1 else float("inf")
