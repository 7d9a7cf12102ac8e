"""Fisher's paired randomisation test.

If two systems were the same, the two values of every query could be swapped, which flips the
sign of their difference (Fisher, "The Design of Experiments", 1935; for retrieval Smucker, Allan
and Carterette, "A Comparison of Statistical Significance Tests for Information Retrieval
Evaluation", CIKM 2007). The p-value is the share of sign flips whose mean is at least as far from
0 as the observed one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from bge_eval.statistics.samples import CELLS, RESAMPLES, TIE, Values, to_values, weighted

EXACT_UP_TO = 16
"""At most this many differing queries: enumerate all 2**16 sign flips."""


def randomisation_p_value(
    differences: Sequence[Sequence[float] | Values],
    weights: Sequence[float] = (1.0,),
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> tuple[float, bool]:
    """Return the p-value of the two-sided paired randomisation test.

    Up to `EXACT_UP_TO` differing queries, all sign flips are enumerated; the result equals
    ``scipy.stats.permutation_test(…, permutation_type="samples")``. Beyond, flips are drawn at
    random and the observed one counts among them, so p is never 0 (Phipson and Smyth,
    "Permutation P-values Should Never Be Zero", SAGMB 9, 2010).

    Args:
        differences: one ``(n_queries,)`` array per group.
        weights: weight of each group's mean.
        seed: seed of the random numbers.
        resamples: number of random sign flips.

    Returns:
        The p-value, and whether it is exact (all sign flips were enumerated).
    """
    values = [to_values(group) for group in differences]
    terms = np.concatenate([weight * x / len(x) for x, weight in weighted(values, weights)])
    # Drop ties so that their rounding does not raise the threshold.
    terms = terms[np.concatenate([np.abs(x) > TIE for x in values])]
    observed = abs(float(terms.sum()))
    # A sum of the same terms in another order may differ in its last digits.
    threshold = observed - 1e-12 * float(np.abs(terms).sum())
    if len(terms) <= EXACT_UP_TO:
        return _share_of_all_flips(terms, threshold), True
    extreme = _count_of_random_flips(terms, threshold, resamples, np.random.default_rng(seed))
    return (extreme + 1) / (resamples + 1), False


def _share_of_all_flips(terms: Values, threshold: float) -> float:
    """Return the share of all sign flips whose absolute sum reaches the threshold."""
    signs = np.unpackbits(
        np.arange(2 ** len(terms), dtype=">u4").view(np.uint8).reshape(-1, 4), axis=1
    )[:, 32 - len(terms) :]
    return float(np.mean(np.abs(_signed_sums(signs, terms)) >= threshold))


def _count_of_random_flips(
    terms: Values, threshold: float, resamples: int, generator: np.random.Generator
) -> int:
    """Count the random sign flips whose absolute sum reaches the threshold."""
    extreme = 0
    size = max(1, CELLS // len(terms))
    for start in range(0, resamples, size):
        count = min(size, resamples - start)
        bits = generator.integers(0, 256, (count, -(-len(terms) // 8)), dtype=np.uint8)
        signs = np.unpackbits(bits, axis=1, count=len(terms))
        extreme += int(np.count_nonzero(np.abs(_signed_sums(signs, terms)) >= threshold))
    return extreme


def _signed_sums(signs: npt.NDArray[np.uint8], terms: Values) -> Values:
    """Return Σ ±term for every row of bits; a set bit flips the sign."""
    sums: Values = terms.sum() - 2 * (signs @ terms)
    return sums
