"""Models compiled for one shape of batch that occurs often.

OpenVINO computes attention and normalisation faster where it knows a batch's texts and tokens. Most
long texts are cut at the maximum length, so most of their batches have one shape. A model compiled
for this shape is used only if it gives the same bits as the one that takes every shape: a vector
does not depend on how often its batch's shape occurs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from bge_eval.runtime.batches import Tokens
from bge_eval.runtime.converted import Conversion

Shape = tuple[int, ...]
"""Texts and tokens of a batch, padding included."""

OFTEN = 16
"""How often a shape has occurred when a model is compiled for it, which soon repays."""
_LEAST_TOKENS = 128
"""Tokens of a text below which a known shape saves no time."""
_PRECISIONS = ("float32", "bfloat16")
"""int8 rounds otherwise where it knows a shape, so comparing would be in vain."""
_MOST_SHAPES = 4
_MOST_BYTES = 2**29
"""Memory for all these models: each copies the weights."""


class FrequentShapes:
    """Counts the shapes of batches and compiles models for the frequent ones."""

    def __init__(self, converted: Conversion, dtype: str) -> None:
        """Compile nothing yet.

        Args:
            converted: the model that takes every shape.
            dtype: its precision, as `Conversion.compiled` takes it.
        """
        self._converted = converted
        self._dtype = dtype
        self._seen: Counter[Shape] = Counter()
        affordable = min(_MOST_SHAPES, _MOST_BYTES // max(converted.facts.size, 1))
        self._most = affordable if dtype in _PRECISIONS else 0
        self.compiled: dict[Shape, Any] = {}
        """Shape → the model compiled for it."""

    def due(self, shape: Shape) -> bool:
        """Count a batch's shape; return whether a model should now be compiled for it."""
        self._seen[shape] += 1
        wanted = self._seen[shape] == OFTEN and shape[1] >= _LEAST_TOKENS
        return wanted and len(self.compiled) < self._most

    def compile(self, shape: Shape, inputs: Mapping[str, Tokens], request: Any) -> None:
        """Compile a model for a shape, and keep it if it gives the same bits.

        If it does not, no other shape is tried.

        Args:
            shape: texts and tokens.
            inputs: a batch of this shape.
            request: an idle request of the model that takes every shape.
        """
        compiled = self._converted.compiled(self._dtype, throughput=True, shape=shape)
        own = compiled.create_infer_request()
        for each in (request, own):
            each.infer(inputs)
        if np.array_equal(request.get_output_tensor(0).data, own.get_output_tensor(0).data):
            self.compiled[shape] = compiled
        else:
            self._most = 0
