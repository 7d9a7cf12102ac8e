"""Language models as rerankers without padding: the scores of the padded batches, on a CPU.

A stand-in for the GPU: the same path, with the attention that every device computes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from transformers import AutoTokenizer

from bge_eval.encode.locate import locate
from bge_eval.progress import Progress
from bge_eval.rerank.cross_encoder import CrossEncoderReranker
from bge_eval.rerank.families import RerankerOptions, load_reranker
from bge_eval.rerank.kinds import RerankerKind
from bge_eval.runtime import flat_layers, last_tokens, unpadded
from bge_eval.runtime.last_tokens import LastTokens
from bge_eval.runtime.segments import NAME, by_equal_lengths
from parity.plain_layers import reference
from parity.tiny_rerankers import (
    MAX_LENGTH,
    PAIRS,
    layerwise,
    lightweight,
    matroyshka,
    tokenizer,
)

DECODERS = ("gemma", "gemma2", "gemma3_text", "llama", "mistral", "phi3", "qwen2", "qwen3")


class Remarks(Progress):
    """Collects remarks."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def decoder(folder: Path, kind: str, head: str, words: Sequence[str] = ()) -> Path:
    """A random decoder of three layers with large weights in its attention, and a tokenizer.

    The tokens are single bytes and some words.
    """
    import transformers

    folder.mkdir()
    count = tokenizer(folder, "left")
    read = AutoTokenizer.from_pretrained(folder)
    read.add_tokens(list(words))
    read.save_pretrained(folder)
    sizes: dict[str, Any] = {"vocab_size": count + len(words), "hidden_size": 32}
    sizes |= {"intermediate_size": 48, "num_hidden_layers": 3, "head_dim": 8}
    sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0}
    sizes |= {"bos_token_id": 2, "eos_token_id": 1, "initializer_range": 0.3}
    if kind == "gemma2":
        sizes |= {"query_pre_attn_scalar": 8, "attn_logit_softcapping": 3.0}
    torch.manual_seed(2)
    config = transformers.AutoConfig.for_model(kind, **sizes)
    if head == "classifier":
        config.num_labels = 1
        model: Any = transformers.AutoModelForSequenceClassification.from_config(config)
    else:
        model = transformers.AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder)
    return folder


def scored(folder: Path, progress: Progress | None = None, **options: Any) -> Any:
    chosen = RerankerOptions(max_length=MAX_LENGTH, batch_tokens=600, device="cpu", **options)
    return load_reranker(locate(str(folder)), chosen, progress).score(PAIRS)


def without_padding(
    monkeypatch: pytest.MonkeyPatch, folder: Path, **options: Any
) -> npt.NDArray[np.float64]:
    """Return the scores as on a GPU, which fails where a batch is padded or a remark is made."""
    monkeypatch.setattr(last_tokens, "skips_padding", lambda device: True)
    monkeypatch.setattr(LastTokens, "_padded", lambda self, rows: pytest.fail("padded"))
    remarks = Remarks()
    scores: npt.NDArray[np.float64] = scored(folder, remarks, **options)
    assert not remarks.notes
    return scores


@pytest.mark.parametrize("kind", DECODERS)
def test_a_language_model_gives_the_logits_of_the_padded_batch(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = decoder(tmp_path / "model", kind, "language")
    options: dict[str, Any] = {"kind": RerankerKind.LLM}
    expected = scored(folder, **options)
    assert np.ptp(expected) > 0.01
    computed = without_padding(monkeypatch, folder, **options)
    np.testing.assert_allclose(computed, expected, rtol=1e-5, atol=1e-5)


def test_qwen3_gives_the_probabilities_of_the_padded_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = decoder(tmp_path / "Qwen3-Reranker", "qwen3", "language", ["yes", "no"])
    options = RerankerOptions(kind=RerankerKind.QWEN3, batch_tokens=3000, device="cpu")
    expected = load_reranker(locate(str(folder)), options).score(PAIRS)
    assert np.ptp(expected) > 1e-3
    monkeypatch.setattr(last_tokens, "skips_padding", lambda device: True)
    monkeypatch.setattr(LastTokens, "_padded", lambda self, rows: pytest.fail("padded"))
    computed = load_reranker(locate(str(folder)), options).score(PAIRS)
    np.testing.assert_allclose(computed, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("layers", [2, 6])
@pytest.mark.parametrize("make", [layerwise, matroyshka])
def test_a_layered_reranker_gives_the_scores_of_the_padded_batch(
    tmp_path: Path, make: Any, layers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make(tmp_path / "model")
    expected = scored(folder, layers=layers)
    assert np.ptp(expected) > 0.1
    computed = without_padding(monkeypatch, folder, layers=layers)
    np.testing.assert_allclose(computed, expected, rtol=1e-5, atol=1e-5)
    exact, bound = reference(folder, PAIRS, MAX_LENGTH, layers=layers)
    assert (np.abs(computed - exact) <= bound).all()


def test_a_kernel_that_does_not_run_leaves_a_reranker_padded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = layerwise(tmp_path / "model")
    expected = scored(folder)
    monkeypatch.setattr(last_tokens, "skips_padding", lambda device: True)
    monkeypatch.setattr(unpadded, "kernels_for", lambda device, dtype: (broken,))
    remarks = Remarks()
    np.testing.assert_allclose(scored(folder, remarks), expected, rtol=0, atol=1e-6)
    assert len(remarks.notes) == 1 and "no kernel image" in remarks.notes[0]


def broken(*args: Any) -> Any:
    raise RuntimeError("no kernel image is available for this device")


def forgetful(query: Any, key: Any, value: Any, segments: Any, pattern: Any) -> Any:
    """A kernel that forgets where a text ends."""
    whole = replace(segments, lengths=(sum(segments.lengths),))
    return by_equal_lengths(query, key, value, whole, pattern)


def same(*args: Any) -> Any:
    return by_equal_lengths(*args)


@pytest.mark.parametrize(
    ("kernels", "remark"),
    [
        ((broken,), "no kernel image"),
        ((forgetful,), "would differ, by a cosine of"),
        ((forgetful, by_equal_lengths), "would differ, by a cosine of"),
        ((broken, same), ""),
    ],
)
def test_the_lightweight_reranker_takes_only_a_kernel_that_gives_the_same(
    tmp_path: Path, kernels: Any, remark: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = lightweight(tmp_path / "model")
    options: dict[str, Any] = {"layers": 5, "compress_ratio": 2, "compress_layers": (1, 3)}
    expected = scored(folder, **options)
    monkeypatch.setattr(flat_layers, "kernels_for", lambda device, dtype: kernels)
    remarks = Remarks()
    np.testing.assert_array_equal(scored(folder, remarks, **options), expected)
    assert len(remarks.notes) == bool(remark) and all(remark in note for note in remarks.notes)


@pytest.mark.parametrize("kind", ["gemma", "qwen3"])
def test_a_classifier_that_is_a_language_model_gives_the_same_scores(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The head of a decoder reads more of the transformer's output than an encoder's."""
    folder = decoder(tmp_path / "model", kind, "classifier")
    options = RerankerOptions(batch_tokens=600, device="cpu", backend="torch")
    expected = CrossEncoderReranker(locate(str(folder)), options).score(PAIRS[:2] + PAIRS[5:])
    assert np.ptp(expected) > 1e-3
    monkeypatch.setattr(unpadded, "skips_padding", lambda device: True)
    remarks = Remarks()
    reranker = CrossEncoderReranker(locate(str(folder)), options, remarks)
    computed = reranker.score(PAIRS[:2] + PAIRS[5:])
    transformer: Any = reranker._load()[0]
    assert not remarks.notes and transformer.auto_model.config._attn_implementation == NAME
    np.testing.assert_allclose(computed, expected, rtol=0, atol=1e-5)
