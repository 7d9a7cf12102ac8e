"""Folders of sentence-transformers with every module, against sentence-transformers itself."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bge_eval.encode.settings import Backend, Overrides, Pooling
from bge_eval.models.kinds import ModelOptions
from bge_eval.models.opening import open_model
from bge_eval.models.transformer import EncoderModel
from bge_eval.records import Vectors
from onnx_files import export_onnx

TEXTS = [
    "A short sentence.",
    "",
    " ",
    "\n\t  \u3000 ",
    "中文文本也要正确处理。",
    "long words " * 400,
    "שלום עולם, مرحبا بالعالم",
    "👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 zwj and flags 🇩🇪",
    "e\u0301 and \u00e9, \u202eright to left\u202c",
    "[CLS] [SEP] [MASK] [PAD] as text",
    "UPPER and lower",
    "\x00\x07 control \ufeff",
    "a" * 3000,
]
BACKENDS = ("torch", "openvino", "onnx")
Modules = Callable[[], list[Any]]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BGE_EVAL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def body(tmp_path: Path, tiny_bge: Path) -> Path:
    """A tiny encoder without its modules."""
    folder = Path(shutil.copytree(tiny_bge, tmp_path / "body"))
    (folder / "modules.json").unlink()
    shutil.rmtree(folder / "1_Pooling")
    return folder


def saved(folder: Path, body: Path, modules: list[Any]) -> Path:
    """Save a folder of a transformer and further modules with sentence-transformers."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer

    torch.manual_seed(11)
    for module in modules:
        for weight in module.parameters():
            torch.nn.init.normal_(weight, std=0.3)
    whole = [Transformer(str(body), max_seq_length=128), *modules]
    SentenceTransformer(modules=whole, device="cpu").save(str(folder), create_model_card=False)
    return folder


def expected(folder: Path, prompt: str = "") -> Vectors:
    from sentence_transformers import SentenceTransformer

    reference = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    vectors: Vectors = reference.encode(TEXTS, prompt=prompt, batch_size=4)
    return vectors


def ours(folder: Path, prompt: str = "", backend: str = "torch", **overrides: Any) -> Vectors:
    options = ModelOptions(
        overrides=Overrides(**overrides), backend=Backend(backend), device="cpu", store=False
    )
    return EncoderModel(str(folder), options).encoder.encode(TEXTS, prompt)


def close(actual: Vectors, reference: Vectors) -> None:
    """Compare relative to the longest vector."""
    scale = float(np.linalg.norm(reference, axis=1).max())
    np.testing.assert_allclose(actual / scale, reference / scale, atol=2e-6)


def pooling(mode: Any, **more: Any) -> Any:
    from sentence_transformers.sentence_transformer.modules import Pooling

    return Pooling(64, pooling_mode=mode, **more)


def dense(inputs: int, outputs: int, **more: Any) -> Any:
    from sentence_transformers.base.modules import Dense

    return Dense(inputs, outputs, **more)


def normalize() -> Any:
    from sentence_transformers.base.modules import Normalize

    return Normalize()


def layer_norm(size: int) -> Any:
    from sentence_transformers.sentence_transformer.modules import LayerNorm

    return LayerNorm(size)


LAYOUTS: dict[str, Modules] = {
    "max": lambda: [pooling("max")],
    "weightedmean": lambda: [pooling("weightedmean"), normalize()],
    "mean_sqrt_len": lambda: [pooling("mean_sqrt_len_tokens")],
    "several": lambda: [pooling(("cls", "mean", "lasttoken")), normalize()],
    "every": lambda: [
        pooling(("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"))
    ],
    "dense": lambda: [pooling("cls"), dense(64, 48), normalize()],  # LaBSE
    "two dense": lambda: [  # embeddinggemma
        pooling("mean"),
        dense(64, 96, bias=False, activation_function=None),
        dense(96, 64, bias=False, activation_function=None),
        normalize(),
    ],
    "normalised first": lambda: [pooling("mean"), normalize(), dense(64, 32)],
    "dense over tokens": lambda: [
        dense(64, 64, module_input_name="token_embeddings"),
        pooling("mean"),
    ],
    "layer norm": lambda: [pooling("mean"), layer_norm(64)],
    "without the prompt": lambda: [pooling("weightedmean", include_prompt=False), normalize()],
    "dense without the prompt": lambda: [pooling("mean", include_prompt=False), dense(64, 8)],
}


@pytest.mark.parametrize("prompt", ["", "Represent this sentence: "])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_modules_in_torch(tmp_path: Path, body: Path, layout: str, prompt: str) -> None:
    folder = saved(tmp_path / "model", body, LAYOUTS[layout]())
    close(ours(folder, prompt), expected(folder, prompt))


@pytest.mark.parametrize("layout", ["several", "dense", "without the prompt", "max"])
def test_modules_in_openvino(tmp_path: Path, body: Path, layout: str) -> None:
    pytest.importorskip("openvino")
    folder = saved(tmp_path / "model", body, LAYOUTS[layout]())
    close(ours(folder, "a prompt: ", "openvino"), expected(folder, "a prompt: "))


def test_modules_in_onnx(tmp_path: Path, body: Path) -> None:
    pytest.importorskip("onnxruntime")
    from transformers import AutoModel

    model = AutoModel.from_pretrained(body, attn_implementation="eager")
    export_onnx(body, model, "last_hidden_state")
    for layout in ("several", "dense", "without the prompt", "normalised first"):
        folder = saved(tmp_path / layout, body, LAYOUTS[layout]())
        shutil.copytree(body / "onnx", folder / "onnx")
        close(ours(folder, "a prompt: ", "onnx"), expected(folder, "a prompt: "))


def test_a_pooling_asked_for_replaces_the_folder_s(tmp_path: Path, body: Path) -> None:
    asked = saved(tmp_path / "asked", body, LAYOUTS["dense"]())
    same = saved(tmp_path / "same", body, [pooling("mean"), dense(64, 48), normalize()])
    close(ours(asked, pooling=Pooling.MEAN), expected(same))


def test_the_identity_names_modules_only_where_there_are_some(tmp_path: Path, body: Path) -> None:
    plain = EncoderModel(str(saved(tmp_path / "plain", body, [pooling("cls"), normalize()])))
    assert "modules" not in plain.settings.facts() and plain.settings.facts()["pooling"] == "cls"
    more = EncoderModel(str(saved(tmp_path / "more", body, LAYOUTS["dense"]())))
    assert "sentence-transformers" in more.packages and not plain.packages
    assert more.settings.facts()["modules"] == ("1_Pooling", "2_Dense") and more.settings.normalize


OPTIONS: dict[str, dict[str, Any]] = {
    "length": {"max_seq_length": 9},
    "lower case": {"do_lower_case": True},
    "tokenizer's length": {"max_seq_length": 60, "tokenizer_args": {"model_max_length": 7}},
    "newer name": {"processor_kwargs": {"model_max_length": 11}},
    "configuration": {"config_args": {"hidden_act": "relu"}},
    "attention": {"model_args": {"attn_implementation": "eager"}},
    "null": {"max_seq_length": None, "query_length": None},
    "text alone": {
        "modality_config": {
            "text": {"method": "forward", "method_output_name": "last_hidden_state"}
        },
        "module_output_name": "token_embeddings",
    },
}


@pytest.mark.parametrize("name", ["sentence_bert_config.json", "sentence_xlm-roberta_config.json"])
@pytest.mark.parametrize("options", OPTIONS)
def test_options_of_the_transformer(tmp_path: Path, body: Path, options: str, name: str) -> None:
    """Each key, in the file and in one of its older names."""
    folder = saved(tmp_path / "model", body, [pooling("mean"), normalize()])
    (folder / "sentence_bert_config.json").unlink()
    (folder / name).write_text(json.dumps(OPTIONS[options]))
    if options == "lower case":
        path = folder / "tokenizer.json"
        read = json.loads(path.read_text())
        read["normalizer"] = None
        path.write_text(json.dumps(read))
    close(ours(folder, "A Prompt: "), expected(folder, "A Prompt: "))


def test_a_prompt_beyond_the_length(tmp_path: Path, body: Path) -> None:
    folder = saved(tmp_path / "model", body, [pooling("mean", include_prompt=False)])
    prompt = "a very long prompt " * 60
    close(ours(folder, prompt), expected(folder, prompt))


@pytest.mark.parametrize("is_encoder_decoder", [True, False])
def test_t5_encoders(tmp_path: Path, minilm_folder: Path, is_encoder_decoder: bool) -> None:
    """sentence-t5 and gtr: T5's encoder, mean, a linear layer; saved by old and new versions."""
    import torch
    from transformers import AutoTokenizer, T5Config, T5EncoderModel

    torch.manual_seed(2)
    body = tmp_path / "t5"
    tokenizer = AutoTokenizer.from_pretrained(minilm_folder, model_max_length=128)
    sizes: dict[str, Any] = {"d_model": 64, "d_kv": 16, "d_ff": 96, "num_heads": 4}
    config = T5Config(vocab_size=len(tokenizer), num_layers=2, **sizes)
    T5EncoderModel(config).save_pretrained(body)
    tokenizer.save_pretrained(body)
    layers = [pooling("mean"), dense(64, 48, bias=False, activation_function=None), normalize()]
    folder = saved(tmp_path / "model", body, layers)
    path = folder / "config.json"
    stated = json.loads(path.read_text())
    path.write_text(json.dumps({**stated, "is_encoder_decoder": is_encoder_decoder}))
    close(ours(folder), expected(folder))


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize("bare", [True, False])
def test_an_adapter_inside_the_folder(tmp_path: Path, body: Path, bare: bool) -> None:
    """A LoRA adapter, whose base model is another folder."""
    peft = pytest.importorskip("peft")
    import torch
    from transformers import AutoModel

    model = AutoModel.from_pretrained(body)
    config = peft.LoraConfig(r=4, target_modules=["query", "value"], task_type="FEATURE_EXTRACTION")
    adapted = peft.get_peft_model(model, config)
    torch.manual_seed(5)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.5)
    folder = saved(tmp_path / "model", body, [pooling("cls"), normalize()])
    for name in ("config.json", "model.safetensors"):
        (folder / name).unlink()
    adapted.save_pretrained(folder)
    if bare:
        (folder / "modules.json").unlink()
    options = ModelOptions(overrides=Overrides(pooling=Pooling.CLS, normalize=True, max_length=128))
    encoder = EncoderModel(str(folder), options)
    assert encoder.files.base is not None and encoder.files.base.folder == body.resolve()
    task: Any = open_task()
    assert encoder.identity(task)["base"]["revision"] == encoder.files.base.revision
    if not bare:
        vectors = encoder.encoder.encode(TEXTS)
        close(vectors, expected(folder))
        plain = EncoderModel(str(body), options)
        assert not np.allclose(plain.encoder.encode(TEXTS), vectors, atol=1e-2)


def open_task() -> Any:
    from bge_eval.suites.catalogue import plan

    return plan(["demo"])[0].task.metadata


def dataloader(texts: list[str]) -> Any:
    from datasets import Dataset
    from torch.utils.data import DataLoader

    return DataLoader(Dataset.from_dict({"text": texts}), batch_size=5)


def by_role(folder: Path, role: str) -> Vectors:
    """The vectors of a folder that ``--model`` opens, as mteb asks for them."""
    from mteb.types import PromptType

    model: Any = open_model(str(folder), ModelOptions(device="cpu", store=False))
    vectors: Vectors = model.encode(
        dataloader(TEXTS),
        task_metadata=open_task(),
        hf_split="test",
        hf_subset="default",
        prompt_type=PromptType(role),
    )
    return vectors


WHOLE: dict[str, dict[str, Any]] = {
    "lengths by role": {"query_length": 5, "document_length": 9},
    "processing": {"processing_kwargs": {"text": {"max_length": 6}}},
}


@pytest.mark.parametrize("options", WHOLE)
def test_lengths_by_role_run_in_sentence_transformers(
    tmp_path: Path, body: Path, options: str
) -> None:
    from sentence_transformers import SentenceTransformer

    folder = saved(tmp_path / "model", body, [pooling("mean"), normalize()])
    (folder / "sentence_bert_config.json").write_text(json.dumps(WHOLE[options]))
    reference = SentenceTransformer(str(folder), device="cpu")
    close(by_role(folder, "query"), reference.encode_query(TEXTS))
    close(by_role(folder, "document"), reference.encode_document(TEXTS))


def test_router(tmp_path: Path, body: Path) -> None:
    """A transformer for each role."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Router, Transformer

    router = Router.for_query_document(
        query_modules=[Transformer(str(body)), pooling("mean")],
        document_modules=[Transformer(str(body)), pooling("cls")],
    )
    folder = tmp_path / "model"
    SentenceTransformer(modules=[router, normalize()], device="cpu").save(str(folder))
    reference = SentenceTransformer(str(folder), device="cpu")
    close(by_role(folder, "query"), reference.encode_query(TEXTS))
    close(by_role(folder, "document"), reference.encode_document(TEXTS))
    assert not np.allclose(by_role(folder, "query"), by_role(folder, "document"), atol=1e-2)
