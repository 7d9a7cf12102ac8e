"""Pooling in numpy, for the backends that return numpy arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from bge_eval.encode.files import ModelFiles
from bge_eval.encode.settings import Pooling, Settings
from bge_eval.records import Vectors

if TYPE_CHECKING:
    from bge_eval.runtime.head import Head

PLAIN = (Pooling.CLS, Pooling.MEAN, Pooling.LAST)
"""The poolings that bge-eval computes itself: importing sentence-transformers takes seconds."""


def head_of(files: ModelFiles, settings: Settings, width: int, device: str = "cpu") -> Head | None:
    """Return the modules that read the token vectors, None where one of `PLAIN` is all.

    Args:
        files: the model's files.
        settings: the pooling and the modules.
        width: length of the token vectors.
        device: torch's device of the token vectors.

    Raises:
        DamagedError: a module's files are damaged, or the modules do not fit each other.
    """
    if not settings.modules and settings.pooling in PLAIN:
        return None
    import torch

    from bge_eval.runtime.head import Head

    return Head(files, settings, width, torch.device(device))


def pooled(hidden: Vectors, mask: npt.NDArray[np.int64], pooling: str) -> Vectors:
    """Reduce token vectors to one vector per text; see `bge_eval.runtime.torch_forward.pool`.

    Args:
        hidden: ``(batch, tokens, dim)`` float32.
        mask: ``(batch, tokens)``, 1 for the tokens to pool; padding may be on either side.
        pooling: first token, mean or last token.

    Returns:
        ``(batch, dim)`` float32, a copy.
    """
    if pooling == Pooling.MEAN:
        weights = mask.astype(np.float32)
        total = np.matmul(weights[:, None, :], hidden)[:, 0, :]
        means: Vectors = total / np.maximum(weights.sum(axis=1, keepdims=True), np.float32(1e-9))
        return means
    if pooling == Pooling.CLS:
        position = mask.argmax(axis=1)
    else:
        last = mask.shape[1] - 1 - mask[:, ::-1].argmax(axis=1)
        # The last place of a text without tokens would depend on its batch.
        position = last * mask.any(axis=1)
    selected: Vectors = hidden[np.arange(len(hidden)), position]
    return selected
