"""The last token of every text, as a decoder gives it: its vector, or its logits.

A reranker that is a language model reads nothing else of its output.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from bge_eval.runtime.batches import Tokens, padded
from bge_eval.runtime.own_positions import number_own_tokens
from bge_eval.runtime.transfer import sent
from bge_eval.runtime.unpadded import skips_padding, unpadded


class LastTokens:
    """A causal transformer, read at the last token of each text.

    On a GPU the texts of a batch lie in one row without padding, where that gives the same; else
    they are padded.
    """

    def __init__(
        self,
        model: Any,
        note: Callable[[str], None],
        *,
        left: bool,
        skip_padding: bool | None = None,
    ) -> None:
        """Prepare a model; on a GPU it is tried with two texts, with padding and without.

        Args:
            model: a causal model of transformers, with or without a head, on its device, in
                evaluation mode.
            note: receives why a model is run with padding on a GPU.
            left: pad on the left instead of the right.
            skip_padding: compute no padding, where that gives the same; None does so on a GPU.
        """
        number_own_tokens(model)
        self._model = model
        self._left = left
        skips = skips_padding(model.device) if skip_padding is None else skip_padding
        self._unpadded = unpadded(model.base_model, note) if skips else None

    def vectors(self, rows: Sequence[Sequence[int]]) -> torch.Tensor:
        """Return the vectors of the last layer, ``(n_texts, dim)`` on the device.

        Args:
            rows: token ids of each text, at least one token in each.
        """
        flat = self._flat(rows)
        if flat is not None:
            inputs, last = flat
            vectors: torch.Tensor = self._model(**inputs, use_cache=False).last_hidden_state[0]
            return vectors[last]
        hidden = self._model(**self._padded(rows), use_cache=False).last_hidden_state
        if self._left:
            return torch.as_tensor(hidden[:, -1])
        last = torch.tensor([len(row) - 1 for row in rows], device=hidden.device)
        return torch.as_tensor(hidden[torch.arange(len(rows), device=hidden.device), last])

    def logits(self, rows: Sequence[Sequence[int]]) -> torch.Tensor:
        """Return the logits of the next token, ``(n_texts, vocabulary)`` on the device.

        Only the last tokens' are computed: those of every token would fill the memory. The model
        has a language model's head, and pads on the left.

        Args:
            rows: token ids of each text, at least one token in each.
        """
        flat = self._flat(rows)
        if flat is not None:
            inputs, last = flat
            logits: torch.Tensor = self._model(
                **inputs, use_cache=False, logits_to_keep=last
            ).logits
            return logits[0]
        assert self._left, "the last position of a row is its text's last token"
        out = self._model(**self._padded(rows), use_cache=False, logits_to_keep=1)
        return torch.as_tensor(out.logits[:, -1])

    def _flat(self, rows: Sequence[Sequence[int]]) -> tuple[dict[str, Any], torch.Tensor] | None:
        """Return the arguments of an unpadded pass, and the places of the last tokens."""
        if self._unpadded is None:
            return None
        inputs = self._unpadded.inputs(self._features(rows))
        return None if inputs is None else (inputs, inputs["segments"].bounds[1:].long() - 1)

    def _padded(self, rows: Sequence[Sequence[int]]) -> dict[str, torch.Tensor]:
        features = self._features(rows)
        return {name: sent(item, self._model.device) for name, item in features.items()}

    def _features(self, rows: Sequence[Sequence[int]]) -> dict[str, Tokens]:
        lengths = [len(row) for row in rows]
        ids = padded(rows, max(lengths), 0, left=self._left)
        mask = padded([[1] * length for length in lengths], max(lengths), 0, left=self._left)
        return {"input_ids": ids, "attention_mask": np.ascontiguousarray(mask)}
