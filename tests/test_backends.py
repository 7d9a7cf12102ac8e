"""Every backend gives torch's vectors, and the choice among them is never the worse."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bge_eval import load_model
from bge_eval.encode.locate import locate
from bge_eval.encode.settings import Backend, Dtype, Overrides, Pooling
from bge_eval.errors import MissingError, NotReadyError, UsageError
from bge_eval.models.form import Form
from bge_eval.models.kinds import ModelOptions
from bge_eval.models.transformer import EncoderModel
from bge_eval.progress import Progress
from bge_eval.records import Vectors
from bge_eval.rerank.cross_encoder import CrossEncoderReranker
from bge_eval.rerank.reranker import RerankerOptions
from bge_eval.results.identity import Identity
from bge_eval.results.record import RunRecord, write_record
from bge_eval.results.store import ResultStore
from bge_eval.runtime import conversions
from bge_eval.runtime.backends import choose_backend
from bge_eval.suites.catalogue import plan
from conftest import BUILTIN, CommandLine
from onnx_files import export_onnx
from test_encoder import TEXTS


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BGE_EVAL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def encoder(folder: Path | str, backend: str, **overrides: Any) -> Any:
    """An encoder of the same batches everywhere: left padding moves BERT's positions."""
    options = ModelOptions(
        overrides=Overrides(**overrides),
        backend=Backend(backend),
        device="cpu",
        store=False,
        batch_tokens=4096,
    )
    return EncoderModel(str(folder), options).encoder


def vectors(folder: Path | str, backend: str, prompt: str = "", **overrides: Any) -> Vectors:
    """Texts' vectors, made now."""
    made: Vectors = encoder(folder, backend, **overrides).encode(TEXTS, prompt)
    return made


def random_model(folder: Path, kind: str, tokenizer: Path) -> Path:
    """A two-layer model of a type, in the layout of a bare encoder."""
    import torch
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    torch.manual_seed(1)
    read = AutoTokenizer.from_pretrained(tokenizer)
    sizes: dict[str, Any] = {"vocab_size": len(read), "pad_token_id": read.pad_token_id}
    if kind == "distilbert":
        sizes |= {"dim": 64, "hidden_dim": 128, "n_layers": 2, "n_heads": 4}
    else:
        sizes |= {"hidden_size": 64, "intermediate_size": 128}
        sizes |= {"num_hidden_layers": 2, "num_attention_heads": 4}
    if kind == "electra":
        sizes["embedding_size"] = 32
    config = AutoConfig.for_model(kind, max_position_embeddings=514, **sizes)
    AutoModel.from_config(config).save_pretrained(folder)
    read.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("pooling", list(Pooling))
def test_poolings(tiny_bge: Path, pooling: Pooling) -> None:
    expected = vectors(tiny_bge, "torch", pooling=pooling)
    np.testing.assert_allclose(vectors(tiny_bge, "openvino", pooling=pooling), expected, atol=1e-5)


def conversion_facts(cache: Path) -> list[dict[str, Any]]:
    """What is kept of each conversion in a cache."""
    return [json.loads(path.read_text()) for path in cache.glob("openvino/*/model.json")]


def known_of(cache: Path) -> dict[str, Any]:
    """What is kept of the one conversion in a cache."""
    [facts] = conversion_facts(cache)
    return facts


@pytest.mark.parametrize(
    ("file", "changed", "first_only"),
    [
        ("tokenizer_config.json", {"padding_side": "left"}, True),
        ("1_Pooling/config.json", {"include_prompt": False}, False),
    ],
)
def test_a_first_token_behind_padding_or_a_prompt_is_not_taken_for_the_text_s(
    tmp_path: Path,
    own_cache: Path,
    tiny_bge: Path,
    file: str,
    changed: dict[str, Any],
    first_only: bool,
) -> None:
    """No text stands behind padding: batches are padded on the right."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_bge, folder)
    (folder / file).write_text(json.dumps(json.loads((folder / file).read_text()) | changed))
    expected = vectors(folder, "torch", "a prompt: ")
    found = vectors(folder, "openvino", "a prompt: ")
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert known_of(own_cache)["first_only"] is first_only


def test_a_layer_that_only_looks_like_bert_s_is_converted_whole(
    tmp_path: Path, own_cache: Path, minilm_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The comparison with torch decides: here the last layer does something more."""
    from transformers.models.bert.modeling_bert import BertLayer

    folder = random_model(tmp_path / "model", "bert", minilm_folder)
    forward = BertLayer.forward
    monkeypatch.setattr(
        BertLayer, "forward", lambda self, *given, **more: 2 * forward(self, *given, **more)
    )
    said: dict[str, Any] = {"pooling": Pooling.CLS, "max_length": 512}
    expected = vectors(folder, "torch", **said)
    np.testing.assert_allclose(vectors(folder, "openvino", **said), expected, atol=1e-5)
    assert known_of(own_cache)["first_only"] is False


def test_a_cut_conversion_is_made_again(tiny_bge: Path, own_cache: Path) -> None:
    expected = vectors(tiny_bge, "openvino")
    [weights] = own_cache.glob("openvino/*/model.bin")
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    np.testing.assert_array_equal(vectors(tiny_bge, "openvino"), expected)
    assert weights.read_bytes() == whole
    weights.unlink()
    np.testing.assert_array_equal(vectors(tiny_bge, "openvino"), expected)


def test_conversions_of_unchecked_weights_are_not_used(tiny_bge: Path, own_cache: Path) -> None:
    """The key under which they were saved is not read any more."""
    from importlib.metadata import version

    from bge_eval.runtime import converted
    from bge_eval.runtime.openvino_library import openvino

    files = locate(str(tiny_bge))
    output = "last_hidden_state of the first token"
    key = converted._key(files, output)
    processor = openvino.Core().get_property("CPU", "FULL_DEVICE_NAME")
    machine = [processor, str(os.cpu_count())]
    versions = [version(name) for name in ("openvino", "torch", "transformers")]
    parts = [files.name, files.revision, output, *versions, *machine]
    old = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
    expected = vectors(tiny_bge, "openvino")
    [folder] = own_cache.glob("openvino/[!.]*")
    assert folder.name.endswith(key) and old != key
    earlier = folder.rename(folder.with_name(folder.name.replace(key, old)))
    np.testing.assert_array_equal(vectors(tiny_bge, "openvino"), expected)
    assert folder.is_dir() and earlier.is_dir(), "converted again, beside the earlier one"


def test_a_cache_that_cannot_be_written_is_told(
    tmp_path: Path, tiny_bge: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a file").write_text("")
    monkeypatch.setenv("BGE_EVAL_CACHE", str(tmp_path / "a file" / "below"))
    progress = Notes()
    model = EncoderModel(
        str(tiny_bge),
        ModelOptions(backend=Backend.OPENVINO, device="cpu", store=False),
        progress=progress,
    )
    np.testing.assert_allclose(model.encoder.encode(TEXTS), vectors(tiny_bge, "torch"), atol=1e-5)
    assert "The converted model cannot be saved" in " ".join(progress.said)


def test_a_conversion_that_gives_no_numbers_is_not_used(
    tmp_path: Path, minilm_folder: Path
) -> None:
    from safetensors.numpy import load_file, save_file

    folder = random_model(tmp_path / "model", "bert", minilm_folder)
    weights = load_file(folder / "model.safetensors")
    weights["encoder.layer.1.output.LayerNorm.weight"][:] = np.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(NotReadyError, match="inf from torch's"):
        encoder(folder, "openvino", pooling=Pooling.MEAN, max_length=64)


@pytest.mark.parametrize(("kind", "usable"), [("xlm-roberta", 513), ("mpnet", 512), ("bert", 514)])
def test_no_input_is_longer_than_the_positions(
    tmp_path: Path, minilm_folder: Path, kind: str, usable: int
) -> None:
    """RoBERTa's count from behind the padding's id, here 0: the last token has no position."""
    folder = random_model(tmp_path / "model", kind, minilm_folder)
    path = folder / "tokenizer_config.json"
    said = json.loads(path.read_text())
    path.write_text(json.dumps(said | {"model_max_length": 10**30}))
    model = encoder(folder, "openvino", pooling=Pooling.MEAN)
    assert model.settings.max_length == usable
    long = ["long " * 700]
    expected = encoder(folder, "torch", pooling=Pooling.MEAN).encode(long)
    np.testing.assert_allclose(model.encode(long), expected, atol=1e-5)
    with pytest.raises(UsageError, match=f"exceeds the {usable} positions of"):
        encoder(folder, "torch", pooling=Pooling.MEAN, max_length=usable + 1)


def test_a_conversion_is_made_once(tiny_bge: Path, own_cache: Path) -> None:
    first = vectors(tiny_bge, "openvino")
    [facts] = own_cache.glob("openvino/*/model.json")
    written = facts.stat().st_mtime_ns
    os.utime(facts.parent, (0, 0))
    assert np.array_equal(vectors(tiny_bge, "openvino"), first)
    assert facts.stat().st_mtime_ns == written
    assert json.loads(facts.read_text())["difference"] <= 1e-5
    [entry] = conversions.stored_models(own_cache)
    assert entry.used > 0 and entry.bytes > 100_000


def test_partial_conversions_of_killed_processes_are_removed_and_others_stay(
    tmp_path: Path,
) -> None:
    with conversions.staging_folder(tmp_path / "killed") as killed:
        pass
    killed.mkdir()  # the lock was freed, the folder is left
    (killed / "model.bin").write_bytes(b"partial")
    with conversions.staging_folder(tmp_path / "written") as written:
        (written / "model.bin").write_bytes(b"partial")
        with conversions.staging_folder(tmp_path / "mine") as mine:
            assert mine.is_dir() and not list(mine.iterdir())
            assert (written / "model.bin").exists() and not killed.exists()
    assert not list(tmp_path.glob(".staging-*"))


def test_conversions_are_listed_and_pruned(
    bge_eval: CommandLine, tiny_bge: Path, own_cache: Path, tmp_path: Path
) -> None:
    vectors(tiny_bge, "openvino")
    name = tiny_bge.name
    assert f"of converted models in {own_cache / 'openvino'}: " in bge_eval("store").stderr
    assert name in bge_eval("store").stderr
    assert "converted" not in bge_eval("store", "prune", "--all", "--store", tmp_path).stderr
    bge_eval("store", "prune", "--model", "another")
    bge_eval("store", "prune", "--older-than", "1h")
    assert conversions.stored_models(own_cache)
    assert "Removed 1 converted model" in bge_eval("store", "prune", "--model", name).stderr
    assert not conversions.stored_models(own_cache)


def test_python_s_models_take_a_backend_and_no_store(tiny_bge: Path, own_cache: Path) -> None:
    model = load_model(str(tiny_bge), backend="openvino", store=False, offline=True)
    assert isinstance(model, EncoderModel) and model.encoder.forward.backend == "openvino"
    model = load_model(str(tiny_bge), store=str(own_cache / "mine"), offline=True)
    assert isinstance(model, EncoderModel)
    model._encode(["a text"], Form(), "encode")
    model.flush()
    assert len(list((own_cache / "mine").glob("*/space.json"))) == 1


@pytest.mark.slow
def test_auto_takes_torch_where_openvino_is_slower_or_wrong(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the comparison found decides; the findings are changed here by hand."""
    model = EncoderModel(BUILTIN, ModelOptions(backend=Backend.OPENVINO, device="cpu", store=False))
    expected = model.encoder.encode(TEXTS[:2])
    [path] = own_cache.glob("openvino/*/model.json")
    facts = json.loads(path.read_text())
    for changed, backend in (
        ({"speed": 1.5}, "openvino"),
        ({"speed": 0.9}, "torch"),
        ({"speed": 1.5, "difference": 1e-3}, "torch"),
    ):
        path.write_text(json.dumps(facts | changed))
        auto = EncoderModel(BUILTIN, ModelOptions(device="cpu", store=False))
        assert auto.encoder.forward.backend == backend
        np.testing.assert_allclose(auto.encoder.encode(TEXTS[:2]), expected, atol=1e-5)


def test_auto_converts_no_small_model(tiny_bge: Path, own_cache: Path) -> None:
    assert encoder(tiny_bge, "auto").forward.backend == "torch"


@pytest.mark.parametrize("dtype", [Dtype.FLOAT16, Dtype.INT8_DYNAMIC])
def test_auto_knows_what_openvino_cannot(minilm_folder: Path, dtype: Dtype) -> None:
    files = locate(BUILTIN)
    settings = EncoderModel(BUILTIN, ModelOptions(overrides=Overrides(dtype=dtype))).settings
    assert choose_backend(Backend.AUTO, files, settings, "cpu") is Backend.TORCH


@pytest.mark.slow
def test_openvino_reports_nothing_to_its_makers(tmp_path: Path, tiny_bge: Path) -> None:
    code = (
        "import sys; from bge_eval.models.transformer import EncoderModel;"
        "from bge_eval.encode.settings import Backend;"
        "from bge_eval.models.kinds import ModelOptions;"
        "o = ModelOptions(backend=Backend.OPENVINO, device='cpu');"
        f"m = EncoderModel({str(tiny_bge)!r}, o);"
        "print(m.encoder.encode(['x']).shape, sys.modules.get('openvino_telemetry'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "(1, 64) None"
    assert not (tmp_path / "intel").exists()


def test_torch_s_int8_is_near_and_not_the_same(minilm_folder: Path) -> None:
    full, small = vectors(BUILTIN, "torch"), vectors(BUILTIN, "torch", dtype=Dtype.INT8_DYNAMIC)
    cosines = (full * small).sum(axis=1)
    assert cosines.min() > 0.9 and not np.allclose(full, small, atol=1e-4)


def test_several_devices_give_the_same(tiny_bge: Path) -> None:
    """Two copies on the CPU stand in for two GPUs."""
    one = EncoderModel(str(tiny_bge), ModelOptions(device="cpu", batch_tokens=64)).encoder
    two = EncoderModel(str(tiny_bge), ModelOptions(device="cpu,cpu", batch_tokens=64)).encoder
    assert two.device == "cpu,cpu"
    texts = [f"{'word ' * (i % 30)}{i}" for i in range(200)]
    np.testing.assert_allclose(two.encode(texts), one.encode(texts), atol=1e-6)


def test_what_does_not_go_together(tiny_bge: Path) -> None:
    pytest.importorskip("onnxruntime")
    with pytest.raises(MissingError, match=r"needs onnx/model\.onnx"):
        encoder(tiny_bge, "onnx")
    with pytest.raises(UsageError, match="not in bfloat16"):
        encoder(tiny_bge, "onnx", dtype=Dtype.BFLOAT16)
    with pytest.raises(UsageError, match="does not support float16"):
        encoder(tiny_bge, "openvino", dtype=Dtype.FLOAT16)
    with pytest.raises(UsageError, match="runs on the CPU, not on 'cuda'"):
        EncoderModel(str(tiny_bge), ModelOptions(backend=Backend.OPENVINO, device="cuda"))


PAIRS = [
    ("what makes bones strong", "Vitamin D strengthens bones."),
    ("糖尿病的原因", "二型糖尿病与体重有关。"),
    ("", ""),
    ("memory", "long " * 700),
    ("what makes bones strong", ""),
]


def scores_of(folder: Path, backend: str) -> Any:
    reranker = CrossEncoderReranker(
        locate(str(folder)), RerankerOptions(backend=backend, device="cpu")
    )
    return reranker.score(PAIRS)


def test_rerankers_score_the_same_in_every_backend(
    tmp_path: Path, tiny_cross_encoder: Path
) -> None:
    pytest.importorskip("onnxruntime")
    from transformers import AutoModelForSequenceClassification

    folder = tmp_path / "reranker"
    shutil.copytree(tiny_cross_encoder, folder)
    expected = scores_of(folder, "torch")
    assert np.ptp(expected) > 1e-3
    np.testing.assert_allclose(scores_of(folder, "openvino"), expected, atol=1e-5)
    np.testing.assert_allclose(scores_of(folder, "auto"), expected, atol=1e-5)
    with pytest.raises(MissingError, match=r"needs onnx/model\.onnx"):
        scores_of(folder, "onnx")
    scorer = AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager")
    export_onnx(folder, scorer, "logits")
    np.testing.assert_allclose(scores_of(folder, "onnx"), expected, atol=1e-5)


class Notes(Progress):
    """Keeps what people are told."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


def test_bfloat16_where_it_is_slow_is_told(tiny_bge: Path) -> None:
    pytest.importorskip("openvino")
    from bge_eval.runtime.converted import supports

    progress = Notes()
    overrides = Overrides(dtype=Dtype.BFLOAT16)
    model = EncoderModel(
        str(tiny_bge),
        ModelOptions(overrides=overrides, backend=Backend.TORCH, device="cpu"),
        progress=progress,
    )
    assert model.encoder.forward.backend == "torch"
    assert ("no bfloat16 instructions" in " ".join(progress.said)) != supports("bfloat16")


@pytest.fixture(params=[True, False], ids=["with bfloat16", "without bfloat16"])
def has_bfloat16(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """A processor that computes in bfloat16, and one that does not."""
    pytest.importorskip("openvino")
    present = bool(request.param)
    monkeypatch.setattr(
        "bge_eval.runtime.converted.supports",
        lambda dtype: dtype == "float32" or (dtype == "bfloat16" and present),
    )
    return present


def test_the_processor_names_no_folder(has_bfloat16: bool) -> None:
    """What ``auto`` chose is in the identity; what the user typed names the folder."""
    task = plan(["SciFact"])[0]
    overrides = Overrides(dtype=Dtype.BFLOAT16)
    automatic = EncoderModel(BUILTIN, ModelOptions(overrides=overrides, device="cpu", store=False))
    assert automatic.mteb_model_meta.experiment_kwargs == {"dtype": "bfloat16"}
    identity = automatic.identity(task.task.metadata)
    assert identity.get("backend") == ("openvino" if has_bfloat16 else None)

    torch = EncoderModel(
        BUILTIN, ModelOptions(overrides=overrides, backend=Backend.TORCH, device="cpu", store=False)
    )
    assert torch.mteb_model_meta.experiment_kwargs == {"dtype": "bfloat16"}
    assert "backend" not in torch.identity(task.task.metadata)

    if has_bfloat16:
        chosen = EncoderModel(
            BUILTIN,
            ModelOptions(overrides=overrides, backend=Backend.OPENVINO, device="cpu", store=False),
        )
        assert chosen.mteb_model_meta.experiment_kwargs == {
            "backend": "openvino",
            "dtype": "bfloat16",
        }
        assert chosen.identity(task.task.metadata) == identity


def test_a_folder_named_after_an_automatic_backend_still_counts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Version 0.1.0 named a folder after the backend that ``auto`` had chosen."""
    pytest.importorskip("openvino")
    monkeypatch.setattr("bge_eval.runtime.converted.supports", lambda dtype: True)
    overrides = Overrides(dtype=Dtype.BFLOAT16)
    task = plan(["demo"])[0]
    identity = Identity(
        task=task.name,
        task_revision="1",
        model=EncoderModel(
            BUILTIN, ModelOptions(overrides=overrides, device="cpu", store=False)
        ).identity(task.task.metadata),
        data={},
        search={},
    )
    results = ResultStore(tmp_path)
    explicit = EncoderModel(
        BUILTIN,
        ModelOptions(overrides=overrides, backend=Backend.OPENVINO, device="cpu", store=False),
    )
    older = results.result_path(explicit.mteb_model_meta, task.name)
    assert older.parent.name == "backend_openvino__dtype_bfloat16"
    (older.parent / task.name).mkdir(parents=True)
    older.write_text("{}")
    write_record(older.parent / task.name, RunRecord(identity, identity.digest))

    automatic = EncoderModel(BUILTIN, ModelOptions(overrides=overrides, device="cpu", store=False))
    assert results.find(automatic.mteb_model_meta, identity) == older
    other = replace(identity, task_revision="2")
    assert results.find(automatic.mteb_model_meta, other) is None
