"""Prompt look-up equals mteb's sentence-transformers wrapper."""

from __future__ import annotations

import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import mteb
import numpy as np
import pytest
from mteb.models.abs_encoder import get_prompt_name
from mteb.types import PromptType

import bge_eval
from bge_eval.encode.prompts import (
    Instructions,
    Prompts,
    Role,
    model_prompts,
    read_prompts,
    resolve_prompt,
)
from bge_eval.encode.protocol import ProtocolName
from bge_eval.encode.registry import RegistryEntry
from bge_eval.encode.settings import Backend, Dtype, Overrides, Pooling, Similarity
from bge_eval.errors import DamagedError, MissingError, UsageError
from bge_eval.models.kinds import ModelOptions
from bge_eval.models.transformer import EncoderModel
from conftest import make_encoder
from mteb_prompts import encoded_prompt

NAMES = ["SciFact-query", "SciFact", "Retrieval-query", "Retrieval", "query", "document"]


SCIFACT = mteb.get_task("SciFact").metadata


def opened(folder: Path, overrides: Overrides) -> EncoderModel:
    return EncoderModel(str(folder), ModelOptions(overrides=overrides))


@pytest.mark.parametrize("size", range(len(NAMES) + 1))
@pytest.mark.parametrize("role", [None, *Role])
def test_order_is_mtebs(size: int, role: Role | None) -> None:
    for names in itertools.combinations(NAMES, size):
        texts = {name: f"<{name}>" for name in names}
        theirs = get_prompt_name(texts, SCIFACT, PromptType(role.value) if role else None)
        ours = resolve_prompt(Prompts(texts), Overrides(), SCIFACT, role)
        assert ours == (texts[theirs] if theirs else "")


def test_user_comes_first() -> None:
    prompts = Prompts({"SciFact-query": "model's", "document": "doc: "})
    overrides = Overrides(query_prompt="", document_prompt="mine: ")
    assert resolve_prompt(prompts, overrides, SCIFACT, Role.QUERY) == ""
    assert resolve_prompt(prompts, overrides, SCIFACT, Role.DOCUMENT) == "mine: "


def test_empty_prompt_of_the_user_stands_before_an_instruction() -> None:
    instructed = Prompts(instructions=Instructions("Instruct: {instruction}"))
    overrides = Overrides(prompts={"SciFact": ""})
    assert resolve_prompt(instructed, overrides, SCIFACT, Role.QUERY) == ""
    assert resolve_prompt(instructed, Overrides(), SCIFACT, Role.QUERY).startswith("Instruct: ")


# What the prompts of a model's files may look like; ``None`` is a prompt without text.
FILES: list[dict[str, Any]] = [
    {},
    {"prompts": {}},
    {"prompts": {"query": "q: ", "document": "d: "}},
    {"prompts": {"query": "q: ", "passage": "p: "}},
    {"prompts": {"query": "", "document": "", "corpus": "c: "}, "default_prompt_name": "query"},
    {"prompts": {"query": "q: ", "document": None}, "default_prompt_name": "query"},
    {"prompts": {"passage": "p: ", "corpus": "c: ", "any": "a: "}, "default_prompt_name": "any"},
    {"prompts": {"Retrieval": "r: ", "STS": "", "any": "a: "}, "default_prompt_name": "any"},
    {"prompts": {"retrieval.query": "rq: ", "retrieval.passage": "rp: "}},
    {"prompts": {"document": "d: "}, "default_prompt_name": "document"},
]
REGISTERED: list[dict[str, str] | None] = [
    None,
    {"query": "registry q: "},
    {"query": "registry q: ", "document": "", "passage": "registry p: "},
    {"passage": "registry p: ", "any": "registry a: "},
    {"STS": "registry s: "},
]


@pytest.mark.parametrize("st_config", FILES)
@pytest.mark.filterwarnings("ignore")  # mteb warns of prompts that it ignores
def test_prompts_are_those_that_mteb_encodes_with(
    tiny_bge: Path, tmp_path: Path, st_config: dict[str, Any]
) -> None:
    """mteb's wrapper and sentence-transformers' encoder, run on a folder with these prompts."""
    from mteb.models.sentence_transformer_wrapper import SentenceTransformerEncoderWrapper

    folder = Path(shutil.copytree(tiny_bge, tmp_path / "model"))
    (folder / "config_sentence_transformers.json").write_text(json.dumps(st_config))
    tasks = [mteb.get_task(name).metadata for name in ("SciFact", "STS12", "AskUbuntuDupQuestions")]
    for registered in REGISTERED:
        wrapper = SentenceTransformerEncoderWrapper(str(folder), model_prompts=registered)
        entry = RegistryEntry("SentenceTransformerEncoderWrapper", prompts=registered)
        prompts = model_prompts(st_config, entry)
        for task in tasks:
            for role in (None,) if task.type == "STS" else tuple(Role):
                ours = resolve_prompt(prompts, Overrides(), task, role)
                assert ours == encoded_prompt(wrapper, task, role), (registered, task.name, role)


def test_prompts_that_mteb_leaves_out(tmp_path: Path, minilm_folder: Path) -> None:
    folder = make_encoder(tmp_path / "model", minilm_folder, "mean")
    st_config = {
        "prompts": {"passage": "passage: ", "any": "any: "},
        "default_prompt_name": "any",
        "similarity_fn_name": "cosine",
    }
    (folder / "config_sentence_transformers.json").write_text(json.dumps(st_config))
    board = EncoderModel(str(folder))
    assert [board.prompt(SCIFACT, role) for role in Role] == ["", ""]
    note = board.introduction()[1]
    assert "'any: ' for a query and 'passage: ' for a document" in note
    assert "--protocol model-files uses it" in note
    meant = opened(folder, Overrides(protocol=ProtocolName.MODEL_FILES))
    assert [meant.prompt(SCIFACT, role) for role in Role] == ["any: ", "passage: "]
    assert len(meant.introduction()) == 1
    identities = [model.identity(SCIFACT) for model in (board, meant)]
    assert identities[0]["prompts"] == {"query": "", "document": ""}
    assert identities[1]["prompts"] == {"query": "any: ", "document": "passage: "}
    assert identities[1]["protocol"] == "model-files"


def test_default_prompt_of_one_role_is_not_the_others() -> None:
    files = {"prompts": {"query": "q: "}, "default_prompt_name": "query"}
    meant = model_prompts(files, protocol=ProtocolName.MODEL_FILES)
    assert resolve_prompt(meant, Overrides(), SCIFACT, Role.QUERY) == "q: "
    assert resolve_prompt(meant, Overrides(), SCIFACT, Role.DOCUMENT) == ""
    assert not model_prompts(files).left_out


def test_default_prompt_without_text() -> None:
    with pytest.raises(DamagedError, match="names the default prompt 'any'"):
        model_prompts({"prompts": {"query": "q: "}, "default_prompt_name": "any"})


def test_model_files_leave_the_registry_aside(tmp_path: Path, minilm_folder: Path) -> None:
    folder = make_encoder(tmp_path / "intfloat" / "e5-base-v2", minilm_folder, "mean")
    assert EncoderModel(str(folder)).prompt(SCIFACT, Role.QUERY) == "query: "
    overrides = Overrides(protocol=ProtocolName.MODEL_FILES)
    assert opened(folder, overrides).prompt(SCIFACT, Role.QUERY) == ""
    overrides = Overrides(protocol=ProtocolName.MODEL_FILES, instruction_format="{instruction}")
    with pytest.raises(UsageError, match="--instruction-format does not apply"):
        opened(folder, overrides)


def test_prompts_file(tmp_path: Path) -> None:
    path = tmp_path / "prompts.toml"
    path.write_text('query = "q: "\nSciFact-query = "claim: "\nSTS = "sts: "\n')
    overrides = Overrides(prompts=read_prompts(path))
    own = Prompts({"query": "model's", "document": "d: "})

    def text(task: str, role: Role | None) -> str:
        return resolve_prompt(own, overrides, mteb.get_task(task).metadata, role)

    assert text("SciFact", Role.QUERY) == "claim: "
    assert text("NFCorpus", Role.QUERY) == "q: "
    assert text("NFCorpus", Role.DOCUMENT) == "d: "
    assert text("STSBenchmark", None) == "sts: "
    path.write_text('SciFcat = "x"\n')
    with pytest.raises(UsageError, match="A prompt is named by a task"):
        read_prompts(path)
    path.write_text("query = 3\n")
    with pytest.raises(UsageError, match="must be a string"):
        read_prompts(path)
    with pytest.raises(MissingError, match=r"prompts file .* does not exist"):
        read_prompts(tmp_path / "none.toml")


@pytest.mark.parametrize(
    "name",
    ["intfloat/multilingual-e5-large-instruct", "Qwen/Qwen3-Embedding-0.6B"],
)
@pytest.mark.filterwarnings("ignore")  # mteb's own wrapper runs beside
def test_task_instructions_equal_mtebs_wrapper(
    tmp_path: Path, minilm_folder: Path, name: str
) -> None:
    """An instruction-tuned model gets the instruction that mteb's wrapper would give it."""
    from mteb.mocks.mock_tasks import (
        MockClassificationTask,
        MockRerankingTask,
        MockRetrievalTask,
        MockSTSTask,
    )
    from mteb.models.instruct_wrapper import InstructSentenceTransformerModel
    from mteb.models.model_implementations import MODEL_REGISTRY
    from mteb.models.model_implementations.qwen3_models import instruction_template

    folder = make_encoder(tmp_path / name, minilm_folder, "mean")
    model = EncoderModel(str(folder))
    options = {"instruction_template": instruction_template, **MODEL_REGISTRY[name].loader_kwargs}
    options.pop("model_kwargs", None)
    options["apply_instruction_to_passages"] = False
    reference = InstructSentenceTransformerModel(str(folder), revision="x", **options)
    tasks = [MockRetrievalTask(), MockRerankingTask(), MockSTSTask(), MockClassificationTask()]
    seen = set()
    for task in [*(t.metadata for t in tasks), mteb.get_task("SciFact").metadata]:
        for role in (None, *Role) if task.type not in ("Retrieval", "Reranking") else Role:
            prompt_type = PromptType(role.value) if role else None
            expected = reference.get_task_instruction(task, prompt_type)
            ours = model.prompt(task, role)
            assert ours == ("" if role is Role.DOCUMENT else expected)
            seen.add(ours)
    assert len(seen) > 2


def test_choices_as_text(tmp_path: Path, minilm_folder: Path) -> None:
    """Values of choices are taken as text, as a Python user writes them."""
    overrides = Overrides(pooling="cls", similarity="dot", dtype="bfloat16")  # type: ignore[arg-type]
    assert overrides == Overrides(Pooling.CLS, similarity=Similarity.DOT, dtype=Dtype.BFLOAT16)
    assert type(overrides.pooling) is Pooling and type(overrides.dtype) is Dtype
    folder = make_encoder(tmp_path / "mine", minilm_folder, "cls", bare=True)
    ours: Any = bge_eval.load_model(str(folder), pooling="cls", store=False)
    texts = [{"text": ["one", "another one"]}]
    where: dict[str, Any] = {"task_metadata": SCIFACT, "hf_split": "test", "hf_subset": "default"}
    vectors = opened(folder, Overrides(pooling=Pooling.CLS)).encode(texts, **where)
    np.testing.assert_array_equal(ours.encode(texts, **where), vectors)
    with pytest.raises(UsageError, match="pooling is 'clss'; it can be cls, "):
        Overrides(pooling="clss")  # type: ignore[arg-type]
    options = ModelOptions(overrides=overrides, backend="torch", store=False)  # type: ignore[arg-type]
    assert options.backend is Backend.TORCH
    same = EncoderModel(str(folder), replace(options, overrides=Overrides(pooling=Pooling.CLS)))
    np.testing.assert_array_equal(same.encode(texts, **where), vectors)
    with pytest.raises(UsageError, match="backend is 'jax'; it can be auto, torch, "):
        ModelOptions(backend="jax")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="loader is 'st'; it can be mteb"):
        ModelOptions(loader="st")  # type: ignore[arg-type]


def test_lower_casing_is_another_identity_than_it_was(tmp_path: Path, tiny_bge: Path) -> None:
    """Results saved as ``true`` lower-cased special tokens too, so they must run again."""
    folder = Path(shutil.copytree(tiny_bge, tmp_path / "model"))
    assert opened(folder, Overrides()).identity(SCIFACT)["lower_case"] is False
    path = folder / "sentence_bert_config.json"
    path.write_text(json.dumps({"max_seq_length": 64, "do_lower_case": True}))
    assert opened(folder, Overrides()).identity(SCIFACT)["lower_case"] == "by the tokenizer"
