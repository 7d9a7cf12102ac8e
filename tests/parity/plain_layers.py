"""BGE's layered rerankers in plain float64 torch: one pair at a time, no padding, no library model.

An independent reference for `bge_eval.rerank.layered`. In float64 every processor gives the same
scores to about 1e-12, so the reference is computed in the test and depends on no machine.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file
from torch.nn.functional import gelu, silu
from transformers import AutoTokenizer

LAYERWISE_QUESTION = (
    "Given a query A and a passage B, determine whether the passage contains an answer to the"
    " query by providing a prediction of either 'Yes' or 'No'."
)
LIGHTWEIGHT_QUESTION = "Predict whether passage B contains an answer to query A."

Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Prompt:
    """The token ids of one pair."""

    ids: list[int]
    """Query, passage and question."""
    passage: slice
    """The tokens of the passage."""


def reference(
    folder: Path,
    pairs: list[tuple[str, str]],
    max_length: int,
    *,
    layers: int,
    ratio: int = 1,
    compress_at: tuple[int, ...] = (),
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the exact scores and how far float32 arithmetic may be from each, ``(n,)`` both.

    A float32 product of vectors of n elements is, but for odds of one in thousands, the exact
    product of vectors whose elements are off by at most 4 sqrt(n) roundings (Higham and Mary, A
    New Approach to Probabilistic Rounding Error Analysis, 2019). So the bound is the largest
    change of a score among draws in which every weight is off by up to that, n being the model's
    longest sum.
    """
    config: dict[str, Any] = json.loads((folder / "config.json").read_text("utf-8"))
    weights = {
        name: tensor.double() for name, tensor in load_file(folder / "model.safetensors").items()
    }
    gemma = "Gemma" in config["architectures"][0]
    question = (
        LAYERWISE_QUESTION if "MiniCPM" in config["architectures"][0] else LIGHTWEIGHT_QUESTION
    )
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompts = [prompt(tokenizer, *pair, question, max_length) for pair in pairs]
    mistral = "Mistral" in config["architectures"][0]
    score = _gemma if gemma else _mistral if mistral else _minicpm

    def scores(of: Weights) -> npt.NDArray[np.float64]:
        return np.array([score(config, of, each, layers, ratio, compress_at) for each in prompts])

    exact = scores(weights)
    longest_sum = max(config["intermediate_size"], *(len(each.ids) for each in prompts))
    rounding = 4 * math.sqrt(longest_sum) * torch.finfo(torch.float32).eps / 2
    generator = torch.Generator().manual_seed(0)
    bound = np.zeros_like(exact)
    for _ in range(8):
        moved = {
            name: tensor * (1 + rounding * (2 * torch.rand(tensor.shape, generator=generator) - 1))
            for name, tensor in weights.items()
        }
        bound = np.maximum(bound, np.abs(scores(moved) - exact))
    return exact, bound


def prompt(tokenizer: Any, query: str, passage: str, question: str, max_length: int) -> Prompt:
    """Build ``<bos>A: query \\n B: passage \\n question``, cut as FlagEmbedding cuts it."""

    def ids(text: str, limit: int | None = None) -> list[int]:
        made: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return made[:limit]

    newline = ids("\n")
    closing = newline + ids(question)
    start = [tokenizer.bos_token_id, *ids(f"A: {query}", max_length * 3 // 4)]
    room = max_length + len(closing) - len(start)
    middle = (newline + ids(f"B: {passage}", max_length))[:room]
    return Prompt(
        start + middle + closing, slice(len(start) + len(newline), len(start) + len(middle))
    )


def _minicpm(
    config: dict[str, Any], weights: Weights, of: Prompt, layers: int, *_: object
) -> float:
    """Llama's layers; embeddings and sublayers are multiplied by MiniCPM's constants."""
    scale = config["scale_depth"] / math.sqrt(config["num_hidden_layers"])
    hidden = weights["model.embed_tokens.weight"][of.ids] * config["scale_emb"]
    for layer in range(layers):
        at = f"model.layers.{layer}."
        normed = _norm(hidden, weights[at + "input_layernorm.weight"])
        hidden = hidden + scale * _attention(config, weights, at, normed, scale=1 / math.sqrt(8))
        normed = _norm(hidden, weights[at + "post_attention_layernorm.weight"])
        hidden = hidden + scale * _mlp(weights, at, normed, silu)
    final = _norm(hidden[-1], weights["model.norm.weight"])
    head = weights[f"lm_head.{layers - config['start_layer']}.linear_head.weight"]
    return float(head @ final)


def _mistral(
    config: dict[str, Any], weights: Weights, of: Prompt, layers: int, *_: object
) -> float:
    """Llama's layers; the first head scores at every layer."""
    hidden = weights["model.embed_tokens.weight"][of.ids]
    for layer in range(layers):
        at = f"model.layers.{layer}."
        normed = _norm(hidden, weights[at + "input_layernorm.weight"])
        hidden = hidden + _attention(config, weights, at, normed, scale=1 / math.sqrt(8))
        normed = _norm(hidden, weights[at + "post_attention_layernorm.weight"])
        hidden = hidden + _mlp(weights, at, normed, silu)
    final = _norm(hidden[-1], weights["model.norm.weight"])
    return float(weights["lm_head.0.linear_head.weight"][0] @ final)


def _gemma(
    config: dict[str, Any],
    weights: Weights,
    of: Prompt,
    layers: int,
    ratio: int,
    compress_at: tuple[int, ...],
) -> float:
    """Gemma 2's layers; before some of them the passage's vectors are averaged in groups."""
    hidden = weights["model.embed_tokens.weight"][of.ids] * math.sqrt(config["hidden_size"])
    start, after = of.passage.start, len(of.ids) - of.passage.stop

    def norm(vectors: torch.Tensor, name: str) -> torch.Tensor:
        return _norm(vectors, 1 + weights[name])

    for layer in range(layers):
        if ratio > 1 and layer in compress_at:
            stop = len(hidden) - after
            passage = [group.mean(0) for group in torch.split(hidden[start:stop], ratio)]
            hidden = torch.stack([*hidden[:start], *passage, *hidden[stop:]])
        at = f"model.layers.{layer}."
        seen = _attention(
            config,
            weights,
            at,
            norm(hidden, at + "input_layernorm.weight"),
            scale=config["query_pre_attn_scalar"] ** -0.5,
            cap=config["attn_logit_softcapping"],
        )
        hidden = hidden + norm(seen, at + "post_attention_layernorm.weight")
        inner = _mlp(weights, at, norm(hidden, at + "pre_feedforward_layernorm.weight"), _gelu)
        hidden = hidden + norm(inner, at + "post_feedforward_layernorm.weight")
    final = norm(hidden[-1], "model.norm.weight")
    cap = config["final_logit_softcapping"]
    # FlagEmbedding takes the first head at whichever single layer.
    return float(torch.tanh(weights["lm_head.0.linear_head.weight"] @ final / cap) * cap)


def _norm(vectors: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return vectors * torch.rsqrt(vectors.square().mean(-1, keepdim=True) + 1e-6) * weight


def _gelu(values: torch.Tensor) -> torch.Tensor:
    return gelu(values, approximate="tanh")


def _mlp(
    weights: Weights,
    at: str,
    vectors: torch.Tensor,
    activation: Callable[[torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    gate = activation(vectors @ weights[at + "mlp.gate_proj.weight"].T)
    up = vectors @ weights[at + "mlp.up_proj.weight"].T
    return (gate * up) @ weights[at + "mlp.down_proj.weight"].T


def _attention(
    config: dict[str, Any],
    weights: Weights,
    at: str,
    vectors: torch.Tensor,
    *,
    scale: float,
    cap: float | None = None,
) -> torch.Tensor:
    """Causal attention with rotary positions, one head at a time."""
    heads, size = config["num_attention_heads"], 8
    shared = heads // config["num_key_value_heads"]

    def projected(name: str) -> torch.Tensor:
        return vectors @ weights[f"{at}self_attn.{name}_proj.weight"].T

    queries, keys, values = projected("q"), projected("k"), projected("v")
    future = torch.ones(len(vectors), len(vectors), dtype=torch.bool).triu(1)
    seen = []
    for head in range(heads):
        own = slice(head * size, (head + 1) * size)
        pair = slice(head // shared * size, (head // shared + 1) * size)
        match = _rotated(queries[:, own]) @ _rotated(keys[:, pair]).T * scale
        if cap is not None:
            match = torch.tanh(match / cap) * cap
        seen.append(match.masked_fill(future, -math.inf).softmax(-1) @ values[:, pair])
    return torch.cat(seen, dim=1) @ weights[at + "self_attn.o_proj.weight"].T


def _rotated(vectors: torch.Tensor) -> torch.Tensor:
    """Turn the element i and i + size/2 of every row by its position times 10000^(-2i/size)."""
    half = vectors.shape[1] // 2
    steps = 10000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
    angles = torch.arange(len(vectors), dtype=torch.float64)[:, None] * steps
    first, second = vectors[:, :half], vectors[:, half:]
    return torch.cat(
        [
            first * angles.cos() - second * angles.sin(),
            second * angles.cos() + first * angles.sin(),
        ],
        dim=1,
    )
