"""Qwen3-Reranker in its own layout: the probability of "yes" against "no" after a chat prompt.

Source: the model card of Qwen3-Reranker-0.6B; the instruction is the one of mteb's wrapper, with
which mteb's results are computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bge_eval.encode.files import ModelFiles
from bge_eval.errors import UsageError
from bge_eval.rerank.llm import (
    Loading,
    Question,
    Scorer,
    Scoring,
    llm_family,
    load_language_model,
)
from bge_eval.rerank.reranker import architecture

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

MAX_LENGTH = 8192
"""Default of the longest input in tokens, the chat prompt included."""

_INSTRUCTION = "Given the user query, retrieval the relevant passages"
_BEFORE = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and"
    ' the Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n"
)
_AFTER = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"


class _Chat:
    """The input format of a pair; instruction, query and document are cut at their end."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, limit: int) -> None:
        self._tokenizer = tokenizer
        self._before, self._after = self._ids([_BEFORE])[0], self._ids([_AFTER])[0]
        self._room = limit - len(self._before) - len(self._after)
        around = len(self._ids([_pair("", "")])[0])
        if self._room <= around:
            least = limit - self._room + around + 1
            raise UsageError(
                f"--reranker-max-length {limit} leaves no room for a query and a document: the chat"
                f" prompt and the instruction take {least - 1} tokens. Use {least} or more."
            )
        self.longest = limit
        self.extra = limit - self._room + around

    def lengths(self, texts: list[str]) -> list[int]:
        return [len(ids) for ids in self._ids(texts)]

    def questions(self, pairs: Sequence[tuple[str, str]]) -> list[Question]:
        bodies = self._tokenizer(
            [_pair(*pair) for pair in pairs], truncation=True, max_length=self._room
        )["input_ids"]
        return [
            Question([*self._before, *body, *self._after], len(self._before), len(self._after))
            for body in bodies
        ]

    def _ids(self, texts: list[str]) -> list[list[int]]:
        ids: list[list[int]] = self._tokenizer(texts, add_special_tokens=False)["input_ids"]
        return ids


def _pair(query: str, document: str) -> str:
    return f"<Instruct>: {_INSTRUCTION}\n<Query>: {query}\n<Document>: {document}"


def _load(loading: Loading) -> Scorer:
    """Load the language model; the score is the probability of "yes" against "no"."""
    import torch

    model = load_language_model(loading)
    ids = loading.tokenizer.convert_tokens_to_ids(["no", "yes"])
    answers = torch.tensor(ids, device=loading.device)

    def score(questions: Sequence[Question]) -> torch.Tensor:
        logits = model.logits([question.ids for question in questions])
        scores: torch.Tensor = logits[:, answers].float().softmax(dim=-1)[:, 1]
        return scores

    return score


def _recognises(files: ModelFiles) -> bool:
    """Return whether this is a causal language model named Qwen3-Reranker."""
    return architecture(files) == "Qwen3ForCausalLM" and "qwen3-reranker" in files.name.lower()


FAMILY = llm_family(
    _recognises, lambda options: Scoring(_load, _Chat, {"kind": "qwen3"}, MAX_LENGTH)
)
"""Qwen3-Reranker-0.6B, -4B and -8B, and models trained from them."""
