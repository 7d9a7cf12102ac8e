"""Our encoder against sentence-transformers, and its own promises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bge_eval.encode.settings import Dtype, Overrides, Pooling, Similarity
from bge_eval.errors import DamagedError, MissingError, UsageError
from bge_eval.models.kinds import ModelOptions
from bge_eval.models.transformer import EncoderModel
from bge_eval.records import Vectors
from conftest import BUILTIN, make_encoder

TEXTS = [
    "A short sentence.",
    "",
    "   spaces   around   ",
    "中文文本也要正确处理。",
    "long " * 700,
    "A short sentence.",
    "Ünïcödé — and “quotes”, émigré naïveté; 2²=4",
    "x",
]


def encoded(folder: Path | str, prompt: str = "", **overrides: Any) -> Vectors:
    model = EncoderModel(str(folder), ModelOptions(overrides=Overrides(**overrides)))
    return model.encoder.encode(TEXTS, prompt)


@pytest.mark.parametrize("pooling", ["cls", "mean", "lasttoken"])
@pytest.mark.parametrize("prompt", ["", "Represent this sentence: "])
def test_equals_sentence_transformers(
    tmp_path: Path, minilm_folder: Path, pooling: str, prompt: str
) -> None:
    from sentence_transformers import SentenceTransformer

    folder = make_encoder(tmp_path / "model", minilm_folder, pooling)
    expected = SentenceTransformer(str(folder), device="cpu").encode(TEXTS, prompt=prompt)
    np.testing.assert_allclose(encoded(folder, prompt), expected, atol=1e-5)


def test_equals_sentence_transformers_real_weights(minilm_folder: Path) -> None:
    from sentence_transformers import SentenceTransformer

    expected = SentenceTransformer(str(minilm_folder), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(encoded(BUILTIN), expected, atol=1e-5)


def test_prompt_left_out_of_pooling(tmp_path: Path, minilm_folder: Path) -> None:
    """As INSTRUCTOR models want it: include_prompt is false in the pooling's config."""
    import json

    from sentence_transformers import SentenceTransformer

    folder = make_encoder(tmp_path / "model", minilm_folder, "mean")
    path = folder / "1_Pooling" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "include_prompt": False}))
    reference = SentenceTransformer(str(folder), device="cpu")
    expected = reference.encode(TEXTS, prompt="Represent the text: ")
    np.testing.assert_allclose(encoded(folder, "Represent the text: "), expected, atol=1e-5)


def test_bare_encoder_needs_a_pooling(tmp_path: Path, minilm_folder: Path) -> None:
    """RetroMAE's checkpoints have no sentence-transformers files."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = make_encoder(tmp_path / "retromae", minilm_folder, "cls", bare=True)
    with pytest.raises(UsageError, match="its pooling is not defined"):
        EncoderModel(str(folder))
    model = EncoderModel(
        str(folder), ModelOptions(overrides=Overrides(pooling=Pooling.CLS, normalize=False))
    )
    assert model.settings.similarity is Similarity.DOT
    tokenizer = AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer(TEXTS, padding=True, truncation=True, max_length=512, return_tensors="pt")
    with torch.inference_mode():
        expected = AutoModel.from_pretrained(folder)(**inputs).last_hidden_state[:, 0].numpy()
    np.testing.assert_allclose(model.encoder.encode(TEXTS), expected, atol=1e-5)


def test_batches_do_not_change_vectors(tiny_bge: Path) -> None:
    one_by_one = EncoderModel(str(tiny_bge), ModelOptions(batch_tokens=1)).encoder.encode(TEXTS)
    together = EncoderModel(str(tiny_bge), ModelOptions(batch_tokens=100_000)).encoder.encode(TEXTS)
    np.testing.assert_allclose(one_by_one, together, atol=1e-5)


def test_equal_texts_have_equal_vectors(tiny_bge: Path) -> None:
    vectors = EncoderModel(str(tiny_bge), ModelOptions(batch_tokens=64)).encoder.encode(TEXTS)
    assert np.array_equal(vectors[0], vectors[5])


def test_overrides(tiny_bge: Path) -> None:
    full = encoded(tiny_bge)
    assert full.shape == (len(TEXTS), 64) and full.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(full, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(encoded(tiny_bge, truncate_dim=16), full[:, :16], atol=1e-6)
    assert not np.allclose(np.linalg.norm(encoded(tiny_bge, normalize=False), axis=1), 1)
    assert not np.allclose(encoded(tiny_bge, max_length=3), full, atol=1e-3)
    assert not np.allclose(encoded(tiny_bge, pooling=Pooling.MEAN), full, atol=1e-3)
    half = encoded(tiny_bge, dtype=Dtype.BFLOAT16)
    assert half.dtype == np.float32
    np.testing.assert_allclose(half, full, atol=0.1)
    assert not np.array_equal(half, full)


def test_settings_come_from_the_files(tiny_bge: Path, minilm_folder: Path) -> None:
    bge = EncoderModel(str(tiny_bge)).settings
    assert (bge.pooling, bge.normalize, bge.max_length) == (Pooling.CLS, True, 512)
    minilm = EncoderModel(str(minilm_folder)).settings
    assert (minilm.pooling, minilm.normalize, minilm.max_length) == (Pooling.MEAN, True, 256)
    assert minilm.similarity is Similarity.COSINE


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"max_length": 513}, "exceeds the .* positions of"),
        ({"truncate_dim": 65}, "more than the model's 64 dimensions"),
        ({"max_length": 0}, "must be at least 1"),
    ],
)
def test_impossible_settings(tiny_bge: Path, overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        encoded(tiny_bge, **overrides)


def test_device_that_is_not_there(tiny_bge: Path) -> None:
    with pytest.raises(UsageError, match="no device 'cuda:99'"):
        EncoderModel(str(tiny_bge), ModelOptions(device="cuda:99")).encoder  # noqa: B018


def test_weights_that_do_not_fit(tmp_path: Path, minilm_folder: Path) -> None:
    """Random weights in the place of missing ones would give a number like any other."""
    from safetensors.torch import load_file, save_file

    folder = make_encoder(tmp_path / "model", minilm_folder, "cls")
    path = folder / "model.safetensors"
    tensors = {k: v for k, v in load_file(path).items() if "layer.1" not in k}
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(DamagedError, match="lacks weights"):
        encoded(folder)


def test_half_precision_overflow_is_an_error(tmp_path: Path, minilm_folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = make_encoder(tmp_path / "model", minilm_folder, "cls")
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors["encoder.layer.1.output.LayerNorm.weight"].fill_(1e30)
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(DamagedError, match="not finite in float16"):
        encoded(folder, dtype=Dtype.FLOAT16)


class TestRevision:
    """A local folder's revision follows its content, so two folders never share results."""

    def test_follows_content(self, tmp_path: Path, minilm_folder: Path) -> None:
        from bge_eval.encode.locate import content_revision

        folder = make_encoder(tmp_path / "model", minilm_folder, "cls")
        before = content_revision(folder)
        (folder / "README.md").write_text("notes")
        (folder / "optimizer.pt").write_text("state")
        assert content_revision(folder) == before
        path = folder / "1_Pooling" / "config.json"
        path.write_text(path.read_text().replace("cls", "mean"))
        assert content_revision(folder) != before
        assert len(before) == 40

    def test_names(self, tmp_path: Path, minilm_folder: Path) -> None:
        from bge_eval.encode.locate import locate

        first = make_encoder(tmp_path / "run1" / "checkpoint-100", minilm_folder, "cls")
        second = make_encoder(tmp_path / "run2" / "checkpoint-100", minilm_folder, "mean")
        assert locate(str(first)).name == "run1/checkpoint-100"
        assert locate(str(first)).revision != locate(str(second)).revision

    def test_snapshot_of_the_hub_keeps_its_name(self, tmp_path: Path, tiny_bge: Path) -> None:
        import shutil

        from bge_eval.encode.locate import locate

        commit = "a5beb1e3e68b9ab74eb54cfd186867f64f240e1a"
        place = tmp_path / "models--BAAI--bge-base-en-v1.5" / "snapshots" / commit
        shutil.copytree(tiny_bge, place)
        found = locate(str(place))
        assert (found.name, found.revision) == ("BAAI/bge-base-en-v1.5", commit)
        model = EncoderModel(str(place))
        assert model.prompts.source == "mteb registry"

    def test_what_is_no_model(self, tmp_path: Path) -> None:
        from bge_eval.encode.locate import locate

        with pytest.raises(MissingError, match="holds no model"):
            locate(str(tmp_path))
        with pytest.raises(UsageError, match="neither a folder"):
            locate("./nowhere")
        with pytest.raises(UsageError, match="neither a folder"):
            locate("bge-base")
        with pytest.raises(UsageError, match="embedded model"):
            locate("builtin:bge")
        with pytest.raises(MissingError, match="--offline allows no download"):
            locate("BAAI/bge-base-en-v1.5", offline=True)
        with pytest.raises(UsageError, match="--revision"):
            locate(BUILTIN, revision="main")


def test_model_with_a_loader_of_its_own_is_refused(tmp_path: Path, minilm_folder: Path) -> None:
    """Instruction-tuned models format prompts in ways of their own; no silent wrong number."""
    folder = make_encoder(tmp_path / "nvidia" / "NV-Embed-v2", minilm_folder, "mean")
    with pytest.raises(UsageError, match="loader of its own"):
        EncoderModel(str(folder))
    EncoderModel(
        str(folder), ModelOptions(overrides=Overrides(query_prompt="Instruct: find\nQuery: "))
    )
