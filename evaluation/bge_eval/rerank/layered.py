"""BGE's rerankers with a score head at many layers, built from transformers' layers.

Current transformers cannot run the model code of their repositories. That code is not needed,
because the architectures are standard ones with a few changes:

- bge-reranker-v2-minicpm-layerwise is a Llama whose embeddings are scaled by ``scale_emb`` and
  whose sublayers are scaled by ``scale_depth / sqrt(layers)``; both are linear, so they are
  multiplied into the weights. Every layer from ``start_layer`` on has a score head.
- bge-reranker-v2.5-gemma2-lightweight is a Gemma 2 with score heads that can average groups of
  the passage's token vectors before some layers.
- The Matroyshka re-rankers are a Mistral with score heads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bge_eval.encode.config import read_config
from bge_eval.encode.files import ModelFiles
from bge_eval.errors import DamagedError, UsageError
from bge_eval.rerank.llm import (
    PREDICT,
    YES_OR_NO,
    Loader,
    Loading,
    Question,
    Scorer,
    Scoring,
    asked,
    llm_family,
)
from bge_eval.rerank.reranker import RerankerOptions, architecture

if TYPE_CHECKING:
    import torch

    from bge_eval.runtime.last_tokens import LastTokens


def layerwise(layers: int | None) -> Loader:
    """Return the loader of the MiniCPM reranker with the first ``layers`` layers (None: all)."""

    def load(loading: Loading) -> Scorer:
        from transformers import LlamaConfig, LlamaModel

        from bge_eval.runtime.last_tokens import LastTokens

        files = loading.files
        config = read_config(files.folder)
        if config.get("head_type", "simple") != "simple" or config.get("rope_scaling"):
            raise UsageError(
                f"{files.name} has other heads or positions than"
                " bge-reranker-v2-minicpm-layerwise; bge-eval cannot run it."
            )
        depth, whole = _depth(files, config, layers), int(config["num_hidden_layers"])
        weights = _weights(files)
        model: Any = LlamaModel(LlamaConfig(**_model_options(config), num_hidden_layers=depth))
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
        _load_weights(files, model, body, depth)
        model.to(loading.device, loading.dtype).eval()
        index = depth - int(config["start_layer"]) if config.get("head_multi", True) else None
        head = _head(files, weights, index).to(loading.device, loading.dtype)
        return _scorer(LastTokens(model, loading.note, left=True), head)

    return load


def _scorer(model: LastTokens, head: torch.Tensor) -> Scorer:
    """Return the scorer that multiplies the last token's vector by a head, ``(1, dim)``."""

    def score(questions: Sequence[Question]) -> torch.Tensor:
        scores: torch.Tensor = (model.vectors([each.ids for each in questions]) @ head.T)[:, 0]
        return scores

    return score


def lightweight(layers: int | None, ratio: int, compress_at: tuple[int, ...]) -> Loader:
    """Return the loader of the Gemma 2 reranker.

    Args:
        layers: number of layers to run; None runs all.
        ratio: number of passage token vectors to average into one; 1 for no compression.
        compress_at: the layers before which to average.
    """

    def load(loading: Loading) -> Scorer:
        import torch
        from transformers import Gemma2Config, Gemma2Model

        from bge_eval.runtime.flat_layers import FlatLayers

        files, device, dtype = loading.files, loading.device, loading.dtype
        config = _layered_config(files)
        depth = _depth(files, config, layers)
        weights = _weights(files)
        options: dict[str, Any] = {"num_hidden_layers": depth, "attn_implementation": "eager"}
        model: Any = Gemma2Model(Gemma2Config(**_model_options(config), **options))
        body = {
            name.removeprefix("model."): tensor
            for name, tensor in weights.items()
            if name.startswith("model.")
        }
        _load_weights(files, model, body, depth)
        model.to(device, dtype).eval()
        # FlagEmbedding uses the first head for every layer, and so do the published scores.
        head = _head(files, weights, 0).to(device, dtype)
        cap = config.get("final_logit_softcapping")
        compressed = {index for index in compress_at if index > 0} if ratio > 1 else set()
        flat = FlatLayers(model, loading.note)

        def score(questions: Sequence[Question]) -> torch.Tensor:
            groups = [(question.head, question.tail, ratio) for question in questions]
            final = flat.last([question.ids for question in questions], compressed, groups)
            scores: torch.Tensor = (final @ head.T)[:, 0]
            return torch.tanh(scores / cap) * cap if cap else scores

        return score

    return load


def matroyshka(layers: int | None) -> Loader:
    """Return the loader of the Mistral re-ranker with the first ``layers`` layers (None: all).

    Source: FlagEmbedding, research/Matroyshka_reranker/inference. Its compression is left out: it
    weighs the passage's vectors by the attention of each batch's last position, which is padding
    for all but the longest input, so its scores depend on the batch.
    """

    def load(loading: Loading) -> Scorer:
        from transformers import MistralConfig, MistralModel

        from bge_eval.runtime.last_tokens import LastTokens

        files = loading.files
        config = _layered_config(files)
        depth, weights = _depth(files, config, layers), _weights(files)
        model: Any = MistralModel(MistralConfig(**_model_options(config), num_hidden_layers=depth))
        body = {
            name.removeprefix("model."): tensor
            for name, tensor in weights.items()
            if name.startswith("model.")
        }
        _load_weights(files, model, body, depth)
        model.to(loading.device, loading.dtype).eval()
        # As of the lightweight reranker: the first head scores at whichever single layer.
        head = _head(files, weights, 0).to(loading.device, loading.dtype)
        return _scorer(LastTokens(model, loading.note, left=False), head)

    return load


_OMITTED = {"architectures", "auto_map", "model_type", "num_hidden_layers", "layer_types"}
_OMITTED |= {"torch_dtype", "dtype", "transformers_version", "attn_implementation"}


def _model_options(config: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name not in _OMITTED}


def _layered_config(files: ModelFiles) -> Mapping[str, Any]:
    """Return the configuration of a model with score heads at its layers.

    Raises:
        UsageError: it has none.
    """
    config = read_config(files.folder)
    if not config.get("layer_wise"):
        raise UsageError(f"{files.name} has no score heads at its layers (layer_wise is not set).")
    return config


def _depth(files: ModelFiles, config: Mapping[str, Any], layers: int | None) -> int:
    """Return the number of layers to run, checked."""
    first, last = int(config["start_layer"]), int(config["num_hidden_layers"])
    if layers is not None and (
        not first <= layers <= last or (layers - first) % int(config.get("layer_sep", 1))
    ):
        raise UsageError(
            f"--reranker-layers {layers}: {files.name} outputs scores after layers {first} to"
            f" {last} (every {config.get('layer_sep', 1)})."
        )
    return layers or last


def _weights(files: ModelFiles) -> dict[str, torch.Tensor]:
    """Read the weights of a model."""
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


def _load_weights(
    files: ModelFiles, model: torch.nn.Module, body: Mapping[str, torch.Tensor], depth: int
) -> None:
    """Load weights into a model that may have fewer layers than the checkpoint."""
    layers = tuple(f"layers.{index}." for index in range(depth))
    weights = {
        name: tensor
        for name, tensor in body.items()
        if not name.startswith("layers.") or name.startswith(layers)
    }
    keys = model.load_state_dict(weights, strict=False)
    unexpected = [name for name in keys.unexpected_keys if "inv_freq" not in name]
    if keys.missing_keys or unexpected:
        raise DamagedError(
            f"The weights of {files.name} do not fit its config.json"
            f" ({[*keys.missing_keys, *unexpected][0]})."
        )


def _head(
    files: ModelFiles, weights: Mapping[str, torch.Tensor], index: int | None
) -> torch.Tensor:
    """Return a layer's score head, ``(1, hidden)``."""
    name = "lm_head.linear_head.weight"
    if index is not None:
        name = f"lm_head.{index}.linear_head.weight"
    if name not in weights:
        raise DamagedError(f"The checkpoint of {files.name} lacks its head {name}.")
    return weights[name]


_COMPRESS_LAYERS = (8,)
"""FlagEmbedding's default of ``compress_layers``."""


def _layerwise(options: RerankerOptions) -> Scoring:
    settings = {"kind": "layerwise", "layers": options.layers}
    return _own_layers(layerwise(options.layers), YES_OR_NO, settings)


def _lightweight(options: RerankerOptions) -> Scoring:
    ratio = None if options.compress_ratio == 1 else options.compress_ratio
    compress_at = options.compress_layers or _COMPRESS_LAYERS
    settings = {
        "kind": "lightweight",
        "layers": options.layers,
        "compress_ratio": ratio,
        "compress_layers": ",".join(map(str, compress_at)) if ratio else None,
    }
    return _own_layers(lightweight(options.layers, ratio or 1, compress_at), PREDICT, settings)


def _matroyshka(options: RerankerOptions) -> Scoring:
    settings = {"kind": "matroyshka", "layers": options.layers}
    return _own_layers(matroyshka(options.layers), PREDICT, settings)


def _own_layers(load: Loader, question: str, settings: Mapping[str, Any]) -> Scoring:
    return Scoring(load, asked(question), settings, by_transformers=False)


LAYERWISE = llm_family(
    lambda files: architecture(files) == "LayerWiseMiniCPMForCausalLM", _layerwise, {"layers"}
)
"""bge-reranker-v2-minicpm-layerwise."""
LIGHTWEIGHT = llm_family(
    lambda files: architecture(files) == "CostWiseGemmaForCausalLM",
    _lightweight,
    {"layers", "compress"},
)
"""bge-reranker-v2.5-gemma2-lightweight."""
MATROYSHKA = llm_family(
    lambda files: architecture(files) == "CostWiseMistralForCausalLM", _matroyshka, {"layers"}
)
"""Matroyshka-ReRanker-passage, -document and -beir."""
