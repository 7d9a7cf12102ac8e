"""Pooling in numpy, for the backends that return numpy arrays."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bge_eval.encode.settings import Pooling
from bge_eval.records import Vectors


def pooled(hidden: Vectors, mask: npt.NDArray[np.int64], pooling: Pooling) -> Vectors:
    """Reduce token vectors to one vector per text; see `bge_eval.runtime.torch_forward.pool`.

    Args:
        hidden: ``(batch, tokens, dim)`` float32.
        mask: ``(batch, tokens)``, 1 for the tokens to pool; padding may be on either side.
        pooling: first token, mean or last token.

    Returns:
        ``(batch, dim)`` float32, a copy.
    """
    if pooling is Pooling.MEAN:
        weights = mask.astype(np.float32)
        total = np.matmul(weights[:, None, :], hidden)[:, 0, :]
        means: Vectors = total / np.maximum(weights.sum(axis=1, keepdims=True), np.float32(1e-9))
        return means
    if pooling is Pooling.CLS:
        position = mask.argmax(axis=1)
    else:
        position = mask.shape[1] - 1 - mask[:, ::-1].argmax(axis=1)
    selected: Vectors = hidden[np.arange(len(hidden)), position]
    return selected
