"""Positions of texts that another library pads on the left: counted from each text's first token.

Models with absolute positions number the columns of a batch, padding included, unless they get the
positions. A text's vector would depend on the longest text of its batch.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch

from bge_eval.encode.positions import counts_padding


def number_own_tokens(model: Any) -> bool:
    """Make a model number each text's tokens from 0, where padding stands before them.

    Args:
        model: a model of transformers; its ``forward`` is replaced if it counts padding.

    Returns:
        Whether it was replaced. Not where it takes no positions, or counts no padding.
    """
    takes = "position_ids" in inspect.signature(model.forward).parameters
    if not takes or not counts_padding(model.config.to_dict()):
        return False
    before = model.forward

    def forward(*inputs: Any, **named: Any) -> Any:
        mask = named.get("attention_mask")
        stated = len(inputs) > 1 or named.get("position_ids") is not None
        if not stated and torch.is_tensor(mask) and mask.ndim == 2 and not mask[:, 0].all():
            named["position_ids"] = (mask.long().cumsum(dim=1) - 1).clamp(min=0)
        return before(*inputs, **named)

    model.forward = forward
    return True
