"""Kendall's rank correlation of many pairs of rankings at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_DIGITS = 12
"""Decimals of a score; smaller differences are rounding."""


def kendall(
    first: npt.NDArray[np.float64], second: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return Kendall's tau-b of the systems' order by two scores, for every draw.

    Kendall, "The treatment of ties in ranking problems", Biometrika 33 (1945).

    Args:
        first: ``(draws, systems)`` float64, one score of every system.
        second: the other score, of the same shape.

    Returns:
        ``(draws,)`` float64, -1 to 1; NaN where one of the scores is the same for all systems.
    """
    left, right = np.triu_indices(first.shape[1], k=1)
    one, two = (
        np.sign(np.round(scores[:, left] - scores[:, right], _DIGITS)) for scores in (first, second)
    )
    pairs = np.sqrt((one != 0).sum(axis=1) * (two != 0).sum(axis=1, dtype=float))
    with np.errstate(invalid="ignore"):
        tau: npt.NDArray[np.float64] = (one * two).sum(axis=1) / pairs
    return tau
