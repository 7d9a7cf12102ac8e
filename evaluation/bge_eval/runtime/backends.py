"""Select the backend of the forward pass, and load the encoder in it.

``auto`` uses torch, or OpenVINO where it is faster: on a CPU, for architectures whose conversion
our tests compare with torch, if this model's conversion yields torch's vectors and takes less time
on this machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from bge_eval.encode.cache import cache_folder
from bge_eval.encode.calibration import Calibration, read_calibration
from bge_eval.encode.config import CONFIG, read_object
from bge_eval.encode.files import ModelFiles
from bge_eval.encode.positions import token_positions
from bge_eval.encode.settings import Backend, Dtype, Pooling, Settings
from bge_eval.errors import MissingError, NotReadyError, UsageError
from bge_eval.progress import Progress, quiet_transformers
from bge_eval.runtime.conversions import worth_converting
from bge_eval.runtime.devices import first_device
from bge_eval.runtime.text_encoder import Forward, TextEncoder, load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from bge_eval.runtime.openvino_forward import OpenVinoForward
    from bge_eval.runtime.quantized import Samples


def choose_backend(
    backend: Backend, files: ModelFiles, settings: Settings, device: str | None
) -> Backend:
    """Return the backend of a run, without loading weights.

    Args:
        backend: the user's backend, or ``auto``.
        files: the model's files.
        settings: the model's settings; ``auto`` depends on the precision.
        device: the user's device; None is the fastest device of this machine.

    Raises:
        UsageError: the backend does not support the precision or the device.
        MissingError: the backend is not installed.
    """
    if files.base is not None:
        if backend not in (Backend.AUTO, Backend.TORCH):
            raise UsageError(
                f"{files.name} is a PEFT adapter of {files.base.name}, which runs with torch, not"
                f" with --backend {backend}."
            )
        return Backend.TORCH
    if settings.dtype is Dtype.INT8:
        refuse_int8_without(backend, device)
        return Backend.OPENVINO
    if backend is Backend.AUTO:
        return Backend.OPENVINO if _suits_openvino(files, settings, device) else Backend.TORCH
    if backend is Backend.TORCH:
        return backend
    extra = {Backend.OPENVINO: "openvino", Backend.ONNX: "onnxruntime"}[backend]
    if find_spec(extra) is None:
        name = "openvino" if backend is Backend.OPENVINO else "bge-eval[onnx]"
        raise MissingError(
            f"--backend {backend} needs {extra}, which is not installed: pip install {name}."
        )
    if device is not None and not device.startswith("cpu") and backend is Backend.OPENVINO:
        raise UsageError(
            f"--backend openvino runs on the CPU, not on '{device}'. Add --device cpu."
        )
    if backend is Backend.ONNX and settings.dtype is not Dtype.FLOAT32:
        raise UsageError(
            f"--backend onnx runs the model file in its own precision, not in {settings.dtype}."
            " Leave --dtype out."
        )
    if backend is Backend.OPENVINO and not openvino_supports(settings.dtype):
        raise UsageError(
            f"OpenVINO does not support {settings.dtype} on this processor. Use --backend torch"
            " or --dtype float32."
        )
    return backend


def refuse_int8_without(backend: str, device: str | None) -> None:
    """Refuse int8 where it cannot run.

    Raises:
        UsageError: the backend or the device is another one.
        MissingError: OpenVINO or nncf is not installed.
    """
    if backend not in (Backend.AUTO, Backend.OPENVINO):
        raise UsageError(
            f"--dtype int8 runs in OpenVINO, not with --backend {backend}. Leave --backend out."
            + (" torch's own int8 is --dtype int8-dynamic." if backend == Backend.TORCH else "")
        )
    if (used := first_device(device)) != "cpu":
        raise UsageError(
            f"--dtype int8 runs on the CPU only, not on '{used}': add --device cpu, or use --dtype"
            " bfloat16."
        )
    lacking = [name for name in ("openvino", "nncf") if find_spec(name) is None]
    if lacking:
        raise MissingError(
            f"--dtype int8 needs {' and '.join(lacking)}, which is not installed: pip install"
            " bge-eval[int8]. torch's own, slower int8 is --dtype int8-dynamic."
        )


def saturation() -> dict[str, bool]:
    """Return the fact of an int8 result whose 8-bit products overflow here; {} if they do not."""
    from bge_eval.runtime.eight_bit import saturates

    return {"saturates": True} if saturates() else {}


@dataclass(frozen=True, slots=True)
class Execution:
    """How a model's forward pass runs."""

    backend: Backend = Backend.AUTO
    """Its library, or ``auto``."""
    device: str | None = None
    """"cpu", "cuda", "cuda:1", "mps", or several with commas; None uses the fastest."""
    batch_tokens: int | None = None
    """Tokens per batch, padding included; None uses the device's default."""
    trust_remote_code: bool = False
    """Run Python code from the model's repository."""


def load_encoder(
    files: ModelFiles,
    settings: Settings,
    execution: Execution,
    *,
    calibration: Calibration | None = None,
    progress: Progress | None = None,
) -> TextEncoder:
    """Load a model's tokenizer and weights.

    Args:
        files: the model's files.
        settings: pooling, normalisation, maximum length, precision.
        execution: library, device, batches.
        calibration: the texts for int8; None is the package's own, without prompts.
        progress: reports waiting for the tokenizer, and a backend that ``auto`` rejects.

    Raises:
        MissingError: the weights, the tokenizer or the backend is missing.
        DamagedError: the model's files do not fit each other.
        UsageError: an option does not fit another one or the model.
        NotReadyError: the requested backend cannot run this model.
    """
    progress = progress or Progress()
    _check_positions(files, settings)
    selected = choose_backend(execution.backend, files, settings, execution.device)
    with quiet_transformers():
        tokenizer = load_tokenizer(files, settings, trust_remote_code=execution.trust_remote_code)
    loading = _Loading(files, settings, execution, tokenizer, progress)
    forward: Forward | None = None
    if selected is Backend.OPENVINO:
        forward = loading.openvino(calibration)
    elif selected is Backend.ONNX:
        forward = loading.onnx()
    if forward is None:
        forward = loading.torch()
    return TextEncoder(
        tokenizer, forward, settings, batch_tokens=execution.batch_tokens, progress=progress
    )


@dataclass(frozen=True, slots=True)
class _Loading:
    """Loads the weights of one model into one of the libraries."""

    files: ModelFiles
    settings: Settings
    execution: Execution
    tokenizer: PreTrainedTokenizerBase
    progress: Progress

    def torch(self) -> Forward:
        from bge_eval.runtime.torch_forward import load_torch

        forward = load_torch(
            self.files,
            self.settings,
            device=self.execution.device,
            trust_remote_code=self.execution.trust_remote_code,
            note=self.progress.note,
        )
        bfloat16 = self.settings.dtype is Dtype.BFLOAT16
        if forward.device == "cpu" and bfloat16 and _lacks_bfloat16():
            self.progress.note(
                "This processor has no bfloat16 instructions: --dtype bfloat16 is several times"
                " slower than float32."
            )
        return forward

    def onnx(self) -> Forward:
        from bge_eval.runtime.onnx_forward import OnnxForward

        return OnnxForward(self.files, self.settings, device=self.execution.device)

    def openvino(self, calibration: Calibration | None) -> Forward | None:
        """Load with OpenVINO; None if torch is better, unless OpenVINO is required."""
        from bge_eval.runtime.converted import LARGEST_DIFFERENCE

        required = (
            self.execution.backend is Backend.OPENVINO or self.settings.dtype is not Dtype.FLOAT32
        )
        try:
            forward = self._converted(calibration)
        except NotReadyError as error:
            if required:
                raise
            self.progress.note(f"{error} The run uses torch.")
            return None
        facts = forward.facts
        if not facts.faithful:
            name, difference = self.files.name, facts.difference
            message = f"OpenVINO's vectors of {name} are {difference:.1g} from torch's"
            if required:
                limit = f"(limit {LARGEST_DIFFERENCE:g})"
                raise NotReadyError(f"{message} {limit}. Use --backend torch.")
            self.progress.note(f"{message}; the run uses torch.")
            return None
        return forward if required or facts.speed > 1 else None

    def _converted(self, calibration: Calibration | None) -> OpenVinoForward:
        from bge_eval.runtime.openvino_forward import load_openvino

        settings = self.settings
        return load_openvino(
            self.files,
            settings,
            cache_folder(),
            first_only=settings.pooling == Pooling.CLS and settings.pool_prompt,
            progress=self.progress,
            samples=_samples(self.tokenizer, settings, calibration),
            trust_remote_code=self.execution.trust_remote_code,
        )


def _samples(
    tokenizer: PreTrainedTokenizerBase, settings: Settings, calibration: Calibration | None
) -> Samples | None:
    if settings.dtype is not Dtype.INT8:
        return None
    from bge_eval.runtime.quantized import text_samples

    return text_samples(tokenizer, settings.max_length, calibration or read_calibration())


def _suits_openvino(files: ModelFiles, settings: Settings, device: str | None) -> bool:
    if settings.dtype not in (Dtype.FLOAT32, Dtype.BFLOAT16) or device not in (None, "cpu"):
        return False
    if not worth_converting(files.weights):
        return False
    if device is None and first_device(None) != "cpu":
        return False
    return openvino_supports(settings.dtype)


def openvino_supports(dtype: Dtype) -> bool:
    """Return whether OpenVINO computes in a precision on this processor, without nncf."""
    if dtype is Dtype.FLOAT32:
        return True
    from bge_eval.runtime.converted import supports

    return supports(dtype)


def _lacks_bfloat16() -> bool:
    return find_spec("openvino") is not None and not openvino_supports(Dtype.BFLOAT16)


def _check_positions(files: ModelFiles, settings: Settings) -> None:
    positions = token_positions(read_object(files.weights / CONFIG))
    if positions is not None and positions < settings.max_length:
        raise UsageError(
            f"--max-length {settings.max_length} exceeds the {positions} positions of {files.name}."
        )
