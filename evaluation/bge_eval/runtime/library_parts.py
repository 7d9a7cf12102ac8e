"""A model of sentence-transformers whose batches are computed in parts where memory runs out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from bge_eval.runtime.fitting import Fitting


def run_in_parts(model: Any, fitting: Fitting) -> None:
    """Make a model divide the batches that do not fit into a GPU's memory.

    Args:
        model: a ``SentenceTransformer``, ``SparseEncoder`` or ``MultiVectorEncoder``; its
            ``forward``, from features to features, is replaced.
        fitting: divides the batches.
    """
    before = model.forward

    def forward(features: Mapping[str, Any], *more: Any, **named: Any) -> Any:
        mask = features.get("attention_mask")
        # Texts that lie in one row, without padding, are not rows that could be divided.
        if not torch.is_tensor(mask) or mask.ndim != 2 or "cu_seq_lens_q" in features:
            return before(features, *more, **named)
        count = len(mask)

        def of_part(part: slice) -> tuple[int, Mapping[str, Any]]:
            own = {
                name: value[part] if _of_rows(value, count) else value
                for name, value in features.items()
            }
            return len(mask[part]), before(own, *more, **named)

        return _joined(fitting.run(count, of_part))

    model.forward = forward


def _of_rows(value: Any, count: int) -> bool:
    """Return whether a feature has one entry for each text."""
    if torch.is_tensor(value):
        return value.ndim > 0 and len(value) == count
    return isinstance(value, list | tuple) and len(value) == count


def _joined(parts: Sequence[tuple[int, Mapping[str, Any]]]) -> Mapping[str, Any]:
    """Return the features of all parts as those of one batch."""
    if len(parts) == 1:
        return parts[0][1]
    joined: dict[str, Any] = {}
    for name, first in parts[0][1].items():
        values = [features[name] for _, features in parts]
        if not all(_of_rows(features[name], count) for count, features in parts):
            joined[name] = first
        elif torch.is_tensor(first):
            joined[name] = torch.cat(_equally_wide(values))
        else:
            joined[name] = [item for value in values for item in value]
    return joined


def _equally_wide(values: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Return tensors padded with zeros to the most tokens; modules may pool a part's tokens."""
    if values[0].ndim < 2 or len({value.shape[1] for value in values}) == 1:
        return list(values)
    most = max(value.shape[1] for value in values)
    wide = []
    for value in values:
        lacking = value.new_zeros(len(value), most - value.shape[1], *value.shape[2:])
        wide.append(torch.cat([value, lacking], dim=1))
    return wide
