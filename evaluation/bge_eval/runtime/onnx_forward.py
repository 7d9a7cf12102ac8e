"""The forward pass with ONNX Runtime, over the ``onnx/model.onnx`` that model authors publish."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import onnxruntime

from bge_eval.encode.config import transformer_folder
from bge_eval.encode.settings import Settings
from bge_eval.errors import DamagedError, MissingError, UsageError
from bge_eval.records import ModelFiles, Vectors
from bge_eval.runtime.batches import BATCH_TOKENS
from bge_eval.runtime.onnx_session import ONNX_FILE, OnnxSession
from bge_eval.runtime.pooling import pooled
from bge_eval.runtime.text_encoder import Batch

_PLACES = (ONNX_FILE, "model.onnx")


class OnnxForward:
    """A published ONNX model; what is pooled are its token vectors."""

    backend = "onnx"
    batch_tokens = BATCH_TOKENS["onnx"]
    parameters = 0

    def __init__(self, files: ModelFiles, settings: Settings, *, device: str | None = None) -> None:
        """Load the model file.

        Args:
            files: where the model lies.
            settings: pooling.
            device: "cpu" or "cuda"; None takes a GPU if the installed runtime has one.

        Raises:
            MissingError: the folder holds no ONNX file.
            DamagedError: the file cannot be read, or gives no token vectors; see `OnnxSession`.
            UsageError: the installed runtime does not know the device.
        """
        self._pooling = settings.pooling
        path = onnx_file(files.folder)
        if path is None:
            raise MissingError(
                f"{files.name} holds no {_PLACES[0]} in {files.folder}, which --backend onnx runs."
                " Use --backend torch."
            )
        self.device, providers = _providers(device)
        self._session = OnnxSession(path, providers)
        found = [out for out in self._session.outputs if len(out.shape) == 3]
        named = [out for out in found if out.name in ("last_hidden_state", "token_embeddings")]
        if not found:
            raise DamagedError(
                f"{path} gives no token vectors (an output of three dimensions) but"
                f" {', '.join(out.name for out in self._session.outputs)}."
            )
        self._output = (named or found)[0].name
        size = (named or found)[0].shape[2]
        self.dimension = size if isinstance(size, int) else self._measured_dimension()

    def run(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, Vectors]]:
        """See `bge_eval.runtime.text_encoder.Forward`."""
        for batch in batches:
            yield batch, pooled(self._hidden(batch), batch.pooled, self._pooling)

    def _hidden(self, batch: Batch) -> Vectors:
        return self._session.run(self._output, batch.features)

    def _measured_dimension(self) -> int:
        ones = np.ones((1, 2), np.int64)
        batch = Batch(np.zeros(1, np.int64), {"input_ids": ones, "attention_mask": ones}, ones, 2)
        return int(self._hidden(batch).shape[2])


def onnx_file(folder: Path) -> Path | None:
    """Return the ONNX model of a repository, or None if it holds none."""
    places = [root / name for root in (folder, transformer_folder(folder)) for name in _PLACES]
    return next((path for path in places if path.is_file()), None)


def _providers(device: str | None) -> tuple[str, list[str]]:
    known = onnxruntime.get_available_providers()
    if device in (None, "cpu"):
        if device is None and "CUDAExecutionProvider" in known:
            return "cuda", ["CUDAExecutionProvider", "CPUExecutionProvider"]
        return "cpu", ["CPUExecutionProvider"]
    if device == "cuda" and "CUDAExecutionProvider" in known:
        return "cuda", ["CUDAExecutionProvider", "CPUExecutionProvider"]
    raise UsageError(
        f"The installed ONNX Runtime does not compute on '{device}'; it has {', '.join(known)}."
    )
