"""Language-model rerankers against FlagEmbedding on tiny models in the real layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bge_eval.encode.locate import locate
from bge_eval.encode.protocol import ProtocolName
from bge_eval.errors import UsageError
from bge_eval.rerank.families import RerankerOptions, load_reranker
from bge_eval.rerank.kinds import RerankerKind
from parity.flagembedding import FlagEmbedding, assert_close
from parity.plain_layers import reference
from parity.tiny_rerankers import (
    MAX_LENGTH,
    PAIRS,
    layerwise,
    lightweight,
    matroyshka,
    shared_config,
    tokenizer,
)
from test_published_models import save_tokenizer, shrunk

LAYERS = [2, 4, 6]
"""Layers of the layerwise reranker that give the score."""
LIGHTWEIGHT = [(6, 1, (3,)), (4, 1, (3,)), (6, 2, (3,)), (5, 4, (1, 3))]
"""Layers, compression ratio and compressed layers of the lightweight reranker."""


def scored(folder: Path, budget: int = 400, **options: Any) -> Any:
    chosen = RerankerOptions(max_length=MAX_LENGTH, batch_tokens=budget, device="cpu", **options)
    return load_reranker(locate(str(folder)), chosen).score(PAIRS)


def assert_within(values: Any, exact: Any, bound: Any) -> None:
    """Every value is as near the exact one as float32 arithmetic allows."""
    over = np.abs(np.asarray(values) - exact) / bound
    assert over.max() <= 1, f"up to {over.max():.3g} times the rounding of float32"


@pytest.mark.parametrize("layers", LAYERS)
def test_layerwise(tmp_path: Path, layers: int) -> None:
    folder = layerwise(tmp_path / "bge-reranker-v2-minicpm-layerwise")
    exact, bound = reference(folder, PAIRS, MAX_LENGTH, layers=layers)
    assert bound.max() < 1e-4
    assert_within(scored(folder, layers=layers), exact, bound)
    assert_within(scored(folder, budget=1, layers=layers), exact, bound)


@pytest.mark.slow
def test_layerwise_as_flag_embedding(tmp_path: Path, flagembedding: FlagEmbedding) -> None:
    """The exact reference scores as FlagEmbedding does."""
    folder = layerwise(tmp_path / "bge-reranker-v2-minicpm-layerwise")
    live = flagembedding("layerwise", folder, pairs=PAIRS, max_length=MAX_LENGTH, layers=LAYERS)
    for layers, scores in zip(LAYERS, live, strict=True):
        exact, bound = reference(folder, PAIRS, MAX_LENGTH, layers=layers)
        assert_within(scores, exact, bound)
        assert_close(scored(folder, layers=layers), scores)


@pytest.mark.parametrize("setting", LIGHTWEIGHT)
def test_lightweight(tmp_path: Path, setting: tuple[int, int, tuple[int, ...]]) -> None:
    folder = lightweight(tmp_path / "bge-reranker-v2.5-gemma2-lightweight")
    layers, ratio, at = setting
    exact, bound = reference(folder, PAIRS, MAX_LENGTH, layers=layers, ratio=ratio, compress_at=at)
    assert bound.max() < 5e-3
    scores = scored(folder, layers=layers, compress_ratio=ratio, compress_layers=at)
    assert_within(scores, exact, bound)


@pytest.mark.slow
def test_lightweight_as_flag_embedding(tmp_path: Path, flagembedding: FlagEmbedding) -> None:
    """The exact reference scores as FlagEmbedding does."""
    folder = lightweight(tmp_path / "bge-reranker-v2.5-gemma2-lightweight")
    live = flagembedding(
        "lightweight", folder, pairs=PAIRS, max_length=MAX_LENGTH, settings=LIGHTWEIGHT
    )
    for (layers, ratio, at), scores in zip(LIGHTWEIGHT, live, strict=True):
        exact, bound = reference(
            folder, PAIRS, MAX_LENGTH, layers=layers, ratio=ratio, compress_at=at
        )
        assert_within(scores, exact, bound)
        ours = scored(folder, layers=layers, compress_ratio=ratio, compress_layers=at)
        assert_close(ours, scores, relative=5e-4)  # the compression averages what nearly cancels


@pytest.mark.parametrize("layers", LAYERS)
def test_matroyshka(tmp_path: Path, layers: int) -> None:
    folder = matroyshka(tmp_path / "Matroyshka-ReRanker-beir")
    exact, bound = reference(folder, PAIRS, MAX_LENGTH, layers=layers)
    assert bound.max() < 1e-3 and np.ptp(exact) > 0.1
    assert_within(scored(folder, layers=layers), exact, bound)
    assert_within(scored(folder, budget=1, layers=layers), exact, bound)
    with pytest.raises(UsageError, match="--reranker-compress does not apply"):
        load_reranker(locate(str(folder)), RerankerOptions(compress_ratio=2))


@pytest.mark.filterwarnings("ignore:`max_length` is ignored when `padding`=`True`")
@pytest.mark.parametrize("max_length", [None, 400])
def test_qwen3_as_mteb(tmp_path: Path, max_length: int | None) -> None:
    """mteb's wrapper is the reference, and the source of the leaderboard's scores."""
    from mteb.models.model_implementations.qwen3_reranker import Qwen3RerankerWrapper
    from transformers import Qwen3Config, Qwen3ForCausalLM

    folder = tmp_path / "Qwen3-Reranker-0.6B"
    folder.mkdir()
    config = shared_config(chat_tokenizer(folder))
    del config["torch_dtype"], config["rope_theta"]
    torch.manual_seed(2)
    sizes: dict[str, Any] = {"num_key_value_heads": 2, "head_dim": 8, "initializer_range": 0.3}
    Qwen3ForCausalLM(Qwen3Config(**config, **sizes)).save_pretrained(folder)
    wrapper = Qwen3RerankerWrapper(str(folder), device="cpu", max_length=max_length or 8192)
    expected = [
        wrapper.compute_logits(
            wrapper.process_inputs([wrapper.format_instruction(None, query, document)])
        )[0]
        for query, document in PAIRS
    ]
    assert np.ptp(expected) > 1e-3
    for budget in (1, 3000):
        options = RerankerOptions(max_length=max_length, batch_tokens=budget, device="cpu")
        reranker = load_reranker(locate(str(folder)), options)
        assert reranker.identity()["kind"] == RerankerKind.QWEN3
        assert_close(reranker.score(PAIRS), expected)


def chat_tokenizer(folder: Path) -> int:
    """Bytes, the chat's marks and the two answers, each one token."""
    from transformers import AutoTokenizer

    tokenizer(folder, "left")
    read = AutoTokenizer.from_pretrained(folder)
    read.add_tokens(["<|im_start|>", "<|im_end|>", "yes", "no"], special_tokens=True)
    read.save_pretrained(folder)
    return len(read)


@pytest.mark.slow
@pytest.mark.parametrize("side", ["left", "right"])
def test_yes_logit(tmp_path: Path, flagembedding: FlagEmbedding, side: str) -> None:
    """bge-reranker-v2-gemma's way, on a tiny Gemma."""
    folder = tiny_gemma(tmp_path / "bge-reranker-v2-gemma", side)
    expected = flagembedding("yes_logit", folder, pairs=PAIRS, max_length=MAX_LENGTH)
    assert np.ptp(expected) > 0.1
    assert_close(scored(folder), expected)
    assert_close(scored(folder, budget=1), expected)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bert", "xlm-roberta"])
@pytest.mark.parametrize("max_length", [None, MAX_LENGTH])
def test_the_cut_of_flag_reranker(
    tmp_path: Path,
    tiny_cross_encoder: Path,
    flagembedding: FlagEmbedding,
    kind: str,
    max_length: int | None,
) -> None:
    """``--protocol model-card``: logits of pairs cut as FlagReranker cuts them."""
    folder = tiny_cross_encoder if kind == "bert" else xlm_roberta(tmp_path / kind)
    long = [("very long query " * 300, "a document " * 300), ("a query", "document " * 700)]
    pairs = [*PAIRS, *long, ("word " * 900, "")]
    stated = {} if max_length is None else {"max_length": max_length}
    expected = flagembedding("cross_encoder", folder, pairs=pairs, **stated)
    assert np.ptp(expected) > 0.1
    for budget in (1, 4000):
        options = RerankerOptions(
            max_length=max_length,
            batch_tokens=budget,
            device="cpu",
            protocol=ProtocolName.MODEL_CARD,
        )
        assert_close(load_reranker(locate(str(folder)), options).score(pairs), expected)


def xlm_roberta(folder: Path) -> Path:
    """bge-reranker-base's configuration, shrunk, with a tokenizer of bytes."""
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(2)
    config = shrunk("BAAI/bge-reranker-base", num_labels=1)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    save_tokenizer(folder, config.pad_token_id)
    return folder


def tiny_gemma(folder: Path, side: str) -> Path:
    from transformers import GemmaConfig, GemmaForCausalLM

    folder.mkdir()
    config = shared_config(tokenizer(folder, side))
    del config["torch_dtype"], config["rope_theta"]
    torch.manual_seed(2)
    options = {**config, "num_key_value_heads": 1, "head_dim": 8, "initializer_range": 0.3}
    GemmaForCausalLM(GemmaConfig(**options)).save_pretrained(folder)
    return folder


def test_kind_is_read_from_the_files(tmp_path: Path, tiny_cross_encoder: Path) -> None:
    """A language model is never taken for a reranker of some other way of scoring."""
    kinds = {
        layerwise(tmp_path / "a"): "layerwise",
        lightweight(tmp_path / "b"): "lightweight",
        matroyshka(tmp_path / "c"): "matroyshka",
        tiny_gemma(tmp_path / "bge-reranker-v2-gemma", "left"): "llm",
        tiny_cross_encoder: None,
    }
    for folder, kind in kinds.items():
        reranker = load_reranker(locate(str(folder)), RerankerOptions())
        assert reranker.identity().get("kind") == kind
    other = tiny_gemma(tmp_path / "some-llm", "left")
    with pytest.raises(UsageError, match="--reranker-kind llm"):
        load_reranker(locate(str(other)), RerankerOptions())
    said = load_reranker(locate(str(other)), RerankerOptions(kind=RerankerKind.LLM))
    assert said.identity()["kind"] == "llm"


def test_options_that_do_not_fit(tmp_path: Path, tiny_cross_encoder: Path) -> None:
    with pytest.raises(UsageError, match="--reranker-layers does not apply"):
        load_reranker(locate(str(tiny_cross_encoder)), RerankerOptions(layers=3))
    folder = layerwise(tmp_path / "a")
    with pytest.raises(UsageError, match="--reranker-compress does not apply"):
        load_reranker(locate(str(folder)), RerankerOptions(compress_ratio=2))
    with pytest.raises(UsageError, match="after layers 2 to 6"):
        load_reranker(locate(str(folder)), RerankerOptions(layers=1)).score([("a", "b")])


def test_every_setting_is_an_identity(tmp_path: Path) -> None:
    files = locate(str(lightweight(tmp_path / "a")))
    chosen = [
        RerankerOptions(),
        RerankerOptions(layers=4),
        RerankerOptions(compress_ratio=2),
        RerankerOptions(compress_ratio=2, compress_layers=(3,)),
        RerankerOptions(max_length=100),
        RerankerOptions(dtype="bfloat16"),
    ]
    found = [str(load_reranker(files, options).identity()) for options in chosen]
    assert len(set(found)) == len(chosen)
    same = load_reranker(files, RerankerOptions(compress_ratio=1)).identity()
    assert str(same) == found[0]
