"""A Gemma 2 run layer by layer over unpadded texts, whose tokens are averaged between layers.

Texts get shorter on the way: before some layers, groups of neighbouring tokens become one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import torch

from bge_eval.errors import one_line
from bge_eval.runtime.batches import Tokens
from bge_eval.runtime.segments import (
    NAME,
    Kernel,
    Segments,
    by_equal_lengths,
    kernels_for,
    register,
)
from bge_eval.runtime.transfer import sent

_PROBE = (192, 37)
"""Lengths of the two texts with which a kernel is tried."""
_LEAST_COSINE = 0.98
"""Least cosine of a last token's vector from two kernels in half precision."""

Group = tuple[int, int, int]
"""Tokens at the beginning and the end of a text that are kept, and how many others become one."""


class FlatLayers:
    """The layers of a Gemma 2, computed without padding on every device."""

    def __init__(self, model: Any, note: Callable[[str], None]) -> None:
        """Choose the kernel of the attention by two texts.

        Args:
            model: transformers' Gemma 2 without a head, on its device, in evaluation mode.
            note: receives why the fastest kernels are not used.
        """
        register()
        model.set_attn_implementation(NAME)
        for layer in model.layers:
            # As in FlagEmbedding's code of the model, every layer attends to the whole text.
            layer.self_attn.sliding_window = None
        self._model = model
        scale = model.config.hidden_size**0.5
        self._scale = torch.tensor(scale, dtype=model.dtype, device=model.device)
        self._kernel: Kernel = by_equal_lengths
        self._choose(note)

    def last(
        self,
        rows: Sequence[Sequence[int]],
        before: Collection[int] = (),
        groups: Sequence[Group] = (),
    ) -> torch.Tensor:
        """Return the last token's vectors of the last layer, ``(n_texts, dim)`` on the device.

        Args:
            rows: token ids of each text, at least one token in each.
            before: the layers before which tokens are averaged.
            groups: for each text, which of its tokens are averaged; read only with ``before``.
        """
        model = self._model
        lengths = np.array([len(row) for row in rows], np.int64)
        ids = self._sent(np.concatenate([*rows]).astype(np.int64))
        # Some versions of transformers scale inside of the embedding, some outside.
        hidden = torch.nn.functional.embedding(ids, model.embed_tokens.weight)[None]
        hidden = hidden * self._scale
        place = self._place(lengths, hidden)
        for index, layer in enumerate(model.layers):
            if index in before:
                hidden, lengths = self._averaged(hidden[0], lengths, groups)
                place = self._place(lengths, hidden)
            out = layer(hidden, attention_mask=None, **place)
            hidden = out[0] if isinstance(out, tuple) else out
        ends = place["segments"].bounds[1:].long() - 1
        return torch.as_tensor(model.norm(hidden[0, ends]))

    def _place(self, lengths: Tokens, hidden: torch.Tensor) -> dict[str, Any]:
        """Return what every layer takes beside the vectors: positions and segments."""
        positions = self._sent(np.concatenate([np.arange(length) for length in lengths]))[None]
        return {
            "position_ids": positions,
            "position_embeddings": self._model.rotary_emb(hidden, positions),
            "segments": Segments.of(lengths, self._kernel, hidden.device),
        }

    def _averaged(
        self, vectors: torch.Tensor, lengths: Tokens, groups: Sequence[Group]
    ) -> tuple[torch.Tensor, Tokens]:
        """Return the shorter texts' vectors, ``(1, tokens, dim)``, and their lengths.

        Args:
            vectors: ``(tokens, dim)``, all texts in one row.
            lengths: ``(n_texts,)``.
            groups: for each text, which of its tokens are averaged.
        """
        counts = [_counts(int(n), *group) for n, group in zip(lengths, groups, strict=True)]
        sizes = np.concatenate(counts)
        first = np.cumsum(sizes) - sizes
        offset = np.arange(sizes.max())
        is_member = offset < sizes[:, None]
        members = self._sent(np.where(is_member, first[:, None] + offset, 0))
        weights = self._sent((is_member / sizes[:, None]).astype(np.float32))
        averages = torch.einsum("gmd,gm->gd", vectors[members].float(), weights)
        return averages.to(vectors.dtype)[None], np.array([len(each) for each in counts], np.int64)

    def _choose(self, note: Callable[[str], None]) -> None:
        """Take the first kernel that gives the vectors of `by_equal_lengths`."""
        device, dtype = self._model.device, self._model.dtype
        fast = [kernel for kernel in kernels_for(device, dtype) if kernel is not by_equal_lengths]
        if not fast:
            return
        vocabulary = self._model.config.vocab_size
        drawn = np.random.default_rng(0).integers(0, vocabulary, sum(_PROBE))
        rows = [row.tolist() for row in np.split(drawn, [_PROBE[0]])]
        with torch.inference_mode():
            expected = self.last(rows).float()
            for kernel in fast:
                self._kernel = kernel
                try:
                    cosines = torch.cosine_similarity(self.last(rows).float(), expected, dim=-1)
                except (RuntimeError, TypeError, ValueError, ImportError) as error:
                    reason = one_line(error)
                    continue
                least = float(cosines.min())
                if least >= _LEAST_COSINE:
                    return
                reason = f"the vectors of tokens would differ, by a cosine of {least:.4f}"
        self._kernel = by_equal_lengths
        note(f"The attention of this model is computed for one length at a time: {reason}.")

    def _sent(self, values: Tokens) -> torch.Tensor:
        return sent(values, self._model.device)


def _counts(length: int, head: int, tail: int, ratio: int) -> Tokens:
    """Return how many tokens each token of the shorter text is the mean of.

    Args:
        length: tokens of the text.
        head: tokens at its beginning that are kept.
        tail: tokens at its end that are kept.
        ratio: tokens that become one between them; the last group may have fewer.
    """
    middle = max(length - head - tail, 0)
    whole, rest = divmod(middle, ratio)
    between = [ratio] * whole + ([rest] if rest else [])
    return np.array([*[1] * head, *between, *[1] * (length - head - middle)], np.int64)
