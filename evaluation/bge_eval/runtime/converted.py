"""Models converted to OpenVINO: converted once, compared with torch, cached.

A conversion is used only if its outputs equal torch's to 1e-5. The run times of both on this
machine are saved with it for the choice of the backend.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bge_eval.encode.files import ModelFiles
from bge_eval.encode.positions import token_positions
from bge_eval.errors import NotReadyError, one_line
from bge_eval.progress import quiet_transformers
from bge_eval.runtime.batches import model_inputs
from bge_eval.runtime.conversions import FACTS, staging_folder, stored_folder
from bge_eval.runtime.devices import threads
from bge_eval.runtime.openvino_library import openvino

if TYPE_CHECKING:
    import torch

Features = Mapping[str, npt.NDArray[np.int64]]
"""``input_ids``, ``attention_mask``, ``token_type_ids``: ``(batch, tokens)``."""

LARGEST_DIFFERENCE = 1e-5
"""Largest difference of a float32 number from torch's, relative to the largest vector norm."""

_LENGTHS = (3, 17, 40, 64)
"""Tokens of the texts whose outputs are compared with torch's."""
_LONGEST = 512
_TIMED_TOKENS = (4, 128)
"""Texts and tokens of the timed batch."""
_MODEL, _WEIGHTS = "model.xml", "model.bin"
_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_CHECKS = "weights checked by bge_eval.runtime.loading"
"""Part of the cache's key: earlier conversions may be of weights that are refused today."""


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts saved beside a converted model."""

    model: str
    """Name of the model."""
    revision: str
    """Revision of the model."""
    inputs: tuple[str, ...]
    """Names of the inputs."""
    parameters: int
    """Number of weights."""
    dimension: int = 0
    """Size of the output's last dimension."""
    difference: float = float("inf")
    """Largest difference of a number from torch's, relative to the largest vector norm."""
    speed: float = 0.0
    """Run time of torch over that of OpenVINO, in float32, on this machine."""
    size: int = 0
    """Size of the weights' file in bytes."""
    first_only: bool = False
    """Whether the last layer computes only the first token's state."""

    @property
    def faithful(self) -> bool:
        """Return whether the outputs equal torch's within the tolerance."""
        return self.difference <= LARGEST_DIFFERENCE


@dataclass(frozen=True, slots=True)
class Conversion:
    """A converted model, not yet compiled."""

    model: Any
    """OpenVINO's model."""
    facts: Facts
    """The facts saved beside it."""

    def compiled(
        self, dtype: str, *, throughput: bool, shape: tuple[int, ...] | None = None
    ) -> Any:
        """Compile for this processor.

        Args:
            dtype: "bfloat16"; anything else computes in float32 what the model does not
                quantise.
            throughput: several requests at a time on separate cores; else one on all cores.
            shape: the only shape of the inputs, ``(batch, tokens)``; None takes every shape.

        Raises:
            NotReadyError: OpenVINO has no such arithmetic for this processor.
        """
        options: dict[str, Any] = {
            "PERFORMANCE_HINT": "THROUGHPUT" if throughput else "LATENCY",
            "INFERENCE_PRECISION_HINT": "bf16" if dtype == "bfloat16" else "f32",
        }
        if (count := threads()) is not None:
            options["INFERENCE_NUM_THREADS"] = count
        model = self.model
        if shape is not None:
            model = model.clone()
            fixed = openvino.PartialShape(list(shape))
            model.reshape({port.any_name: fixed for port in model.inputs})
        try:
            return openvino.Core().compile_model(model, "CPU", options)
        except RuntimeError as error:
            raise NotReadyError(
                f"OpenVINO cannot run {self.facts.model} in {dtype} on this processor"
                f" ({one_line(error, 200)}). Use --dtype float32, or --backend torch."
            ) from error


def supports(dtype: str) -> bool:
    """Return whether this processor supports a precision (bfloat16 needs hardware support)."""
    capabilities = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return dtype == "float32" or (dtype == "bfloat16" and "BF16" in capabilities)


def conversion(
    files: ModelFiles,
    load: Callable[[], torch.nn.Module],
    output: str,
    cache: Path,
    *,
    first_only: bool,
    note: Callable[[str], None],
) -> Conversion:
    """Return a converted model from the cache, or convert it and compare it with torch.

    Args:
        files: the model's files.
        load: loads the torch model in float32 on the CPU; called only if nothing is cached.
        output: name of the model's output, e.g. "last_hidden_state" or "logits".
        cache: the cache folder.
        first_only: the caller reads the first token's state only. The last layer then computes
            only that state, if it can and the outputs still equal torch's.
        note: receives a message when the converted model cannot be cached.

    Raises:
        NotReadyError: OpenVINO cannot convert this model.
    """
    key = _key(files, f"{output} of {'the first token' if first_only else 'all tokens'}")
    folder = stored_folder(cache) / f"{files.name.replace('/', '__')}-{key}"
    stored = read_conversion(folder)
    if stored is not None:
        return stored
    reference = load()
    parameters = inspect.signature(reference.forward).parameters
    facts = Facts(
        files.name,
        files.revision,
        tuple(name for name in _INPUTS if name in parameters),
        sum(weights.numel() for weights in reference.parameters()),
    )
    try:
        converted = _converted(reference, facts, output, first_only=first_only, note=note)
    except Exception as error:  # the comparison runs the model's own code, which can raise anything
        raise NotReadyError(
            f"OpenVINO cannot convert {files.name} ({one_line(error, 200)}). Use --backend torch."
        ) from error
    try:
        save_conversion(folder, converted)
    except (OSError, RuntimeError) as error:  # OpenVINO raises the latter
        note(
            f"The converted model cannot be saved in {cache} ({one_line(error, 200)});"
            " it is converted again next time. BGE_EVAL_CACHE names another folder."
        )
    return converted


def _converted(
    reference: torch.nn.Module,
    facts: Facts,
    output: str,
    *,
    first_only: bool,
    note: Callable[[str], None],
) -> Conversion:
    """Convert a model and compare it with torch."""
    # Imported here, because the import takes seconds.
    from bge_eval.runtime.from_torch import ConversionError, convert, first_token_only

    if first_only:
        try:
            with quiet_transformers(), first_token_only(reference) as possible:
                model = convert(reference, facts.inputs, output) if possible else None
            if model is not None:
                first = Conversion(model, replace(facts, first_only=True))
                first = replace(first, facts=_compared(reference, first, output))
                if first.facts.faithful:
                    return first
        except (ConversionError, RuntimeError, ValueError, IndexError) as error:
            # The layer only resembles BERT's: tracing, running or comparing it fails.
            note(
                f"The last layer of {facts.model} cannot compute the first token alone"
                f" ({one_line(error, 200)}); it computes all tokens."
            )
    with quiet_transformers():
        whole = Conversion(convert(reference, facts.inputs, output), facts)
    return replace(whole, facts=_compared(reference, whole, output))


def read_conversion(folder: Path) -> Conversion | None:
    """Return a converted model from the cache; None if it is missing or incomplete."""
    facts = _read_facts(folder)
    try:
        if facts is None or facts.size != (folder / _WEIGHTS).stat().st_size:
            return None
        model = openvino.Core().read_model(folder / _MODEL)
    except (OSError, RuntimeError):
        return None
    with suppress(OSError):  # pruning removes the least recently used first
        os.utime(folder)
    return Conversion(model, facts)


def _read_facts(folder: Path) -> Facts | None:
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        return Facts(**{**facts, "inputs": tuple(facts["inputs"])})
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def save_conversion(
    folder: Path, converted: Conversion, write: Callable[[Path], None] = lambda folder: None
) -> None:
    """Save a converted model in the cache, atomically.

    Args:
        folder: the model's folder.
        converted: the model.
        write: writes further files into the folder.

    Raises:
        OSError: the folder cannot be written.
        RuntimeError: OpenVINO cannot write the model.
    """
    with staging_folder(folder) as staging:
        openvino.save_model(converted.model, staging / _MODEL, compress_to_fp16=False)
        facts = replace(converted.facts, size=(staging / _WEIGHTS).stat().st_size)
        (staging / FACTS).write_text(json.dumps(asdict(facts), indent=2), encoding="utf-8")
        write(staging)
        if read_conversion(folder) is None:  # else another process saved it first
            shutil.rmtree(folder, ignore_errors=True)
            staging.replace(folder)


def _key(files: ModelFiles, output: str) -> str:
    # Run times differ by machine, so each machine that shares a cache folder converts.
    machine = [openvino.Core().get_property("CPU", "FULL_DEVICE_NAME"), str(os.cpu_count())]
    versions = [version(name) for name in ("openvino", "torch", "transformers")]
    parts = [files.name, files.revision, output, _CHECKS, *versions, *machine]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _compared(reference: torch.nn.Module, ours: Conversion, output: str) -> Facts:
    """Compare outputs on texts of several lengths, padded on either side, then the run time."""
    import torch

    config: Any = reference.config
    facts = ours.facts
    compiled = ours.compiled("float32", throughput=False)
    request = compiled.create_infer_request()

    def in_torch(features: Features) -> npt.NDArray[np.float32]:
        arrays = model_inputs(features, facts.inputs)
        inputs = {name: torch.from_numpy(item) for name, item in arrays.items()}
        with torch.inference_mode():
            result: npt.NDArray[np.float32] = getattr(reference(**inputs), output).numpy()
        return result

    def in_openvino(features: Features) -> npt.NDArray[np.float32]:
        request.infer(model_inputs(features, facts.inputs))
        result: npt.NDArray[np.float32] = request.get_output_tensor(0).data.copy()
        return result

    vocabulary = int(config.vocab_size)
    probes = [
        _probe(vocabulary, _LENGTHS, longest, left)
        for longest in _LENGTHS[1:]
        for left in (False, True)
    ]
    # One text of the maximum length, for errors that depend on the length.
    longest = min(token_positions(config.to_dict()) or _LONGEST, _LONGEST)
    difference, norm, dimension = 0.0, 0.0, 0
    for features in [*probes, _probe(vocabulary, (longest,), longest, False)]:
        expected, actual = in_torch(features), in_openvino(features)
        if expected.ndim == 3:  # outputs at padding positions are not used
            compared = slice(1 if facts.first_only else None)
            real = features["attention_mask"][:, compared].astype(bool)
            expected, actual = expected[:, compared][real], actual[real]
        largest = float(np.abs(actual - expected).max())
        difference = max(difference, largest if np.isfinite(largest) else float("inf"))
        norm = max(norm, float(np.linalg.norm(expected, axis=-1).max()))
        dimension = expected.shape[-1]
    texts, tokens = _TIMED_TOKENS
    timed = _probe(vocabulary, (tokens,) * texts, tokens, False)
    seconds: dict[str, list[float]] = {"torch": [], "openvino": []}
    for _ in range(5):
        for name, compute in (("torch", in_torch), ("openvino", in_openvino)):
            start = time.perf_counter()
            compute(timed)
            seconds[name].append(time.perf_counter() - start)
    speed = min(seconds["torch"]) / min(seconds["openvino"])
    relative = difference / max(norm, 1e-12)
    return replace(facts, dimension=dimension, difference=relative, speed=speed)


def _probe(
    vocabulary: int, lengths: tuple[int, ...], longest: int, left: bool
) -> dict[str, npt.NDArray[np.int64]]:
    ids = np.random.default_rng(0).integers(0, vocabulary, (len(lengths), longest))
    real = np.minimum(lengths, longest)[:, None]
    columns = np.arange(longest)[None, :]
    mask = ((columns >= longest - real) if left else (columns < real)).astype(np.int64)
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
