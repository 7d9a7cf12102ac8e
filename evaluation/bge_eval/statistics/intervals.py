"""Bootstrap confidence intervals of means over queries.

The interval is bias-corrected and accelerated, BCa (Efron, "Better Bootstrap Confidence
Intervals", JASA 82, 1987; for retrieval Sakai, "Evaluating Evaluation Metrics based on the
Bootstrap", SIGIR 2006).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bge_eval.statistics.samples import (
    CELLS,
    RESAMPLES,
    TIE,
    Values,
    to_values,
    weighted,
    weighted_mean,
)

CONFIDENCE = 0.95
"""Default share of samples in which the interval should contain the true value."""
EXPANSION_FROM = 1000
"""Number of values from which on nothing is drawn: the samples' means follow Cornish and Fisher's
expansion by then."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval."""

    low: float
    """Its lower end."""
    high: float
    """Its upper end."""


def bootstrap_interval(
    groups: Sequence[Sequence[float] | Values],
    weights: Sequence[float] = (1.0,),
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Interval | None:
    """Return the BCa bootstrap interval of a mean: of one system's values, or of differences.

    For one group the result equals ``scipy.stats.bootstrap(…, method="BCa")``. The leave-one-out
    means that BCa needs are computed in closed form, so memory stays at O(n), not O(n²). From
    `EXPANSION_FROM` values on, the quantiles of the samples' means are those of the expansion of
    Cornish and Fisher ("Moments and Cumulants in the Specification of Distributions", Revue de
    l'Institut International de Statistique 5, 1938), which ten thousand draws only estimate.

    Args:
        groups: values, one ``(n_queries,)`` array per group; samples are drawn within a group.
        weights: weight of each group's mean.
        seed: seed of the random numbers.
        resamples: number of bootstrap samples.
        confidence: share of samples in which the interval should contain the true mean.

    Returns:
        The interval, or None if a group has a single value, whose spread is unknown.
    """
    from scipy.special import ndtr, ndtri

    values = [to_values(group) for group in groups]
    if min(map(len, values)) < 2:
        return None
    mean = weighted_mean(values, weights)
    if all(np.ptp(x) <= TIE for x in values):
        return Interval(mean, mean)
    generator = np.random.default_rng(seed)
    deviations = [weight * (x - x.mean()) / len(x) for x, weight in weighted(values, weights)]
    influence = np.concatenate(deviations)
    spread = float(np.square(influence).sum())
    acceleration = float(np.power(influence, 3).sum()) / (6 * spread**1.5)
    quantiles = ndtri([(1 - confidence) / 2, (1 + confidence) / 2])

    def shifted(bias: float) -> Values:
        of_bias = bias + quantiles
        return np.asarray(bias + of_bias / (1 - acceleration * of_bias))

    if len(influence) >= EXPANSION_FROM:
        # A mean's skewness is six times its acceleration, and its median bias equals that.
        z = shifted(acceleration)
        low, high = mean + spread**0.5 * (z + acceleration * (z**2 - 1))
        return Interval(float(low), float(high))
    generator = np.random.default_rng(seed)
    drawn = np.zeros(resamples)
    for x, weight in weighted(values, weights):
        drawn += weight * _means_of_samples(x, resamples, generator)
    below = np.count_nonzero(drawn < mean) + np.count_nonzero(drawn == mean) / 2
    low, high = np.quantile(drawn, ndtr(shifted(float(ndtri(below / resamples)))))
    return Interval(float(low), float(high))


def _means_of_samples(values: Values, resamples: int, generator: np.random.Generator) -> Values:
    """Return the means of samples drawn with replacement, ``(resamples,)``."""
    means = np.empty(resamples)
    size = max(1, CELLS // len(values))
    for start in range(0, resamples, size):
        stop = min(start + size, resamples)
        rows = generator.integers(0, len(values), (stop - start, len(values)), dtype=np.int32)
        means[start:stop] = values[rows].mean(axis=1)
    return means
