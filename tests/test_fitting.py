"""A batch that does not fit into a GPU's memory is computed in parts, with the same results."""

from __future__ import annotations

import shutil
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bge_eval.encode.locate import locate
from bge_eval.encode.settings import Overrides, apply_overrides, read_model_config
from bge_eval.errors import NotReadyError
from bge_eval.models.kinds import ModelOptions
from bge_eval.models.m3_vectors import Mode
from bge_eval.models.opening import open_model
from bge_eval.rerank.cross_encoder import CrossEncoderReranker
from bge_eval.rerank.families import RerankerOptions, load_reranker
from bge_eval.rerank.kinds import RerankerKind
from bge_eval.runtime.fitting import Fitting
from bge_eval.runtime.library_parts import run_in_parts
from bge_eval.runtime.text_encoder import TextEncoder, load_tokenizer
from bge_eval.runtime.torch_forward import TorchForward
from parity.tiny_rerankers import PAIRS, layerwise
from test_encoder import TEXTS


class Memory:
    """Stands in for a card that holds a number of rows at a time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
        self.rows = rows
        self.batches: list[int] = []
        run = torch.nn.Embedding.forward

        def limited(layer: Any, ids: torch.Tensor) -> torch.Tensor:
            if ids.ndim == 2 and len(ids) > self.rows:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
            self.batches.append(len(ids))
            return run(layer, ids)

        monkeypatch.setattr(torch.nn.Embedding, "forward", limited)


def test_parts_are_halved_until_they_fit_and_stay_so() -> None:
    notes: list[str] = []
    fitting = Fitting("a model", notes.append)
    sizes: list[int] = []

    def compute(part: slice) -> list[int]:
        rows = list(range(20)[part])
        sizes.append(len(rows))
        if len(rows) > 3:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return rows

    assert [*chain(*fitting.run(10, compute))] == list(range(10))
    assert sizes == [10, 5, 3, 3, 3, 1]
    sizes.clear()
    assert [*chain(*fitting.run(11, compute))] == list(range(11)) and max(sizes) == 3
    assert len(sizes) == 4 and len(notes) == 1 and "does not fit" in notes[0]


def test_a_text_that_does_not_fit_alone_is_an_error() -> None:
    def compute(part: slice) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB\nmore")

    with pytest.raises(NotReadyError, match=r"one text \(.*1 GiB.*\). Use --dtype"):
        Fitting("a model", print).run(5, compute)


def test_an_encoder_computes_in_parts(tiny_bge: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = locate(str(tiny_bge), offline=True)
    overrides = Overrides()
    settings = apply_overrides(read_model_config(files, overrides).settings, overrides)
    notes: list[str] = []
    forward = TorchForward(files, settings, device="cpu", note=notes.append)
    encoder = TextEncoder(load_tokenizer(files, settings), forward, settings)
    expected = encoder.encode(TEXTS, "")
    memory = Memory(monkeypatch, 2)
    np.testing.assert_allclose(encoder.encode(TEXTS, ""), expected, rtol=0, atol=1e-6)
    assert max(memory.batches) == 2 and len(notes) == 1


@pytest.mark.parametrize("kind", ["cross-encoder", "layerwise"])
def test_a_reranker_computes_in_parts(
    kind: str, tmp_path: Path, tiny_cross_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = RerankerOptions(device="cpu", backend="torch")
    if kind == "layerwise":
        reranker: Any = load_reranker(locate(str(layerwise(tmp_path / "model"))), options)
    else:
        reranker = CrossEncoderReranker(locate(str(tiny_cross_encoder)), options)
    pairs = PAIRS[:2] + PAIRS[5:]
    expected = reranker.score(pairs)
    memory = Memory(monkeypatch, 2)
    np.testing.assert_allclose(reranker.score(pairs), expected, rtol=1e-5, atol=1e-5)
    assert max(memory.batches) == 2


def test_late_interaction_computes_in_parts(
    tmp_path: Path, tiny_bge: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = RerankerOptions(device="cpu", kind=RerankerKind.LATE)
    notes: list[str] = []
    reranker: Any = load_reranker(locate(str(tiny_bge)), options)
    reranker.progress.note = notes.append
    expected = reranker.score(PAIRS)
    memory = Memory(monkeypatch, 2)
    np.testing.assert_allclose(reranker.score(PAIRS), expected, rtol=0, atol=1e-6)
    assert max(memory.batches) == 2 and len(notes) == 1


@pytest.mark.parametrize("kind", ["multi-vector", "sparse"])
def test_a_model_of_sentence_transformers_computes_in_parts(
    kind: str, tmp_path: Path, tiny_bge: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "model"
    notes: list[str] = []
    loaded = _saved(kind, tiny_bge, folder)
    expected = loaded.encode(TEXTS)
    run_in_parts(loaded, Fitting("a model", notes.append))
    memory = Memory(monkeypatch, 2)
    for row, (mine, theirs) in enumerate(zip(loaded.encode(TEXTS), expected, strict=True)):
        mine, theirs = (each.to_dense() if each.is_sparse else each for each in (mine, theirs))
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-6, msg=str(row))
    assert max(memory.batches) == 2 and len(notes) == 1


def test_a_multi_vector_reranker_computes_in_parts(
    tmp_path: Path, tiny_bge: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "model"
    _saved("multi-vector", tiny_bge, folder)
    reranker: Any = load_reranker(locate(str(folder)), RerankerOptions(device="cpu"))
    expected = reranker.score(PAIRS)
    memory = Memory(monkeypatch, 2)
    np.testing.assert_allclose(reranker.score(PAIRS), expected, rtol=0, atol=1e-5)
    assert max(memory.batches) == 2


def _saved(kind: str, copied: Path, folder: Path) -> Any:
    """A tiny ColBERT or SPLADE, saved and on the CPU."""
    from sentence_transformers import MultiVectorEncoder, SparseEncoder
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sparse_encoder.modules import SpladePooling
    from transformers import AutoTokenizer, BertConfig, BertForMaskedLM

    torch.manual_seed(6)
    body = folder / "body"
    AutoTokenizer.from_pretrained(copied).save_pretrained(body)
    sizes: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64}
    config = BertConfig(num_hidden_layers=2, num_attention_heads=2, **sizes)
    BertForMaskedLM(config).save_pretrained(body)
    if kind == "sparse":
        first = Transformer(str(body), transformer_task="fill-mask", max_seq_length=64)
        model: Any = SparseEncoder(modules=[first, SpladePooling()], device="cpu")
    else:
        model = MultiVectorEncoder(str(body), device="cpu", local_files_only=True)
    model.save(str(folder))
    return model


def test_bge_m3_computes_in_parts(
    tmp_path: Path, tiny_bge: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "m3"
    shutil.copytree(tiny_bge, folder)
    for name, outputs in (("sparse_linear.pt", 1), ("colbert_linear.pt", 8)):
        torch.save(torch.nn.Linear(64, outputs).state_dict(), folder / name)
    options = ModelOptions(m3_mode="dense,sparse,colbert", device="cpu", store=False)
    model: Any = open_model(str(folder), options)
    expected = model.vectors(TEXTS, "", "encode", set(Mode))
    memory = Memory(monkeypatch, 2)
    vectors = model.vectors(TEXTS, "", "encode", set(Mode))
    assert max(memory.batches) == 2
    np.testing.assert_allclose(vectors.dense, expected.dense, rtol=0, atol=1e-6)
    sparse = abs(vectors.sparse - expected.sparse)
    assert expected.sparse.nnz and sparse.max() < 1e-5
    for mine, theirs in zip(vectors.tokens, expected.tokens, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-5)
