"""Score (query, document) pairs with sentence-transformers' CrossEncoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bge_eval.errors import DamagedError, MissingError, UsageError
from bge_eval.progress import Progress, quiet_transformers
from bge_eval.records import ModelFiles

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

_PAIRS_PER_CALL = 1024
"""Pairs given to one predict call: sentence-transformers sorts them by length inside it."""


class CrossEncoderReranker:
    """A cross-encoder; the weights are loaded when the first pair must be scored."""

    def __init__(
        self,
        files: ModelFiles,
        *,
        dtype: str = "float32",
        max_length: int | None = None,
        device: str | None = None,
        trust_remote_code: bool = False,
        progress: Progress | None = None,
    ) -> None:
        """Remember what to load.

        Args:
            files: where the model lies.
            dtype: precision of the forward pass.
            max_length: longest pair in tokens; None takes the model's own limit.
            device: None takes a GPU when there is one.
            trust_remote_code: run Python code that comes with the model.
            progress: told of the scoring.
        """
        self.files = files
        self.progress = progress or Progress()
        self._dtype = dtype
        self._max_length = max_length
        self._device = device
        self._trust_remote_code = trust_remote_code
        self._model: CrossEncoder | None = None

    def identity(self) -> dict[str, Any]:
        """Return everything about this reranker that scores depend on."""
        return {
            "name": self.files.name,
            "revision": self.files.revision,
            "dtype": self._dtype,
            "max_length": self._max_length,
        }

    def score(self, pairs: Sequence[tuple[str, str]]) -> npt.NDArray[np.float64]:
        """Score pairs.

        Args:
            pairs: (query, document) texts.

        Returns:
            ``(n_pairs,)`` float64, higher is more relevant.

        Raises:
            MissingError: the model cannot be loaded.
            DamagedError: the model gives more than one number a pair, or none that is finite.
        """
        model = self._load()
        scores = np.empty(len(pairs))
        with self.progress.step("rerank", len(pairs), "pairs") as step:
            for start in range(0, len(pairs), _PAIRS_PER_CALL):
                part = list(pairs[start : start + _PAIRS_PER_CALL])
                predicted = np.asarray(model.predict(part, show_progress_bar=False), np.float64)
                if predicted.ndim != 1:
                    raise DamagedError(
                        f"{self.files.name} gives {predicted.shape[-1]} numbers a pair; a reranker"
                        " gives one relevance score (num_labels = 1)."
                    )
                scores[start : start + len(part)] = predicted
                step.advance(len(part))
        if not np.isfinite(scores).all():
            raise DamagedError(
                f"{self.files.name} gave scores that are not finite in {self._dtype}."
            )
        return scores

    def _load(self) -> CrossEncoder:
        if self._model is not None:
            return self._model
        import torch
        from mteb.models.sentence_transformer_wrapper import CrossEncoderWrapper
        from sentence_transformers import CrossEncoder

        with self.progress.step("load reranker"), quiet_transformers():
            try:
                model = CrossEncoder(
                    str(self.files.folder),
                    device=self._device,
                    max_length=self._max_length,
                    trust_remote_code=self._trust_remote_code,
                    local_files_only=True,
                    model_kwargs={"dtype": getattr(torch, self._dtype)},
                )
            except (OSError, ValueError, KeyError, RuntimeError) as error:
                reason = " ".join(str(error).split())[:300]
                raise MissingError(
                    f"The reranker {self.files.name} could not be loaded from {self.files.folder}:"
                    f" {reason}"
                ) from error
            if model.num_labels != 1:
                raise UsageError(
                    f"{self.files.name} is a classifier of {model.num_labels} labels, not a"
                    " reranker (which gives one score a pair)."
                )
            # mteb's wrapper lets a half-precision model score in float32, so that near scores
            # do not tie; scores equal mteb's that way.
            self._model = CrossEncoderWrapper(model).model
        return self._model
