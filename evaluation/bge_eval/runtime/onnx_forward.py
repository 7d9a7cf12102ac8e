"""The forward pass in ONNX Runtime, with the ``onnx/model.onnx`` of a model's repository."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import onnxruntime

from bge_eval.encode.config import transformer_folder
from bge_eval.encode.files import ModelFiles
from bge_eval.encode.settings import Settings
from bge_eval.errors import DamagedError, MissingError, UsageError
from bge_eval.records import Vectors
from bge_eval.runtime.batches import BATCH_TOKENS
from bge_eval.runtime.onnx_session import ONNX_FILE, OnnxSession
from bge_eval.runtime.pooling import head_of, pooled
from bge_eval.runtime.text_encoder import Batch

_PATHS = (ONNX_FILE, "model.onnx")


class OnnxForward:
    """A published ONNX model whose token vectors are pooled."""

    backend = "onnx"
    batch_tokens = BATCH_TOKENS["onnx"]
    parameters = 0

    def __init__(self, files: ModelFiles, settings: Settings, *, device: str | None = None) -> None:
        """Load the model file.

        Args:
            files: the model's files.
            settings: pooling and modules.
            device: "cpu" or "cuda"; None uses a GPU if the installed runtime supports it.

        Raises:
            MissingError: the folder has no ONNX file.
            DamagedError: the file is unreadable (see `OnnxSession`) or outputs no token vectors.
            UsageError: the installed runtime does not support the device.
        """
        self._pooling = settings.pooling
        path = onnx_file(files.folder)
        if path is None:
            raise MissingError(
                f"--backend onnx needs {_PATHS[0]}, which {files.name} lacks ({files.folder})."
                " Use --backend torch."
            )
        self.device, providers = _providers(device)
        self._session = OnnxSession(path, providers)
        outputs = [out for out in self._session.outputs if len(out.shape) == 3]
        named = [out for out in outputs if out.name in ("last_hidden_state", "token_embeddings")]
        if not outputs:
            raise DamagedError(
                f"{path} has no output of token vectors (three dimensions); its outputs are"
                f" {', '.join(out.name for out in self._session.outputs)}."
            )
        self._output = (named or outputs)[0].name
        size = (named or outputs)[0].shape[2]
        width = size if isinstance(size, int) else self._measured_dimension()
        self._head = head_of(files, settings, width)
        self.dimension = width if self._head is None else self._head.dimension

    def run(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, Vectors]]:
        """Yield pooled vectors; see `bge_eval.runtime.text_encoder.Forward`."""
        for batch in batches:
            hidden = self._hidden(batch)
            if self._head is not None:
                yield batch, self._head.of_arrays(hidden, batch)
            else:
                yield batch, pooled(hidden, batch.pooled, self._pooling)

    def _hidden(self, batch: Batch) -> Vectors:
        return self._session.run(self._output, batch.features)

    def _measured_dimension(self) -> int:
        ones = np.ones((1, 2), np.int64)
        batch = Batch(np.zeros(1, np.int64), {"input_ids": ones, "attention_mask": ones}, ones, 2)
        return int(self._hidden(batch).shape[2])


def onnx_file(folder: Path) -> Path | None:
    """Return the path of a repository's ONNX model, None if it has none."""
    paths = [root / name for root in (folder, transformer_folder(folder)) for name in _PATHS]
    return next((path for path in paths if path.is_file()), None)


def _providers(device: str | None) -> tuple[str, list[str]]:
    available = onnxruntime.get_available_providers()
    if device in (None, "cpu"):
        if device is None and "CUDAExecutionProvider" in available:
            return "cuda", ["CUDAExecutionProvider", "CPUExecutionProvider"]
        return "cpu", ["CPUExecutionProvider"]
    if device == "cuda" and "CUDAExecutionProvider" in available:
        return "cuda", ["CUDAExecutionProvider", "CPUExecutionProvider"]
    raise UsageError(
        f"The installed ONNX Runtime does not support '{device}'; it supports"
        f" {', '.join(available)}."
    )
