"""Values of one measure by query, in groups, and their weighted mean.

A group is a task, or a split or subset of one. A mean over several tasks weighs every group's
mean; samples are drawn within each group.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
"""``(n_queries,)`` float64, one value for each query."""

RESAMPLES = 10_000
"""Default number of bootstrap samples and of random sign flips."""
TIE = 1e-9
"""Largest difference at which two values of a query count as equal."""
CELLS = 2**18
"""Random numbers drawn in one block; a block stays in the processor's cache."""


def to_values(group: Sequence[float] | Values) -> Values:
    """Return a group as ``(n_queries,)`` float64.

    Raises:
        ValueError: the group is empty, has more than one dimension or a value is not finite.
    """
    values = np.asarray(group, np.float64)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise ValueError("a group of values must be one finite number for each query")
    return values


def weighted(values: Sequence[Values], weights: Sequence[float]) -> list[tuple[Values, float]]:
    """Pair every group with its weight.

    Raises:
        ValueError: the numbers of groups and weights differ.
    """
    return list(zip(values, weights, strict=True))


def weighted_mean(values: Sequence[Values], weights: Sequence[float]) -> float:
    """Return the sum of the groups' means, each times its weight."""
    return sum(weight * float(x.mean()) for x, weight in weighted(values, weights))
