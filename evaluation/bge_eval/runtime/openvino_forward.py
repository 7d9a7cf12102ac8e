"""The forward pass in OpenVINO on a CPU, with a model converted from torch."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bge_eval.encode.files import ModelFiles
from bge_eval.encode.settings import Dtype, Settings
from bge_eval.records import Vectors
from bge_eval.runtime.batches import BATCH_TOKENS, model_inputs
from bge_eval.runtime.converted import Conversion, conversion
from bge_eval.runtime.pooling import head_of, pooled
from bge_eval.runtime.text_encoder import Batch

if TYPE_CHECKING:
    import torch


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
        compiled = converted.compiled(settings.dtype, throughput=True)
        self.streams = int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        # Two requests per stream: one runs, one waits, so that no stream is idle.
        self._requests = [compiled.create_infer_request() for _ in range(2 * self.streams)]

    def run(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, Vectors]]:
        """Yield pooled vectors; see `bge_eval.runtime.text_encoder.Forward`."""
        # Not OpenVINO's queue with callbacks, which can deadlock: its threads wait for Python's
        # lock while Python, destroying a model, waits for these threads.
        free = list(self._requests)
        running: deque[tuple[Any, Batch]] = deque()
        try:
            for batch in batches:
                if not free:
                    request, finished = running.popleft()
                    vectors = self._result(request, finished)
                    free.append(request)
                    yield finished, vectors
                request = free.pop()
                request.start_async(model_inputs(batch.features, self.facts.inputs))
                running.append((request, batch))
            while running:
                request, finished = running.popleft()
                yield finished, self._result(request, finished)
        finally:
            for request, _ in running:
                request.wait()

    def _result(self, request: Any, batch: Batch) -> Vectors:
        request.wait()
        hidden = request.get_output_tensor(0).data
        if self._head is not None:
            return self._head.of_arrays(hidden, batch)
        return pooled(hidden, batch.pooled[:, : hidden.shape[1]], self._pooling)


def load_openvino(
    files: ModelFiles,
    settings: Settings,
    cache: Path,
    *,
    first_only: bool,
    note: Callable[[str], None],
    trust_remote_code: bool = False,
) -> OpenVinoForward:
    """Load a model; the first time, convert it and compare it with torch.

    Args:
        files: the model's files.
        settings: pooling, maximum length, precision.
        cache: the cache folder.
        first_only: pooling reads the first token's vector only.
        note: receives a message when the converted model cannot be cached.
        trust_remote_code: run Python code from the model's repository.

    Raises:
        NotReadyError: OpenVINO cannot convert this model.
        MissingError: the torch model cannot be loaded; see `TorchForward`.
    """
    in_float32 = replace(settings, dtype=Dtype.FLOAT32)

    def load() -> torch.nn.Module:
        from bge_eval.runtime.torch_forward import TorchForward

        loaded = TorchForward(files, in_float32, device="cpu", trust_remote_code=trust_remote_code)
        model: torch.nn.Module = loaded.model
        return model

    converted = conversion(
        files, load, "last_hidden_state", cache, first_only=first_only, note=note
    )
    return OpenVinoForward(converted, files, settings)
