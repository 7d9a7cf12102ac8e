"""Run a transformer over a batch without padding: all its texts in one row of tokens.

No layer computes anything for a padding token: embeddings, projections and feed-forward layers see
the real tokens only, and attention stays inside each text (`bge_eval.runtime.segments`). Results
come back as if the batch had been padded, with zeros in the padding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from bge_eval.encode.positions import token_positions
from bge_eval.errors import one_line
from bge_eval.runtime.batches import Tokens
from bge_eval.runtime.segments import NAME, Kernel, Segments, kernels_for, register
from bge_eval.runtime.transfer import sent


def skips_padding(device: torch.device) -> bool:
    """Return whether models compute no padding on a device unless they are told otherwise."""
    return device.type == "cuda"


_COUNTED = frozenset(
    {
        "albert",
        "bert",
        "distilbert",
        "electra",
        "ernie",
        "eurobert",
        "gemma",
        "gemma2",
        "gemma3_text",
        "llama",
        "mistral",
        "modernbert",
        "nomic_bert",
        "phi3",
        "qwen2",
        "qwen3",
    }
)
"""Model types that number the positions of a row, padding included, from 0."""
_BEHIND_PADDING = frozenset({"camembert", "roberta", "xlm-roberta", "xlm-roberta-xl"})
"""Model types that number tokens from the number of the padding token on, and skip those."""
UNPADDED_TYPES = _COUNTED | _BEHIND_PADDING
"""Model types whose unpadded forward pass our tests compare with the padded one."""
_PROBE = (192, 37)
"""Lengths of the two texts with which a loaded model is tried; longer than most windows."""
_LEAST_COSINE = {torch.float32: 0.99999, torch.float16: 0.99, torch.bfloat16: 0.98}
"""Least cosine of a token's vector from the two ways; a token too many costs more."""


class Unpadded:
    """A transformer that computes the real tokens of a batch and no others."""

    def __init__(self, model: Any, kernel: Kernel) -> None:
        """Prepare a model: its attention becomes the one of `bge_eval.runtime.segments`.

        Args:
            model: a model of transformers without a head, of `UNPADDED_TYPES`.
            kernel: computes the attention.
        """
        register()
        model.set_attn_implementation(NAME)
        keep_no_cache(model)
        self._device = model.get_input_embeddings().weight.device
        self._kernel = kernel
        self._padding = None
        if model.config.model_type in _BEHIND_PADDING:
            self._padding = int(model.config.pad_token_id)

    @property
    def kernel_name(self) -> str:
        """Return the name of the function that computes the attention."""
        return self._kernel.__name__

    def hidden(
        self, forward: Callable[..., Any], features: Mapping[str, Tokens]
    ) -> torch.Tensor | None:
        """Return the token vectors of the last layer, ``(batch, tokens, dim)`` on the device.

        The vectors of padding are zero. None for a batch with a text of no token at all, whose
        vector only a padded batch has.

        Args:
            forward: the model, or its ``forward``.
            features: ``input_ids``, ``attention_mask`` and perhaps ``token_type_ids``, padded on
                either side.
        """
        inputs = self.inputs(features)
        if inputs is None:
            return None
        flat: torch.Tensor = forward(**inputs, return_dict=True).last_hidden_state[0]
        mask = features["attention_mask"] != 0
        padded = flat.new_zeros(mask.size, flat.shape[1])
        padded[sent(np.flatnonzero(mask), self._device)] = flat
        return padded.view(*mask.shape, -1)

    def inputs(self, features: Mapping[str, Tokens]) -> dict[str, Any] | None:
        """Return the arguments of a forward pass over one row with all texts of a padded batch.

        The segments among them say where each text ends. None for a batch with a text of no
        token at all.

        Args:
            features: as of `hidden`.
        """
        mask = features["attention_mask"] != 0
        lengths = mask.sum(axis=1)
        if not lengths.all():
            return None
        rows = {name: item[mask] for name, item in features.items() if name != "attention_mask"}
        rows["position_ids"] = self._positions(features["input_ids"])[mask]
        return {
            **{name: sent(values, self._device)[None] for name, values in rows.items()},
            # A mask of four dimensions is passed on as it is; the segments say all.
            "attention_mask": torch.ones(1, 1, 1, 1, dtype=torch.bool, device=self._device),
            "segments": Segments.of(lengths, self._kernel, self._device),
        }

    def _positions(self, ids: Tokens) -> Tokens:
        """Return the position of every token of a padded batch, as the model numbers them."""
        if self._padding is None:
            return np.broadcast_to(np.arange(ids.shape[1]), ids.shape)
        real = ids != self._padding
        positions: Tokens = np.cumsum(real, axis=1) * real + self._padding
        return positions


def unpadded(model: Any, note: Callable[[str], None]) -> Unpadded | None:
    """Return a model's unpadded forward pass; None where it has none that gives the same.

    The loaded model is tried with two texts of different lengths, both ways.

    Args:
        model: a model of transformers without a head, on its device, in evaluation mode.
        note: receives why a model is run with padding.
    """
    kind = model.config.model_type
    if kind not in UNPADDED_TYPES or not getattr(model, "_supports_attention_backend", False):
        note(
            f"Batches are computed with padding: for models of type {kind} bge-eval has no tested"
            " way without."
        )
        return None
    before = model.config._attn_implementation
    features = _probe(model)
    inputs = {name: torch.from_numpy(item).to(model.device) for name, item in features.items()}
    real = inputs["attention_mask"].bool()
    with torch.inference_mode():
        expected = model(**inputs, return_dict=True).last_hidden_state[real].float()
        for kernel in kernels_for(model.device, model.dtype):
            made = Unpadded(model, kernel)
            try:
                computed = made.hidden(model, features)
            except (RuntimeError, TypeError, ValueError, ImportError) as error:
                reason = one_line(error)
                continue
            assert computed is not None
            cosines = torch.cosine_similarity(computed[real].float(), expected, dim=-1)
            least = float(cosines.min())
            if least >= _LEAST_COSINE.get(model.dtype, 1):
                return made
            reason = f"the vectors of tokens would differ, by a cosine of {least:.4f}"
    model.set_attn_implementation(before)
    note(f"Batches of this {kind} model are computed with padding: {reason}.")
    return None


def keep_no_cache(model: Any) -> None:
    """Make a decoder drop the keys and values of its layers, which only generation reads again."""
    if getattr(model.config, "use_cache", False):
        model.config.use_cache = False


def run_unpadded(model: Any, note: Callable[[str], None]) -> bool:
    """Replace a model's ``forward`` by one that takes padded batches and computes no padding.

    For the libraries that pad a batch themselves, such as sentence-transformers' ``CrossEncoder``.

    Args:
        model: a model of transformers without a head, on its device, in evaluation mode.
        note: receives why a model is run with padding.

    Returns:
        Whether it was replaced.
    """
    made = unpadded(model, note)
    if made is None:
        return False
    before = model.forward
    pooler = getattr(model, "pooler", None)

    def forward(
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        **others: Any,
    ) -> Any:
        given = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "token_type_ids": token_type_ids,
        }
        inputs = {name: item for name, item in given.items() if item is not None}
        plain = input_ids is not None and attention_mask is not None and attention_mask.ndim == 2
        asked = any(others.get(name) is not None for name in _MORE_THAN_THE_LAST)
        hidden = None
        if plain and not asked:
            features = {name: item.cpu().numpy() for name, item in inputs.items()}
            hidden = made.hidden(before, features)
        if hidden is None:
            return before(**inputs, **others)
        return _output(hidden, pooler)

    model.forward = forward
    return True


_MORE_THAN_THE_LAST = (
    "inputs_embeds",
    "position_ids",
    "past_key_values",
    "output_attentions",
    "output_hidden_states",
)
"""Arguments of a forward pass whose meaning or results belong to padded batches."""


def _output(hidden: torch.Tensor, pooler: Callable[[torch.Tensor], torch.Tensor] | None) -> Any:
    """Return token vectors as a model of transformers does, pooled where it has a pooler.

    The heads of decoders also read the cache, which is None.
    """
    from transformers.modeling_outputs import BaseModelOutputWithPast, BaseModelOutputWithPooling

    if pooler is None:
        return BaseModelOutputWithPast(last_hidden_state=hidden)
    return BaseModelOutputWithPooling(last_hidden_state=hidden, pooler_output=pooler(hidden))


def _probe(model: Any) -> dict[str, Tokens]:
    """Return two short texts of arbitrary tokens, the second one padded on the right."""
    config = model.config
    most = token_positions(config.to_dict()) or _PROBE[0]
    lengths = np.minimum(_PROBE, most)[:, None]
    mask = (np.arange(lengths.max()) < lengths).astype(np.int64)
    padding = config.pad_token_id or 0
    drawn = np.random.default_rng(0).integers(0, config.vocab_size, mask.shape)
    ids = np.where(drawn == padding, (padding + 1) % config.vocab_size, drawn)
    return {"input_ids": np.where(mask == 1, ids, padding), "attention_mask": mask}
