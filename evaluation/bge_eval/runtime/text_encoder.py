"""Texts in, float32 vectors out: tokenising, batching by length, and the choice of what is pooled.

The forward pass itself is a backend's (`Forward`): torch, OpenVINO or ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from bge_eval.encode.config import transformer_folder
from bge_eval.encode.settings import Pooling, Settings
from bge_eval.errors import DamagedError, MissingError, UsageError, one_line
from bge_eval.progress import Progress
from bge_eval.records import ModelFiles, Vectors
from bge_eval.runtime.batches import WINDOW, Tokens, batches_by_length, padded
from bge_eval.runtime.end_token import keep_end_token

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from bge_eval.progress import Step


@dataclass(frozen=True, slots=True)
class Batch:
    """Texts of about one length, ready for a forward pass."""

    rows: npt.NDArray[np.int64]
    """``(batch,)``: where the texts stand in their window."""
    features: Mapping[str, Tokens]
    """``input_ids``, ``attention_mask`` and perhaps ``token_type_ids``, padded to the longest."""
    pooled: Tokens
    """``(batch, tokens)``: 1 for the tokens that take part in the pooling."""
    tokens: int
    """Real tokens, padding left out."""


class Forward(Protocol):
    """A backend with the model loaded."""

    backend: str
    """Its name, e.g. "torch"."""
    device: str
    """Where it computes, e.g. "cpu"."""
    dimension: int
    """Length of the vectors."""
    parameters: int
    """How many weights the model has; 0 where the backend does not know."""
    batch_tokens: int
    """Tokens of a batch, padding included, that suit the device."""

    def run(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, Vectors]]:
        """Pool every batch's token vectors: ``(batch, dimension)`` float32, in any order."""


class TextEncoder:
    """A tokenizer with a backend."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        forward: Forward,
        settings: Settings,
        *,
        batch_tokens: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Put both together.

        Args:
            tokenizer: the model's.
            forward: the model in its backend.
            settings: length, normalisation, dimensions to keep.
            batch_tokens: tokens of a batch, padding included; None takes what suits the device.
            progress: told of waiting for the tokenizer.

        Raises:
            UsageError: more dimensions are to be kept than there are, or a batch would be empty.
        """
        if batch_tokens is not None and batch_tokens < 1:
            raise UsageError(f"--batch-tokens must be at least 1, not {batch_tokens}.")
        if settings.truncate_dim is not None and settings.truncate_dim > forward.dimension:
            raise UsageError(
                f"--truncate-dim {settings.truncate_dim} is more than the model's"
                f" {forward.dimension} dimensions."
            )
        self.tokenizer = tokenizer
        self.forward = forward
        self.settings = settings
        self.batch_tokens = batch_tokens or forward.batch_tokens
        self.progress = progress or Progress()
        self.dimension = settings.truncate_dim or forward.dimension

    @property
    def device(self) -> str:
        """Return where the model computes."""
        return self.forward.device

    @property
    def parameters(self) -> int:
        """Return how many weights the model has; 0 where the backend does not know."""
        return self.forward.parameters

    def encode(
        self,
        texts: Sequence[str],
        prompt: str = "",
        step: Step | None = None,
        *,
        normalize: bool | None = None,
    ) -> Vectors:
        """Encode texts in their order; equal texts are encoded once and have equal vectors.

        Args:
            texts: the inputs; an empty string is a valid input.
            prompt: put before every text.
            step: told of every batch (texts, tokens).
            normalize: scale rows to unit L2 norm; None does as the settings say.

        Returns:
            ``(n_texts, dim)`` float32; rows of unit L2 norm if normalised.

        Raises:
            DamagedError: a vector is not finite (half precision can overflow).
        """
        distinct = Distinct(texts)
        vectors = np.empty((len(distinct.texts), self.forward.dimension), np.float32)
        for rows, found in self.windows(distinct.texts, prompt, step, distinct.copies):
            vectors[rows] = found
        return distinct.spread(finished(vectors, self.settings, normalize))

    def windows(
        self,
        texts: Sequence[str],
        prompt: str = "",
        step: Step | None = None,
        copies: npt.NDArray[np.int64] | None = None,
    ) -> Iterator[tuple[slice, Vectors]]:
        """Pool texts window by window, so that what is done can be kept before the next.

        The next window is tokenised while the model works on this one.

        Args:
            texts: the inputs, best without repetitions.
            prompt: put before every text.
            step: told of every batch.
            copies: ``(n_texts,)``: how many texts each one stands for in what ``step`` is told.

        Yields:
            The window's place among the texts, and its ``(window, dim)`` float32 pooled vectors,
            neither normalised nor cut.
        """
        skipped = self._prompt_tokens(prompt) if prompt and not self.settings.pool_prompt else 0
        starts = range(0, len(texts), WINDOW)
        copies = np.ones(len(texts), np.int64) if copies is None else copies
        with ThreadPoolExecutor(1, thread_name_prefix="tokenise") as pool:
            ahead = None
            for start in starts:
                now = ahead or pool.submit(self._tokenised, texts[start : start + WINDOW], prompt)
                following = texts[start + WINDOW : start + 2 * WINDOW]
                ahead = pool.submit(self._tokenised, following, prompt) if following else None
                with self.progress.step("tokenise"):
                    encoded = now.result()
                window = slice(start, start + len(encoded["input_ids"]))
                vectors = np.empty((window.stop - start, self.forward.dimension), np.float32)
                for batch, pooled in self.forward.run(self._batches(encoded, skipped)):
                    vectors[batch.rows] = pooled
                    if step is not None:
                        step.advance(int(copies[start + batch.rows].sum()), batch.tokens)
                if not np.isfinite(vectors).all():
                    raise DamagedError(
                        f"The model gave vectors that are not finite in {self.settings.dtype}."
                        " Use --dtype float32 or bfloat16."
                    )
                yield window, vectors

    def _tokenised(self, texts: Sequence[str], prompt: str) -> dict[str, list[list[int]]]:
        prepared = [prompt + text for text in texts]
        if self.settings.lower_case:
            prepared = [text.lower() for text in prepared]
        encoded = self.tokenizer(
            prepared, truncation=True, max_length=self.settings.max_length, padding=False
        )
        return dict(encoded)

    def _batches(self, encoded: Mapping[str, list[list[int]]], skipped: int) -> Iterator[Batch]:
        """Yield batches of about one length up to the budget of tokens, longest texts first."""
        lengths = np.array([len(ids) for ids in encoded["input_ids"]], np.int64)
        left = bool(self.tokenizer.padding_side == "left")
        for rows in batches_by_length(lengths, self.batch_tokens):
            longest = max(int(lengths[rows[0]]), 1)
            features = {
                name: padded(
                    [column[row] for row in rows], longest, self._pad_value(name), left=left
                )
                for name, column in encoded.items()
            }
            pooled = features["attention_mask"]
            if skipped:
                pooled = _without_prompt(pooled, skipped)
            yield Batch(rows, features, pooled, int(lengths[rows].sum()))

    def _pad_value(self, name: str) -> int:
        if name == "input_ids":
            pad = self.tokenizer.pad_token_id
            return int(pad if pad is not None else self.tokenizer.eos_token_id or 0)
        return int(self.tokenizer.pad_token_type_id) if name == "token_type_ids" else 0

    def _prompt_tokens(self, prompt: str) -> int:
        ids = self.tokenizer(prompt)["input_ids"]
        closing = {self.tokenizer.sep_token_id, self.tokenizer.eos_token_id} - {None}
        return len(ids) - (1 if ids and ids[-1] in closing else 0)


class Distinct:
    """The different texts among some texts."""

    def __init__(self, texts: Sequence[str]) -> None:
        """Find them.

        Args:
            texts: the texts, with repetitions.
        """
        first: dict[str, int] = {}
        self._position = np.fromiter(
            (first.setdefault(text, len(first)) for text in texts), np.int64, len(texts)
        )
        self.texts = list(first)
        """The different texts, in the order in which they first appear."""
        self.copies = np.bincount(self._position, minlength=len(first))
        """``(n_distinct,)``: how often each appears."""

    def spread(self, vectors: Vectors) -> Vectors:
        """Return a row for every text from ``(n_distinct, dim)``, a row for every different one."""
        repeated = len(self._position) != len(self.texts)
        return vectors[self._position] if repeated else vectors


def finished(vectors: Vectors, settings: Settings, normalize: bool | None = None) -> Vectors:
    """Normalise pooled vectors and cut them to the dimensions to keep.

    Args:
        vectors: ``(n, dim)`` float32, as they are pooled.
        settings: the model's.
        normalize: scale rows to unit L2 norm first; None does as the settings say.
    """
    if settings.normalize if normalize is None else normalize:
        vectors = normalized(vectors)
    return vectors if settings.truncate_dim is None else vectors[:, : settings.truncate_dim]


def normalized(vectors: Vectors) -> Vectors:
    """Scale rows to unit L2 norm, as torch's ``normalize`` does with a norm of next to nothing."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: Vectors = np.divide(vectors, np.maximum(norms, 1e-12), dtype=np.float32)
    return scaled


def load_tokenizer(
    files: ModelFiles, settings: Settings, *, trust_remote_code: bool = False
) -> PreTrainedTokenizerBase:
    """Load the model's tokenizer.

    Raises:
        MissingError: it is not in the folder, or needs remote code.
    """
    from transformers import AutoTokenizer

    folder = str(transformer_folder(files.folder))
    options: dict[str, Any] = {"trust_remote_code": trust_remote_code, "local_files_only": True}
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, **settings.tokenizer, **options
        )
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise MissingError(load_failure(files, error)) from error
    if settings.pooling is Pooling.LAST:
        keep_end_token(tokenizer, transformer_folder(files.folder))
    return tokenizer


def load_failure(files: ModelFiles, error: Exception) -> str:
    """Say why transformers could not load a model."""
    if "trust_remote_code" in str(error):
        return (
            f"{files.name} comes with Python code of its own, which bge-eval does not run unless"
            " told to. If you trust its authors, add --trust-remote-code."
        )
    return f"{files.name} could not be loaded from {files.folder}: {one_line(error)}"


def _without_prompt(mask: Tokens, tokens: int) -> Tokens:
    start = mask.argmax(axis=1)[:, None]
    kept: Tokens = mask * (np.arange(mask.shape[1])[None, :] >= start + tokens)
    return kept
