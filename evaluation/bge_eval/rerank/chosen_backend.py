"""Whether a cross-encoder runs in OpenVINO, decided without loading weights."""

from __future__ import annotations

from importlib.util import find_spec

from bge_eval.encode.files import ModelFiles
from bge_eval.encode.settings import Backend, Dtype
from bge_eval.errors import MissingError, UsageError
from bge_eval.rerank.reranker import RerankerOptions
from bge_eval.runtime.backends import openvino_supports, refuse_int8_without
from bge_eval.runtime.conversions import worth_converting
from bge_eval.runtime.devices import first_device


def choose_openvino(files: ModelFiles, options: RerankerOptions) -> bool:
    """Return whether OpenVINO computes, as far as that is known before weights are loaded.

    float32 may still fall back to torch: there both give the same scores.

    Args:
        files: the model's files.
        options: precision, device, backend.

    Raises:
        UsageError: the backend or the precision does not fit the device or the processor.
        MissingError: a package is not installed.
    """
    backend, dtype = options.backend, options.dtype
    if dtype == Dtype.INT8:
        refuse_int8_without(backend, options.device)
        return True
    required = backend == Backend.OPENVINO
    if not required and (backend != Backend.AUTO or not worth_converting(files.folder)):
        return False
    if required and find_spec("openvino") is None:
        raise MissingError(
            "--backend openvino needs openvino, which is not installed: pip install openvino."
        )
    supported = dtype in (Dtype.FLOAT32, Dtype.BFLOAT16) and first_device(options.device) == "cpu"
    supported = supported and openvino_supports(Dtype(dtype))
    if required and not supported:
        raise UsageError(
            f"--backend openvino does not run rerankers in {dtype} on"
            f" '{first_device(options.device)}' here: it takes a CPU, float32, int8, and bfloat16"
            " where the processor computes in it. Use --backend torch."
        )
    return supported
