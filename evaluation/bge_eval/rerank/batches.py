"""Batches of (query, document) pairs by a budget of tokens, longest first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BUDGETS = {"cpu": 8192, "cuda": 65536, "mps": 16384}
"""Tokens of a batch, padding included, by kind of device, unless the user says otherwise."""

_TEXTS_PER_CALL = 4096


@dataclass(frozen=True, slots=True)
class Batch:
    """Some of the pairs."""

    rows: npt.NDArray[np.int64]
    """Their positions among all pairs."""
    tokens: int
    """Their tokens, without padding."""


def token_batches(
    pairs: Sequence[tuple[str, str]],
    lengths_of: Callable[[list[str]], list[int]],
    *,
    budget: int,
    limit: int,
    extra: int = 0,
) -> Iterator[Batch]:
    """Yield the pairs of all queries in batches of near lengths, longest first.

    Every distinct text is measured once, however many pairs it stands in.

    Args:
        pairs: (query, document) texts.
        lengths_of: texts to their numbers of tokens, special tokens aside.
        budget: tokens of a batch, padding included.
        limit: tokens at which a pair is cut.
        extra: tokens that every pair has besides its two texts.
    """
    known: dict[str, int] = {}
    distinct = list(dict.fromkeys(text for pair in pairs for text in pair))
    for start in range(0, len(distinct), _TEXTS_PER_CALL):
        part = distinct[start : start + _TEXTS_PER_CALL]
        known |= zip(part, lengths_of(part), strict=True)
    lengths = np.array([known[query] + known[document] for query, document in pairs], np.int64)
    lengths = np.minimum(lengths + extra, limit)
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        longest = max(int(lengths[order[start]]), 1)
        rows = order[start : start + max(budget // longest, 1)]
        yield Batch(rows, int(lengths[rows].sum()))
        start += len(rows)
