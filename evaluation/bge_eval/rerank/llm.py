r"""Language models as rerankers: the model is asked whether a passage answers a query.

The input format is that of BGE's rerankers (model cards of bge-reranker-v2-gemma,
-v2-minicpm-layerwise and -v2.5-gemma2-lightweight, as FlagEmbedding builds it)::

    <bos>A: query \n B: passage \n question

The query is truncated to three quarters of the maximum length, the passage to the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from bge_eval.encode.calls import CallScores
from bge_eval.encode.config import CONFIG, read_object
from bge_eval.encode.files import ModelFiles
from bge_eval.encode.positions import OWN_POSITIONS, counts_padding, token_positions
from bge_eval.errors import DamagedError, MissingError, UsageError, one_line
from bge_eval.progress import Progress, quiet_transformers
from bge_eval.rerank.reranker import (
    Family,
    LocalReranker,
    RerankerOptions,
    architecture,
    checked,
)
from bge_eval.runtime.batches import PairRule, default_batch_tokens
from bge_eval.runtime.devices import first_device

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

    from bge_eval.runtime.last_tokens import LastTokens

YES_OR_NO = (
    "Given a query A and a passage B, determine whether the passage contains an answer to the"
    " query by providing a prediction of either 'Yes' or 'No'."
)
"""The question of bge-reranker-v2-gemma and -v2-minicpm-layerwise."""
PREDICT = "Predict whether passage B contains an answer to query A."
"""The question of bge-reranker-v2.5-gemma2-lightweight."""

MAX_LENGTH = 512
"""Default of the longest query and passage together, in tokens, as in FlagEmbedding."""


@dataclass(frozen=True, slots=True)
class Question:
    """The model's input for one pair."""

    ids: list[int]
    """Token ids of the input."""
    head: int
    """Number of tokens before the passage."""
    tail: int
    """Number of tokens after the passage."""


Scorer = Callable[[Sequence[Question]], "torch.Tensor"]
"""Maps a batch of questions to ``(n,)`` scores."""


class Template(Protocol):
    """A family's input format."""

    longest: int
    """Most tokens of an input."""
    extra: int
    """Tokens of an input besides the two texts."""

    def lengths(self, texts: list[str]) -> list[int]:
        """Return the number of tokens of each text."""

    def questions(self, pairs: Sequence[tuple[str, str]]) -> list[Question]:
        """Return the inputs of (query, document) pairs."""


@dataclass(frozen=True, slots=True)
class Loading:
    """What a family needs to load its weights."""

    files: ModelFiles
    """The model's files."""
    tokenizer: PreTrainedTokenizerBase
    """Its tokenizer."""
    dtype: torch.dtype
    """The precision of the weights."""
    device: torch.device
    """Where they will be."""
    note: Callable[[str], None]
    """Receives why a model is computed with padding on a GPU."""


Loader = Callable[[Loading], Scorer]
"""Loads a family's weights and returns its scorer."""


@dataclass(frozen=True, slots=True)
class Scoring:
    """How a family of language models scores a pair."""

    load: Loader
    """Loads the family's weights."""
    template: Callable[[PreTrainedTokenizerBase, int], Template]
    """Returns the input format for a tokenizer and a maximum length in tokens."""
    settings: Mapping[str, Any]
    """The family and its options, part of the identity."""
    default_length: int = MAX_LENGTH
    """The family's maximum length in tokens."""
    by_transformers: bool = True
    """Whether transformers' class of the model computes, which may count padding as positions;
    families whose layers are ours have relative positions."""


class LLMReranker(LocalReranker):
    """A language model that scores pairs; weights are loaded with the first pair."""

    _loaded: tuple[PreTrainedTokenizerBase, Scorer] | None = None

    def __init__(
        self,
        files: ModelFiles,
        scoring: Scoring,
        options: RerankerOptions | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Store the options as every local reranker does, and the family's scoring."""
        super().__init__(files, options, progress)
        self._scoring = scoring

    def _settings(self) -> Mapping[str, Any]:
        scoring = self._scoring
        counted = scoring.by_transformers and counts_padding(
            read_object(self.files.folder / CONFIG)
        )
        return {**scoring.settings, **(OWN_POSITIONS if counted else {})}

    def score(self, pairs: Sequence[tuple[str, str]]) -> npt.NDArray[np.float64]:
        """Score pairs: ``(n_pairs,)`` float64 logits, higher is more relevant.

        Raises:
            MissingError: the model cannot be loaded.
            DamagedError: a score is not finite.
        """
        import torch

        from bge_eval.runtime.fitting import Fitting

        _, scorer = self._load()
        template = self._loaded_template()
        scores = CallScores(self.unfinished, pairs, self.progress)
        fitting = Fitting(self.files.name, self.progress.note)

        def of(questions: Sequence[Question]) -> Callable[[slice], npt.NDArray[np.float32]]:
            return lambda part: scorer(questions[part]).float().cpu().numpy()

        with self.progress.step("rerank", len(pairs), "pairs") as step, torch.inference_mode():
            for batch in self._rule(template).batches(pairs):
                if not scores.lacks(batch.rows):
                    step.advance(len(batch.rows))
                    continue
                questions = template.questions([pairs[row] for row in batch.rows])
                scores.put(batch.rows, np.concatenate(fitting.run(len(questions), of(questions))))
                step.advance(len(questions), batch.tokens)
        return checked(scores.values, self.files.name, self._options.dtype)

    def pair_rule(self) -> PairRule:
        """Return how pairs are batched; loads the model."""
        return self._rule(self._loaded_template())

    def _loaded_template(self) -> Template:
        tokenizer, _ = self._load()
        limit = self._options.max_length or self._scoring.default_length
        template = self._scoring.template(tokenizer, limit)
        config = read_object(self.files.folder / CONFIG)
        most = token_positions(config)
        if most is not None and counts_padding(config) and template.longest > most:
            shorter = limit - (template.longest - most)
            advice = f"Use --reranker-max-length {shorter} or less." if shorter > 0 else ""
            raise UsageError(
                f"{self.files.name} has {most} positions; with --reranker-max-length {limit} and"
                f" its question, an input may have {template.longest} tokens. {advice}".rstrip()
            )
        return template

    def _rule(self, template: Template) -> PairRule:
        device = first_device(self._options.device).partition(":")[0]
        budget = self._options.batch_tokens or default_batch_tokens(device)
        return PairRule(template.lengths, budget, template.longest, template.extra)

    def _load(self) -> tuple[PreTrainedTokenizerBase, Scorer]:
        if self._loaded is not None:
            return self._loaded
        import torch
        from transformers import AutoTokenizer

        device = torch.device(first_device(self._options.device))
        with self.progress.step("load reranker"), quiet_transformers():
            try:
                tokenizer = AutoTokenizer.from_pretrained(
                    self.files.folder,
                    trust_remote_code=self._options.trust_remote_code,
                    local_files_only=True,
                )
                dtype = getattr(torch, self._options.dtype)
                scorer = self._scoring.load(
                    Loading(self.files, tokenizer, dtype, device, self.progress.note)
                )
            except (OSError, ValueError, KeyError, RuntimeError) as error:
                reason = one_line(error)
                raise MissingError(
                    f"The reranker {self.files.name} could not be loaded from {self.files.folder}:"
                    f" {reason}"
                ) from error
        self._loaded = tokenizer, scorer
        return self._loaded


class _Asked:
    """BGE's input format of a pair."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, limit: int, question: str) -> None:
        self._tokenizer = tokenizer
        self._limit = limit
        self._break: list[int] = tokenizer("\n", add_special_tokens=False)["input_ids"]
        question_ids = tokenizer(question, add_special_tokens=False)["input_ids"]
        self._closing: list[int] = self._break + question_ids
        bos, pad = tokenizer.bos_token_id, tokenizer.pad_token_id
        self._bos = [int(bos)] if bos is not None and bos != pad else []
        # As in FlagEmbedding, the question and its line break do not count towards the limit.
        self._bound = limit + len(self._closing)
        self.longest = self._bound + len(self._closing)
        self.extra = len(self._bos) + len(self._break) + len(self._closing) + 4

    def lengths(self, texts: list[str]) -> list[int]:
        return [len(ids) for ids in self._ids(texts)]

    def questions(self, pairs: Sequence[tuple[str, str]]) -> list[Question]:
        queries = self._ids([f"A: {query}" for query, _ in pairs], self._limit * 3 // 4)
        passages = self._ids([f"B: {passage}" for _, passage in pairs])
        questions = []
        for query, passage in zip(queries, passages, strict=True):
            head = self._bos + query
            rest = self._break + passage
            over = len(head) + len(rest) - self._bound
            if 0 < over < len(rest):
                rest = rest[:-over]
            questions.append(
                Question(
                    head + rest + self._closing, len(head) + len(self._break), len(self._closing)
                )
            )
        return questions

    def _ids(self, texts: list[str], limit: int | None = None) -> list[list[int]]:
        encoded = self._tokenizer(
            texts, add_special_tokens=False, truncation=True, max_length=limit or self._limit
        )
        ids: list[list[int]] = encoded["input_ids"]
        return ids


def asked(question: str) -> Callable[[PreTrainedTokenizerBase, int], Template]:
    """Return BGE's input format with a question at the end of every input."""
    return lambda tokenizer, limit: _Asked(tokenizer, limit, question)


def load_language_model(loading: Loading) -> LastTokens:
    """Load a causal language model.

    Raises:
        DamagedError: the checkpoint lacks weights.
        UsageError: the model needs remote code.
    """
    from transformers import AutoModelForCausalLM

    from bge_eval.runtime.last_tokens import LastTokens

    files = loading.files
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            files.folder, dtype=loading.dtype, local_files_only=True, output_loading_info=True
        )
    except ValueError as error:
        if "trust_remote_code" not in str(error):
            raise
        raise UsageError(
            f"transformers does not support the architecture of {files.name}."
        ) from error
    model, info = loaded
    if info["missing_keys"]:
        raise DamagedError(
            f"The checkpoint of {files.name} lacks weights, such as"
            f" {sorted(info['missing_keys'])[0]}; scores would be random."
        )
    return LastTokens(model.to(loading.device).eval(), loading.note, left=True)


def load_yes_logit(loading: Loading) -> Scorer:
    """Load a causal language model; the score is the logit of "Yes" after the question."""
    model = load_language_model(loading)
    yes = loading.tokenizer("Yes", add_special_tokens=False)["input_ids"][0]
    return lambda questions: model.logits([question.ids for question in questions])[:, yes]


def _recognises(files: ModelFiles) -> bool:
    """Return whether this is a causal language model named bge-reranker."""
    return architecture(files).endswith("ForCausalLM") and "bge-reranker" in files.name


def llm_family(
    recognises: Callable[[ModelFiles], bool],
    scoring: Callable[[RerankerOptions], Scoring],
    options: Collection[str] = (),
) -> Family:
    """Return a family of language models.

    Args:
        recognises: whether files are of the family.
        scoring: returns how the family scores a pair with the user's options.
        options: names of the options that it supports, of those that only some families do.
    """
    return Family(
        recognises,
        lambda files, chosen, progress: LLMReranker(files, scoring(chosen), chosen, progress),
        frozenset(options),
    )


FAMILY = llm_family(
    _recognises, lambda options: Scoring(load_yes_logit, asked(YES_OR_NO), {"kind": "llm"})
)
"""The logit of "Yes" after BGE's question."""
