"""int8 models in OpenVINO: quantised after training by nncf, compared with float32, cached.

nncf's transformer mode fits the ranges of each layer's inputs to calibration texts. Weights and
inputs of the matrix products become int8; all else stays float32. So a vector does not depend on
what other instructions the processor has, up to rounding.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bge_eval.encode.calibration import Calibration
from bge_eval.encode.files import ModelFiles
from bge_eval.errors import NotReadyError, one_line
from bge_eval.progress import Progress
from bge_eval.records import Vectors
from bge_eval.runtime.batches import Tokens, model_inputs
from bge_eval.runtime.conversions import stored_folder
from bge_eval.runtime.converted import Conversion, read_conversion, save_conversion
from bge_eval.runtime.eight_bit import saturates
from bge_eval.runtime.openvino_library import openvino
from bge_eval.shared.locks import alone

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_METHOD = "nncf transformer, 1"
"""Part of the cache's key: how models are quantised; another number for another way."""
_LOWEST_COSINE = 0.9
"""Mean cosine of int8 and float32 vectors below which a model is refused."""
_LOWEST_CORRELATION = 0.8
"""Correlation of int8 and float32 scores below which a reranker is refused."""
_DRIFT = 0.01
"""How far another processor's int8 may be from what was measured when the model was made."""
_FIDELITY, _EXPECTED, _SPEEDS = "fidelity.json", "expected.npy", "speeds.json"
_TIMED, _ROUNDS = 6, 3
"""Longest texts that are timed, and how often."""
_SLOWER = 0.95
"""Speed against float32 below which a run says that int8 is slower."""


@dataclass(frozen=True, slots=True)
class Samples:
    """What a model is calibrated and checked with."""

    calibrating: tuple[Mapping[str, Tokens], ...]
    """Inputs of one text or pair each, ``(1, tokens)`` int64."""
    checking: tuple[Mapping[str, Tokens], ...]
    """The same of texts or pairs that are held out."""

    @property
    def digest(self) -> str:
        """Return a digest of all tokens, so of texts, tokenizer and maximum length."""
        made = hashlib.sha256()
        for features in (*self.calibrating, *self.checking):
            for name in sorted(features):
                made.update(f"{name} {features[name].shape}".encode())
                made.update(features[name].tobytes())
        return made.hexdigest()


@dataclass(frozen=True, slots=True)
class Fidelity:
    """How near int8 is to float32 on the held-out texts."""

    mean: float
    """Mean cosine of vectors, or correlation of scores."""
    lowest: float
    """Lowest cosine of a vector; of scores the correlation."""
    texts: int
    """Number of texts or pairs."""
    scores: bool
    """Whether scores were compared, not vectors."""

    def __str__(self) -> str:
        """Return the fidelity for people."""
        if self.scores:
            return f"its scores of {self.texts} pairs correlate with float32's by {self.mean:.4f}"
        return (
            f"its vectors of {self.texts} texts have a mean cosine of {self.mean:.4f} with"
            f" float32's, at least {self.lowest:.4f}"
        )


def text_samples(
    tokenizer: PreTrainedTokenizerBase, max_length: int, calibration: Calibration
) -> Samples:
    """Return the calibration texts as an embedder reads them, prompts included."""

    def features(held_out: bool) -> tuple[Mapping[str, Tokens], ...]:
        texts = calibration.texts(held_out=held_out)
        return _each(tokenizer(texts, truncation=True, max_length=max_length, padding=False))

    return Samples(features(False), features(True))


def pair_samples(
    tokenizer: PreTrainedTokenizerBase, max_length: int, calibration: Calibration
) -> Samples:
    """Return the calibration texts as pairs that a reranker reads."""

    def features(held_out: bool) -> tuple[Mapping[str, Tokens], ...]:
        queries, texts = zip(*calibration.pairs(held_out=held_out), strict=True)
        columns = list(queries), list(texts)
        return _each(tokenizer(*columns, truncation=True, max_length=max_length, padding=False))

    return Samples(features(False), features(True))


def quantized(
    files: ModelFiles,
    load: Callable[[], Conversion],
    samples: Samples,
    cache: Path,
    progress: Progress,
    *,
    output: str,
) -> Conversion:
    """Return a model in int8 from the cache, or quantise its conversion and compare both.

    One process quantises; others wait for it.

    Args:
        files: the model's files.
        load: returns the model in float32; called only if nothing is cached.
        samples: the tokens to calibrate and to check with.
        cache: the cache folder.
        progress: reports the quantisation, and what is waited for.
        output: what the model returns, e.g. "logits".

    Raises:
        NotReadyError: the model cannot be quantised, or int8 is too far from float32.
    """
    versions = [f"{name} {version(name)}" for name in ("openvino", "nncf", "torch", "transformers")]
    parts = [files.name, files.revision, output, _METHOD, samples.digest, *versions]
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
    folder = stored_folder(cache) / f"{files.name.replace('/', '__')}-int8-{key}"
    stored = _stored(folder, samples)
    if stored is not None:
        _tell_speed(folder, stored, load, samples, progress)
        return stored
    with alone(
        folder.parent,
        folder.name,
        lambda: progress.note(f"{folder.name}: waiting for the process that quantises it"),
    ):
        stored = _stored(folder, samples)  # another process may have made it since
        if stored is not None:
            _tell_speed(folder, stored, load, samples, progress)
            return stored
        made = _made(files, load(), samples, progress)
        try:
            save_conversion(folder, made.conversion, made.write)
        except (OSError, RuntimeError) as error:  # OpenVINO raises the latter
            progress.note(
                f"The int8 model cannot be saved in {cache} ({one_line(error, 200)}); it is made"
                " again next time. BGE_EVAL_CACHE names another folder."
            )
        return made.conversion


@dataclass(frozen=True, slots=True)
class _Made:
    """A new int8 model."""

    conversion: Conversion
    """The model."""
    fidelity: Fidelity
    """How near it is to float32."""
    expected: Vectors
    """``(n_checking, dim)``: float32's outputs of the held-out texts."""
    speed: float
    """Run time of float32 over that of int8, on this machine."""

    def write(self, folder: Path) -> None:
        """Write what later processes check the model with."""
        np.save(folder / _EXPECTED, self.expected)
        text = json.dumps(asdict(self.fidelity), indent=2)
        (folder / _FIDELITY).write_text(text, encoding="utf-8")
        (folder / _SPEEDS).write_text(json.dumps({_machine(): self.speed}), encoding="utf-8")


def _made(files: ModelFiles, full: Conversion, samples: Samples, progress: Progress) -> _Made:
    count = len(samples.calibrating)
    progress.note(f"{files.name} is quantised to int8 with {count} texts; once, in minutes.")
    inputs = [model_inputs(features, full.facts.inputs) for features in samples.calibrating]
    with progress.step("quantise"):
        try:
            model = _by_nncf(full.model, inputs)
        except Exception as error:  # nncf's, OpenVINO's and networkx's errors have no common base
            raise NotReadyError(
                f"nncf cannot quantise {files.name} ({type(error).__name__}:"
                f" {one_line(error, 200)}). Use --dtype bfloat16, or int8-dynamic."
            ) from error
        small = Conversion(model, full.facts)
        expected = _outputs(full, samples.checking)
        fidelity = _fidelity(_outputs(small, samples.checking), expected)
    least = _LOWEST_CORRELATION if fidelity.scores else _LOWEST_COSINE
    if not fidelity.mean >= least:
        raise NotReadyError(
            f"{files.name} in int8 is too far from float32: {fidelity} (limit {least}). Use"
            " --dtype bfloat16, or other texts with --calibration FILE."
        )
    progress.note(f"{files.name} in int8: {fidelity}.")
    speed = _seconds(full, samples) / _seconds(small, samples)
    _note_processor(small, speed, progress)
    return _Made(small, fidelity, expected, speed)


def _tell_speed(
    folder: Path,
    stored: Conversion,
    load: Callable[[], Conversion],
    samples: Samples,
    progress: Progress,
) -> None:
    """Say how a model of the cache runs on this machine; the first time, measure it."""
    try:
        speeds = json.loads((folder / _SPEEDS).read_text(encoding="utf-8"))
        speed = float(speeds[_machine()])
    except (OSError, ValueError, KeyError, TypeError):
        speed = _seconds(load(), samples) / _seconds(stored, samples)
        with contextlib.suppress(OSError):  # a folder of others: it is measured again next time
            _add_speed(folder / _SPEEDS, speed)
    _note_processor(stored, speed, progress)


def _add_speed(path: Path, speed: float) -> None:
    try:
        speeds = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        speeds = {}
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps({**speeds, _machine(): speed}), encoding="utf-8")
    temporary.replace(path)


def _note_processor(small: Conversion, speed: float, progress: Progress) -> None:
    """Say where int8 gains nothing, or computes otherwise than on other processors."""
    if speed < _SLOWER:
        progress.note(
            f"int8 is slower than float32 on this processor: {small.facts.model} takes"
            f" {1 / speed:.1f} times as long (measured once)."
        )
    if saturates():
        progress.note(
            "8-bit products overflow on this processor, which has neither VNNI nor AMX: int8"
            " results are a little off those of other processors, and their identity says so."
        )


def _machine() -> str:
    """Return what decides how fast a model runs here."""
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "")
    name = openvino.Core().get_property("CPU", "FULL_DEVICE_NAME")
    return f"{name}, {os.cpu_count()} cores{f', at most {limit}' if limit else ''}"


def _seconds(converted: Conversion, samples: Samples) -> float:
    """Return the least run time of some of the held-out texts, one by one."""
    request = converted.compiled("float32", throughput=False).create_infer_request()
    chosen = sorted(samples.checking, key=lambda features: features["input_ids"].size)[-_TIMED:]
    inputs = [model_inputs(features, converted.facts.inputs) for features in chosen]
    seconds = []
    for _ in range(1 + _ROUNDS):  # the first compiles shapes
        start = time.perf_counter()
        for each in inputs:
            request.infer(each)
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])


def _by_nncf(model: Any, inputs: Sequence[Mapping[str, Tokens]]) -> Any:
    """Quantise a model. nncf prints to stdout, which carries only what was asked for."""
    import nncf

    nncf.set_log_level(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()):
        return nncf.quantize(
            model,
            nncf.Dataset(list(inputs)),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(inputs),
        )


def _stored(folder: Path, samples: Samples) -> Conversion | None:
    """Return a model of the cache, checked on this processor; None if there is none.

    Raises:
        NotReadyError: this processor computes something else with it.
    """
    stored = read_conversion(folder)
    if stored is None:
        return None
    try:
        expected = np.load(folder / _EXPECTED)
        known = Fidelity(**json.loads((folder / _FIDELITY).read_text(encoding="utf-8")))
        here = _fidelity(_outputs(stored, samples.checking), expected)
    except (OSError, ValueError, TypeError, RuntimeError):
        return None
    if not here.mean >= known.mean - _DRIFT:
        raise NotReadyError(
            f"{stored.facts.model} in int8 is wrong on this processor: {here}, and {known.mean:.4f}"
            " where it was quantised. Use --dtype float32 or bfloat16."
        )
    return stored


def _outputs(converted: Conversion, samples: Sequence[Mapping[str, Tokens]]) -> Vectors:
    """Return each sample's scores, or its token vectors' mean: ``(n, dim)`` float32."""
    request = converted.compiled("float32", throughput=False).create_infer_request()
    rows = []
    for features in samples:
        request.infer(model_inputs(features, converted.facts.inputs))
        output = request.get_output_tensor(0).data
        rows.append(output[0].mean(axis=0) if output.ndim == 3 else output[0].copy())
    return np.stack(rows).astype(np.float32)


def _fidelity(actual: Vectors, expected: Vectors) -> Fidelity:
    if actual.shape[1] == 1:
        correlation = float(np.corrcoef(actual[:, 0], expected[:, 0])[0, 1])
        return Fidelity(correlation, correlation, len(actual), True)
    norms = np.linalg.norm(actual, axis=1) * np.linalg.norm(expected, axis=1)
    cosines = np.einsum("ij,ij->i", actual, expected) / np.maximum(norms, 1e-12)
    return Fidelity(float(cosines.mean()), float(cosines.min()), len(actual), False)


def _each(columns: Mapping[str, Any]) -> tuple[Mapping[str, Tokens], ...]:
    """Return a tokenizer's columns as one set of inputs for each text."""
    count = len(columns["input_ids"])
    return tuple(
        {name: np.array([column[row]], np.int64) for name, column in columns.items()}
        for row in range(count)
    )
