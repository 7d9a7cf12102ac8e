"""The representations that BGE-M3 makes of texts, and how they are compared and kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt


class Mode(StrEnum):
    """One of BGE-M3's ways to compare texts."""

    DENSE = "dense"
    SPARSE = "sparse"
    COLBERT = "colbert"


@dataclass(frozen=True, slots=True)
class M3Vectors:
    """The representations of some texts, in up to three modes."""

    dense: npt.NDArray[np.float32]
    """``(n, dim)``."""
    sparse: Any
    """``(n, vocabulary)`` scipy CSR matrix, or None."""
    tokens: list[npt.NDArray[np.float32]]
    """For each text ``(tokens, dim)``; empty without the mode."""

    def arrays(self) -> Iterator[list[npt.NDArray[Any]]]:
        """Yield for each text its arrays: dense vector, token ids and weights, token vectors."""
        for row, dense in enumerate(self.dense):
            ids, weights = np.empty(0, np.int32), np.empty(0, np.float32)
            if self.sparse is not None:
                own = slice(self.sparse.indptr[row], self.sparse.indptr[row + 1])
                ids, weights = self.sparse.indices[own].astype(np.int32), self.sparse.data[own]
            tokens = self.tokens[row] if self.tokens else np.empty((0, 0), np.float32)
            yield [dense, ids, weights, tokens]


def text_weights(
    ids: Sequence[Sequence[int]], values: npt.NDArray[np.float32], unused: set[int], vocabulary: int
) -> Any:
    """Return texts' sparse vectors: a word piece's weight is the largest of its tokens.

    Args:
        ids: token ids of every text.
        values: ``(n_texts, tokens)``: weights of the tokens, padded on the right.
        unused: token ids that have no weight.
        vocabulary: number of word pieces.

    Returns:
        ``(n_texts, vocabulary)`` CSR matrix.
    """
    from scipy.sparse import csr_matrix

    weights: dict[tuple[int, int], float] = {}
    for row, (of_text, numbers) in enumerate(zip(ids, values, strict=True)):
        for token, value in zip(of_text, numbers[: len(of_text)].tolist(), strict=True):
            if value > weights.get((row, token), 0.0) and token not in unused:
                weights[row, token] = value
    at = np.array(list(weights), np.int64).reshape(-1, 2)
    made = np.array(list(weights.values()), np.float32)
    return csr_matrix((made, (at[:, 0], at[:, 1])), shape=(len(ids), vocabulary))


def joined(
    arrays: Sequence[Sequence[npt.NDArray[np.float32]]], vocabulary: int | None, dimension: int
) -> M3Vectors:
    """Return the representations of texts from their arrays.

    Args:
        arrays: for each text what `M3Vectors.arrays` yields; ids may be seen as float32.
        vocabulary: columns of the sparse matrix; None makes none.
        dimension: length of a dense vector.
    """
    from scipy.sparse import csr_matrix

    dense = np.array([each[0] for each in arrays], np.float32).reshape(len(arrays), dimension)
    sparse = None
    if vocabulary is not None:
        ids = [each[1].view(np.int32) for each in arrays]
        ends = np.cumsum([0, *map(len, ids)])
        indices = np.concatenate([np.empty(0, np.int32), *ids])
        weights = np.concatenate([np.empty(0, np.float32), *(each[2] for each in arrays)])
        sparse = csr_matrix((weights, indices, ends), shape=(len(arrays), vocabulary))
    return M3Vectors(dense, sparse, [each[3] for each in arrays])


def compared(
    asked: M3Vectors, documents: M3Vectors, weights: Mapping[Mode, float]
) -> npt.NDArray[np.float32]:
    """Return the weighted mean of dense and sparse scores, ``(n_queries, n_documents)``."""
    total = np.zeros((len(asked.dense), len(documents.dense)), np.float32)
    if dense := weights.get(Mode.DENSE, 0.0):
        total += np.float32(dense) * (asked.dense @ documents.dense.T)
    if sparse := weights.get(Mode.SPARSE, 0.0):
        total += np.float32(sparse) * (asked.sparse @ documents.sparse.T).toarray()
    return total / np.float32(sum(weights.values()))
