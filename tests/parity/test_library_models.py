"""Sparse and multi-vector folders against mteb and sentence-transformers."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import mteb
import numpy as np
import pytest

from bge_eval.data.finding import find_source
from bge_eval.encode.locate import locate
from bge_eval.encode.settings import Overrides
from bge_eval.errors import DamagedError, UsageError
from bge_eval.evaluation.evaluate import evaluate
from bge_eval.evaluation.options import Options
from bge_eval.models.kinds import ModelOptions
from bge_eval.models.opening import open_model
from bge_eval.progress import Progress
from bge_eval.rerank.families import RerankerOptions, load_reranker, reranker_kind
from bge_eval.resources import tasks_folder
from bge_eval.suites.catalogue import PlannedTask, plan

pytestmark = pytest.mark.filterwarnings("ignore")

PAIRS = [
    ("where do bees live", "Bees live in hives."),
    ("where do bees live", ""),
    ("", "An empty query."),
    ("蜜蜂", "Bees live in hives."),
    ("a " * 90, "word, and punctuation! " * 120),
    ("שלום 🏳️‍🌈", " "),
]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, tiny_bge: Path) -> Path:
    """A tiny encoder without modules."""
    folder = tmp_path_factory.mktemp("plain") / "body"
    shutil.copytree(tiny_bge, folder)
    (folder / "modules.json").unlink()
    (folder / "config_sentence_transformers.json").unlink()
    return folder


@pytest.fixture(scope="module")
def splade(tmp_path_factory: pytest.TempPathFactory, plain: Path) -> Path:
    """A tiny SPLADE in sentence-transformers' layout."""
    import torch
    from sentence_transformers import SparseEncoder
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sparse_encoder.modules import SpladePooling
    from transformers import AutoTokenizer, BertConfig, BertForMaskedLM

    torch.manual_seed(4)
    folder = tmp_path_factory.mktemp("sparse")
    sizes: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64}
    config = BertConfig(num_hidden_layers=2, num_attention_heads=2, initializer_range=0.3, **sizes)
    model = BertForMaskedLM(config)
    torch.nn.init.constant_(model.cls.predictions.bias, -4.5)  # some hundred words a text
    model.save_pretrained(folder / "body")
    AutoTokenizer.from_pretrained(plain).save_pretrained(folder / "body")
    body = Transformer(str(folder / "body"), transformer_task="fill-mask", max_seq_length=64)
    SparseEncoder(modules=[body, SpladePooling()], device="cpu").save(str(folder / "splade"))
    return folder / "splade"


@pytest.fixture(scope="module")
def multi_vector(tmp_path_factory: pytest.TempPathFactory, plain: Path) -> Path:
    """A tiny ColBERT in sentence-transformers' layout: projection, mask, query expansion."""
    import torch
    from sentence_transformers import MultiVectorEncoder

    torch.manual_seed(6)
    folder = tmp_path_factory.mktemp("vectors") / "colbert"
    model: Any = MultiVectorEncoder(str(plain), device="cpu", local_files_only=True)
    model[0].query_expansion = {"strategy": "fixed", "length": 16, "attend": False}
    model[0].document_length = 40
    model.save(str(folder))
    return folder


@pytest.fixture(scope="module")
def pylate(tmp_path_factory: pytest.TempPathFactory, multi_vector: Path) -> Path:
    """The layout that PyLate saves: two modules, and its settings at the top."""
    folder = tmp_path_factory.mktemp("pylate") / "colbert"
    shutil.copytree(multi_vector, folder)
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Dense", "type": "pylate.models.Dense.Dense"},
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 64}')
    settings = {
        "model_type": "ColBERT",
        "query_prefix": "[Q] ",
        "document_prefix": "[D] ",
        "query_length": 12,
        "document_length": 30,
        "do_query_expansion": True,
        "attend_to_expansion_tokens": False,
        "skiplist_words": list("!,."),
    }
    (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture(scope="module")
def stanford(tmp_path_factory: pytest.TempPathFactory, multi_vector: Path, plain: Path) -> Path:
    """ColBERT's own layout: the projection beside the transformer's weights."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path_factory.mktemp("stanford") / "colbert"
    shutil.copytree(plain, folder)
    [dense] = multi_vector.glob("*_Dense")
    tensors = {f"bert.{k}": v for k, v in load_file(folder / "model.safetensors").items()}
    tensors["linear.weight"] = load_file(dense / "model.safetensors")["linear.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["HF_ColBERT"]}))
    stated = {"query_maxlen": 14, "doc_maxlen": 28, "mask_punctuation": True}
    (folder / "artifact.metadata").write_text(json.dumps(stated))
    return folder


def demo(output: Path, model: Any) -> Any:
    """Scores of the demonstration by bge-eval."""
    planned: PlannedTask = plan(["demo"])[0]
    report = evaluate(model, [planned], Options(output, offline=True))
    assert not report.failed
    return mteb.TaskResult.from_disk(report.done[planned.name][0])


_SCORES: dict[Path, Any] = {}
"""Scores of the demonstration that several tests read, by the model's folder."""


def demo_of(folder: Path, output: Path) -> Any:
    """Scores of the demonstration by bge-eval, of a folder that no test changes."""
    if folder not in _SCORES:
        _SCORES[folder] = demo(output, open_model(str(folder), ModelOptions(device="cpu")))
    return _SCORES[folder]


def reference(wrapper: Any) -> Any:
    """Scores of the demonstration by mteb alone."""
    planned = plan(["demo"])[0]
    source = find_source(planned.task, [tasks_folder()], ["demo"])
    with source.loaded(planned.task, Progress()):
        done = mteb.evaluate(wrapper, planned.task, cache=None, show_progress_bar=False)
    return done.task_results[0]


def same(ours: Any, theirs: Any) -> None:
    for mine, its in zip(ours.scores["test"], theirs.scores["test"], strict=True):
        for key, value in its.items():
            if isinstance(value, float):
                assert mine[key] == pytest.approx(value, abs=1e-5, nan_ok=True), key


@pytest.mark.slow
def test_a_sparse_folder_scores_as_in_mteb(splade: Path, tmp_path: Path) -> None:
    from mteb.models.sentence_transformer_wrapper import SparseEncoderWrapper
    from sentence_transformers import SparseEncoder

    model = open_model(str(splade), ModelOptions(device="cpu"))
    ours = demo_of(splade, tmp_path)
    same(ours, reference(SparseEncoderWrapper(SparseEncoder(str(splade), device="cpu"))))
    assert "sentence-transformers" in model.packages


@pytest.mark.parametrize("layout", ["multi_vector", "pylate", "stanford"])
def test_a_multi_vector_folder_scores_as_in_mteb(
    layout: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    from mteb.models.sentence_transformer_wrapper import MultiVectorWrapper
    from sentence_transformers import MultiVectorEncoder

    folder = request.getfixturevalue(layout)
    model = open_model(str(folder), ModelOptions(device="cpu"))
    assert not model.encodes
    ours = demo_of(folder, tmp_path)
    same(ours, reference(MultiVectorWrapper(MultiVectorEncoder(str(folder), device="cpu"))))


@pytest.mark.parametrize("layout", ["multi_vector", "pylate", "stanford"])
def test_a_multi_vector_folder_reranks_as_its_library_scores(
    layout: str, request: pytest.FixtureRequest
) -> None:
    from sentence_transformers import MultiVectorEncoder

    folder = request.getfixturevalue(layout)
    files = locate(str(folder))
    assert reranker_kind(files) == "late"
    reranker = load_reranker(files, RerankerOptions(device="cpu"))
    library = MultiVectorEncoder(str(folder), device="cpu")
    expected = [
        float(library.similarity(library.encode_query([q]), library.encode_document([d]))[0, 0])
        for q, d in PAIRS
    ]
    np.testing.assert_allclose(reranker.score(PAIRS), expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(UsageError, match="files state the lengths"):
        load_reranker(files, RerankerOptions(max_length=64))


def test_the_three_layouts_differ(multi_vector: Path, pylate: Path, stanford: Path) -> None:
    scores = [
        load_reranker(locate(str(folder)), RerankerOptions(device="cpu")).score(PAIRS[:1])
        for folder in (multi_vector, pylate, stanford)
    ]
    assert len({round(float(score[0]), 4) for score in scores}) == 3


def test_random_parts_are_refused(
    splade: Path, multi_vector: Path, stanford: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    def without(folder: Path, part: str) -> Path:
        copy = Path(shutil.copytree(folder, tmp_path / f"{folder.name}-{part}"))
        path = copy / "model.safetensors"
        kept = {name: value for name, value in load_file(path).items() if part not in name}
        save_file(kept, path, metadata={"format": "pt"})
        return copy

    for folder, part in ((splade, "transform"), (multi_vector, "layer.1"), (stanford, "linear")):
        model: Any = open_model(str(without(folder, part)), ModelOptions(device="cpu"))
        with pytest.raises(DamagedError, match=r"lacks weights|linear\.weight"):
            model._loaded()
    bare = Path(shutil.copytree(multi_vector, tmp_path / "bare"))
    (bare / "modules.json").unlink()
    with pytest.raises(DamagedError, match="would be random"):
        open_model(str(bare), ModelOptions())


def test_options_that_it_does_not_honour(splade: Path) -> None:
    options = ModelOptions(overrides=Overrides(truncate_dim=8))
    with pytest.raises(UsageError, match="--truncate-dim cannot be used"):
        open_model(str(splade), options)


def test_a_copy_is_recognised_or_asked_about(splade: Path, tmp_path: Path) -> None:
    """A folder that runs whole has its prompts by the same evidence as every other."""
    lines = open_model(str(splade), ModelOptions()).introduction()
    assert any("the embedding store is not used" in line for line in lines)
    lines = open_model(str(splade), ModelOptions(store=False)).introduction()
    assert not any("store" in line for line in lines)

    def opened(base: str, known_as: str | None = None) -> Any:
        copy = tmp_path / base.rsplit("/", 1)[-1] / "tuned"
        if not copy.exists():
            shutil.copytree(splade, copy)
            (copy / "README.md").write_text(f"---\nbase_model: {base}\n---\n")
        return open_model(str(copy), ModelOptions(overrides=Overrides(known_as=known_as)))

    with pytest.raises(UsageError, match=r"may be a copy of Qwen/Qwen3-Embedding-0\.6B.*none"):
        opened("Qwen/Qwen3-Embedding-0.6B")
    with pytest.raises(UsageError, match=r"through q3e_instruct_loader.*--loader mteb"):
        opened("Qwen/Qwen3-Embedding-0.6B", "Qwen/Qwen3-Embedding-0.6B")
    plain = opened("Qwen/Qwen3-Embedding-0.6B", "none")
    assert "prompts_of" not in plain.identity(plan(["demo"])[0].task.metadata)
    noted = opened("BAAI/bge-base-en-v1.5").introduction()
    assert any("may be a copy of BAAI/bge-base-en-v1.5" in line for line in noted)
    prompted = opened("BAAI/bge-base-en-v1.5", "BAAI/bge-base-en-v1.5")
    identity = prompted.identity(plan(["demo"])[0].task.metadata)
    assert identity["prompts_of"] == "BAAI/bge-base-en-v1.5"
    prompt = prompted._loaded().model_prompts["query"]
    assert prompt.startswith("Represent this sentence")


def test_objects_of_a_module(
    splade: Path, multi_vector: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``--model module:function`` with sparse and multi-vector models."""
    (tmp_path / "own_sparse_models.py").write_text(
        "from sentence_transformers import MultiVectorEncoder, SparseEncoder\n"
        f"def sparse():\n    return SparseEncoder({str(splade)!r}, device='cpu')\n"
        f"def vectors():\n    return MultiVectorEncoder({str(multi_vector)!r}, device='cpu')\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for function, folder in (("sparse", splade), ("vectors", multi_vector)):
        made = open_model(f"own_sparse_models:{function}", ModelOptions())
        ours = demo(tmp_path / function, made)
        same(ours, demo_of(folder, tmp_path / f"{function}-2"))


def test_modules_with_code_of_their_own(tiny_bge: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_bge, tmp_path / "model"))
    path = folder / "modules.json"
    modules = json.loads(path.read_text())
    modules[0]["type"] = "custom_st.Transformer"
    path.write_text(json.dumps(modules))
    with pytest.raises(UsageError, match=r"custom_st\.Transformer.*--trust-remote-code"):
        open_model(str(folder), ModelOptions())
