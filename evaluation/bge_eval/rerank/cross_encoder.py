"""Score (query, document) pairs with sentence-transformers' ``CrossEncoder``.

This module builds batches by tokens; ``CrossEncoder.predict`` scores them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bge_eval.encode.calls import CallScores
from bge_eval.encode.config import read_modules, transformer_folder
from bge_eval.encode.files import ModelFiles
from bge_eval.encode.positions import token_positions
from bge_eval.encode.protocol import ProtocolName
from bge_eval.encode.settings import Backend, Dtype, calibration_digest
from bge_eval.errors import DamagedError, MissingError, UsageError, one_line
from bge_eval.progress import quiet_transformers
from bge_eval.rerank.chosen_backend import choose_openvino
from bge_eval.rerank.flag_cut import flag_preprocess, longest_pair
from bge_eval.rerank.padding import pad_apart, padding_fact
from bge_eval.rerank.reranker import (
    Family,
    LocalReranker,
    architecture,
    checked,
    has_module,
)
from bge_eval.runtime.backends import saturation
from bge_eval.runtime.batches import PairBatch, PairRule, Tokens, default_batch_tokens
from bge_eval.runtime.devices import first_device

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

    from bge_eval.runtime.openvino_requests import Requests


class CrossEncoderReranker(LocalReranker):
    """A cross-encoder; weights are loaded with the first pair."""

    _in_openvino: bool
    """Whether OpenVINO computes in place of torch."""
    _model: CrossEncoder | None = None
    _requests: Requests | None = None

    def _check_options(self) -> None:
        """Refuse a backend that cannot run here, and texts for int8 in another precision."""
        calibration_digest(self._options.dtype, self._options.calibration)
        self._in_openvino = choose_openvino(self.files, self._options)

    @property
    def packages(self) -> tuple[str, ...]:
        """Return the packages that run the model."""
        more = ["onnxruntime"] if self._options.backend == "onnx" else []
        if self._in_openvino and self._options.dtype != Dtype.FLOAT32:
            more += ["openvino", *(["nncf"] if self._options.dtype == Dtype.INT8 else [])]
        return ("sentence-transformers", *more)

    def _settings(self) -> Mapping[str, Any]:
        protocol = {"protocol": str(self._options.protocol)} if self._as_flag_reranker else {}
        trusted = self._options.trust_remote_code
        return {
            **self._backend_identity(),
            **protocol,
            **padding_fact(self.files, remote_code=trusted),
        }

    def _backend_identity(self) -> dict[str, str | bool]:
        """Name what computes where it changes a score by more than float32's rounding.

        ``runtime`` is what ``auto`` chose: it names no folder, unlike ``backend``.
        """
        backend, dtype = self._options.backend, self._options.dtype
        if backend == Backend.ONNX:
            return {"backend": "onnx"}
        if not self._in_openvino or dtype == Dtype.FLOAT32:
            return {}
        named = "backend" if backend == Backend.OPENVINO else "runtime"
        digest = calibration_digest(dtype, self._options.calibration)
        of_int8: dict[str, str | bool] = {"calibration": digest, **saturation()} if digest else {}
        return {named: "openvino", **of_int8}

    @property
    def _as_flag_reranker(self) -> bool:
        """Return whether pairs are cut, and scored by their logits, as the model cards' were."""
        return self._options.protocol is ProtocolName.MODEL_CARD

    def score(self, pairs: Sequence[tuple[str, str]]) -> npt.NDArray[np.float64]:
        """Score pairs.

        Args:
            pairs: (query, document) texts.

        Returns:
            ``(n_pairs,)`` float64, higher is more relevant.

        Raises:
            MissingError: the model cannot be loaded.
            DamagedError: the model outputs several numbers per pair, or a score that is not finite.
        """
        model = self._load()
        scores = CallScores(self.unfinished, pairs, self.progress)
        with self.progress.step("rerank", len(pairs), "pairs") as step:

            def lacking() -> Iterator[PairBatch]:
                for batch in self.pair_rule().batches(pairs):
                    if scores.lacks(batch.rows):
                        yield batch
                    else:
                        step.advance(len(batch.rows))

            for batch, predicted in self._predicted(model, pairs, lacking()):
                if predicted.ndim != 1:
                    raise DamagedError(
                        f"{self.files.name} outputs {predicted.shape[-1]} numbers per pair; a"
                        " reranker outputs one score (num_labels = 1)."
                    )
                scores.put(batch.rows, predicted)
                step.advance(len(batch.rows), batch.tokens)
        return checked(scores.values, self.files.name, self._options.dtype)

    def pair_rule(self) -> PairRule:
        """Return how pairs are batched; loads the model."""
        model = self._load()
        tokenizer, limit = model.tokenizer, _limit(model)

        def lengths_of(texts: list[str]) -> list[int]:
            encoded = tokenizer(texts, add_special_tokens=False, truncation=True, max_length=limit)
            return [len(ids) for ids in encoded["input_ids"]]

        return PairRule(
            lengths_of,
            self._options.batch_tokens or self._batch_tokens(model),
            limit,
            tokenizer.num_special_tokens_to_add(pair=True),
        )

    def _predicted(
        self, model: CrossEncoder, pairs: Sequence[tuple[str, str]], batches: Iterable[PairBatch]
    ) -> Iterator[tuple[PairBatch, npt.NDArray[np.float64]]]:
        """Yield the scores of each batch: ``(batch,)`` if the model outputs one for each pair."""
        import torch

        activation: Any = torch.nn.Identity() if self._as_flag_reranker else model.activation_fn
        if self._requests is None:
            from bge_eval.runtime.fitting import Fitting

            fitting = Fitting(self.files.name, self.progress.note)

            def of(batch: PairBatch) -> Callable[[slice], npt.NDArray[np.float64]]:
                def compute(part: slice) -> npt.NDArray[np.float64]:
                    chosen = [pairs[row] for row in batch.rows[part]]
                    predicted = model.predict(
                        chosen,
                        batch_size=len(chosen),
                        activation_fn=activation,
                        show_progress_bar=False,
                    )
                    return np.asarray(predicted, np.float64)

                return compute

            for batch in batches:
                yield batch, np.concatenate(fitting.run(len(batch.rows), of(batch)))
            return

        def tokenised() -> Iterator[tuple[PairBatch, dict[str, Tokens]]]:
            for batch in batches:
                features = model.preprocess([pairs[row] for row in batch.rows])
                tensors = {name: x for name, x in features.items() if torch.is_tensor(x)}
                yield batch, {name: tensor.numpy() for name, tensor in tensors.items()}

        for batch, logits in self._requests.run(tokenised()):
            activated = activation(torch.from_numpy(logits.copy()))
            yield batch, activated.squeeze(-1).numpy().astype(np.float64)

    def _batch_tokens(self, model: CrossEncoder) -> int:
        kind = model.device.type if self._requests is None else "openvino"
        return default_batch_tokens(kind)

    def _load(self) -> CrossEncoder:
        if self._model is not None:
            return self._model
        import torch
        from mteb.models.sentence_transformer_wrapper import CrossEncoderWrapper
        from sentence_transformers import CrossEncoder

        device = first_device(self._options.device)
        dtype = "float32" if self._in_openvino else self._options.dtype
        with self.progress.step("load reranker"), quiet_transformers():
            try:
                model = CrossEncoder(
                    str(self.files.folder),
                    device=device,
                    max_length=self._options.max_length,
                    trust_remote_code=self._options.trust_remote_code,
                    local_files_only=True,
                    model_kwargs={"dtype": getattr(torch, dtype)},
                )
            except RuntimeError as error:
                raise DamagedError(
                    f"The weights of {self.files.name} do not fit its config.json"
                    f" ({one_line(error)})."
                ) from error
            except (OSError, ValueError, KeyError) as error:
                reason = one_line(error)
                raise MissingError(
                    f"The reranker {self.files.name} could not be loaded from {self.files.folder}:"
                    f" {reason}"
                ) from error
            _refuse_random_weights(model, self.files)
            if model.num_labels != 1:
                raise UsageError(
                    f"{self.files.name} is a classifier of {model.num_labels} labels, not a"
                    " reranker, which outputs one score per pair."
                )
            self._limit_to_positions(model)
            pad_apart(model, self.files, remote_code=self._options.trust_remote_code)
            # mteb's wrapper makes a half-precision model return float32 scores, so that near
            # scores do not tie; without it scores would differ from mteb's.
            self._model = CrossEncoderWrapper(model).model
            if self._as_flag_reranker:
                self._cut_as_flag_reranker(self._model)
            self._replace_forward(self._model)
        return self._model

    def _limit_to_positions(self, model: CrossEncoder) -> None:
        transformer: Any = model[0].auto_model
        positions = token_positions(transformer.config.to_dict())
        if positions is None or model.tokenizer.model_max_length <= positions:
            return
        if self._options.max_length is not None:
            raise UsageError(
                f"--reranker-max-length {self._options.max_length} exceeds the {positions}"
                f" positions of {self.files.name}."
            )
        model.tokenizer.model_max_length = positions

    def _cut_as_flag_reranker(self, model: Any) -> None:
        positions = token_positions(model[0].auto_model.config.to_dict())
        length = longest_pair(self._options.max_length, positions)
        model.max_seq_length = length
        model.preprocess = flag_preprocess(model.tokenizer, length, self.files.name)

    def _replace_forward(self, model: CrossEncoder) -> None:
        """Run the forward pass in ONNX Runtime or OpenVINO, or on CUDA without padding."""
        transformer: Any = model[0].auto_model
        if self._options.backend in ("auto", "torch"):
            from bge_eval.runtime.unpadded import run_unpadded, skips_padding

            if skips_padding(model.device):
                run_unpadded(transformer.base_model, self.progress.note)
        if self._options.backend == Backend.ONNX:
            from bge_eval.rerank.fast_forward import use_onnx

            use_onnx(transformer, self.files, dtype=self._options.dtype)
        if not self._in_openvino:
            return
        from bge_eval.rerank.fast_forward import openvino_requests

        prompts = getattr(model, "default_prompt_name", None)
        if len(model) == 1 and prompts is None:
            self._requests = openvino_requests(
                transformer,
                model.tokenizer,
                _limit(model),
                self.files,
                self._options,
                self.progress,
            )
        elif self._options.backend == Backend.OPENVINO or self._options.dtype != Dtype.FLOAT32:
            raise UsageError(
                f"{self.files.name} has a prompt or modules after its transformer, which do not run"
                " in OpenVINO. Use --backend torch, and float32 or bfloat16."
            )


def _limit(model: CrossEncoder) -> int:
    """Return the longest pair in tokens."""
    return int(getattr(model, "max_seq_length", None) or model.tokenizer.model_max_length)


def _refuse_random_weights(model: CrossEncoder, files: ModelFiles) -> None:
    """Refuse a checkpoint that lacks weights of the model; they would be random.

    sentence-transformers adds a random scoring head to a bare encoder and only logs it. It drops
    transformers' loading report, so the weights are loaded again for the report, without values
    if accelerate is installed.

    Raises:
        DamagedError: weights are missing or have another shape.
    """
    transformer: Any = model[0].auto_model
    folder = transformer_folder(files.folder)
    if (folder / "adapter_config.json").is_file():  # peft reports its own missing weights
        return
    values = {"device_map": "meta"} if find_spec("accelerate") else {}
    _, info = type(transformer).from_pretrained(
        str(folder),
        config=transformer.config,
        output_loading_info=True,
        local_files_only=True,
        **values,
    )
    lacking = sorted({*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])})
    if lacking:
        raise DamagedError(
            f"{files.name} is not a reranker: its checkpoint lacks {', '.join(lacking[:3])}, so"
            " its scores would be random. A reranker is a fine-tuned sequence classifier or a"
            " sentence-transformers CrossEncoder; --reranker-kind late reranks with an embedder's"
            " token vectors."
        )


def _recognises(files: ModelFiles) -> bool:
    """Return whether the model is a sequence classifier or a ``CrossEncoder``."""
    name = architecture(files)
    if not name:  # the modules of sentence-transformers define the model
        return read_modules(files.folder) is not None and not has_module(files, "Pooling")
    return name.endswith("ForSequenceClassification")


FAMILY = Family(_recognises, CrossEncoderReranker)
"""Cross-encoders, run by sentence-transformers."""
