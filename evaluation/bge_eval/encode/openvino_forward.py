"""The forward pass on a CPU with OpenVINO, converted straight from the torch model.

The conversion is done once for each model and checked before it is used: its vectors must equal
torch's to 1e-5, and the time of both is taken. Model and findings are kept in the cache folder.
"""

# ruff: noqa: E402
from __future__ import annotations

import hashlib
import inspect
import json
import os
import shutil
import sys
import tempfile
import time
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

# OpenVINO reports its import to its makers over the network, unless it finds no reporter.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
import openvino
from openvino.frontend import FrontEndManager
from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

from bge_eval.encode.settings import Dtype, Settings
from bge_eval.encode.text_encoder import Batch, Tokens
from bge_eval.encode.torch_forward import TorchForward, pool
from bge_eval.errors import NotReadyError
from bge_eval.progress import quiet_transformers
from bge_eval.records import ModelFiles, Vectors

LARGEST_DIFFERENCE = 1e-5
"""Furthest that a float32 vector's number may be from torch's, in units of the longest vector."""

_BATCH_TOKENS = 4096
_LENGTHS = (3, 17, 40, 64)
"""Tokens of the texts on which the vectors are compared with torch's."""
_TIMED_TOKENS = (4, 128)
"""Texts and tokens of the batches on which the time is."""


@dataclass(frozen=True, slots=True)
class Converted:
    """What is known of a converted model."""

    model: str
    """Its name."""
    revision: str
    """Its revision."""
    inputs: tuple[str, ...]
    """The features that it takes."""
    dimension: int
    """Length of its vectors."""
    parameters: int
    """How many weights it has."""
    difference: float = float("inf")
    """Largest difference of a number from torch's, over the longest vector's norm."""
    speed: float = 0.0
    """Torch's seconds over OpenVINO's, in float32, on this machine."""

    @property
    def faithful(self) -> bool:
        """Return whether its vectors are torch's."""
        return self.difference <= LARGEST_DIFFERENCE


class OpenVinoForward:
    """A converted transformer, with the pooling done in torch on its float32 token vectors."""

    backend = "openvino"
    device = "cpu"
    batch_tokens = _BATCH_TOKENS

    def __init__(self, model: Any, facts: Converted, settings: Settings) -> None:
        """Compile a converted model.

        Args:
            model: OpenVINO's model.
            facts: what is known of it.
            settings: pooling and precision (float32 or bfloat16).
        """
        self.facts = facts
        self.dimension = facts.dimension
        self.parameters = facts.parameters
        self._pooling = settings.pooling
        options = {
            "PERFORMANCE_HINT": "THROUGHPUT",
            "INFERENCE_PRECISION_HINT": "bf16" if settings.dtype is Dtype.BFLOAT16 else "f32",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        compiled = openvino.Core().compile_model(model, "CPU", options)
        self.streams = int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        # Each stream has its own cores; a second request waits, so that it never has nothing to do.
        self._requests = [compiled.create_infer_request() for _ in range(2 * self.streams)]

    def run(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, Vectors]]:
        """See `bge_eval.encode.text_encoder.Forward`."""
        # No callback of OpenVINO's own queue: its threads would wait for Python's lock while
        # Python, letting go of a model, waits for its threads.
        free = list(self._requests)
        running: deque[tuple[Any, Batch]] = deque()
        try:
            for batch in batches:
                if not free:
                    request, done = running.popleft()
                    pooled = self._waited(request, done)
                    free.append(request)
                    yield done, pooled
                # A tokenizer may not give token types to a model that has one kind of them.
                none = np.zeros_like(batch.features["input_ids"])
                request = free.pop()
                request.start_async(
                    {name: batch.features.get(name, none) for name in self.facts.inputs}
                )
                running.append((request, batch))
            while running:
                request, done = running.popleft()
                yield done, self._waited(request, done)
        finally:
            for request, _ in running:
                request.wait()

    def _waited(self, request: Any, batch: Batch) -> Vectors:
        request.wait()
        # The pooling of the last token may give a view, and the request's memory is used again.
        hidden = torch.from_numpy(request.get_output_tensor(0).data)
        with torch.inference_mode():
            mask = torch.from_numpy(batch.pooled)
            pooled: Vectors = pool(hidden, mask, self._pooling).numpy().copy()
        return pooled


def supports(dtype: Dtype) -> bool:
    """Return whether this processor computes in a precision (bfloat16 needs it in hardware)."""
    known = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return dtype is Dtype.FLOAT32 or (dtype is Dtype.BFLOAT16 and "BF16" in known)


def load_openvino(
    files: ModelFiles, settings: Settings, cache: Path, *, trust_remote_code: bool = False
) -> OpenVinoForward:
    """Load a model, converting and comparing it with torch the first time.

    Args:
        files: where the model lies.
        settings: pooling, length, precision.
        cache: where converted models are kept.
        trust_remote_code: run Python code that comes with the model.

    Raises:
        NotReadyError: OpenVINO cannot convert this model.
        MissingError: the weights are not to be had; see `TorchForward`.
    """
    place = cache / "openvino" / f"{files.name.replace('/', '__')}-{_key(files)}"
    known = _read_facts(place)
    if known is not None:
        return OpenVinoForward(openvino.Core().read_model(place / "model.xml"), known, settings)
    whole = replace(settings, dtype=Dtype.FLOAT32)
    reference = TorchForward(files, whole, device="cpu", trust_remote_code=trust_remote_code)
    taken = inspect.signature(reference.model.forward).parameters
    names = ("input_ids", "attention_mask", "token_type_ids")
    facts = Converted(
        files.name,
        files.revision,
        tuple(name for name in names if name in taken),
        reference.dimension,
        reference.parameters,
    )
    try:
        with quiet_transformers():
            model = _convert(reference.model, facts.inputs)
        facts = _compared(reference, OpenVinoForward(model, facts, whole))
    except Exception as error:  # whatever a converter of others' code runs into
        reason = " ".join(str(error).split())[:200]
        raise NotReadyError(
            f"OpenVINO cannot convert {files.name} ({type(error).__name__}: {reason})."
            " Use --backend torch."
        ) from error
    _keep(place, model, facts)
    return OpenVinoForward(model, facts, settings)


def _read_facts(place: Path) -> Converted | None:
    try:
        facts = json.loads((place / "model.json").read_text(encoding="utf-8"))
        return Converted(**{**facts, "inputs": tuple(facts["inputs"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _keep(place: Path, model: Any, facts: Converted) -> None:
    """Put a converted model into the cache, whole or not at all."""
    place.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".staging-", dir=place.parent))
    try:
        openvino.save_model(model, staging / "model.xml", compress_to_fp16=False)
        text = json.dumps(asdict(facts), indent=2)
        (staging / "model.json").write_text(text, encoding="utf-8")
        if _read_facts(place) is None:  # else another process was first
            shutil.rmtree(place, ignore_errors=True)
            staging.replace(place)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _key(files: ModelFiles) -> str:
    # The time was taken on this machine; another that shares the folder takes its own.
    machine = [openvino.Core().get_property("CPU", "FULL_DEVICE_NAME"), str(os.cpu_count())]
    versions = [version(name) for name in ("openvino", "torch", "transformers")]
    parts = [files.name, files.revision, *versions, *machine]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


class _Hidden(torch.nn.Module):
    """A transformer with its last layer as the only output, and inputs by position."""

    def __init__(self, model: torch.nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.model = model
        self.names = names

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        given = dict(zip(self.names, inputs, strict=True))
        hidden: torch.Tensor = self.model(**given).last_hidden_state
        return hidden


def _convert(model: torch.nn.Module, names: tuple[str, ...]) -> Any:
    example = tuple(torch.ones(2, 8, dtype=torch.long) for _ in names)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # what tracing does not see, the comparison does
        decoder = TorchScriptPythonDecoder(_Hidden(model, names), example_input=example)
    frontend = FrontEndManager().load_by_framework("pytorch")
    converted = frontend.convert(frontend.load(decoder))
    for port, name in zip(converted.inputs, names, strict=True):
        port.get_tensor().set_names({name})
        port.get_node().set_partial_shape(openvino.PartialShape([-1, -1]))
        port.get_node().set_element_type(openvino.Type.i64)
    converted.validate_nodes_and_infer_types()
    return converted


def _compared(reference: TorchForward, ours: OpenVinoForward) -> Converted:
    """Compare vectors on texts of several lengths, padded on either side, and then the time."""
    vocabulary = int(reference.model.config.vocab_size)
    batches = [
        _probe(vocabulary, _LENGTHS, longest, left)
        for longest in _LENGTHS[1:]
        for left in (False, True)
    ]
    expected = {id(batch): vectors for batch, vectors in reference.run(batches)}
    found = {id(batch): vectors for batch, vectors in ours.run(batches)}
    norm = max(float(np.linalg.norm(vectors, axis=1).max()) for vectors in expected.values())
    apart = max(float(np.abs(found[key] - expected[key]).max()) for key in expected)
    texts, tokens = _TIMED_TOKENS
    timed = [_probe(vocabulary, (tokens,) * texts, tokens, False)] * (2 * ours.streams)
    seconds: dict[str, list[float]] = {"torch": [], "openvino": []}
    for _ in range(3):
        for name, forward in (("torch", reference), ("openvino", ours)):
            start = time.perf_counter()
            list(forward.run(timed))
            seconds[name].append(time.perf_counter() - start)
    speed = min(seconds["torch"]) / min(seconds["openvino"])
    return replace(ours.facts, difference=apart / max(norm, 1e-12), speed=speed)


def _probe(vocabulary: int, lengths: tuple[int, ...], longest: int, left: bool) -> Batch:
    ids = np.random.default_rng(0).integers(0, vocabulary, (len(lengths), longest))
    real = np.minimum(lengths, longest)[:, None]
    columns = np.arange(longest)[None, :]
    mask = ((columns >= longest - real) if left else (columns < real)).astype(np.int64)
    features: dict[str, Tokens] = {"input_ids": ids, "attention_mask": mask}
    features["token_type_ids"] = np.zeros_like(ids)
    return Batch(np.arange(len(lengths)), features, mask, int(real.sum()))
