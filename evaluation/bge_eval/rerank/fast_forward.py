"""A cross-encoder's forward pass in OpenVINO or ONNX Runtime, called by sentence-transformers.

Only the transformer's ``forward`` is replaced; ``CrossEncoder`` still tokenises and activates.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from transformers.modeling_outputs import SequenceClassifierOutput

from bge_eval.encode.cache import cache_folder
from bge_eval.errors import DamagedError, MissingError, NotReadyError, UsageError
from bge_eval.records import ModelFiles
from bge_eval.runtime.batches import model_inputs
from bge_eval.runtime.conversions import worth_converting


def use_openvino(
    transformer: Any,
    files: ModelFiles,
    *,
    dtype: str,
    device: str,
    certain: bool,
    note: Callable[[str], None],
) -> str:
    """Put OpenVINO under a cross-encoder's transformer, where it is the faster and as exact.

    Args:
        transformer: the model in transformers; its ``forward`` is replaced.
        files: where it lies.
        dtype: its precision.
        device: where it computes.
        certain: whether OpenVINO was asked for by name.
        note: told why torch is used all the same.

    Returns:
        The backend that is used, "openvino" or "torch".

    Raises:
        NotReadyError: OpenVINO was asked for and cannot be used.
        MissingError: it was asked for and is not installed.
        UsageError: it was asked for, for another precision or device than its own.
    """
    computes = dtype == "float32" and device == "cpu"
    if not certain and not (computes and worth_converting(files.folder)):
        return "torch"
    if not computes:
        raise UsageError(
            "--backend openvino runs a reranker in float32 on the CPU; this one is in"
            f" {dtype} on '{device}'."
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
        if certain:
            raise
        note(f"{error} torch is used.")
        return "torch"
    facts = converted.facts
    if not facts.faithful or (facts.speed <= 1 and not certain):
        apart = f"OpenVINO's scores of {files.name} are {facts.difference:.1g} from torch's"
        if certain:
            raise NotReadyError(f"{apart}. Use --backend torch.")
        if not facts.faithful:
            note(f"{apart}; torch is used.")
        return "torch"
    request = converted.compiled(dtype, throughput=False).create_infer_request()

    def forward(**features: Any) -> SequenceClassifierOutput:
        arrays = {name: item.numpy() for name, item in features.items() if torch.is_tensor(item)}
        request.infer(model_inputs(arrays, facts.inputs))
        return _answer(request.get_output_tensor(0).data.copy())

    transformer.forward = forward
    return "openvino"


def use_onnx(transformer: Any, files: ModelFiles, *, dtype: str) -> str:
    """Put the repository's ``onnx/model.onnx`` under a cross-encoder's transformer.

    Raises:
        MissingError: there is no such file, or no runtime for it.
        DamagedError: it cannot be read, or gives no score.
        UsageError: another precision was asked for than the file's own.
    """
    if find_spec("onnxruntime") is None:
        raise MissingError(
            "--backend onnx needs onnxruntime, which is not installed: pip install bge-eval[onnx]."
        )
    if dtype != "float32":
        raise UsageError(
            f"--backend onnx runs the model file as it is; its precision is not {dtype}."
            " Leave --dtype out."
        )
    from bge_eval.runtime.onnx_session import ONNX_FILE, OnnxSession

    path = files.folder / ONNX_FILE
    if not path.is_file():
        raise MissingError(
            f"{files.name} holds no {ONNX_FILE} in {files.folder}, which --backend onnx runs."
            " Use --backend torch."
        )
    session = OnnxSession(path, ["CPUExecutionProvider"])
    outputs = [out.name for out in session.outputs if len(out.shape) == 2]
    if not outputs:
        raise DamagedError(f"{path} gives no scores (an output of two dimensions).")

    def forward(**features: Any) -> SequenceClassifierOutput:
        arrays = {n: item.cpu().numpy() for n, item in features.items() if torch.is_tensor(item)}
        return _answer(session.run(outputs[0], arrays))

    transformer.forward = forward
    return "onnx"


def _answer(logits: Any) -> SequenceClassifierOutput:
    return SequenceClassifierOutput(logits=torch.from_numpy(logits))
