"""Prompt look-up equals mteb's sentence-transformers wrapper."""

from __future__ import annotations

import itertools

import mteb
import pytest
from mteb.models.abs_encoder import get_prompt_name
from mteb.types import PromptType

from bge_eval.encode.prompts import Role, resolve_prompt
from bge_eval.encode.settings import Overrides, Prompts

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
