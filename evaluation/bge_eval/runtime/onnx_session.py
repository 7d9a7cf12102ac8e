"""A published ONNX file in ONNX Runtime: opened, and given what it takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from bge_eval.errors import DamagedError, one_line
from bge_eval.runtime.batches import model_inputs
from bge_eval.runtime.devices import threads

ONNX_FILE = "onnx/model.onnx"
"""Where repositories have it."""

_FEATURES = ("input_ids", "attention_mask", "token_type_ids")


class OnnxSession:
    """An ONNX model that takes tokens."""

    def __init__(self, path: Path, providers: Sequence[str]) -> None:
        """Open the file.

        Args:
            path: the ONNX file.
            providers: the runtime's names of what is to compute, the first of them if it can.

        Raises:
            DamagedError: it cannot be read, or takes something that no tokenizer gives.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads() or 0
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=list(providers))
        except Exception as error:  # the runtime's own classes have no common parent
            reason = one_line(error)
            raise DamagedError(f"{path} is no readable ONNX model ({reason}).") from error
        self._inputs = [item.name for item in self._session.get_inputs()]
        # Zeros in place of what is not known, positions above all, would be silently wrong.
        if unknown := [name for name in self._inputs if name not in _FEATURES]:
            raise DamagedError(
                f"{path} takes {', '.join(unknown)}; bge-eval gives {', '.join(_FEATURES)}."
                " Export it without, or use --backend torch."
            )

    @property
    def outputs(self) -> list[Any]:
        """Return the runtime's records of the outputs: ``name`` and ``shape``."""
        found: list[Any] = self._session.get_outputs()
        return found

    def run(
        self, output: str, features: Mapping[str, npt.NDArray[np.int64]]
    ) -> npt.NDArray[np.float32]:
        """Return one output of a batch as float32.

        Args:
            output: its name.
            features: ``input_ids`` and ``attention_mask``, ``(batch, tokens)``; token types of a
                tokenizer that gives none are 0.
        """
        inputs = model_inputs(features, self._inputs)
        return np.asarray(self._session.run([output], inputs)[0], np.float32)
