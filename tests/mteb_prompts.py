"""The prompt that mteb's own wrappers put before a text."""

from __future__ import annotations

from typing import Any

from datasets import Dataset
from mteb.types import PromptType
from torch.utils.data import DataLoader

from bge_eval.encode.prompts import Role


class Reached(Exception):
    """The tokenizer was reached: the rest of the encoding does not matter."""


def encoded_prompt(wrapper: Any, task: Any, role: Role | None) -> str:
    """Let mteb's wrapper encode a text; return what stands before it when it is tokenised."""
    texts: list[str] = []
    module = wrapper.model[0]

    def recorded(inputs: Any, prompt: str | None = None, **options: Any) -> Any:
        texts.extend((prompt or "") + text for text in inputs)
        raise Reached

    module.preprocess = recorded
    batches = DataLoader(Dataset.from_dict({"text": ["plain"]}), batch_size=1)
    try:
        wrapper.encode(
            batches,
            task_metadata=task,
            hf_split="test",
            hf_subset="default",
            prompt_type=PromptType(role.value) if role is not None else None,
            show_progress_bar=False,
        )
    except Reached:
        pass
    finally:
        del module.preprocess
    assert texts[0].endswith("plain")
    return texts[0].removesuffix("plain")
