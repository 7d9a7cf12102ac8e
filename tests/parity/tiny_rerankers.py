"""Tiny random rerankers in the layout of BGE's repositories, the same bytes everywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

PAIRS = [
    ("what makes bones strong", "Vitamin D strengthens bones."),
    ("糖尿病的原因", "二型糖尿病与体重有关。"),
    ("", "an empty query"),
    ("an empty document", ""),
    ("", ""),
    ("a long document", "word " * 60),
    ("very long query " * 12, "short"),
    ("Ünïcödé — “quotes”", "émigré naïveté; 2²=4"),
]
MAX_LENGTH = 96


def tokenizer(folder: Path, side: str) -> int:
    """Save a tokenizer of single bytes; return the size of its vocabulary."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<eos>", "<bos>", "<unk>"]
    letters = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    bytes_only = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    bytes_only.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_only.decoder = decoders.ByteLevel()
    names = {f"{name[1:-1]}_token": name for name in special}
    PreTrainedTokenizerFast(
        tokenizer_object=bytes_only, padding_side=side, **names
    ).save_pretrained(folder)
    return len(letters)


def shared_config(vocabulary: int) -> dict[str, Any]:
    return {
        "vocab_size": vocabulary,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "max_position_embeddings": 2048,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "bos_token_id": 2,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
    }


def write(
    folder: Path, config: dict[str, Any], key_values: int, head_size: int, heads: int
) -> Path:
    """Write the configuration and weights that depend on numpy's generator alone."""
    from safetensors.numpy import save_file

    rng = np.random.default_rng(5)
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    queries = config["num_attention_heads"] * head_size
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (config["vocab_size"], hidden)
    }
    norms = ["input_layernorm", "post_attention_layernorm"]
    if "Gemma" in config["architectures"][0]:
        norms += ["pre_feedforward_layernorm", "post_feedforward_layernorm"]
    for layer in range(config["num_hidden_layers"]):
        at = f"model.layers.{layer}"
        shapes |= {
            f"{at}.self_attn.q_proj.weight": (queries, hidden),
            f"{at}.self_attn.k_proj.weight": (key_values * head_size, hidden),
            f"{at}.self_attn.v_proj.weight": (key_values * head_size, hidden),
            f"{at}.self_attn.o_proj.weight": (hidden, queries),
            f"{at}.mlp.gate_proj.weight": (inner, hidden),
            f"{at}.mlp.up_proj.weight": (inner, hidden),
            f"{at}.mlp.down_proj.weight": (hidden, inner),
            **{f"{at}.{norm}.weight": (hidden,) for norm in norms},
        }
    shapes["model.norm.weight"] = (hidden,)
    shapes |= {f"lm_head.{head}.linear_head.weight": (1, hidden) for head in range(heads)}
    weights = {
        name: (rng.normal(0, 0.25, shape) + (len(shape) == 1)).astype(np.float32)
        for name, shape in shapes.items()
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    return folder


def layerwise(folder: Path) -> Path:
    folder.mkdir(parents=True)
    config = shared_config(tokenizer(folder, "left")) | {
        "architectures": ["LayerWiseMiniCPMForCausalLM"],
        "model_type": "minicpm",
        "num_key_value_heads": 4,
        "hidden_act": "silu",
        "scale_emb": 12,
        "dim_model_base": 16,
        "scale_depth": 1.4,
        "start_layer": 2,
        "head_multi": True,
        "head_type": "simple",
    }
    return write(folder, config, key_values=4, head_size=8, heads=5)


def lightweight(folder: Path) -> Path:
    folder.mkdir(parents=True)
    config = shared_config(tokenizer(folder, "right")) | {
        "architectures": ["CostWiseGemmaForCausalLM"],
        "model_type": "cost_wise_gemma",
        "num_key_value_heads": 2,
        "head_dim": 8,
        "query_pre_attn_scalar": 8,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
        "sliding_window": 4096,
        "start_layer": 2,
        "layer_sep": 1,
        "layer_wise": True,
    }
    return write(folder, config, key_values=2, head_size=8, heads=5)


def matroyshka(folder: Path) -> Path:
    folder.mkdir(parents=True)
    config = shared_config(tokenizer(folder, "right")) | {
        "architectures": ["CostWiseMistralForCausalLM"],
        "model_type": "cost_wise_mistral",
        "num_key_value_heads": 2,
        "hidden_act": "silu",
        "sliding_window": 4096,
        "start_layer": 2,
        "layer_sep": 1,
        "layer_wise": True,
    }
    return write(folder, config, key_values=2, head_size=8, heads=5)
