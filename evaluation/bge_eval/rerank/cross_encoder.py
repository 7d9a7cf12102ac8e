"""Score (query, document) pairs with sentence-transformers' ``CrossEncoder``.

This module builds batches by tokens; ``CrossEncoder.predict`` scores them.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bge_eval.encode.calls import CallScores
from bge_eval.encode.config import read_modules, transformer_folder
from bge_eval.encode.files import ModelFiles
from bge_eval.encode.positions import token_positions
from bge_eval.encode.protocol import ProtocolName
from bge_eval.errors import DamagedError, MissingError, UsageError, one_line
from bge_eval.progress import Progress, quiet_transformers
from bge_eval.rerank.flag_cut import flag_preprocess, longest_pair
from bge_eval.rerank.reranker import (
    Family,
    RerankerOptions,
    Resumable,
    architecture,
    checked,
    has_module,
)
from bge_eval.runtime.batches import PairRule, default_batch_tokens
from bge_eval.runtime.devices import first_device

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder


class CrossEncoderReranker(Resumable):
    """A cross-encoder; weights are loaded with the first pair."""

    def __init__(
        self,
        files: ModelFiles,
        options: RerankerOptions | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Store the options; nothing is loaded yet.

        Args:
            files: the model's files.
            options: precision, maximum length (None uses the model's limit), device, batches,
                backend; None for the defaults.
            progress: reports loading and scoring.
        """
        self.files = files
        self.progress = progress or Progress()
        self._options = options or RerankerOptions()
        self._model: CrossEncoder | None = None

    @property
    def name(self) -> str:
        """Return ``org/model``."""
        return self.files.name

    @property
    def packages(self) -> tuple[str, ...]:
        """Return the packages that run the model."""
        more = ("onnxruntime",) if self._options.backend == "onnx" else ()
        return ("sentence-transformers", *more)

    def identity(self) -> dict[str, Any]:
        """Return everything that scores depend on."""
        return {
            "name": self.files.name,
            "revision": self.files.revision,
            "dtype": self._options.dtype,
            "max_length": self._options.max_length,
            **({"backend": "onnx"} if self._options.backend == "onnx" else {}),
            **({"protocol": str(self._options.protocol)} if self._as_flag_reranker else {}),
        }

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
        import torch

        model = self._load()
        options: dict[str, Any] = {"show_progress_bar": False}
        if self._as_flag_reranker:
            options["activation_fn"] = torch.nn.Identity()
        scores = CallScores(self.unfinished, pairs, self.progress)
        with self.progress.step("rerank", len(pairs), "pairs") as step:
            for batch in self.pair_rule().batches(pairs):
                if not scores.lacks(batch.rows):
                    step.advance(len(batch.rows))
                    continue
                part = [pairs[row] for row in batch.rows]
                predicted = np.asarray(
                    model.predict(part, batch_size=len(part), **options), np.float64
                )
                if predicted.ndim != 1:
                    raise DamagedError(
                        f"{self.files.name} outputs {predicted.shape[-1]} numbers per pair; a"
                        " reranker outputs one score (num_labels = 1)."
                    )
                scores.put(batch.rows, predicted)
                step.advance(len(part), batch.tokens)
        return checked(scores.values, self.files.name, self._options.dtype)

    def pair_rule(self) -> PairRule:
        """Return how pairs are batched; loads the model."""
        model = self._load()
        tokenizer = model.tokenizer
        limit = int(getattr(model, "max_seq_length", None) or tokenizer.model_max_length)

        def lengths_of(texts: list[str]) -> list[int]:
            encoded = tokenizer(texts, add_special_tokens=False, truncation=True, max_length=limit)
            return [len(ids) for ids in encoded["input_ids"]]

        return PairRule(
            lengths_of,
            self._options.batch_tokens or default_batch_tokens(model.device.type),
            limit,
            tokenizer.num_special_tokens_to_add(pair=True),
        )

    def _load(self) -> CrossEncoder:
        if self._model is not None:
            return self._model
        import torch
        from mteb.models.sentence_transformer_wrapper import CrossEncoderWrapper
        from sentence_transformers import CrossEncoder

        device = first_device(self._options.device)
        with self.progress.step("load reranker"), quiet_transformers():
            try:
                model = CrossEncoder(
                    str(self.files.folder),
                    device=device,
                    max_length=self._options.max_length,
                    trust_remote_code=self._options.trust_remote_code,
                    local_files_only=True,
                    model_kwargs={"dtype": getattr(torch, self._options.dtype)},
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
        if self._options.backend in ("auto", "torch") and model.device.type == "cuda":
            from bge_eval.runtime.unpadded import run_unpadded

            run_unpadded(transformer.base_model, self.progress.note)
        if self._options.backend == "torch":
            return
        from bge_eval.rerank.fast_forward import use_onnx, use_openvino

        if self._options.backend == "onnx":
            use_onnx(transformer, self.files, dtype=self._options.dtype)
            return
        use_openvino(
            transformer,
            self.files,
            dtype=self._options.dtype,
            device=model.device.type,
            required=self._options.backend == "openvino",
            note=self.progress.note,
        )


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
