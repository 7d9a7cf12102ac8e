"""All pairs of many systems: the randomised Tukey HSD test.

If k systems were the same, the k values of every query could be permuted. The p-value of a pair is
the share of permutations in which the best and the worst of all k systems differ by at least as
much as that pair, so the probability of calling any of k equal systems different is at most the
level (Carterette, "Multiple Testing in Statistical Analysis of Systems-Based Information Retrieval
Experiments", TOIS 30, 2012; for two systems it is the paired randomisation test of Smucker, Allan
and Carterette, CIKM 2007).

The values of a query are put in a random order once and then rotated at random. Rotations are a
subgroup of the permutations, which keeps the level (Lehmann and Romano, "Testing Statistical
Hypotheses", 3rd edition, theorem 15.2.1), and a draw of them is a look-up. Of `LIMIT_FROM` queries
on, the permutations' distribution is taken at its limit, the range of k normal values.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from bge_eval.statistics.randomisation import randomisation_p_value
from bge_eval.statistics.samples import CELLS, RESAMPLES, TIE, Values

Systems = npt.NDArray[np.float64]
"""``(n_queries, k)`` float64, one column for each system."""

LIMIT_FROM = 1000
"""Queries on which systems differ, from which on nothing is drawn."""
_FEWEST = 2000
"""Draws that are made whatever they cost."""
_BUDGET = 10**7
"""Values to look up, beyond which draws are reduced, to no fewer than `_FEWEST`."""
_BLOCK = 1000
"""Pairs whose probability is computed at once, which takes a few megabytes for each array."""
_ENOUGH = 10
"""Extreme draws from which on their share is a good p-value."""


def tukey_hsd(
    groups: Sequence[Systems],
    weights: Sequence[float] = (1.0,),
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> npt.NDArray[np.float64]:
    """Return the p-value of every pair of systems, corrected for all pairs.

    Args:
        groups: the systems' values of the same queries, one array per group of queries.
        weights: weight of each group's mean.
        seed: seed of the random numbers.
        resamples: largest number of random permutations.

    Returns:
        ``(k, k)`` float64, symmetric, 1 on the diagonal.

    Raises:
        ValueError: the groups have no systems in common, or a value is not finite.
    """
    values = [np.asarray(group, np.float64) for group in groups]
    count = {x.shape[1] for x in values if x.ndim == 2 and len(x)}
    if len(count) != 1 or not all(np.isfinite(x).all() for x in values):
        raise ValueError("the groups must hold finite values of the same systems")
    [k] = count
    if k == 2:
        differences = [x[:, 1] - x[:, 0] for x in values]
        p_value, _ = randomisation_p_value(differences, weights, seed=seed, resamples=resamples)
        return np.array([[1.0, p_value], [p_value, 1.0]])
    terms = np.concatenate([w * x / len(x) for x, w in zip(values, weights, strict=True)])
    # Queries on which all systems are equal permute to themselves.
    spreads = np.concatenate([np.ptp(x, axis=1) for x in values])
    terms = terms[spreads > TIE]
    if k < 2 or not len(terms):
        return np.ones((k, k))
    means = terms.sum(axis=0)
    distances = np.abs(means[:, None] - means)
    # The deviation of a system's mean if its queries' values are permuted, beside the mean of all.
    deviation = float(np.sqrt(terms.var(axis=1, ddof=1).sum()))
    limits = range_probability(distances.ravel() / deviation, k).reshape(k, k)
    if len(terms) >= LIMIT_FROM:
        np.fill_diagonal(limits, 1.0)
        return limits
    draws = min(resamples, max(_FEWEST, _BUDGET // terms.size))
    ranges = np.sort(_ranges(terms, draws, np.random.default_rng(seed)))
    rounding = 1e-12 * float(np.abs(terms).sum())
    extreme = draws - np.searchsorted(ranges, distances - rounding)
    p_values: npt.NDArray[np.float64] = (extreme + 1) / (draws + 1)
    far = extreme < _ENOUGH
    p_values[far] = np.minimum(p_values[far], limits[far])
    np.fill_diagonal(p_values, 1.0)
    return p_values


def range_probability(widths: Values, k: int) -> Values:
    """Return the probability that k independent standard normal values span at least a width.

    It is the limit of the permutations' ranges for many queries, in units of one system's standard
    deviation, and the far tail of p-values that draws cannot show. It equals
    ``scipy.stats.studentized_range.sf(width, k, inf)``.

    Args:
        widths: ``(n,)``, each at least 0.
        k: number of values.
    """
    widths = np.asarray(widths, np.float64)
    blocks = [widths[start : start + _BLOCK] for start in range(0, len(widths), _BLOCK)]
    return np.concatenate([_range_probability(block, k) for block in blocks] or [widths])


def _range_probability(widths: Values, k: int) -> Values:
    from scipy.special import ndtr

    # P(range < w) = k ∫ φ(z) (Φ(z + w) − Φ(z))^(k−1) dz, with z the smallest value.
    z = np.linspace(-9.0, 9.0, 721)
    density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    # 1 − (1 − a)^(k−1) without cancellation; a is the mass outside z … z + w of one value.
    outside = ndtr(z) + ndtr(-(z + widths[:, None]))
    inside = np.exp((k - 1) * np.log1p(-np.minimum(outside, 1 - 1e-16)))
    below = k * np.trapezoid(density * inside, z, axis=1)
    # The tail is at most the sum over pairs (Bonferroni), and that bound is sharp far out.
    bound = k * (k - 1) * ndtr(-widths / np.sqrt(2))
    tail = np.where(below < 1 - 1e-6, 1 - below, bound)
    probability: Values = np.maximum(np.minimum(np.minimum(tail, bound), 1.0), 5e-324)
    return probability


def _ranges(terms: Systems, draws: int, generator: np.random.Generator) -> Values:
    """Return the difference of the best and the worst system in random draws, ``(draws,)``."""
    n, k = terms.shape
    shuffled = generator.permuted(terms, axis=1)
    places = (np.arange(k)[:, None] + np.arange(k)) % k
    rotated = shuffled[:, places].reshape(n * k, k)
    rows = np.arange(n) * k
    ranges = np.empty(draws)
    size = max(1, CELLS // terms.size)
    for start in range(0, draws, size):
        stop = min(start + size, draws)
        rotation = generator.integers(0, k, (stop - start, n), dtype=np.int32)
        ranges[start:stop] = np.ptp(rotated[rows + rotation].sum(axis=1), axis=1)
    return ranges
