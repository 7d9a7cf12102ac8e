"""Prompt look-up equals mteb's sentence-transformers wrapper."""

from __future__ import annotations

import itertools
from pathlib import Path

import mteb
import pytest
from mteb.models.abs_encoder import get_prompt_name
from mteb.types import PromptType

from bge_eval.encode.prompts import Role, read_prompts, resolve_prompt
from bge_eval.encode.settings import Overrides, Prompts
from bge_eval.errors import MissingError, UsageError
from bge_eval.models.transformer import EncoderModel
from conftest import make_encoder

NAMES = ["SciFact-query", "SciFact", "Retrieval-query", "Retrieval", "query", "document"]


@pytest.mark.parametrize("size", range(len(NAMES) + 1))
@pytest.mark.parametrize("role", [None, *Role])
def test_order_is_mtebs(size: int, role: Role | None) -> None:
    metadata = mteb.get_task("SciFact").metadata
    for names in itertools.combinations(NAMES, size):
        texts = {name: f"<{name}>" for name in names}
        theirs = get_prompt_name(texts, metadata, PromptType(role.value) if role else None)
        ours = resolve_prompt(
            Prompts(texts), Overrides(), task="SciFact", task_type="Retrieval", role=role
        )
        assert ours == (texts[theirs] if theirs else "")


def test_user_comes_first() -> None:
    prompts = Prompts({"SciFact-query": "model's", "document": "doc: "})
    said = Overrides(query_prompt="", document_prompt="mine: ")
    where = {"task": "SciFact", "task_type": "Retrieval"}
    assert resolve_prompt(prompts, said, role=Role.QUERY, **where) == ""
    assert resolve_prompt(prompts, said, role=Role.DOCUMENT, **where) == "mine: "


def test_default_prompt_and_other_document_names() -> None:
    where = {"task": "X", "task_type": "Retrieval"}
    prompts = Prompts({"passage": "passage: ", "any": "any: "}, default="any")
    assert resolve_prompt(prompts, Overrides(), role=Role.DOCUMENT, **where) == "passage: "
    assert resolve_prompt(prompts, Overrides(), role=Role.QUERY, **where) == "any: "


def test_prompts_file(tmp_path: Path) -> None:
    path = tmp_path / "prompts.toml"
    path.write_text('query = "q: "\nSciFact-query = "claim: "\nSTS = "sts: "\n')
    said = Overrides(prompts=read_prompts(path))
    own = Prompts({"query": "model's", "document": "d: "})

    def text(task: str, task_type: str, role: Role | None) -> str:
        return resolve_prompt(own, said, task=task, task_type=task_type, role=role)

    assert text("SciFact", "Retrieval", Role.QUERY) == "claim: "
    assert text("NFCorpus", "Retrieval", Role.QUERY) == "q: "
    assert text("NFCorpus", "Retrieval", Role.DOCUMENT) == "d: "
    assert text("STSBenchmark", "STS", None) == "sts: "
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
