"""A reranker that scores each pair once, for runs of several depths or first stages."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bge_eval.rerank.reranker import Reranker


class RememberedScores:
    """A reranker with the scores of the pairs that it has scored in this process."""

    def __init__(self, reranker: Reranker) -> None:
        """Remember nothing yet.

        Args:
            reranker: scores the pairs that are new.
        """
        self.reranker = reranker
        self._scores: dict[bytes, float] = {}

    @property
    def unfinished(self) -> Any:
        """Return what keeps the reranker's scores until the task's result is saved."""
        return getattr(self.reranker, "unfinished", None)

    @unfinished.setter
    def unfinished(self, store: Any) -> None:
        if hasattr(self.reranker, "unfinished"):
            self.reranker.unfinished = store

    @property
    def name(self) -> str:
        """Return ``org/model``."""
        return self.reranker.name

    @property
    def packages(self) -> tuple[str, ...]:
        """Return the reranker's own packages."""
        return self.reranker.packages

    def identity(self) -> dict[str, Any]:
        """Return the reranker's own identity: a remembered score is the same score."""
        return self.reranker.identity()

    def score(self, pairs: Sequence[tuple[str, str]]) -> npt.NDArray[np.float64]:
        """Return one score a pair, ``(n_pairs,)`` float64; only new pairs are computed."""
        keys = [_key(*pair) for pair in pairs]
        new = {key: pair for key, pair in zip(keys, pairs, strict=True) if key not in self._scores}
        if new:
            scores = self.reranker.score(list(new.values()))
            if np.shape(scores) != (len(new),):  # the caller names the reranker and the shape
                return scores
            self._scores.update(zip(new, np.asarray(scores, np.float64).tolist(), strict=True))
        return np.array([self._scores[key] for key in keys], np.float64)


def _key(query: str, document: str) -> bytes:
    length = len(query).to_bytes(4, "big")
    return hashlib.blake2b(length + query.encode() + document.encode(), digest_size=16).digest()
