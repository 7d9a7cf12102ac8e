"""What the second stage asks of a reranker, whichever family it is of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from bge_eval.errors import DamagedError


class Reranker(Protocol):
    """Scores pairs of texts; weights are loaded when the first pair is scored."""

    @property
    def name(self) -> str:
        """Return ``org/model``, as results are filed."""

    @property
    def packages(self) -> tuple[str, ...]:
        """Return the packages, beside those of every run, whose version can change a score."""

    def identity(self) -> dict[str, Any]:
        """Return everything the scores depend on; at least name, revision, dtype, max_length.

        What is not the reranker's own way (``None``, "float32") names the results' folder.
        """

    def score(self, pairs: Sequence[tuple[str, str]]) -> npt.NDArray[np.float64]:
        """Return one score a pair, ``(n_pairs,)`` float64, higher is more relevant."""


def checked(scores: npt.NDArray[np.float64], name: str, dtype: str) -> npt.NDArray[np.float64]:
    """Return scores that are finite.

    Raises:
        DamagedError: some are not; half precision can overflow.
    """
    if not np.isfinite(scores).all():
        raise DamagedError(
            f"{name} gave scores that are not finite in {dtype}. Use --dtype float32 or bfloat16."
        )
    return scores
