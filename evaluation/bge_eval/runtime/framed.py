"""Texts between two fixed texts, whose vector is the mean of the last tokens (LLARA)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from bge_eval.encode.part import Share
from bge_eval.errors import DamagedError
from bge_eval.runtime.text_encoder import Batch, TextEncoder


@dataclass(frozen=True, slots=True)
class Frame:
    """What stands around every text, and what is read of it."""

    before: str
    """Text before, after the tokenizer's own start token."""
    after: str
    """Text after; neither is ever cut."""
    ends: tuple[str, ...]
    """The last tokens of ``after``, whose vectors are averaged; each is one token."""


class FramedEncoder(TextEncoder):
    """A text encoder with a frame; the maximum length limits the text inside it."""

    def __init__(self, encoder: TextEncoder, frame: Frame, name: str) -> None:
        """Take a loaded encoder with mean pooling.

        Args:
            encoder: tokenizer, weights and settings.
            frame: what stands around every text.
            name: the model's name, for the message.

        Raises:
            DamagedError: the tokenizer does not know one of the frame's last tokens.
        """
        super().__init__(
            encoder.tokenizer,
            encoder.forward,
            encoder.settings,
            batch_tokens=encoder.batch_tokens,
            progress=encoder.progress,
        )
        self._last = len(frame.ends)
        tokenizer: Any = self.tokenizer
        # As FlagEmbedding's research/LLARA/finetune/data.py joins them.
        self._before: list[int] = tokenizer(frame.before)["input_ids"]
        self._after: list[int] = tokenizer(frame.after, add_special_tokens=False)["input_ids"]
        ends = tokenizer.convert_ids_to_tokens(self._after[-self._last :])
        if tuple(ends) != frame.ends:
            raise DamagedError(
                f"The tokenizer of {name} does not know {', '.join(frame.ends)} as tokens, whose"
                f" vectors are the text's: its input ends with {' '.join(ends)}. Copy the model's"
                " own tokenizer."
            )

    def _tokenised(self, texts: Sequence[str], prompt: str) -> dict[str, list[list[int]]]:
        encoded = self.tokenizer(
            list(texts),
            add_special_tokens=False,
            truncation=True,
            max_length=self.settings.max_length,
        )
        rows = [[*self._before, *row, *self._after] for row in encoded["input_ids"]]
        return {"input_ids": rows, "attention_mask": [[1] * len(row) for row in rows]}

    def _batches(
        self,
        encoded: Mapping[str, list[list[int]]],
        skipped: int,
        wanted: npt.NDArray[np.bool_],
        share: Share | None = None,
        needed: npt.NDArray[np.bool_] | None = None,
    ) -> Iterator[Batch]:
        for batch in super()._batches(encoded, skipped, wanted, share, needed):
            mask = batch.pooled
            from_end = np.cumsum(mask[:, ::-1], axis=1)[:, ::-1]
            yield replace(batch, pooled=mask * (from_end <= self._last))
