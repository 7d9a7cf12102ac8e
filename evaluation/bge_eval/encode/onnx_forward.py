"""The forward pass with ONNX Runtime, over the ``onnx/model.onnx`` that model authors publish."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import onnxruntime

from bge_eval.encode.pooling import pooled
from bge_eval.encode.settings import Settings, transformer_folder
from bge_eval.encode.text_encoder import Batch, short
from bge_eval.errors import DamagedError, MissingError, UsageError
from bge_eval.machine import threads
from bge_eval.records import ModelFiles, Vectors

_PLACES = ("onnx/model.onnx", "model.onnx")


class OnnxForward:
    """A published ONNX model; what is pooled are its token vectors."""

    backend = "onnx"
    batch_tokens = 4096
    parameters = 0

    def __init__(self, files: ModelFiles, settings: Settings, *, device: str | None = None) -> None:
        """Load the model file.

        Args:
            files: where the model lies.
            settings: pooling.
            device: "cpu" or "cuda"; None takes a GPU if the installed runtime has one.

        Raises:
            MissingError: the folder holds no ONNX file.
            DamagedError: the file cannot be read, or gives no token vectors.
            UsageError: the installed runtime does not know the device.
        """
        self._pooling = settings.pooling
        path = onnx_file(files.folder)
        if path is None:
            raise MissingError(
                f"{files.name} holds no {_PLACES[0]} in {files.folder}, which --backend onnx runs."
                " Use --backend torch."
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads() or 0
        self.device, providers = _providers(device)
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=providers)
        except Exception as error:  # the runtime's own classes have no common parent
            raise DamagedError(f"{path} is no readable ONNX model ({short(error)}).") from error
        self._inputs = [item.name for item in self._session.get_inputs()]
        found = [out for out in self._session.get_outputs() if len(out.shape) == 3]
        named = [out for out in found if out.name in ("last_hidden_state", "token_embeddings")]
        if not found:
            raise DamagedError(
                f"{path} gives no token vectors (an output of three dimensions) but"
                f" {', '.join(out.name for out in self._session.get_outputs())}."
            )
        self._output = (named or found)[0].name
        size = (named or found)[0].shape[2]
        self.dimension = size if isinstance(size, int) else self._measured_dimension()

    def run(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, Vectors]]:
        """See `bge_eval.encode.text_encoder.Forward`."""
        for batch in batches:
            yield batch, pooled(self._hidden(batch), batch.pooled, self._pooling)

    def _hidden(self, batch: Batch) -> Vectors:
        none = np.zeros_like(batch.features["input_ids"])
        given = {name: batch.features.get(name, none) for name in self._inputs}
        [hidden] = self._session.run([self._output], given)
        vectors: Vectors = np.asarray(hidden, np.float32)
        return vectors

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
