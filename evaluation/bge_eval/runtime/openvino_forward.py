"""The forward pass on a CPU with OpenVINO, converted straight from the torch model."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bge_eval.encode.settings import Dtype, Settings
from bge_eval.records import ModelFiles, Vectors
from bge_eval.runtime.batches import BATCH_TOKENS, model_inputs
from bge_eval.runtime.converted import Conversion, conversion
from bge_eval.runtime.pooling import pooled
from bge_eval.runtime.text_encoder import Batch

if TYPE_CHECKING:
    import torch


class OpenVinoForward:
    """A converted transformer, with the pooling done on its float32 token vectors."""

    backend = "openvino"
    device = "cpu"
    batch_tokens = BATCH_TOKENS["openvino"]

    def __init__(self, converted: Conversion, settings: Settings) -> None:
        """Compile a converted model.

        Args:
            converted: OpenVINO's model of the token vectors.
            settings: pooling and precision (float32 or bfloat16).
        """
        self.facts = converted.facts
        self.dimension = converted.facts.dimension
        self.parameters = converted.facts.parameters
        self._pooling = settings.pooling
        compiled = converted.compiled(settings.dtype, throughput=True)
        self.streams = int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        # Each stream has its own cores; a second request waits, so that it never has nothing to do.
        self._requests = [compiled.create_infer_request() for _ in range(2 * self.streams)]

    def run(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, Vectors]]:
        """See `bge_eval.runtime.text_encoder.Forward`."""
        # No callback of OpenVINO's own queue: its threads would wait for Python's lock while
        # Python, letting go of a model, waits for its threads.
        free = list(self._requests)
        running: deque[tuple[Any, Batch]] = deque()
        try:
            for batch in batches:
                if not free:
                    request, done = running.popleft()
                    vectors = self._waited(request, done)
                    free.append(request)
                    yield done, vectors
                request = free.pop()
                request.start_async(model_inputs(batch.features, self.facts.inputs))
                running.append((request, batch))
            while running:
                request, done = running.popleft()
                yield done, self._waited(request, done)
        finally:
            for request, _ in running:
                request.wait()

    def _waited(self, request: Any, batch: Batch) -> Vectors:
        request.wait()
        hidden = request.get_output_tensor(0).data
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
    """Load a model, converting and comparing it with torch the first time.

    Args:
        files: where the model lies.
        settings: pooling, length, precision.
        cache: where converted models are kept.
        first_only: the vector that is pooled is the first token's, always.
        note: told when the converted model cannot be kept.
        trust_remote_code: run Python code that comes with the model.

    Raises:
        NotReadyError: OpenVINO cannot convert this model.
        MissingError: the weights are not to be had; see `TorchForward`.
    """
    whole = replace(settings, dtype=Dtype.FLOAT32)

    def load() -> torch.nn.Module:
        from bge_eval.runtime.torch_forward import TorchForward

        loaded = TorchForward(files, whole, device="cpu", trust_remote_code=trust_remote_code)
        model: torch.nn.Module = loaded.model
        return model

    converted = conversion(
        files, load, "last_hidden_state", cache, first_only=first_only, note=note
    )
    return OpenVinoForward(converted, settings)
