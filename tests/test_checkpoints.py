"""Published checkpoints: the table, and local copies recognised by their own files."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import mteb
import numpy as np
import pytest
import typer
from make_checkpoints import PAGE, page
from mteb.models.model_implementations import MODEL_REGISTRY

from bge_eval.cli.app import application
from bge_eval.encode.checkpoints import CheckpointKind, Run, checkpoint, checkpoints
from bge_eval.encode.copies import known_name, recognise
from bge_eval.encode.files import ModelFiles
from bge_eval.encode.prompts import Role
from bge_eval.encode.settings import Overrides
from bge_eval.errors import UsageError
from bge_eval.models.kinds import ModelOptions
from bge_eval.models.opening import open_model
from bge_eval.models.transformer import EncoderModel
from conftest import make_encoder

SCIFACT = mteb.get_task("SciFact").metadata
QWEN = {"model_type": "qwen3", "hidden_size": 1024, "num_hidden_layers": 28, "vocab_size": 151669}
BASE = {"model_type": "bert", "hidden_size": 768, "num_hidden_layers": 12, "vocab_size": 30522}


def opened(folder: Path, **overrides: Any) -> EncoderModel:
    return EncoderModel(str(folder), ModelOptions(overrides=Overrides(**overrides)))


def files(folder: Path, config: dict[str, Any]) -> ModelFiles:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    return ModelFiles(f"local/{folder.name}", "0" * 40, folder, False)


# ── the table ───────────────────────────────────────────────────────────────────────────────────


def test_table_names_each_checkpoint_once() -> None:
    names = [name for entry in checkpoints() for name in entry.names]
    assert len(names) == len(set(names)) > 90


def test_page_is_the_table() -> None:
    assert page() == PAGE.read_text(encoding="utf-8")


def test_names_of_the_registry_are_in_it() -> None:
    for entry in checkpoints():
        if entry.source.startswith("mteb's registry") and entry.kind is CheckpointKind.EMBEDDER:
            assert set(entry.names) <= set(MODEL_REGISTRY)


def test_every_embedder_of_flagembeddings_mapping_is_there() -> None:
    """The models that FlagEmbedding 1.4 opens by their names."""
    mapped = (
        "bge-reasoner-embed-qwen3-8b-0923 bge-code-v1 bge-en-icl bge-multilingual-gemma2 bge-m3"
    )
    sizes = [f"bge-{size}-{lang}" for size in ("large", "base", "small") for lang in ("en", "zh")]
    for name in [*mapped.split(), *sizes, *(f"{size}-v1.5" for size in sizes)]:
        entry = checkpoint(f"BAAI/{name}")
        assert entry is not None and entry.run is Run.NAME


def test_instructions_are_of_tasks() -> None:
    for entry in checkpoints():
        for task in entry.by_task:
            assert mteb.get_task(task).metadata.name == task
        assert entry.instruction is None or entry.instruction.count("{instruction}") == 1


def test_options_are_those_of_the_command() -> None:
    command: Any = typer.main.get_command(application())
    options = {name for item in command.commands["run"].params for name in _names(item)}
    for entry in checkpoints():
        assert bool(entry.options) is (entry.run is Run.OPTIONS)
        flags = [word for word in shlex.split(entry.options) if word.startswith("--")]
        assert set(flags) <= options, entry.names


def _names(option: Any) -> list[str]:
    return [*option.opts, *option.secondary_opts]


# ── recognition ─────────────────────────────────────────────────────────────────────────────────


def test_name_and_shape(tmp_path: Path) -> None:
    copy = recognise(files(tmp_path / "Qwen3-Embedding-0.6B", QWEN))
    assert (copy.name, copy.evidence) == (
        "Qwen/Qwen3-Embedding-0.6B",
        "its folder's name and its shape",
    )
    copy = recognise(files(tmp_path / "bge-base-en-v1.5", BASE))
    assert copy.name == "BAAI/bge-base-en-v1.5"


def test_name_without_the_shape_is_asked_for(tmp_path: Path) -> None:
    copy = recognise(files(tmp_path / "Qwen3-Embedding-0.6B", QWEN | {"hidden_size": 1000}))
    assert copy.name is None and copy.candidates == ("Qwen/Qwen3-Embedding-0.6B",)


def test_shape_alone_is_asked_for(tmp_path: Path) -> None:
    copy = recognise(files(tmp_path / "mine", QWEN))
    assert copy.name is None and copy.candidates == ("Qwen/Qwen3-Embedding-0.6B",)
    assert copy.suggestion == "its shape"
    # The base model has the same layers and another vocabulary.
    assert recognise(files(tmp_path / "base", QWEN | {"vocab_size": 151936})).candidates == ()
    assert recognise(files(tmp_path / "bert", BASE)).candidates == ()  # too many have it


def test_name_in_the_readme(tmp_path: Path) -> None:
    local = files(tmp_path / "model", BASE)
    front = "---\ntags:\n- mteb\nmodel-index:\n- name: bge-base-en-v1.5\n  results: []\n---\n"
    (local.folder / "README.md").write_text(front + "# Text\n")
    assert recognise(local).name == "BAAI/bge-base-en-v1.5"
    (local.folder / "README.md").write_text("# BAAI/bge-base-en-v1.5 is a good model\n")
    assert recognise(local).name is None


@pytest.mark.parametrize("written", ["base_model: {}", "base_model:\n- {}", "base_model: '{}'"])
def test_base_model_in_the_readme_is_asked_for(
    tmp_path: Path, tiny_bge: Path, written: str
) -> None:
    """A model trained from an instruction-tuned one, as sentence-transformers saves it."""
    folder = Path(shutil.copytree(tiny_bge, tmp_path / "tuned"))
    line = written.format("intfloat/multilingual-e5-large-instruct")
    (folder / "README.md").write_text(f"---\ntags:\n- x\n{line}\n---\n# Text\n")
    with pytest.raises(UsageError, match="e5-large-instruct, by the base model in its README"):
        opened(folder)
    assert opened(folder, known_as="none").prompt(SCIFACT, Role.QUERY) == ""


def test_commit_of_the_hubs_client(tmp_path: Path) -> None:
    local = files(tmp_path / "model", {"model_type": "bert"})
    notes = local.folder / ".cache" / "huggingface" / "download"
    notes.mkdir(parents=True)
    commit = MODEL_REGISTRY["BAAI/bge-base-en-v1.5"].revision
    (notes / "config.json.metadata").write_text(f"{commit}\nabc\n1.0\n")
    copy = recognise(local)
    assert copy.name == "BAAI/bge-base-en-v1.5" and "its commit" in copy.evidence
    (notes / "config.json.metadata").write_text(f"{'0' * 40}\nabc\n1.0\n")
    assert recognise(local).name is None


@pytest.mark.parametrize("ending", ["", ".git", "/"])
def test_address_of_a_clone(tmp_path: Path, ending: str) -> None:
    local = files(tmp_path / "model", {"model_type": "bert"})
    (local.folder / ".git").mkdir()
    address = f"https://huggingface.co/BAAI/bge-small-en-v1.5{ending}"
    (local.folder / ".git" / "config").write_text(f'[remote "origin"]\n\turl = {address}\n')
    assert recognise(local).name == "BAAI/bge-small-en-v1.5"


def test_the_users_answer(tmp_path: Path) -> None:
    local = files(tmp_path / "mine", QWEN)
    assert recognise(local, "BAAI/bge-en-icl").name == "BAAI/bge-en-icl"
    assert recognise(local, "none").candidates == ()
    with pytest.raises(UsageError, match=r"neither mteb's registry .*--known-as none"):
        recognise(local, "BAAI/bge-base")
    assert known_name(str(local.folder), "BAAI/bge-en-icl") == "BAAI/bge-en-icl"
    assert known_name("BAAI/bge-m3") == "BAAI/bge-m3"


# ── models ──────────────────────────────────────────────────────────────────────────────────────


def test_copy_runs_like_the_model(tmp_path: Path, tiny_bge: Path) -> None:
    folder = Path(shutil.copytree(tiny_bge, tmp_path / "mine"))
    (folder / ".git").mkdir()
    address = "https://huggingface.co/Qwen/Qwen3-Embedding-0.6B"
    (folder / ".git" / "config").write_text(f'[remote "origin"]\n\turl = {address}\n')
    by_copy = opened(folder)
    named = opened(Path(shutil.copytree(tiny_bge, tmp_path / "Qwen" / "Qwen3-Embedding-0.6B")))
    prompt = by_copy.prompt(SCIFACT, Role.QUERY)
    assert prompt == named.prompt(SCIFACT, Role.QUERY)
    assert prompt.startswith("Instruct: ") and prompt.endswith("\nQuery:")
    assert "Recognised as Qwen/Qwen3-Embedding-0.6B" in by_copy.introduction()[1]
    assert by_copy.identity(SCIFACT)["prompts"]["query"] == prompt


def test_copy_that_may_need_instructions(tmp_path: Path, tiny_bge: Path) -> None:
    folder = Path(shutil.copytree(tiny_bge, tmp_path / "Qwen3-Embedding-0.6B"))
    with pytest.raises(
        UsageError, match=r"may be a copy of Qwen/Qwen3-Embedding-0\.6B, by its folder's name"
    ):
        opened(folder)
    told = opened(folder, known_as="Qwen/Qwen3-Embedding-0.6B")
    assert told.prompt(SCIFACT, Role.QUERY).startswith("Instruct: ")
    assert len(told.introduction()) == 1
    assert opened(folder, known_as="none").prompt(SCIFACT, Role.QUERY) == ""
    assert opened(folder, query_prompt="").prompt(SCIFACT, Role.QUERY) == ""
    folders = {
        str(model.mteb_model_meta.experiment_kwargs)
        for model in (told, opened(folder, known_as="none"), opened(folder, query_prompt=""))
    }
    assert len(folders) == 3


def test_files_with_prompts_of_their_own_are_not_refused(tmp_path: Path, tiny_bge: Path) -> None:
    folder = Path(shutil.copytree(tiny_bge, tmp_path / "Qwen3-Embedding-0.6B"))
    (folder / "config_sentence_transformers.json").write_text('{"prompts": {"query": "own: "}}')
    model = opened(folder)
    assert model.prompt(SCIFACT, Role.QUERY) == "own: "
    assert "may be a copy of Qwen/Qwen3-Embedding-0.6B" in model.introduction()[1]
    assert "are used as they are" in model.introduction()[1]


def test_folder_with_the_name_of_a_bge_model(tiny_bge: Path, minilm_folder: Path) -> None:
    """Its files do not hold the query instruction; its shape is not the model's."""
    note = opened(tiny_bge).introduction()[1]
    assert "may be a copy of BAAI/bge-base-en-v1.5" in note and "state none" in note
    assert len(opened(tiny_bge, query_prompt="q: ").introduction()) == 1
    model = opened(tiny_bge, known_as="BAAI/bge-base-en-v1.5")
    assert model.prompt(SCIFACT, Role.QUERY).startswith("Represent this sentence")


@pytest.mark.parametrize(
    ("name", "task", "query"),
    [
        ("BAAI/bge-code-v1", "CosQA", "<instruct>Given a web search query, retrieve relevant code"),
        ("BAAI/bge-code-v1", "SciFact", "<instruct>Given a scientific claim"),
        (
            "BAAI/bge-reasoner-embed-qwen3-8b-0923",
            "BrightBiologyRetrieval",
            "Instruct: Given a Bio",
        ),
        (
            "BAAI/llm-embedder",
            "SciFact",
            "Represent this query for retrieving relevant documents: ",
        ),
        ("BAAI/bge-multilingual-gemma2", "SciFact", "<instruct>Given a scientific claim"),
        ("BAAI/bge-large-zh-noinstruct", "CmedqaRetrieval", ""),
    ],
)
def test_models_without_prompts_in_the_registry(
    tmp_path: Path, tiny_bge: Path, name: str, task: str, query: str
) -> None:
    model = opened(Path(shutil.copytree(tiny_bge, tmp_path / name)))
    metadata = mteb.get_task(task).metadata
    prompt = model.prompt(metadata, Role.QUERY)
    assert prompt.startswith(query) and bool(prompt) is bool(query)
    document = "Represent this document for retrieval: " if name.endswith("llm-embedder") else ""
    assert model.prompt(metadata, Role.DOCUMENT) == document


def test_retromae_by_its_name(tmp_path: Path, minilm_folder: Path) -> None:
    folder = make_encoder(tmp_path / "Shitao" / "RetroMAE_BEIR", minilm_folder, "cls", bare=True)
    settings = opened(folder).settings
    assert (settings.pooling, settings.normalize, settings.similarity) == ("cls", False, "dot")
    stated = opened(folder, pooling="cls", normalize=False).settings
    assert stated == settings
    folder = make_encoder(tmp_path / "Shitao" / "RetroMAE", minilm_folder, "cls", bare=True)
    with pytest.raises(UsageError, match="its pooling is not defined"):
        opened(folder)


def test_dupmae_as_in_retromaes_beir_script(tmp_path: Path, minilm_folder: Path) -> None:
    """Pre-training saves a masked language model; the script reads its first token alone.

    ``examples/retriever/BEIR/beir_test.py`` with ``--pooling_strategy cls --score_function dot``.
    """
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForMaskedLM

    torch.manual_seed(8)
    folder = tmp_path / "dupmae"
    sizes: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
    saved = BertForMaskedLM(BertConfig(num_hidden_layers=2, initializer_range=0.3, **sizes)).eval()
    saved.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(minilm_folder)
    tokenizer.save_pretrained(folder)
    texts = ["bees live in hives", "", "where do bees live? " * 20, "蜜蜂 🐝"]
    with torch.no_grad():
        batch = tokenizer(texts, padding=True, truncation=True, max_length=512, return_tensors="pt")
        expected = saved(**batch, output_hidden_states=True).hidden_states[-1][:, 0]
    model = opened(folder, pooling="cls", normalize=False)
    vectors = model.encoder.encode(texts)
    np.testing.assert_allclose(vectors, expected.numpy(), atol=2e-5)
    scores = model.similarity(torch.from_numpy(vectors), torch.from_numpy(vectors))
    np.testing.assert_allclose(scores, (expected @ expected.T).numpy(), atol=1e-3)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("BAAI/bge-reranker-v2-gemma", "is a reranker"),
        ("Shitao/bge-quora", "Run Shitao/bge-quora with: --known-as BAAI/bge-base-en-v1.5"),
        ("BAAI/bge-visualized", "with: --model BAAI/bge-visualized-base --loader mteb"),
    ],
)
def test_names_that_are_refused(tmp_path: Path, tiny_bge: Path, name: str, message: str) -> None:
    folder = Path(shutil.copytree(tiny_bge, tmp_path / name))
    with pytest.raises(UsageError, match=message):
        opened(folder)
    opened(folder, known_as="none")


def test_a_reranker_is_refused_before_it_is_downloaded() -> None:
    options = ModelOptions(offline=True)
    with pytest.raises(UsageError, match="BAAI/bge-reranker-base is a reranker"):
        EncoderModel("BAAI/bge-reranker-base", options)
    with pytest.raises(UsageError, match="mteb runs nvidia/NV-Embed-v2 through a loader"):
        EncoderModel("nvidia/NV-Embed-v2", options)


def test_copy_of_the_model_with_examples(tmp_path: Path, tiny_bge: Path) -> None:
    """A copy of bge-en-icl gets the open answer after the query, as the model itself."""
    folder = Path(shutil.copytree(tiny_bge, tmp_path / "mine"))
    options = ModelOptions(overrides=Overrides(known_as="BAAI/bge-en-icl"))
    assert type(open_model(str(folder), options)).__name__ == "DecoderModel"
    assert type(open_model(str(folder), ModelOptions())).__name__ == "EncoderModel"
