"""Language-model rerankers against FlagEmbedding on tiny models in the real layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bge_eval.encode.locate import locate
from bge_eval.errors import UsageError
from bge_eval.rerank.families import RerankerOptions, load_reranker
from bge_eval.rerank.kinds import RerankerKind
from parity.plain_layers import reference
from parity.tiny_rerankers import (
    MAX_LENGTH,
    PAIRS,
    layerwise,
    lightweight,
    shared_config,
    tokenizer,
)

# Scores of FlagEmbedding 1.4.2 with transformers 4.46.3, which its code for these models needs
# (tiny_rerankers.py prints them). They show that the exact reference scores as FlagEmbedding does;
# our own scores are compared with the reference, which is the same on every processor.
LAYERWISE = {
    2: [
        -2.0754230,
        -2.1707551,
        -2.0791874,
        -2.1109354,
        -2.1770380,
        -2.1716890,
        -2.1251578,
        -2.0268435,
    ],
    4: [0.5224810, 0.4723200, 0.4513326, 0.5539109, 0.5829649, 0.8900895, 0.5690025, 0.2545319],
    6: [1.0630398, 1.1128790, 0.9604466, 0.9867369, 0.9514734, 1.0746756, 0.9067373, 1.3800063],
}
LIGHTWEIGHT = {
    (6, 1, (3,)): [
        0.7987123,
        1.9533573,
        2.125927,
        0.1632528,
        1.4367316,
        1.9369494,
        -1.7800452,
        -2.0839579,
    ],
    (4, 1, (3,)): [
        -0.5031221,
        0.4735812,
        2.3377385,
        -1.485739,
        2.4024785,
        2.1441171,
        -1.5454694,
        -3.1493111,
    ],
    (6, 2, (3,)): [
        -0.4440545,
        1.568154,
        1.6046653,
        0.739958,
        0.3853555,
        1.6045444,
        -2.2931869,
        -1.9987099,
    ],
    (5, 4, (1, 3)): [
        0.3816466,
        0.9422703,
        1.6593646,
        -0.8139005,
        -0.3590505,
        -0.478907,
        -0.6616778,
        3.1773913,
    ],
}


def scored(folder: Path, budget: int = 400, **options: Any) -> Any:
    chosen = RerankerOptions(max_length=MAX_LENGTH, batch_tokens=budget, device="cpu", **options)
    return load_reranker(locate(str(folder)), chosen).score(PAIRS)


def assert_within(values: Any, exact: Any, bound: Any) -> None:
    """Every value is as near the exact one as float32 arithmetic allows."""
    over = np.abs(np.asarray(values) - exact) / bound
    assert over.max() <= 1, f"up to {over.max():.3g} times the rounding of float32"


@pytest.mark.parametrize("layers", [2, 4, 6])
def test_layerwise(tmp_path: Path, layers: int) -> None:
    folder = layerwise(tmp_path / "bge-reranker-v2-minicpm-layerwise")
    exact, bound = reference(folder, PAIRS, MAX_LENGTH, layers=layers)
    assert bound.max() < 1e-4
    assert_within(scored(folder, layers=layers), exact, bound)
    assert_within(scored(folder, budget=1, layers=layers), exact, bound)
    assert_within(LAYERWISE[layers], exact, bound)


@pytest.mark.parametrize("setting", LIGHTWEIGHT)
def test_lightweight(tmp_path: Path, setting: tuple[int, int, tuple[int, ...]]) -> None:
    folder = lightweight(tmp_path / "bge-reranker-v2.5-gemma2-lightweight")
    layers, ratio, at = setting
    exact, bound = reference(folder, PAIRS, MAX_LENGTH, layers=layers, ratio=ratio, compress_at=at)
    assert bound.max() < 5e-3
    scores = scored(folder, layers=layers, compress_ratio=ratio, compress_layers=at)
    assert_within(scores, exact, bound)
    assert_within(LIGHTWEIGHT[setting], exact, bound)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("side", ["left", "right"])
def test_yes_logit(tmp_path: Path, side: str, capfd: pytest.CaptureFixture[str]) -> None:
    """bge-reranker-v2-gemma's way, on a tiny Gemma; FlagEmbedding runs beside it."""
    flag = pytest.importorskip("FlagEmbedding", reason="the reference is FlagEmbedding itself")
    folder = tiny_gemma(tmp_path / "bge-reranker-v2-gemma", side)
    reference = flag.FlagLLMReranker(
        str(folder), use_fp16=False, devices=["cpu"], max_length=MAX_LENGTH, batch_size=3
    )
    expected = reference.compute_score(PAIRS)
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(scored(folder), expected, atol=1e-5)
    np.testing.assert_allclose(scored(folder, budget=1), expected, atol=1e-5)


def tiny_gemma(folder: Path, side: str) -> Path:
    import torch
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
