"""The number of positions of a transformer: its longest input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_OFFSET_BY_PADDING = {
    "camembert",
    "data2vec-text",
    "ibert",
    "longformer",
    "luke",
    "mpnet",
    "roberta",
    "roberta-prelayernorm",
    "xlm-roberta",
    "xlm-roberta-xl",
    "xmod",
}
"""Model types that number positions from the padding id + 1: of 514 they use 512."""


def token_positions(config: Mapping[str, Any]) -> int | None:
    """Return the longest input in tokens that a model has positions for, None without a limit.

    A longer input makes torch fail, and other runtimes read beyond the position vectors.

    Args:
        config: the content of ``config.json``.
    """
    positions = config.get("max_position_embeddings")
    if not isinstance(positions, int) or positions <= 0:
        return None
    kind = config.get("model_type")
    if kind in _OFFSET_BY_PADDING:
        # MPNet's code hard-codes the id.
        padding = 1 if kind == "mpnet" else config.get("pad_token_id", 1)
        positions -= (padding if isinstance(padding, int) else 0) + 1
    return positions
