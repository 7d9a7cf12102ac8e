"""Confidence intervals of shares, such as the share of queries that fail.

The interval is Wilson's score interval ("Probable Inference, the Law of Succession, and Statistical
Inference", JASA 22, 1927), which keeps its coverage for few cases and for shares near 0 and 1
(Brown, Cai and DasGupta, "Interval Estimation for a Binomial Proportion", Statistical Science 16,
2001).
"""

from __future__ import annotations

from math import sqrt
from statistics import NormalDist

from bge_eval.statistics.intervals import CONFIDENCE, Interval


def share_interval(count: int, total: int, confidence: float = CONFIDENCE) -> Interval:
    """Return the interval of the share ``count / total``, both ends between 0 and 1.

    Args:
        count: the cases that have the property.
        total: all cases, at least 1.
        confidence: share of samples in which the interval should contain the true share.

    Raises:
        ValueError: there is no case, or ``count`` is not between 0 and ``total``.
    """
    if total < 1 or not 0 <= count <= total:
        raise ValueError(f"a share needs 0 <= count <= total and a total, not {count} of {total}")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = count / total
    centre = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * sqrt(share * (1 - share) / total + (z / (2 * total)) ** 2)
    low = 0.0 if count == 0 else centre - half
    return Interval(low, 1.0 if count == total else centre + half)
