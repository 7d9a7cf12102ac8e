"""How many tokens a transformer has positions for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_BEHIND_PADDING = {
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
"""Model types that count positions from behind the padding's id: of 514 they use 512."""


def token_positions(config: Mapping[str, Any]) -> int | None:
    """Return the longest input in tokens that a model's positions allow, None if without limit.

    Beyond it torch fails, and other runtimes compute with vectors of nothing.

    Args:
        config: the content of ``config.json``.
    """
    positions = config.get("max_position_embeddings")
    if not isinstance(positions, int) or positions <= 0:
        return None
    kind = config.get("model_type")
    if kind in _BEHIND_PADDING:
        # MPNet's code has the id written into it.
        padding = 1 if kind == "mpnet" else config.get("pad_token_id", 1)
        positions -= (padding if isinstance(padding, int) else 0) + 1
    return positions
