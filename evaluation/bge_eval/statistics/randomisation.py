"""Fisher's paired randomisation test.

If two systems were the same, the two values of every query could be swapped, which flips the
sign of their difference (Fisher, "The Design of Experiments", 1935; for retrieval Smucker, Allan
and Carterette, "A Comparison of Statistical Significance Tests for Information Retrieval
Evaluation", CIKM 2007). The p-value is the share of sign flips whose mean is at least as far from
0 as the observed one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bge_eval.statistics.samples import CELLS, RESAMPLES, TIE, Values, to_values, weighted

EXACT_UP_TO = 16
"""At most this many differing queries: enumerate all 2**16 sign flips."""
SADDLEPOINT_FROM = 500
"""At least this many differing queries: nothing is drawn; the error of the saddlepoint
approximation is below that of random flips."""
_EXACT_TAIL_UP_TO = 22
"""At most this many differing queries: enumerate all sums where random flips are too few."""
_ENOUGH = 10
"""Extreme flips among the random ones from which on their share is a good p-value."""


@dataclass(frozen=True, slots=True)
class Randomisation:
    """The result of a randomisation test."""

    p_value: float
    """Two-sided p-value, above 0."""
    exact: bool
    """Whether all sign flips were enumerated."""
    significant: bool
    """Whether the p-value is below the level."""
    critical: float
    """The smallest absolute difference that would be significant at the level, from the flips: the
    observed difference is above it if, and only if, the p-value is below the level."""


def randomisation_test(
    differences: Sequence[Sequence[float] | Values],
    weights: Sequence[float] = (1.0,),
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = 0.05,
) -> Randomisation:
    """Test whether the weighted mean of paired differences is 0.

    Up to `EXACT_UP_TO` differing queries, all sign flips are enumerated; the p-value equals
    ``scipy.stats.permutation_test(…, permutation_type="samples")``. Beyond, flips are drawn at
    random and the observed one counts among them, so p is never 0 (Phipson and Smyth,
    "Permutation P-values Should Never Be Zero", SAGMB 9, 2010). Random flips cannot show a
    p-value below one in their number, which a correction for thousands of tests needs: where
    almost none is extreme, p is the tail of the flips' own distribution (`tail_probability`), and
    so it is from `SADDLEPOINT_FROM` differing queries on.

    Args:
        differences: one ``(n_queries,)`` array per group.
        weights: weight of each group's mean.
        seed: seed of the random numbers.
        resamples: number of random sign flips.
        level: the level of the critical difference.
    """
    values = [to_values(group) for group in differences]
    terms = np.concatenate([weight * x / len(x) for x, weight in weighted(values, weights)])
    # Drop ties so that their rounding does not raise the threshold.
    terms = terms[np.concatenate([np.abs(x) > TIE for x in values])]
    if len(terms) <= EXACT_UP_TO:
        return decided(terms, _all_sums(terms), level=level, exact=True)
    if len(terms) >= SADDLEPOINT_FROM:
        return decided(terms, np.empty(0), level=level, exact=False)
    sums = _random_sums(terms, resamples, np.random.default_rng(seed))
    return decided(terms, sums, level=level, exact=False)


def decided(terms: Values, sums: Values, *, level: float, exact: bool) -> Randomisation:
    """Return the result of a test from the sums of its sign flips.

    Args:
        terms: ``(n_queries,)``, each query's part of the mean difference; none is 0.
        sums: ``(n_flips,)``, the absolute sums of sign flips of the terms; they are not looked at
            from `SADDLEPOINT_FROM` terms on.
        level: the level of the critical difference.
        exact: whether the sums are those of all sign flips.
    """
    observed = abs(float(terms.sum()))
    # A sum of the same terms in another order may differ in its last digits.
    rounding = 1e-12 * float(np.abs(terms).sum())
    extreme = int(np.count_nonzero(sums >= observed - rounding))
    if exact:
        p_value, allowed = extreme / len(sums), int(np.ceil(level * len(sums))) - 1
    elif len(terms) >= SADDLEPOINT_FROM:
        from scipy.special import ndtri

        p_value, exact = tail_probability(terms, observed - rounding)
        sums, allowed = np.array([-ndtri(level / 2) * np.sqrt(np.square(terms).sum())]), 0
    else:
        p_value = (extreme + 1) / (len(sums) + 1)
        allowed = int(np.ceil(level * (len(sums) + 1))) - 2
        if extreme < _ENOUGH:
            p_value, exact = tail_probability(terms, observed - rounding)
    # Of the sums, at most `allowed` may reach a significant one: the next largest is the limit.
    place = len(sums) - 1 - min(max(allowed, 0), len(sums) - 1)
    critical = float(np.partition(sums, place)[place])
    # A tail far beyond the flips, or rounding, must not contradict the p-value.
    if p_value < level:
        return Randomisation(p_value, exact, True, min(critical, observed * (1 - 1e-9)))
    return Randomisation(p_value, exact, False, max(critical, observed))


def randomisation_p_value(
    differences: Sequence[Sequence[float] | Values],
    weights: Sequence[float] = (1.0,),
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> tuple[float, bool]:
    """Return the p-value of `randomisation_test`, and whether it is exact."""
    test = randomisation_test(differences, weights, seed=seed, resamples=resamples)
    return test.p_value, test.exact


def tail_probability(terms: Values, threshold: float) -> tuple[float, bool]:
    """Return the probability that a random sign flip's absolute sum reaches a threshold.

    Terms of one size are a binomial distribution and up to `_EXACT_TAIL_UP_TO` terms are
    enumerated; both are exact. Otherwise the tail is a saddlepoint approximation (Robinson,
    "Saddlepoint Approximations for Permutation Tests and Confidence Intervals", JRSS B 44, 1982)
    in the form of Barndorff-Nielsen ("Modified Signed Log Likelihood Ratio", Biometrika 78,
    1991). Its cumulant generating function, Σ log cosh(term · t), is known exactly.

    Args:
        terms: ``(n,)`` numbers, none of them 0.
        threshold: an absolute sum, above 0.

    Returns:
        The two-sided probability, above 0, and whether it is exact.
    """
    sizes = np.sort(np.abs(terms))
    count, total = len(sizes), float(sizes.sum())
    # All terms of one sign: only that flip and its mirror image reach the threshold.
    fewest = max(2.0 ** max(1 - count, -1074), 5e-324)
    if threshold > total - 2 * float(sizes[0]) * (1 - 1e-9):
        return fewest, True
    if np.ptp(sizes) <= 1e-12 * sizes[-1]:
        from scipy.stats import binom

        flipped = np.floor((total - threshold) / (2 * sizes[0]) * (1 + 1e-12))
        return max(min(1.0, 2 * float(binom.cdf(flipped, count, 0.5))), fewest), True
    if count <= _EXACT_TAIL_UP_TO:
        sums = np.zeros(1)
        for size in sizes:
            sums = np.concatenate([sums - size, sums + size])
        return float(np.mean(np.abs(sums) >= threshold)), True
    return max(_saddlepoint_tail(sizes, threshold), fewest), False


def _saddlepoint_tail(sizes: Values, threshold: float) -> float:
    """Approximate the two-sided tail of Σ ±size; see `tail_probability`."""
    from scipy.optimize import brentq
    from scipy.special import ndtr

    def slope_beyond(t: float) -> float:
        return float((sizes * np.tanh(sizes * t)).sum()) - threshold

    upper = threshold / float(np.square(sizes).sum())
    # Near 0 the approximation divides by 0; there it is the normal distribution's.
    normal = threshold / float(np.sqrt(np.square(sizes).sum()))
    if normal < 1e-3:
        return 2 * float(ndtr(-max(normal, 0.0)))
    while slope_beyond(upper) < 0:
        upper *= 2
    t = brentq(slope_beyond, 0.0, upper, xtol=1e-14 * upper, rtol=1e-12)
    scaled = sizes * t
    # log cosh x without overflow
    cumulant = float((scaled + np.log1p(np.exp(-2 * scaled)) - np.log(2)).sum())
    root = float(np.sqrt(2 * (t * threshold - cumulant)))
    curvature = float(np.square(sizes / np.cosh(np.minimum(scaled, 350.0))).sum())
    return 2 * float(ndtr(-(root + np.log(t * np.sqrt(curvature) / root) / root)))


def _all_sums(terms: Values) -> Values:
    """Return the absolute sums of all sign flips, ``(2**n,)``."""
    signs = np.unpackbits(
        np.arange(2 ** len(terms), dtype=">u4").view(np.uint8).reshape(-1, 4), axis=1
    )[:, 32 - len(terms) :]
    return np.abs(_signed_sums(signs, terms))


def _random_sums(terms: Values, resamples: int, generator: np.random.Generator) -> Values:
    """Return the absolute sums of random sign flips, ``(resamples,)``."""
    sums = np.empty(resamples)
    size = max(1, CELLS // len(terms))
    for start in range(0, resamples, size):
        stop = min(start + size, resamples)
        bits = generator.integers(0, 256, (stop - start, -(-len(terms) // 8)), dtype=np.uint8)
        signs = np.unpackbits(bits, axis=1, count=len(terms))
        sums[start:stop] = np.abs(_signed_sums(signs, terms))
    return sums


def _signed_sums(signs: npt.NDArray[np.uint8], terms: Values) -> Values:
    """Return Σ ±term for every row of bits; a set bit flips the sign."""
    sums: Values = terms.sum() - 2 * (signs @ terms)
    return sums
