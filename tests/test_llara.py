"""LLARA's form of inputs and its vector, against its own code's arithmetic, on a tiny Llama."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import mteb
import numpy as np
import pytest
import torch

import bge_eval
from bge_eval.encode.prompts import Role
from bge_eval.encode.settings import Overrides
from bge_eval.errors import DamagedError, UsageError
from bge_eval.models.kinds import ModelOptions
from bge_eval.models.llara import LlaraModel
from bge_eval.models.opening import open_model
from parity.tiny_rerankers import shared_config, tokenizer
from test_encoder import TEXTS

SCIFACT = mteb.get_task("SciFact").metadata
QUESTIONS = {
    Role.QUERY: '", predict the following passage within eight words:'
    " <s9><s10><s11><s12><s13><s14><s15><s16>",
    Role.DOCUMENT: '", summarize the above passage within eight words:'
    " <s1><s2><s3><s4><s5><s6><s7><s8>",
}


@pytest.fixture(scope="module")
def llara(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama in the layout of BAAI/LLARA-passage."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("hub") / "BAAI" / "LLARA-passage"
    folder.mkdir(parents=True)
    tokenizer(folder, "left")
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    bos = content["model"]["vocab"]["<bos>"]
    start = {"SpecialToken": {"id": "<bos>", "type_id": 0}}
    text = {"Sequence": {"id": "A", "type_id": 0}}
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [start, text],
        "pair": [start, text, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<bos>": {"id": "<bos>", "ids": [bos], "tokens": ["<bos>"]}},
    }
    path.write_text(json.dumps(content), encoding="utf-8")
    read = AutoTokenizer.from_pretrained(folder)
    read.add_tokens([f"<s{number}>" for number in range(1, 17)])
    read.save_pretrained(folder)
    config = shared_config(len(read))
    del config["torch_dtype"], config["rope_theta"]
    torch.manual_seed(5)
    options: dict[str, Any] = {"num_key_value_heads": 2, "initializer_range": 0.2}
    LlamaForCausalLM(LlamaConfig(**config, **options)).save_pretrained(folder)
    return folder


def reference(folder: Path, texts: list[str], role: Role, max_length: int) -> Any:
    """Vectors by the steps of FlagEmbedding's research/LLARA/README.md, all texts in one batch."""
    from transformers import AutoModel, AutoTokenizer

    words, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    before = words('"')["input_ids"]
    after = words(QUESTIONS[role])["input_ids"][1:]
    rows = []
    for text in texts:
        cut = words(text, add_special_tokens=False, truncation=True, max_length=max_length)
        rows.append({"input_ids": [*before, *cut["input_ids"], *after]})
        rows[-1]["attention_mask"] = [1] * len(rows[-1]["input_ids"])
    batch = words.pad(rows, padding=True, pad_to_multiple_of=8, return_tensors="pt")
    with torch.no_grad():
        states = model(**batch, output_hidden_states=True).hidden_states[-1]
    return torch.nn.functional.normalize(states[:, -8:].mean(dim=1), dim=-1).numpy()


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("max_length", [None, 20])
@pytest.mark.parametrize("budget", [1, 8192])
def test_vectors(llara: Path, role: Role, max_length: int | None, budget: int) -> None:
    texts = [*TEXTS, "a long text " * 100]
    options = ModelOptions(
        overrides=Overrides(max_length=max_length),
        batch_tokens=budget,
        device="cpu",
        store=False,
    )
    model: Any = open_model(str(llara), options)
    assert isinstance(model, LlaraModel)
    form = model.form(SCIFACT, role)
    with model.progress.step("encode") as step:
        ours = model._vectors(texts, form, step)
    expected = reference(llara, texts, role, max_length or 512)
    assert np.ptp(expected @ expected.T) > 0.05, "the texts' vectors differ"
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_roles_differ_and_are_stored_apart(llara: Path, tmp_path: Path) -> None:
    texts = [{"text": ["one", "another"]}]
    where: dict[str, Any] = {"task_metadata": SCIFACT, "hf_split": "test", "hf_subset": "default"}
    roles = {role: mteb.types.PromptType(role.value) for role in Role}

    def vectors(role: Role) -> Any:
        model: Any = open_model(str(llara), ModelOptions(device="cpu", store=tmp_path))
        encoded = model.encode(texts, prompt_type=roles[role], **where)
        model.flush()
        return encoded

    fresh = [vectors(role) for role in Role]
    assert np.abs(fresh[0] - fresh[1]).max() > 1e-3
    for role, expected in zip(Role, fresh, strict=True):
        np.testing.assert_array_equal(vectors(role), expected)
    identity = open_model(str(llara), ModelOptions()).identity(SCIFACT)
    assert identity["prompts"] == {role: f'"{{text}}{QUESTIONS[role]}' for role in Role}
    assert identity["max_length"] == 512


def test_a_run(llara: Path, tmp_path: Path) -> None:
    done = bge_eval.evaluate(str(llara), ["demo"], output=tmp_path, offline=True, store=False)
    assert not done.failures and done.files


def test_what_is_refused(llara: Path, tmp_path: Path) -> None:
    sts = mteb.get_task("STSBenchmark").metadata
    with pytest.raises(UsageError, match=r"no form for the texts of STSBenchmark \(STS\)"):
        open_model(str(llara), ModelOptions()).identity(sts)
    for options in (
        ModelOptions(overrides=Overrides(query_prompt="query: ")),
        ModelOptions(adapter=tmp_path),
        ModelOptions(overrides=Overrides(protocol="model-card")),  # type: ignore[arg-type]
    ):
        with pytest.raises(UsageError, match=r"cannot be used with --model .* \(LLARA\)"):
            open_model(str(llara), options)


def test_a_tokenizer_without_its_tokens(llara: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(llara, tmp_path / "BAAI" / "LLARA-beir"))
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["added_tokens"] = [
        token for token in content["added_tokens"] if not token["content"].startswith("<s")
    ]
    path.write_text(json.dumps(content), encoding="utf-8")
    model: Any = open_model(str(folder), ModelOptions(device="cpu", store=False))
    with pytest.raises(DamagedError, match="does not know <s9>, <s10>"):
        model._encoder_of(model.form(SCIFACT, Role.QUERY))
