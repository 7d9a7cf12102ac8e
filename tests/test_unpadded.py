"""Batches without padding: every family gives the padded batch's vectors, and computes less."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bge_eval.encode.locate import locate
from bge_eval.encode.settings import Overrides, Pooling, apply_overrides, read_model_config
from bge_eval.rerank.cross_encoder import CrossEncoderReranker
from bge_eval.runtime import unpadded as module
from bge_eval.runtime.batches import Tokens
from bge_eval.runtime.segments import Pattern, Segments, by_equal_lengths, by_torch
from bge_eval.runtime.text_encoder import TextEncoder, load_tokenizer
from bge_eval.runtime.torch_forward import TorchForward
from bge_eval.runtime.unpadded import UNPADDED_TYPES, Unpadded, run_unpadded, unpadded
from test_encoder import TEXTS

WINDOW = 12
"""Shorter than the texts, so that windows of attention cut."""
VARIANTS: dict[str, dict[str, Any]] = {kind: {} for kind in sorted(UNPADDED_TYPES)}
VARIANTS |= {
    "gemma3_text, bidirectional": {"use_bidirectional_attention": True},
    "qwen2, bidirectional": {"is_causal": False, "use_sliding_window": False},
    "mistral, windowless": {"sliding_window": None},
}


def model_of(name: str, **more: Any) -> Any:
    """A random model of a family, three layers deep, with large weights in its attention."""
    from transformers import AutoConfig, AutoModel

    kind = name.partition(",")[0]
    sizes: dict[str, Any] = {"vocab_size": 300, "pad_token_id": 1, "max_position_embeddings": 300}
    if kind == "distilbert":
        sizes |= {"dim": 32, "hidden_dim": 48, "n_layers": 3, "n_heads": 4}
    else:
        sizes |= {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3}
        sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
    windows = ["sliding_attention", "full_attention", "sliding_attention"]
    sizes |= {"bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3}
    sizes |= {"mask_token_id": 4}
    of_kind: dict[str, dict[str, Any]] = {
        "albert": {"embedding_size": 16},
        "electra": {"embedding_size": 16},
        "gemma2": {"sliding_window": WINDOW, "layer_types": windows, "query_pre_attn_scalar": 8}
        | {"attn_logit_softcapping": 3.0},
        "mistral": {"sliding_window": WINDOW},
        "phi3": {"sliding_window": WINDOW},
        "gemma3_text": {"sliding_window": WINDOW, "layer_types": windows},
        "modernbert": {"local_attention": WINDOW},
        "qwen2": {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1},
        "qwen3": {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1},
    }
    sizes |= of_kind.get(kind, {})
    torch.manual_seed(2)
    config = AutoConfig.for_model(kind, **{**sizes, **VARIANTS.get(name, {}), **more})
    model = AutoModel.from_config(config).eval()
    for weights in model.parameters():
        if weights.ndim > 1:
            torch.nn.init.normal_(weights, std=0.4)
    return model


def batch(side: str, lengths: tuple[int, ...] = (40, 40, 31, 7, 1)) -> dict[str, Tokens]:
    """Texts of arbitrary tokens, the padding token among them, padded on one side."""
    sizes = np.array(lengths)[:, None]
    mask = (np.arange(max(lengths)) < sizes).astype(np.int64)
    mask = mask if side == "right" else np.ascontiguousarray(mask[:, ::-1])
    ids = np.random.default_rng(5).integers(0, 300, mask.shape)
    return {"input_ids": np.where(mask == 1, ids, 1), "attention_mask": mask}


def padded(model: Any, features: dict[str, Tokens]) -> torch.Tensor:
    with torch.inference_mode():
        hidden: torch.Tensor = model(
            **{name: torch.from_numpy(item) for name, item in features.items()}
        ).last_hidden_state
    return hidden


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("name", VARIANTS)
def test_a_family_gives_the_vectors_of_the_padded_batch(name: str, side: str) -> None:
    plain, model = model_of(name), model_of(name)
    notes: list[str] = []
    made = unpadded(model, notes.append)
    assert made is not None and not notes
    features = batch(side)
    expected = padded(plain, features)
    with torch.inference_mode():
        computed = made.hidden(model, features)
    assert computed is not None
    real = torch.from_numpy(features["attention_mask"]).bool()
    # Sums of 32 to 48 products of float32 in three layers, each rounded to 2**-24 of its size.
    bound = 3 * 48 * 2**-24 * float(expected[real].abs().max()) * 4
    assert float((computed - expected)[real].abs().max()) < bound
    assert not computed[~real].any()
    # Padded batches still run, as M3's further modes need them.
    torch.testing.assert_close(padded(model, features)[real], expected[real], rtol=0, atol=bound)


def test_no_layer_computes_a_padding_token() -> None:
    model = model_of("bert")
    made = Unpadded(model, by_equal_lengths)
    shapes = set()
    for layer in model.modules():
        if isinstance(layer, torch.nn.Linear | torch.nn.LayerNorm | torch.nn.Embedding):
            layer.register_forward_hook(
                lambda layer, inputs, output: shapes.add(tuple(output.shape[:-1]))
            )
    features = batch("right")
    with torch.inference_mode():
        made.hidden(model, features)
    tokens = int(features["attention_mask"].sum())
    # The pooler reads the row's first token and its result is not used.
    assert shapes == {(1, tokens), (1,)} and tokens < features["input_ids"].size


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("groups", [4, 2])
def test_attention_stays_in_its_segment(causal: bool, window: int | None, groups: int) -> None:
    lengths = (5, 5, 9, 1)
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(sum(lengths), 4, 8, generator=generator, dtype=torch.float64)
    key, value = torch.randn(2, sum(lengths), groups, 8, generator=generator, dtype=torch.float64)
    segments = Segments.of(np.array(lengths), by_equal_lengths, torch.device("cpu"))
    assert segments.bounds.tolist() == [0, 5, 10, 19, 20] and segments.longest == 9
    computed = by_equal_lengths(query, key, value, segments, Pattern(0.3, causal, window))
    owner = np.repeat(np.arange(4), lengths)
    back = np.arange(20)[:, None] - np.arange(20)[None, :]
    seen = owner[:, None] == owner[None, :]
    seen &= (back >= 0) if causal else True
    seen &= np.abs(back) < (window or 100)
    for head in range(4):
        of_head = head * groups // 4
        products = (query[:, head] @ key[:, of_head].T * 0.3).numpy()
        weights = np.where(seen, np.exp(products), 0)
        weights /= weights.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(computed[:, head], weights @ value[:, of_head].numpy())
    reach = Pattern(None, causal, window).reach
    assert reach == ((-1 if window is None else 2), (0 if causal else reach[0]))


@pytest.mark.parametrize(("window", "groups"), [(None, 4), (3, 2)])
def test_torch_s_kernel_takes_our_arguments(window: int | None, groups: int) -> None:
    """Without a GPU only shapes can be computed."""
    pytest.importorskip("torch.nn.attention.varlen")
    query = torch.empty(20, 4, 8, dtype=torch.bfloat16, device="meta")
    key = torch.empty(20, groups, 8, dtype=torch.bfloat16, device="meta")
    segments = Segments.of(np.array([5, 15]), by_torch, torch.device("cpu"))
    segments = replace(segments, bounds=segments.bounds.to("meta"))
    attended = by_torch(query, key, key, segments, Pattern(0.3, True, window))
    assert attended.shape == query.shape and attended.dtype == torch.bfloat16


OLD_SIGNATURES = {
    "2.10": "*, is_causal=False, return_aux=None",
    "2.11": "*, return_aux=None, scale=None, window_size=(-1, -1)",
    "2.13": "*, return_aux=None, scale=None, window_size=(-1, -1), enable_gqa=False",
}
"""What torch's kernel takes after its seven tensors and sizes, by version."""


@pytest.mark.parametrize("version", OLD_SIGNATURES)
@pytest.mark.parametrize("groups", [4, 2])
@pytest.mark.parametrize(
    "pattern",
    [
        Pattern(8**-0.5, True, None),
        Pattern(None, False, None),
        Pattern(0.3, True, None),
        Pattern(None, False, 3),
        Pattern(None, True, 3, 5.0),
    ],
)
def test_every_version_of_torch_s_kernel_gets_the_same_attention_to_compute(
    version: str, groups: int, pattern: Pattern, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version that cannot compute a pattern is refused before it computes another one."""
    varlen = pytest.importorskip("torch.nn.attention.varlen")
    lengths = (5, 9, 9)
    segments = Segments.of(np.array(lengths), by_equal_lengths, torch.device("cpu"))

    def compute(query: Any, key: Any, value: Any, bounds: Any, longest: int, **taken: Any) -> Any:
        assert bounds.dtype == torch.int32 and bounds.tolist() == [0, 5, 14, 23] and longest == 9
        before, after = taken.get("window_size", (-1, 0 if taken.get("is_causal") else -1))
        assert query.shape[1] == key.shape[1] or taken.get("enable_gqa")
        window = None if before < 0 else before + 1
        seen = Pattern(taken.get("scale"), after == 0, window)
        return by_equal_lengths(query, key, value, segments, seen)

    scope = {"compute": compute}
    names = [part.partition("=")[0].strip() for part in OLD_SIGNATURES[version].split(",")]
    passed = ", ".join(f"{name}={name}" for name in names if name.isidentifier())
    exec(
        f"def varlen_attn(q, k, v, cu_q, cu_k, most_q, most_k, {OLD_SIGNATURES[version]}):\n"
        f"    return compute(q, k, v, cu_q, most_q, {passed})",
        scope,
    )
    monkeypatch.setattr(varlen, "varlen_attn", scope["varlen_attn"])
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(sum(lengths), 4, 8, generator=generator, dtype=torch.float64)
    key, value = torch.randn(2, sum(lengths), groups, 8, generator=generator, dtype=torch.float64)
    old = version == "2.10" and (pattern.scale == 0.3 or pattern.window)
    if old or pattern.softcap:
        with pytest.raises(NotImplementedError):
            by_torch(query, key, value, segments, pattern)
        return
    computed = by_torch(query, key, value, segments, pattern)
    expected = by_equal_lengths(query, key, value, segments, pattern)
    torch.testing.assert_close(computed, expected)


@pytest.mark.parametrize("kind", ["mpnet", "deberta-v2", "gpt2"])
def test_a_family_without_a_tested_way_is_padded_and_named(kind: str) -> None:
    model = model_of(kind)
    notes: list[str] = []
    assert unpadded(model, notes.append) is None
    assert notes == [
        f"Batches are computed with padding: for models of type {kind} bge-eval has no tested way"
        " without."
    ]


def test_a_model_that_would_differ_is_padded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "kernels_for", lambda device, dtype: (_across,))
    model, plain = model_of("bert"), model_of("bert")
    notes: list[str] = []
    assert unpadded(model, notes.append) is None
    assert len(notes) == 1 and "would differ, by a cosine of" in notes[0]
    features = batch("right")
    torch.testing.assert_close(padded(model, features), padded(plain, features))


def _across(query: Any, key: Any, value: Any, segments: Segments, pattern: Pattern) -> Any:
    """A kernel that forgets where a text ends."""
    whole = replace(segments, lengths=(sum(segments.lengths),))
    return by_equal_lengths(query, key, value, whole, pattern)


def test_a_kernel_that_does_not_run_leaves_the_model_padded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*args: Any) -> Any:
        raise RuntimeError("no kernel image is available\nfor this device")

    notes: list[str] = []
    monkeypatch.setattr(module, "kernels_for", lambda device, dtype: (broken, by_equal_lengths))
    assert unpadded(model_of("qwen3"), notes.append) is not None and not notes
    monkeypatch.setattr(module, "kernels_for", lambda device, dtype: (broken,))
    assert unpadded(model_of("qwen3"), notes.append) is None
    assert "no kernel image is available" in notes[0]


def test_a_text_of_no_token_has_the_padded_batch_s_vectors() -> None:
    model = model_of("bert")
    made = Unpadded(model, by_equal_lengths)
    assert made.hidden(model, batch("right", (4, 0, 3))) is None


@pytest.mark.parametrize("pooling", [Pooling.CLS, Pooling.MEAN, Pooling.LAST, Pooling.MAX])
@pytest.mark.parametrize("prompt", ["", "query: "])
def test_an_encoder_gives_the_same_vectors(tiny_bge: Path, pooling: Pooling, prompt: str) -> None:
    overrides = Overrides(pooling=pooling)
    files = locate(str(tiny_bge), offline=True)
    settings = apply_overrides(read_model_config(files, overrides).settings, overrides)
    settings = replace(settings, pool_prompt=False)
    tokenizer = load_tokenizer(files, settings)
    vectors = []
    for skips in (False, True):
        forward = TorchForward(files, settings, device="cpu", skip_padding=skips)
        assert (forward._unpadded is not None) is skips
        encoder = TextEncoder(tokenizer, forward, settings, batch_tokens=200)
        vectors.append(encoder.encode(TEXTS, prompt))
    np.testing.assert_allclose(vectors[1], vectors[0], rtol=0, atol=2e-6)


def test_a_cross_encoder_gives_the_same_scores(
    tiny_cross_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = [(query, text) for query in TEXTS[:3] for text in TEXTS]
    files = locate(str(tiny_cross_encoder), offline=True)
    reranker = CrossEncoderReranker(files)
    expected = reranker.score(pairs)
    transformer: Any = reranker._load()[0]
    base = transformer.auto_model.base_model
    rows: list[int] = []
    inner = base.embeddings.register_forward_hook(
        lambda layer, inputs, output: rows.append(len(output))
    )
    assert run_unpadded(base, pytest.fail)
    rows.clear()
    np.testing.assert_allclose(reranker.score(pairs), expected, rtol=0, atol=2e-6)
    assert set(rows) == {1}
    inner.remove()
