"""Batches by a budget of tokens: which texts go through a model together, and their padding."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Tokens = npt.NDArray[np.int64]
"""``(batch, tokens)``."""

WINDOW = 4096
"""Texts that are tokenised and sorted by length together: enough to batch equal lengths."""

BATCH_TOKENS = {
    "cpu": 8192,
    "cuda": 65536,
    "mps": 16384,
    "openvino": 2048,
    "onnx": 4096,
    "server": 8192,
}
"""Default tokens of a batch: by torch's device type, by backend, or for a request to a server.

Padding is included, except in requests, which carry none. ``benchmarks/batch_shapes.py`` measures
OpenVINO with several numbers.
"""


def default_batch_tokens(device_type: str) -> int:
    """Return the default tokens of a batch for one of torch's device types."""
    return BATCH_TOKENS.get(device_type, BATCH_TOKENS["cpu"])


@dataclass(frozen=True, slots=True)
class PairBatch:
    """The pairs of one batch."""

    rows: npt.NDArray[np.int64]
    """``(batch,)``: the positions of its pairs among all pairs."""
    tokens: int
    """The number of its tokens, without padding."""


def batches_by_length(
    lengths: npt.NDArray[np.int64], batch_tokens: int
) -> Iterator[npt.NDArray[np.int64]]:
    """Yield the rows of each batch, ``(batch,)`` int64, longest first.

    A batch holds as many rows as fit the budget when all are padded to its longest, at least one.

    Args:
        lengths: ``(n,)``: tokens of each row.
        batch_tokens: tokens of a batch, padding included.
    """
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        longest = max(int(lengths[order[start]]), 1)
        rows = order[start : start + max(batch_tokens // longest, 1)]
        yield rows
        start += len(rows)


@dataclass(frozen=True, slots=True)
class PairRule:
    """How pairs are cut and batched; the same pairs make the same batches wherever they are made.

    The pairs of consecutive batches, in their order, make those batches again.
    """

    count_tokens: Callable[[list[str]], list[int]]
    """Texts to their numbers of tokens, special tokens excluded."""
    batch_tokens: int
    """Tokens of a batch, padding included."""
    max_length: int
    """Tokens at which a pair is truncated."""
    extra_tokens: int = 0
    """Tokens of every pair besides its two texts."""

    def lengths(self, pairs: Sequence[tuple[str, str]]) -> npt.NDArray[np.int64]:
        """Return the tokens of (query, document) pairs: ``(n_pairs,)``.

        Each distinct text is tokenised once, however many pairs contain it.
        """
        counts: dict[str, int] = {}
        distinct = list(dict.fromkeys(text for pair in pairs for text in pair))
        for start in range(0, len(distinct), WINDOW):
            window = distinct[start : start + WINDOW]
            counts |= zip(window, self.count_tokens(window), strict=True)
        lengths = np.array([counts[query] + counts[text] for query, text in pairs], np.int64)
        return np.minimum(lengths + self.extra_tokens, self.max_length)

    def batches(self, pairs: Sequence[tuple[str, str]]) -> Iterator[PairBatch]:
        """Yield batches of pairs of similar length, longest first."""
        lengths = self.lengths(pairs)
        for rows in batches_by_length(lengths, self.batch_tokens):
            yield PairBatch(rows, int(lengths[rows].sum()))


def request_batches(
    sizes: Sequence[int], rows: Sequence[int], *, batch_tokens: int, max_texts: int
) -> list[list[int]]:
    """Return the rows of each request to a server, in the given order.

    A request is closed when the next text exceeds its budget or its number of texts.

    Args:
        sizes: estimated tokens of every row.
        rows: the rows to send.
        batch_tokens: estimated tokens of a request; a longer text gets a request of its own.
        max_texts: the most texts of a request.
    """
    batches: list[list[int]] = []
    room = 0
    for row in rows:
        if not batches or sizes[row] > room or len(batches[-1]) >= max_texts:
            batches.append([])
            room = batch_tokens
        batches[-1].append(row)
        room -= sizes[row]
    return batches


def model_inputs(features: Mapping[str, Tokens], names: Sequence[str]) -> dict[str, Tokens]:
    """Return the inputs that a model takes; those the tokenizer lacks (token types) are zeros.

    Args:
        features: what the tokenizer returned, ``input_ids`` at least.
        names: the names of the model's inputs.
    """
    zeros = np.zeros_like(features["input_ids"])
    return {name: features.get(name, zeros) for name in names}


def padded(rows: Sequence[Sequence[int]], width: int, value: int, *, left: bool) -> Tokens:
    """Return rows of tokens as one array, ``(n_rows, width)`` int64.

    Args:
        rows: token ids of each text.
        width: the length to pad to.
        value: what fills the padding.
        left: pad on the left instead of the right.
    """
    array = np.full((len(rows), width), value, np.int64)
    for index, row in enumerate(rows):
        if left:
            array[index, width - len(row) :] = row
        else:
            array[index, : len(row)] = row
    return array
