"""An ONNX model with token inputs in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from bge_eval.encode.config import refuse_pointer
from bge_eval.errors import DamagedError, one_line
from bge_eval.runtime.batches import model_inputs
from bge_eval.runtime.devices import threads

ONNX_FILE = "onnx/model.onnx"
"""The path of the ONNX model in a repository."""

_FEATURES = ("input_ids", "attention_mask", "token_type_ids")


class OnnxSession:
    """An open ONNX model with token inputs."""

    def __init__(self, path: Path, providers: Sequence[str]) -> None:
        """Open the file.

        Args:
            path: the ONNX file.
            providers: ONNX Runtime's execution providers, in order of preference.

        Raises:
            DamagedError: the file is unreadable, or has an input that bge-eval does not provide.
        """
        with path.open("rb") as file:
            refuse_pointer(path, file.read(64))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads() or 0
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=list(providers))
        except Exception as error:  # the runtime's exceptions have no common base
            reason = one_line(error)
            raise DamagedError(f"{path} is not a readable ONNX model ({reason}).") from error
        self._inputs = [item.name for item in self._session.get_inputs()]
        # Zeros for an unknown input, such as positions, would silently give wrong vectors.
        if unknown := [name for name in self._inputs if name not in _FEATURES]:
            raise DamagedError(
                f"{path} needs the input {', '.join(unknown)}; bge-eval provides"
                f" {', '.join(_FEATURES)}. Export it without, or use --backend torch."
            )

    @property
    def outputs(self) -> list[Any]:
        """Return the runtime's output records, each with ``name`` and ``shape``."""
        outputs: list[Any] = self._session.get_outputs()
        return outputs

    def run(
        self, output: str, features: Mapping[str, npt.NDArray[np.int64]]
    ) -> npt.NDArray[np.float32]:
        """Return one output of a batch as float32.

        Args:
            output: name of the output.
            features: ``input_ids`` and ``attention_mask``, ``(batch, tokens)``; missing
                ``token_type_ids`` are 0.
        """
        inputs = model_inputs(features, self._inputs)
        return np.asarray(self._session.run([output], inputs)[0], np.float32)
