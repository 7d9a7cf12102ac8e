"""BGE's rerankers with a score head at many layers, run on transformers' own layers.

Their repositories bring model code that current transformers cannot run. The architectures are
known ones with a few constants, so nothing of that code is needed:

- bge-reranker-v2-minicpm-layerwise is a Llama whose embeddings are multiplied by ``scale_emb``
  and whose sublayers are multiplied by ``scale_depth / sqrt(layers)``; both are linear, so they
  go into the weights. A head of one number stands at every layer from ``start_layer`` on.
- bge-reranker-v2.5-gemma2-lightweight is a Gemma 2 with such heads, which can average groups of
  the passage's token vectors before some of its layers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bge_eval.encode.config import read_config
from bge_eval.errors import DamagedError, UsageError
from bge_eval.progress import Progress
from bge_eval.records import ModelFiles
from bge_eval.rerank.llm import (
    PREDICT,
    YES_OR_NO,
    LLMReranker,
    Loader,
    Question,
    Scorer,
    padded,
)
from bge_eval.rerank.reranker import Family, RerankerOptions, architecture

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase


def layerwise(layers: int | None) -> Loader:
    """Return the loader of the MiniCPM reranker that stops after some layers (None: all)."""

    def load(
        files: ModelFiles,
        tokenizer: PreTrainedTokenizerBase,
        dtype: torch.dtype,
        device: torch.device,
    ) -> Scorer:
        from transformers import LlamaConfig, LlamaModel

        config = read_config(files.folder)
        if config.get("head_type", "simple") != "simple" or config.get("rope_scaling"):
            raise UsageError(
                f"{files.name} has heads or positions of another kind than"
                " bge-reranker-v2-minicpm-layerwise; bge-eval cannot run it."
            )
        depth, whole = _depth(files, config, layers), int(config["num_hidden_layers"])
        weights = _weights(files)
        model: Any = LlamaModel(LlamaConfig(**_known(config), num_hidden_layers=depth))
        body = {
            name.removeprefix("model."): tensor.float()
            for name, tensor in weights.items()
            if name.startswith("model.")
        }
        sublayer = config["scale_depth"] / math.sqrt(whole)
        for name in body:
            if name == "embed_tokens.weight":
                body[name] = body[name] * config["scale_emb"]
            elif name.endswith(("o_proj.weight", "down_proj.weight")):
                body[name] = body[name] * sublayer
        _fill(files, model, body, depth)
        model.to(device, dtype).eval()
        index = depth - int(config["start_layer"]) if config.get("head_multi", True) else None
        head = _head(files, weights, index).to(device, dtype)

        def score(questions: Sequence[Question]) -> torch.Tensor:
            ids, mask = padded(questions, left=True, device=device)
            out = model(input_ids=ids, attention_mask=mask, use_cache=False)
            scores: torch.Tensor = (out.last_hidden_state[:, -1] @ head.T)[:, 0]
            return scores

        return score

    return load


def lightweight(layers: int | None, ratio: int, compress_at: tuple[int, ...]) -> Loader:
    """Return the loader of the Gemma 2 reranker.

    Args:
        layers: stop after these many; None runs all.
        ratio: how many token vectors of the passage become one; 1 for no compression.
        compress_at: the layers before which that happens.
    """

    def load(
        files: ModelFiles,
        tokenizer: PreTrainedTokenizerBase,
        dtype: torch.dtype,
        device: torch.device,
    ) -> Scorer:
        import torch
        from transformers import Gemma2Config, Gemma2Model

        config = read_config(files.folder)
        if not config.get("layer_wise"):
            raise UsageError(f"{files.name} has no heads at its layers (layer_wise is not set).")
        depth = _depth(files, config, layers)
        weights = _weights(files)
        # The eager attention is the one that soft-caps, as this architecture wants it.
        options: dict[str, Any] = {"num_hidden_layers": depth, "attn_implementation": "eager"}
        model: Any = Gemma2Model(Gemma2Config(**_known(config), **options))
        body = {
            name.removeprefix("model."): tensor
            for name, tensor in weights.items()
            if name.startswith("model.")
        }
        _fill(files, model, body, depth)
        model.to(device, dtype).eval()
        # The reference takes the first head whichever single layer is asked for, and the
        # published scores were made so.
        head = _head(files, weights, 0).to(device, dtype)
        cap = config.get("final_logit_softcapping")
        scale = torch.tensor(config["hidden_size"] ** 0.5, dtype=dtype, device=device)

        def score(questions: Sequence[Question]) -> torch.Tensor:
            ids, mask = padded(questions, left=False, device=device)
            hidden = torch.nn.functional.embedding(ids, model.embed_tokens.weight) * scale
            for index, layer in enumerate(model.layers):
                if ratio > 1 and index in compress_at and index > 0:
                    hidden, mask = _compressed(hidden, mask, questions, ratio)
                if index == 0 or (ratio > 1 and index in compress_at):
                    positions = torch.arange(hidden.shape[1], device=device).unsqueeze(0)
                    causal = _causal(mask, hidden.dtype)
                    turns = model.rotary_emb(hidden, positions)
                out = layer(
                    hidden,
                    attention_mask=causal,
                    position_ids=positions,
                    position_embeddings=turns,
                )
                hidden = out[0] if isinstance(out, tuple) else out
            last = mask.sum(dim=1) - 1
            final = model.norm(hidden)[torch.arange(len(questions), device=device), last]
            scores: torch.Tensor = (final @ head.T)[:, 0]
            return torch.tanh(scores / cap) * cap if cap else scores

        return score

    return load


def _compressed(
    hidden: torch.Tensor, mask: torch.Tensor, questions: Sequence[Question], ratio: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Average every ``ratio`` token vectors of the passages; query and question stay."""
    import torch

    rows = []
    for vectors, length, question in zip(hidden, mask.sum(dim=1).tolist(), questions, strict=True):
        end = length - question.tail
        groups = vectors[question.head : end].split(ratio)
        averages = [group.mean(dim=0, keepdim=True) for group in groups if len(group)]
        rows.append(torch.cat([vectors[: question.head], *averages, vectors[end:length]]))
    lengths = torch.tensor([len(row) for row in rows], device=hidden.device)
    longest = torch.arange(int(lengths.max()), device=hidden.device)
    return (
        torch.nn.utils.rnn.pad_sequence(rows, batch_first=True),
        (longest[None, :] < lengths[:, None]).to(mask.dtype),
    )


def _causal(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return what is added to attention scores: ``(batch, 1, tokens, tokens)``."""
    import torch

    size = mask.shape[1]
    seen = torch.ones((size, size), dtype=torch.bool, device=mask.device).tril()
    allowed = seen[None, None] & mask[:, None, None, :].bool()
    return torch.zeros(allowed.shape, dtype=dtype, device=mask.device).masked_fill(
        ~allowed, torch.finfo(dtype).min
    )


_NOT_OURS = {"architectures", "auto_map", "model_type", "num_hidden_layers", "layer_types"}
_NOT_OURS |= {"torch_dtype", "dtype", "transformers_version", "attn_implementation"}


def _known(config: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name not in _NOT_OURS}


def _depth(files: ModelFiles, config: Mapping[str, Any], layers: int | None) -> int:
    """Check how many layers are asked for."""
    first, last = int(config["start_layer"]), int(config["num_hidden_layers"])
    if layers is not None and (
        not first <= layers <= last or (layers - first) % int(config.get("layer_sep", 1))
    ):
        raise UsageError(
            f"--reranker-layers {layers}: {files.name} gives scores after layers {first} to {last}"
            f" (every {config.get('layer_sep', 1)})."
        )
    return layers or last


def _weights(files: ModelFiles) -> dict[str, torch.Tensor]:
    """Read all weights of a folder."""
    import torch
    from safetensors.torch import load_file

    weights: dict[str, torch.Tensor] = {}
    for path in sorted(files.folder.glob("*.safetensors")):
        weights |= load_file(path)
    if not weights:
        for path in sorted(files.folder.glob("pytorch_model*.bin")):
            weights |= torch.load(path, map_location="cpu", weights_only=True)
    if not weights:
        raise DamagedError(f"{files.name} has no weights (*.safetensors) in {files.folder}.")
    return weights


def _fill(
    files: ModelFiles, model: torch.nn.Module, body: Mapping[str, torch.Tensor], depth: int
) -> None:
    """Put weights into a model that may be shallower than they are."""
    deeper = tuple(f"layers.{index}." for index in range(depth))
    kept = {
        name: tensor
        for name, tensor in body.items()
        if not name.startswith("layers.") or name.startswith(deeper)
    }
    found = model.load_state_dict(kept, strict=False)
    odd = [name for name in found.unexpected_keys if "inv_freq" not in name]
    if found.missing_keys or odd:
        raise DamagedError(
            f"The weights of {files.name} do not fit its config.json"
            f" ({[*found.missing_keys, *odd][0]})."
        )


def _head(
    files: ModelFiles, weights: Mapping[str, torch.Tensor], index: int | None
) -> torch.Tensor:
    """Return a layer's head, ``(1, hidden)``."""
    name = "lm_head.linear_head.weight"
    if index is not None:
        name = f"lm_head.{index}.linear_head.weight"
    if name not in weights:
        raise DamagedError(f"The checkpoint of {files.name} lacks its head {name}.")
    return weights[name]


_COMPRESS_LAYERS = (8,)
"""FlagEmbedding's default."""


def _open_layerwise(
    files: ModelFiles, options: RerankerOptions, progress: Progress | None
) -> LLMReranker:
    return LLMReranker(
        files,
        layerwise(options.layers),
        question=YES_OR_NO,
        settings={"kind": "layerwise", "layers": options.layers},
        options=options,
        progress=progress,
    )


def _open_lightweight(
    files: ModelFiles, options: RerankerOptions, progress: Progress | None
) -> LLMReranker:
    ratio = None if options.compress_ratio == 1 else options.compress_ratio
    compress_at = options.compress_layers or _COMPRESS_LAYERS
    settings = {
        "kind": "lightweight",
        "layers": options.layers,
        "compress_ratio": ratio,
        "compress_layers": ",".join(map(str, compress_at)) if ratio else None,
    }
    return LLMReranker(
        files,
        lightweight(options.layers, ratio or 1, compress_at),
        question=PREDICT,
        settings=settings,
        options=options,
        progress=progress,
    )


LAYERWISE = Family(
    lambda files: architecture(files) == "LayerWiseMiniCPMForCausalLM",
    _open_layerwise,
    frozenset({"layers"}),
)
"""bge-reranker-v2-minicpm-layerwise."""
LIGHTWEIGHT = Family(
    lambda files: architecture(files) == "CostWiseGemmaForCausalLM",
    _open_lightweight,
    frozenset({"layers", "compress"}),
)
"""bge-reranker-v2.5-gemma2-lightweight."""
