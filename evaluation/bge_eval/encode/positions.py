"""The positions of a transformer: its longest input, and whether padding is counted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bge_eval.encode.config import CONFIG, read_object
from bge_eval.encode.files import ModelFiles

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

_USUAL_KEY = "max_position_embeddings"
"""Key of ``config.json`` with the number of positions."""
_KEYS = {
    **dict.fromkeys(
        ("codegen", "ctrl", "gpt2", "gpt_bigcode", "gptj", "openai-gpt"), "n_positions"
    ),
    **dict.fromkeys(("bailing_hybrid", "kimi_linear"), "model_max_length"),
    "dbrx": "max_seq_len",
    "rwkv": "context_length",
}
"""Model type → its own key for them: the ``attribute_map`` of transformers' configurations, through
which sentence-transformers reads the usual one."""


def token_positions(config: Mapping[str, Any]) -> int | None:
    """Return the longest input in tokens that a model has positions for, None without a limit.

    A longer input makes torch fail, and other runtimes read beyond the position vectors.

    Args:
        config: the content of ``config.json``.
    """
    kind = config.get("model_type")
    # As in transformers, the usual key is understood in every file.
    positions = config.get(_KEYS.get(str(kind), _USUAL_KEY), config.get(_USUAL_KEY))
    if not isinstance(positions, int) or positions <= 0:
        return None
    if kind in _OFFSET_BY_PADDING:
        # MPNet's code hard-codes the id.
        padding = 1 if kind == "mpnet" else config.get("pad_token_id", 1)
        positions -= (padding if isinstance(padding, int) else 0) + 1
    return positions


OWN_POSITIONS = {"positions": "from the text's first token"}
"""The fact of a vector or score that was once computed with positions counted from padding."""
LAST_TOKEN_TYPES = frozenset(
    {
        *("bloom", "codegen", "cohere", "cohere2", "exaone4", "falcon", "gemma", "gemma2"),
        *("gemma3", "gemma3_text", "glm", "glm4", "gpt_neox", "gptj", "granite", "jamba", "llama"),
        *("ministral", "minicpm", "minicpm3", "mistral", "mixtral", "mpt", "nemotron", "olmo"),
        *("olmo2", "olmo3", "opt", "persimmon", "phi", "phi3", "qwen2", "qwen2_moe", "qwen3"),
        *("qwen3_moe", "smollm3", "stablelm", "starcoder2", "xlnet"),
    }
)
"""Model types whose heads read the last token, and whose positions count no padding."""
_NOT_COUNTING = (
    LAST_TOKEN_TYPES
    | _OFFSET_BY_PADDING
    | {
        *("eurobert", "gte", "jina_embeddings_v3", "longt5", "modernbert", "mt5", "nomic_bert"),
        *("roformer", "switch_transformers", "t5", "umt5"),
    }
)
"""Model types whose positions are relative, or those of the tokens that the mask shows."""
_LEFT_CLASSES = ("CodeLlama", "Cohere", "Gemma", "Llama", "XLNet")
"""What the names of transformers' tokenizers that pad on the left begin with."""


_LARGEST_READ = 2**26
"""Bytes of the largest tokenizer that is read for the side of its padding."""


def counts_padding(config: Mapping[str, Any]) -> bool:
    """Return whether a model numbers the positions of a row from its padding on.

    A text behind padding then gets other positions than alone. Types of model that bge-eval does
    not know are taken to do so, unless their configuration speaks of relative positions.

    Args:
        config: the content of ``config.json``.
    """
    if config.get("model_type") in _NOT_COUNTING:
        return False
    if any(name.startswith(("rope", "rotary")) for name in config):
        return False
    kind = config.get("position_embedding_type")
    return kind in (None, "absolute") and config.get("position_biased_input") is not False


def own_positions(files: ModelFiles, options: Mapping[str, Any]) -> dict[str, str]:
    """Return the fact of a model whose texts once had other positions in a batch; {} for others.

    Until texts were padded on the right, such a model's vectors depended on the batch.

    Args:
        files: the model's files.
        options: what its tokenizer is loaded with, which comes before its files.

    Raises:
        DamagedError: a file is damaged.
    """
    if not counts_padding(read_object(files.weights / CONFIG)):
        return {}
    return dict(OWN_POSITIONS) if pads_left(files.tokenizer, options) else {}


def pads_left(folder: Path, options: Mapping[str, Any]) -> bool:
    """Return whether a tokenizer pads on the left, without loading it.

    Args:
        folder: the folder of the tokenizer's files.
        options: what it is loaded with, which comes before its files.

    Raises:
        DamagedError: a file is damaged.
    """
    stated = read_object(folder / "tokenizer_config.json")
    side = options.get("padding_side", stated.get("padding_side"))
    if side is None:
        path = folder / "tokenizer.json"
        if path.is_file() and path.stat().st_size > _LARGEST_READ:
            return True  # in doubt: what was saved before is then not taken for the same
        padding = read_object(path).get("padding")
        side = padding.get("direction") if isinstance(padding, dict) else None
    if side is None:
        return str(stated.get("tokenizer_class")).startswith(_LEFT_CLASSES)
    return str(side).lower() == "left"
