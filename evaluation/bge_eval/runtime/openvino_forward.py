"""The forward pass in OpenVINO on a CPU, with a model converted from torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bge_eval.encode.files import ModelFiles
from bge_eval.encode.settings import Dtype, Settings
from bge_eval.records import Vectors
from bge_eval.runtime.batches import BATCH_TOKENS
from bge_eval.runtime.converted import Conversion, conversion
from bge_eval.runtime.openvino_requests import Requests
from bge_eval.runtime.pooling import head_of, pooled
from bge_eval.runtime.text_encoder import Batch

if TYPE_CHECKING:
    import torch

    from bge_eval.progress import Progress
    from bge_eval.runtime.quantized import Samples


class OpenVinoForward:
    """A converted transformer; its float32 token vectors are pooled in numpy."""

    backend = "openvino"
    device = "cpu"
    batch_tokens = BATCH_TOKENS["openvino"]

    def __init__(self, converted: Conversion, files: ModelFiles, settings: Settings) -> None:
        """Compile a converted model.

        Args:
            converted: OpenVINO's model, which outputs token vectors.
            files: the model's files, of which the modules after the transformer run in torch.
            settings: pooling and precision (float32 or bfloat16).
        """
        self.facts = converted.facts
        self._head = head_of(files, settings, converted.facts.dimension)
        self.dimension = converted.facts.dimension if self._head is None else self._head.dimension
        self.parameters = converted.facts.parameters
        self._pooling = settings.pooling
        self._requests = Requests(converted, settings.dtype)
        self.streams = self._requests.streams

    def run(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, Vectors]]:
        """Yield pooled vectors; see `bge_eval.runtime.text_encoder.Forward`."""
        started = ((batch, batch.features) for batch in batches)
        for batch, hidden in self._requests.run(started):
            yield batch, self._pooled(hidden, batch)

    def _pooled(self, hidden: Vectors, batch: Batch) -> Vectors:
        if self._head is not None:
            return self._head.of_arrays(hidden, batch)
        return pooled(hidden, batch.pooled[:, : hidden.shape[1]], self._pooling)


def load_openvino(
    files: ModelFiles,
    settings: Settings,
    cache: Path,
    *,
    first_only: bool,
    progress: Progress,
    samples: Samples | None = None,
    trust_remote_code: bool = False,
) -> OpenVinoForward:
    """Load a model; the first time, convert it and compare it with torch.

    Args:
        files: the model's files.
        settings: pooling, maximum length, precision.
        cache: the cache folder.
        first_only: pooling reads the first token's vector only.
        progress: is told when the converted model cannot be cached, and of quantisation.
        samples: texts to quantise with, for int8.
        trust_remote_code: run Python code from the model's repository.

    Raises:
        NotReadyError: OpenVINO cannot convert this model, or nncf cannot quantise it.
        MissingError: the torch model cannot be loaded; see `TorchForward`.
    """
    in_float32 = replace(settings, dtype=Dtype.FLOAT32)

    def load() -> torch.nn.Module:
        from bge_eval.runtime.torch_forward import TorchForward

        loaded = TorchForward(files, in_float32, device="cpu", trust_remote_code=trust_remote_code)
        model: torch.nn.Module = loaded.model
        return model

    def in_full() -> Conversion:
        return conversion(files, load, output, cache, first_only=first_only, note=progress.note)

    output = "last_hidden_state"
    if samples is None:
        return OpenVinoForward(in_full(), files, settings)
    from bge_eval.runtime.quantized import quantized

    of_tokens = f"{output} of {'the first token' if first_only else 'all tokens'}"
    converted = quantized(files, in_full, samples, cache, progress, output=of_tokens)
    return OpenVinoForward(converted, files, settings)
