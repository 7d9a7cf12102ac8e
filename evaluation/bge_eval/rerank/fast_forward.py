"""Run a cross-encoder's forward pass in OpenVINO or ONNX Runtime.

Only the transformer's ``forward`` is replaced; sentence-transformers' ``CrossEncoder`` still
tokenises and applies the activation.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from transformers.modeling_outputs import SequenceClassifierOutput

from bge_eval.encode.cache import cache_folder
from bge_eval.encode.files import ModelFiles
from bge_eval.errors import DamagedError, MissingError, NotReadyError, UsageError
from bge_eval.runtime.batches import model_inputs
from bge_eval.runtime.conversions import worth_converting


def use_openvino(
    transformer: Any,
    files: ModelFiles,
    *,
    dtype: str,
    device: str,
    required: bool,
    note: Callable[[str], None],
) -> str:
    """Run a cross-encoder's transformer in OpenVINO, if that is faster and equals torch.

    Args:
        transformer: the model in transformers; its ``forward`` is replaced.
        files: the model's files.
        dtype: precision of the forward pass.
        device: device of the model.
        required: whether the user passed ``--backend openvino``; else torch is the fallback.
        note: receives a message when torch is the fallback.

    Returns:
        The backend of the forward pass, "openvino" or "torch".

    Raises:
        NotReadyError: OpenVINO is required and cannot run the model.
        MissingError: OpenVINO is required and not installed.
        UsageError: OpenVINO is required, but not with float32 on the CPU.
    """
    supported = dtype == "float32" and device == "cpu"
    if not required and not (supported and worth_converting(files.folder)):
        return "torch"
    if not supported:
        raise UsageError(
            "--backend openvino runs rerankers in float32 on the CPU, not in"
            f" {dtype} on '{device}'. Use --backend torch."
        )
    if find_spec("openvino") is None:
        raise MissingError(
            "--backend openvino needs openvino, which is not installed: pip install openvino."
        )
    from bge_eval.runtime.converted import conversion

    def load() -> torch.nn.Module:
        loaded: torch.nn.Module = transformer
        return loaded

    try:
        converted = conversion(files, load, "logits", cache_folder(), first_only=True, note=note)
    except NotReadyError as error:
        if required:
            raise
        note(f"{error} The run uses torch.")
        return "torch"
    facts = converted.facts
    if not facts.faithful or (facts.speed <= 1 and not required):
        message = f"OpenVINO's scores of {files.name} are {facts.difference:.1g} from torch's"
        if required:
            raise NotReadyError(f"{message}. Use --backend torch.")
        if not facts.faithful:
            note(f"{message}; the run uses torch.")
        return "torch"
    request = converted.compiled(dtype, throughput=False).create_infer_request()

    def forward(**features: Any) -> SequenceClassifierOutput:
        arrays = {name: item.numpy() for name, item in features.items() if torch.is_tensor(item)}
        request.infer(model_inputs(arrays, facts.inputs))
        return _classified(request.get_output_tensor(0).data.copy())

    transformer.forward = forward
    return "openvino"


def use_onnx(transformer: Any, files: ModelFiles, *, dtype: str) -> str:
    """Run a cross-encoder's transformer from its repository's ``onnx/model.onnx``.

    Raises:
        MissingError: the file or ONNX Runtime is missing.
        DamagedError: the file is unreadable, or outputs no scores.
        UsageError: the dtype is not float32.
    """
    if find_spec("onnxruntime") is None:
        raise MissingError(
            "--backend onnx needs onnxruntime, which is not installed: pip install bge-eval[onnx]."
        )
    if dtype != "float32":
        raise UsageError(
            f"--backend onnx runs the model file in its own precision, not in {dtype}."
            " Leave --dtype out."
        )
    from bge_eval.runtime.onnx_session import ONNX_FILE, OnnxSession

    path = files.folder / ONNX_FILE
    if not path.is_file():
        raise MissingError(
            f"--backend onnx needs {ONNX_FILE}, which {files.name} lacks ({files.folder})."
            " Use --backend torch."
        )
    session = OnnxSession(path, ["CPUExecutionProvider"])
    outputs = [out.name for out in session.outputs if len(out.shape) == 2]
    if not outputs:
        raise DamagedError(f"{path} has no output of scores (two dimensions).")

    def forward(**features: Any) -> SequenceClassifierOutput:
        arrays = {n: item.cpu().numpy() for n, item in features.items() if torch.is_tensor(item)}
        return _classified(session.run(outputs[0], arrays))

    transformer.forward = forward
    return "onnx"


def _classified(logits: Any) -> SequenceClassifierOutput:
    return SequenceClassifierOutput(logits=torch.from_numpy(logits))
