"""Several inference requests at a time on a compiled OpenVINO model."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

from bge_eval.records import Vectors
from bge_eval.runtime.batches import Tokens, model_inputs
from bge_eval.runtime.converted import Conversion
from bge_eval.runtime.openvino_shapes import FrequentShapes, Shape

_Key = TypeVar("_Key")


class Requests:
    """Runs batches on separate cores, two for each: one runs, one waits, so no core is idle."""

    def __init__(self, converted: Conversion, dtype: str) -> None:
        """Compile a converted model and create the requests.

        Args:
            converted: OpenVINO's model.
            dtype: its precision, as `Conversion.compiled` takes it.
        """
        self._inputs = converted.facts.inputs
        self._frequent = FrequentShapes(converted, dtype)
        compiled = converted.compiled(dtype, throughput=True)
        self.streams = int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        """Requests that run at the same time."""
        self._most = 2 * self.streams
        self._requests: dict[Shape | None, list[Any]] = {None: self._of(compiled)}

    def _of(self, compiled: Any) -> list[Any]:
        return [compiled.create_infer_request() for _ in range(self._most)]

    def run(
        self, batches: Iterable[tuple[_Key, Mapping[str, Tokens]]]
    ) -> Iterator[tuple[_Key, Vectors]]:
        """Yield the model's output of each batch, in order.

        Args:
            batches: a key, which is returned with the output, and the inputs.

        Yields:
            The key and the output, which holds until the next one is asked for.
        """
        # Not OpenVINO's queue with callbacks, which can deadlock: its threads wait for Python's
        # lock while Python, destroying a model, waits for these threads.
        free = {shape: list(requests) for shape, requests in self._requests.items()}
        running: deque[tuple[Any, list[Any], _Key]] = deque()
        try:
            for key, features in batches:
                if len(running) == self._most:
                    request, home, finished = running.popleft()
                    home.append(request)
                    yield finished, _output(request)
                inputs = model_inputs(features, self._inputs)
                home = self._home(inputs, free)
                request = home.pop()
                request.start_async(inputs)
                running.append((request, home, key))
            while running:
                request, _, finished = running.popleft()
                yield finished, _output(request)
        finally:
            for request, *_ in running:
                request.wait()

    def _home(self, inputs: Mapping[str, Tokens], free: dict[Shape | None, list[Any]]) -> list[Any]:
        """Return the idle requests of the model for a batch; compile one if its shape is frequent.

        Fewer than the most requests are running, so every model has an idle one.
        """
        shape = next(iter(inputs.values())).shape
        if self._frequent.due(shape):
            self._frequent.compile(shape, inputs, free[None][-1])
            if shape in self._frequent.compiled:
                self._requests[shape] = self._of(self._frequent.compiled[shape])
                free[shape] = list(self._requests[shape])
        return free.get(shape, free[None])


def _output(request: Any) -> Vectors:
    request.wait()
    output: Vectors = request.get_output_tensor(0).data
    return output
