"""Two systems compared on the same queries: difference, interval, p-value and effect size.

The queries count as a sample of those that the systems will meet. The p-value is
`bge_eval.statistics.randomisation`'s; the interval is `bge_eval.statistics.difference`'s and
excludes 0 exactly where p is below 0.05. The effect size is Cohen's d for pairs ("Statistical Power
Analysis for the Behavioral Sciences", 1988; for retrieval Sakai, "Statistical Reform in Information
Retrieval?", SIGIR Forum 48, 2014).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bge_eval.statistics.difference import difference_interval
from bge_eval.statistics.intervals import CONFIDENCE, Interval
from bge_eval.statistics.randomisation import randomisation_test
from bge_eval.statistics.samples import (
    RESAMPLES,
    TIE,
    Values,
    to_values,
    weighted,
    weighted_mean,
)

METHOD = (
    "interval: Student's t over queries with pseudo-queries for unseen changes (Agresti and Min"
    " 2005), 0 outside exactly where p < 0.05;"
    " p: two-sided paired randomisation test (Fisher 1935; Smucker et al. 2007),"
    " its far tail, and 500 differing queries or more, by saddlepoint (Robinson 1982)"
)
"""The methods in one line, as reports print them."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two systems on the same queries."""

    queries: int
    """Number of queries that both systems answered."""
    before: float
    """The first system's mean."""
    after: float
    """The second system's mean."""
    difference: float
    """``after - before``."""
    interval: Interval | None
    """Confidence interval of the difference; None for a single query."""
    p_value: float
    """Two-sided p-value of the hypothesis that the systems are the same."""
    exact: bool
    """Whether the p-value is exact: all sign flips were enumerated."""
    effect_size: float | None
    """Cohen's d, the difference in standard deviations of the queries' differences; None where the
    differences do not vary."""
    wins: int
    """Queries on which the second system is better."""
    ties: int
    """Queries on which both systems are equal."""
    losses: int
    """Queries on which the second system is worse."""


def compare(
    before: Sequence[float] | Values,
    after: Sequence[float] | Values,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Comparison:
    """Compare two systems on the queries of one task.

    Args:
        before: the first system's values, ``(n_queries,)``.
        after: the second system's values of the same queries in the same order.
        seed: seed of the random numbers; the same seed gives the same results.
        resamples: number of random sign flips.
        confidence: share of samples in which the interval should contain the true difference.

    Raises:
        ValueError: there are no values, their numbers differ, or a value is not finite.
    """
    return compare_means(
        [before], [after], [1.0], seed=seed, resamples=resamples, confidence=confidence
    )


def compare_means(
    before: Sequence[Sequence[float] | Values],
    after: Sequence[Sequence[float] | Values],
    weights: Sequence[float],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Comparison:
    """Compare two systems by a weighted sum of means over groups of queries.

    Args:
        before: the first system's values, one ``(n_queries,)`` array per group.
        after: the second system's values of the same queries.
        weights: weight of each group's mean; they sum to 1 for a mean over tasks.
        seed: seed of the random numbers.
        resamples: number of random sign flips.
        confidence: share of samples in which the interval should contain the true difference.

    Raises:
        ValueError: as `compare`.
    """
    first = [to_values(group) for group in before]
    second = [to_values(group) for group in after]
    if not first or [len(group) for group in first] != [len(group) for group in second]:
        raise ValueError("the systems must have values for the same queries")
    differences = [b - a for a, b in zip(first, second, strict=True)]
    test = randomisation_test(
        differences, weights, seed=seed, resamples=resamples, level=round(1 - confidence, 12)
    )
    every = np.concatenate(differences)
    return Comparison(
        queries=len(every),
        before=weighted_mean(first, weights),
        after=weighted_mean(second, weights),
        difference=weighted_mean(differences, weights),
        interval=difference_interval(differences, weights, test, confidence=confidence),
        p_value=test.p_value,
        exact=test.exact,
        effect_size=effect_size(differences, weights),
        wins=int((every > TIE).sum()),
        ties=int((np.abs(every) <= TIE).sum()),
        losses=int((every < -TIE).sum()),
    )


def effect_size(
    differences: Sequence[Sequence[float] | Values], weights: Sequence[float] = (1.0,)
) -> float | None:
    """Return Cohen's d of paired values: the mean difference over their standard deviation.

    Args:
        differences: one ``(n_queries,)`` array per group.
        weights: weight of each group's mean, and of its variance in the average.

    Returns:
        Cohen's d, or None where the differences do not vary.
    """
    values = [to_values(group) for group in differences]
    if min(map(len, values)) < 2:
        return None
    variance = sum(weight * float(x.var(ddof=1)) for x, weight in weighted(values, weights))
    variance /= sum(weights)
    return weighted_mean(values, weights) / variance**0.5 if variance > TIE**2 else None
