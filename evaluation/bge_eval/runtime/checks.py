"""Checks of what a model computed: a number that cannot be right never becomes a score."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bge_eval.errors import DamagedError, quoted
from bge_eval.records import Vectors

_FEWEST = 3
"""Different texts for which one vector is a fault; two may be equal where they are cut."""
_SAME = 1e-6
"""Largest difference of numbers that are the same but for rounding, relative to the largest."""


def refuse_unusable(
    vectors: Vectors, texts: Sequence[str], dtype: str = "", *, zero: bool = False
) -> None:
    """Refuse vectors that are not finite or zero.

    A zero vector has no direction: its similarity to every text is 0. An empty text may have one,
    since some models have no token for it.

    Args:
        vectors: ``(n, dim)`` float32.
        texts: the text of every row.
        dtype: the precision of the model; "" if it is unknown.
        zero: accept zero vectors: static embeddings have one of a text without known words.

    Raises:
        DamagedError: a vector is not finite or zero; the message names its text.
    """
    # One pass: a sum of squares is finite and positive if every number is, unless it overflows.
    squares = np.einsum("ij,ij->i", vectors, vectors)
    suspects = np.flatnonzero(~(np.isfinite(squares) & (squares > 0))).tolist()
    for row in suspects:
        if not np.isfinite(vectors[row]).all():
            where = f" in {dtype}. Use --dtype float32 or bfloat16." if dtype else "."
            raise DamagedError(
                f"The model's vector of the text {quoted(texts[row])} is not finite{where}"
            )
        if not zero and not vectors[row].any() and texts[row].strip():
            raise DamagedError(
                f"The model's vector of the text {quoted(texts[row])} is zero: it has no"
                " direction to compare. The model's weights or its tokenizer are damaged."
            )


class Spread:
    """Whether different texts have different vectors: one vector for all is a broken model."""

    def __init__(self, model: str) -> None:
        """Begin with no vector.

        Args:
            model: the model's name, for the message.
        """
        self._model = model
        self._first: Vectors | None = None
        self._texts: set[str] = set()
        self._differ = False

    def add(self, vectors: Vectors, texts: Sequence[str]) -> None:
        """Look at more vectors, ``(n, dim)`` float32, of as many texts."""
        if self._differ or not len(vectors):
            return
        if self._first is None:
            self._first = vectors[0].copy()
        largest = float(np.abs(self._first).max())
        self._differ = bool(np.abs(vectors - self._first).max() > _SAME * largest)
        for text in texts:
            if len(self._texts) < _FEWEST:
                self._texts.add(text)

    def refuse_constant(self) -> None:
        """Refuse vectors that are all alike.

        Raises:
            DamagedError: three texts or more that differ have the same vector.
        """
        if not self._differ and len(self._texts) >= _FEWEST:
            raise DamagedError(
                f"{self._model} gave the same vector to all texts, such as"
                f" {' and '.join(quoted(text, 40) for text in sorted(self._texts)[:2])}, so none"
                " can be told from another. Its weights or its tokenizer are damaged."
            )


def refuse_misshapen(vectors: Vectors, count: int, dimension: int | None, model: str) -> None:
    """Refuse vectors of another number or dimension than expected.

    Args:
        vectors: what the model returned.
        count: the number of texts.
        dimension: the dimension of the model's other vectors; None if this is the first call.
        model: the model's name.

    Raises:
        DamagedError: the shape is another one.
    """
    if vectors.ndim != 2 or len(vectors) != count:
        raise DamagedError(
            f"{model} gave an array of shape {vectors.shape} for {count} texts; expected one"
            " vector for each text."
        )
    if dimension is not None and vectors.shape[1] != dimension:
        raise DamagedError(
            f"{model} gave vectors of {vectors.shape[1]} dimensions after vectors of"
            f" {dimension}: all texts need vectors of one dimension."
        )
