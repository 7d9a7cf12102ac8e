"""A cross-encoder's forward pass in OpenVINO or ONNX Runtime.

sentence-transformers' ``CrossEncoder`` still tokenises and names the activation.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from transformers.modeling_outputs import SequenceClassifierOutput

from bge_eval.encode.cache import cache_folder
from bge_eval.encode.calibration import read_calibration
from bge_eval.encode.files import ModelFiles
from bge_eval.encode.settings import Dtype
from bge_eval.errors import DamagedError, MissingError, NotReadyError, UsageError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from bge_eval.progress import Progress
    from bge_eval.rerank.reranker import RerankerOptions
    from bge_eval.runtime.converted import Conversion
    from bge_eval.runtime.openvino_requests import Requests


def openvino_requests(
    transformer: Any,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    files: ModelFiles,
    options: RerankerOptions,
    progress: Progress,
) -> Requests | None:
    """Return a cross-encoder's transformer in OpenVINO, or None where torch is better.

    Args:
        transformer: the model in transformers, in float32.
        tokenizer: its tokenizer.
        max_length: longest pair in tokens.
        files: the model's files.
        options: precision and backend; `choose_openvino` has accepted them.
        progress: is told when torch is the fallback, and of quantisation.

    Raises:
        NotReadyError: OpenVINO is required and cannot run the model.
    """
    from bge_eval.runtime.converted import conversion
    from bge_eval.runtime.openvino_requests import Requests

    cache, dtype = cache_folder(), options.dtype
    required = options.backend == "openvino" or dtype != Dtype.FLOAT32

    def in_full() -> Conversion:
        return conversion(
            files, lambda: transformer, "logits", cache, first_only=True, note=progress.note
        )

    try:
        if dtype == Dtype.INT8:
            from bge_eval.runtime.quantized import pair_samples, quantized

            texts = read_calibration(options.calibration)
            samples = pair_samples(tokenizer, max_length, texts)
            converted = quantized(files, in_full, samples, cache, progress, output="logits")
        else:
            converted = in_full()
    except NotReadyError as error:
        if required:
            raise
        progress.note(f"{error} The run uses torch.")
        return None
    facts = converted.facts
    if not facts.faithful or (facts.speed <= 1 and not required):
        message = f"OpenVINO's scores of {files.name} are {facts.difference:.1g} from torch's"
        if required:
            raise NotReadyError(f"{message}. Use --backend torch.")
        if not facts.faithful:
            progress.note(f"{message}; the run uses torch.")
        return None
    return Requests(converted, dtype)


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
