"""Several inference requests at a time on a compiled OpenVINO model."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from bge_eval.records import Vectors
from bge_eval.runtime.batches import Tokens, model_inputs

_Key = TypeVar("_Key")


class Requests:
    """Runs batches on separate cores, two for each: one runs, one waits, so no core is idle."""

    def __init__(self, compiled: Any, inputs: Sequence[str]) -> None:
        """Create the requests.

        Args:
            compiled: OpenVINO's compiled model.
            inputs: the names of its inputs.
        """
        self._inputs = inputs
        self.streams = int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        """Requests that run at the same time."""
        self._requests = [compiled.create_infer_request() for _ in range(2 * self.streams)]

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
        free = list(self._requests)
        running: deque[tuple[Any, _Key]] = deque()
        try:
            for key, features in batches:
                if not free:
                    request, finished = running.popleft()
                    free.append(request)
                    yield finished, _output(request)
                request = free.pop()
                request.start_async(model_inputs(features, self._inputs))
                running.append((request, key))
            while running:
                request, finished = running.popleft()
                yield finished, _output(request)
        finally:
            for request, _ in running:
                request.wait()


def _output(request: Any) -> Vectors:
    request.wait()
    output: Vectors = request.get_output_tensor(0).data
    return output
