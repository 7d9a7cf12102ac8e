"""Batches that do not fit into a GPU's memory are computed in parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from bge_eval.errors import NotReadyError, one_line

_T = TypeVar("_T")


class Fitting:
    """Computes batches whole, and in twice as many parts each time that memory runs out.

    The number of parts stays for the batches that follow: they have about as many tokens.
    """

    def __init__(self, model: str, note: Callable[[str], None]) -> None:
        """Begin with whole batches.

        Args:
            model: the model's name, for messages.
            note: is told that batches are computed in parts.
        """
        self._model = model
        self._note = note
        self._parts = 1

    def run(self, count: int, compute: Callable[[slice], _T]) -> list[_T]:
        """Return what a function computes of the parts of a batch, in their order.

        Args:
            count: texts of the batch, at least 1.
            compute: computes the texts of a part.

        Raises:
            NotReadyError: the memory does not hold a single text.
        """
        while True:
            size = -(-count // min(self._parts, count))
            try:
                return [
                    compute(slice(start, min(start + size, count)))
                    for start in range(0, count, size)
                ]
            except torch.cuda.OutOfMemoryError as error:
                if size == 1:
                    raise NotReadyError(
                        f"The memory of the GPU does not hold {self._model} and one text"
                        f" ({one_line(error)}). Use --dtype bfloat16, a smaller maximum length, or"
                        " --device cpu."
                    ) from error
            # Not in the handler, whose traceback keeps the tensors of the failed pass alive.
            if self._parts == 1:
                self._note(
                    f"A batch of {self._model} does not fit into the GPU's memory: batches are"
                    " computed in parts. A smaller --batch-tokens saves the attempts."
                )
            self._parts *= 2
            torch.cuda.empty_cache()
