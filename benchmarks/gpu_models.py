"""Models with random weights in the shape of published ones, and texts, for `gpu.py`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ENCODERS: dict[str, tuple[int, int, int, int]] = {
    "tiny": (64, 128, 2, 4),
    "minilm": (384, 1536, 6, 12),
    "base": (768, 3072, 12, 12),
    "large": (1024, 4096, 24, 16),
}
"""BERT's sizes by name: width, inner width, layers, heads."""
DECODERS: dict[str, dict[str, int]] = {
    "tiny-decoder": {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "vocab_size": 1000,
    },
    "qwen3-0.6b": {
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151_669,
    },
}
"""Qwen 3's sizes by name."""
_MAX_LENGTH = 512
_WORDS = 30_000
_MEDIAN_WORDS, _SPREAD = 150, 0.7


@dataclass(frozen=True, slots=True)
class Work:
    """The sizes of the texts of a measurement."""

    lengths: Any
    """``(n,)``: tokens of each, special tokens included."""

    @classmethod
    def of(cls, tokenizer: Any, texts: Sequence[str]) -> Work:
        """Return the sizes of texts under a tokenizer."""
        ids = tokenizer(list(texts), truncation=True, max_length=_MAX_LENGTH)["input_ids"]
        return cls(np.array([len(row) for row in ids]))

    @property
    def tokens(self) -> int:
        """Return the number of tokens."""
        return int(self.lengths.sum())


def save_encoder(folder: Path, shape: str) -> list[str]:
    """Write a BERT in the layout of sentence-transformers; returns the words of its tokenizer."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    rng = np.random.default_rng(1)
    letters = list("abcdefghijklmnopqrstuvwxyz")
    words = sorted({"".join(rng.choice(letters, int(n))) for n in rng.integers(3, 10, _WORDS)})
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = [*special, *letters, *(f"##{letter}" for letter in letters), *words]
    vocabulary = {piece: place for place, piece in enumerate(dict.fromkeys(pieces))}
    inner = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer()
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    names = {f"{name[1:-1].lower()}_token": name for name in special}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, model_max_length=_MAX_LENGTH, **names
    )
    width, wide, layers, heads = ENCODERS[shape]
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        max_position_embeddings=_MAX_LENGTH,
        hidden_size=width,
        intermediate_size=wide,
        num_hidden_layers=layers,
        num_attention_heads=heads,
    )
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    kinds = ("Transformer", "Pooling", "Normalize")
    modules = [
        {
            "idx": place,
            "name": str(place),
            "path": f"{place}_{kind}" if place else "",
            "type": f"sentence_transformers.models.{kind}",
        }
        for place, kind in enumerate(kinds)
    ]
    pooling = {"word_embedding_dimension": width, "pooling_mode_mean_tokens": True}
    for name, content in {
        "modules.json": modules,
        "1_Pooling/config.json": pooling,
        "sentence_bert_config.json": {"max_seq_length": _MAX_LENGTH, "do_lower_case": False},
    }.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content), encoding="utf-8")
    (folder / "2_Normalize").mkdir()
    return words


def words_of(vocabulary: Sequence[str], count: int) -> list[str]:
    """Return texts of random words whose numbers are log-normal, cut at twice the longest."""
    rng = np.random.default_rng(0)
    words = np.array(vocabulary)
    numbers = np.clip(rng.lognormal(np.log(_MEDIAN_WORDS), _SPREAD, count), 3, 2 * _MAX_LENGTH)
    return [" ".join(words[rng.integers(0, len(words), int(number))]) for number in numbers]


def decoder_of(shape: str, device: str) -> Any:
    """Return a Qwen 3 without a head, with random weights drawn on a device."""
    import torch
    from transformers import Qwen3Config, Qwen3Model

    torch.manual_seed(0)
    sizes: dict[str, Any] = {**DECODERS[shape], "use_cache": False}
    with torch.device(device):
        return Qwen3Model(Qwen3Config(**sizes))


def encoder_flops(shape: str, work: Work) -> float:
    """Return the floating-point operations of the real tokens: matrix products and attention."""
    width, inner, layers, _ = ENCODERS[shape]
    linear = 2 * layers * (4 * width * width + 2 * width * inner) * work.tokens
    return linear + 4 * layers * width * float((work.lengths.astype(float) ** 2).sum())


def decoder_flops(shape: str, work: Work) -> float:
    """Return a decoder's operations; a token attends to half of its text's tokens on average."""
    sizes = DECODERS[shape]
    width, head = sizes["hidden_size"], sizes["head_dim"]
    queries, keys = sizes["num_attention_heads"] * head, sizes["num_key_value_heads"] * head
    of_token = width * (2 * queries + 2 * keys + 3 * sizes["intermediate_size"])
    linear = 2 * sizes["num_hidden_layers"] * of_token * work.tokens
    squares = float((work.lengths.astype(float) ** 2).sum())
    return linear + 2 * sizes["num_hidden_layers"] * queries * squares
