"""Pairs cut as FlagEmbedding's ``FlagReranker`` cuts them, with which BGE measured its model cards.

The query keeps three quarters of the maximum length. The document gets the rest, special tokens
included, and alone is cut to fit (``FlagEmbedding/inference/reranker/encoder_only/base.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from bge_eval.errors import UsageError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

MAX_LENGTH = 512
"""``FlagReranker``'s maximum length of a pair, in tokens."""

Preprocess = Callable[..., "dict[str, torch.Tensor]"]
"""Maps (query, document) pairs to a transformer's inputs, as ``CrossEncoder.preprocess`` does."""


def flag_preprocess(tokenizer: PreTrainedTokenizerBase, max_length: int, name: str) -> Preprocess:
    """Return a function in place of ``CrossEncoder.preprocess`` that cuts as ``FlagReranker`` does.

    Args:
        tokenizer: the model's tokenizer.
        max_length: longest pair in tokens, special tokens included.
        name: the model's name, for the message.

    Raises:
        UsageError: the tokenizer is none of the tokenizers library.
    """
    if not tokenizer.is_fast:
        raise UsageError(
            f"--protocol model-card cuts pairs with a fast tokenizer, which {name} has not. Use"
            " --protocol leaderboard, with --reranker-max-length 512."
        )
    pieces: Any = tokenizer
    special = int(tokenizer.num_special_tokens_to_add(pair=True))
    side = tokenizer.truncation_side

    def encodings(texts: Sequence[str], limit: int) -> list[Any]:
        backend = pieces.backend_tokenizer
        backend.no_truncation()
        backend.no_padding()
        encoded: list[Any] = backend.encode_batch(list(texts), add_special_tokens=False)
        for encoding in encoded:
            encoding.truncate(limit, direction=side)
        return encoded

    def preprocess(pairs: Sequence[tuple[str, str]], **_: Any) -> dict[str, torch.Tensor]:
        queries = encodings([query for query, _ in pairs], max_length * 3 // 4)
        documents = encodings([document for _, document in pairs], max_length)
        rows = []
        for query, document in zip(queries, documents, strict=True):
            over = len(query) + len(document) + special - max_length
            if 0 < over < len(document):  # else, as there, nothing is cut
                document.truncate(len(document) - over, direction=side)
            joined = pieces.backend_tokenizer.post_process(query, document)
            columns = {"input_ids": joined.ids, "token_type_ids": joined.type_ids}
            columns["attention_mask"] = joined.attention_mask
            rows.append({key: columns[key] for key in columns if key in names})
        padded: dict[str, torch.Tensor] = dict(tokenizer.pad(rows, return_tensors="pt"))
        return padded

    names = set(tokenizer.model_input_names)
    return preprocess


def longest_pair(max_length: int | None, positions: int | None) -> int:
    """Return the length to cut pairs to: the user's, else 512, or the model's positions if fewer.

    Args:
        max_length: the user's ``--reranker-max-length``.
        positions: the longest input that the model can read, None for no limit.
    """
    if max_length is not None:
        return max_length
    return min(MAX_LENGTH, positions or MAX_LENGTH)
