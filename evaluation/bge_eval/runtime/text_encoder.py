"""Encode texts to float32 vectors: tokenise, batch by length, run, normalise.

A backend (`Forward`) runs the forward pass and the pooling: torch, OpenVINO or ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from bge_eval.encode.body import read_body
from bge_eval.encode.config import CONFIG, refuse_pointer, transformer_folder
from bge_eval.encode.files import ModelFiles
from bge_eval.encode.part import Share
from bge_eval.encode.settings import Pooling, Settings
from bge_eval.errors import DamagedError, MissingError, UsageError, one_line
from bge_eval.progress import Progress
from bge_eval.records import Vectors
from bge_eval.runtime.batches import WINDOW, Tokens, batches_by_length, padded
from bge_eval.runtime.checks import refuse_unusable
from bge_eval.runtime.end_token import ensure_end_token

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from bge_eval.progress import Step

_POINTER_BYTES = 1024
"""More bytes than a Git LFS pointer has."""
_LARGEST_VOCABULARY = 2**28
"""Bytes of a tokenizer's file; the largest of a published model has 35 MB."""
_VOCABULARIES = ("tokenizer", "vocab", "merges", "sentencepiece", "spiece", "added_tokens")
"""What the names of a tokenizer's files begin with."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Tokenised texts of similar length, padded for a forward pass."""

    rows: npt.NDArray[np.int64]
    """``(batch,)``: the texts' indices in the list."""
    features: Mapping[str, Tokens]
    """``input_ids``, ``attention_mask`` and perhaps ``token_type_ids``, padded to the longest."""
    pooled: Tokens
    """``(batch, tokens)``: 1 for the tokens to pool."""
    tokens: int
    """Number of tokens without padding."""
    prompt_tokens: int = 0
    """Number of tokens at each text's beginning that the pooling leaves out."""


class Forward(Protocol):
    """A model loaded in a backend."""

    backend: str
    """Name of the backend, e.g. "torch"."""
    device: str
    """Device of the forward pass, e.g. "cpu"."""
    dimension: int
    """Length of the vectors."""
    parameters: int
    """Number of weights; 0 if the backend does not report it."""
    batch_tokens: int
    """Default tokens per batch on the device, padding included."""

    def run(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, Vectors]]:
        """Yield batches, in any order, with pooled vectors: ``(batch, dimension)`` float32."""


class TextEncoder:
    """A tokenizer and a backend."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        forward: Forward,
        settings: Settings,
        *,
        batch_tokens: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Combine a tokenizer and a backend.

        Args:
            tokenizer: the model's tokenizer.
            forward: the model in its backend.
            settings: maximum length, normalisation, number of dimensions.
            batch_tokens: tokens per batch, padding included; None uses the device's default.
            progress: reports the time spent waiting for the tokenizer.

        Raises:
            UsageError: ``truncate_dim`` exceeds the model's dimensions, ``batch_tokens`` is below
                1, or the maximum length holds special tokens only.
        """
        if batch_tokens is not None and batch_tokens < 1:
            raise UsageError(f"--batch-tokens must be at least 1, not {batch_tokens}.")
        _check_dimensions(settings, forward.dimension)
        special = tokenizer.num_special_tokens_to_add(pair=False)
        if settings.max_length <= special:
            raise UsageError(
                f"--max-length {settings.max_length} leaves no room for a text: the tokenizer puts"
                f" {special} special tokens around each."
            )
        self.tokenizer = tokenizer
        self.forward = forward
        self.settings = settings
        self.batch_tokens = batch_tokens or forward.batch_tokens
        self.progress = progress or Progress()
        self.dimension = settings.truncate_dim or forward.dimension

    @property
    def device(self) -> str:
        """Return the device of the forward pass."""
        return self.forward.device

    @property
    def parameters(self) -> int:
        """Return the number of weights; 0 if the backend does not report it."""
        return self.forward.parameters

    def encode(
        self,
        texts: Sequence[str],
        prompt: str = "",
        step: Step | None = None,
        *,
        normalize: bool | None = None,
    ) -> Vectors:
        """Encode texts; equal texts are encoded once and get equal vectors.

        Args:
            texts: the inputs; an empty string is a valid input.
            prompt: prefix of every text.
            step: reports texts and tokens of every batch.
            normalize: scale rows to unit L2 norm; None follows the settings.

        Returns:
            ``(n_texts, dim)`` float32; rows of unit L2 norm if normalised.

        Raises:
            DamagedError: a vector is not finite (half precision can overflow), or zero.
        """
        distinct = Distinct(texts)
        vectors = np.empty((len(distinct.texts), self.forward.dimension), np.float32)
        for rows, pooled in self.parts(distinct.texts, prompt, step, copies=distinct.copies):
            vectors[rows] = pooled
        return distinct.spread(finished(vectors, self.settings, normalize))

    def lengths(self, texts: Sequence[str], prompt: str = "") -> npt.NDArray[np.int64]:
        """Return the tokens of each text as the model reads it: ``(n_texts,)`` int64.

        Args:
            texts: the inputs.
            prompt: prefix of every text.
        """
        rows = self._tokenised(texts, prompt)["input_ids"]
        return np.array([len(ids) for ids in rows], np.int64)

    def parts(
        self,
        texts: Sequence[str],
        prompt: str = "",
        step: Step | None = None,
        *,
        copies: npt.NDArray[np.int64] | None = None,
        wanted: npt.NDArray[np.bool_] | None = None,
        share: Share | None = None,
        needed: npt.NDArray[np.bool_] | None = None,
    ) -> Iterator[tuple[npt.NDArray[np.int64], Vectors]]:
        """Encode texts batch by batch, so that every batch can be stored when it is finished.

        The next window is tokenised while the model encodes this one. Unwanted texts leave gaps in
        the batches and change no other batch: rounding depends on the batch of a text, and so an
        interrupted run that goes on gets the vectors that it would have got without interruption.

        Args:
            texts: the inputs, preferably distinct.
            prompt: prefix of every text.
            step: reports texts and tokens of every batch.
            copies: ``(n_texts,)``: how many input texts each one counts for in ``step``.
            wanted: ``(n_texts,)``: the texts to encode; None encodes all.
            share: the batches of them to encode; None encodes all.
            needed: ``(n_texts,)``: texts whose batches are encoded beside the share.

        Yields:
            The rows of one batch, ``(batch,)``, and their ``(batch, dim)`` float32 pooled vectors,
            neither normalised nor truncated.

        Raises:
            DamagedError: a vector is not finite, or zero.
        """
        skipped = self._prompt_tokens(prompt) if prompt and not self.settings.pool_prompt else 0
        copies = np.ones(len(texts), np.int64) if copies is None else copies
        wanted = np.ones(len(texts), np.bool_) if wanted is None else wanted
        windows = [slice(start, start + WINDOW) for start in range(0, len(texts), WINDOW)]
        windows = [
            window
            for window in windows
            if wanted[window].any()
            and (
                share is None
                or share.takes_some_of(window.start // WINDOW)
                or (needed is not None and needed[window].any())
            )
        ]

        def batches() -> Iterator[Batch]:
            """Yield the batches of all windows, so that the model does not wait at their ends."""
            for window, encoded in self._tokenised_ahead(texts, windows, prompt):
                of_window = share and share.beginning(share.first + window.start // WINDOW)
                beside = None if needed is None else needed[window]
                for batch in self._batches(encoded, skipped, wanted[window], of_window, beside):
                    yield replace(batch, rows=window.start + batch.rows)

        for batch, pooled in self.forward.run(batches()):
            of_rows = [texts[row] for row in batch.rows.tolist()]
            refuse_unusable(pooled, of_rows, self.settings.dtype)
            if step is not None:
                step.advance(int(copies[batch.rows].sum()), batch.tokens)
            yield batch.rows, pooled

    def _tokenised_ahead(
        self, texts: Sequence[str], windows: Sequence[slice], prompt: str
    ) -> Iterator[tuple[slice, dict[str, list[list[int]]]]]:
        """Yield windows with their tokens; the next is tokenised while one is encoded."""
        with ThreadPoolExecutor(1, thread_name_prefix="tokenise") as pool:
            ahead = [pool.submit(self._tokenised, texts[each], prompt) for each in windows[:1]]
            for place, window in enumerate(windows):
                now = ahead.pop()
                following = windows[place + 1 : place + 2]
                ahead += [pool.submit(self._tokenised, texts[each], prompt) for each in following]
                with self.progress.step("tokenise"):
                    encoded = now.result()
                yield window, encoded

    def _tokenised(self, texts: Sequence[str], prompt: str) -> dict[str, list[list[int]]]:
        return self._ids([prompt + text for text in texts])

    def _ids(self, texts: list[str]) -> dict[str, list[list[int]]]:
        encoded = self.tokenizer(
            texts, truncation=True, max_length=self.settings.max_length, padding=False
        )
        return dict(encoded)

    def _batches(
        self,
        encoded: Mapping[str, list[list[int]]],
        skipped: int,
        wanted: npt.NDArray[np.bool_],
        share: Share | None = None,
        needed: npt.NDArray[np.bool_] | None = None,
    ) -> Iterator[Batch]:
        """Yield batches of similar length within the token budget, longest texts first.

        Padding is on the right, whatever the tokenizer's side: there, all models number a text's
        tokens as they do without padding, and so its vector does not depend on its batch.
        """
        lengths = np.array([len(ids) for ids in encoded["input_ids"]], np.int64)
        for number, together in enumerate(batches_by_length(lengths, self.batch_tokens)):
            rows = together[wanted[together]]
            own = share is None or share.takes(0, number)
            if not len(rows) or not (own or (needed is not None and needed[rows].any())):
                continue
            longest = max(int(lengths[rows[0]]), 1)
            features = {
                name: padded(
                    [column[row] for row in rows], longest, self._pad_value(name), left=False
                )
                for name, column in encoded.items()
            }
            pooled = features["attention_mask"]
            if skipped:
                pooled = _without_prompt(pooled, skipped)
            yield Batch(rows, features, pooled, int(lengths[rows].sum()), skipped)

    def _pad_value(self, name: str) -> int:
        if name == "input_ids":
            pad = self.tokenizer.pad_token_id
            return int(pad if pad is not None else self.tokenizer.eos_token_id or 0)
        return int(self.tokenizer.pad_token_type_id) if name == "token_type_ids" else 0

    def _prompt_tokens(self, prompt: str) -> int:
        """Return the length of a prompt without a special token at its end.

        A prompt beyond the maximum length is cut, as with a text.
        """
        [ids] = self._ids([prompt])["input_ids"]
        return len(ids) - (1 if ids and ids[-1] in self.tokenizer.all_special_ids else 0)


class Distinct:
    """The distinct texts of a list."""

    def __init__(self, texts: Sequence[str]) -> None:
        """Collect the distinct texts.

        Args:
            texts: the texts, with repetitions.
        """
        first: dict[str, int] = {}
        self._position = np.fromiter(
            (first.setdefault(text, len(first)) for text in texts), np.int64, len(texts)
        )
        self.texts = list(first)
        """The distinct texts, in order of first appearance."""
        self.copies = np.bincount(self._position, minlength=len(first))
        """``(n_distinct,)``: number of occurrences."""

    def spread(self, vectors: Vectors) -> Vectors:
        """Expand ``(n_distinct, dim)`` vectors to one row per text."""
        repeated = len(self._position) != len(self.texts)
        return vectors[self._position] if repeated else vectors


def finished(vectors: Vectors, settings: Settings, normalize: bool | None = None) -> Vectors:
    """Normalise pooled vectors, then truncate them to ``truncate_dim``.

    Args:
        vectors: ``(n, dim)`` float32 pooled vectors.
        settings: the model's settings.
        normalize: scale rows to unit L2 norm first; None follows the settings.

    Raises:
        UsageError: the vectors have fewer dimensions than ``truncate_dim``. Stored vectors come
            here without an encoder, so its own check is not enough.
    """
    _check_dimensions(settings, vectors.shape[1])
    if settings.normalize if normalize is None else normalize:
        vectors = normalized(vectors)
    return vectors if settings.truncate_dim is None else vectors[:, : settings.truncate_dim]


def _check_dimensions(settings: Settings, dimension: int) -> None:
    if settings.truncate_dim is not None and settings.truncate_dim > dimension:
        raise UsageError(
            f"--truncate-dim {settings.truncate_dim} is more than the model's {dimension}"
            " dimensions."
        )


def normalized(vectors: Vectors) -> Vectors:
    """Scale rows to unit L2 norm; as in torch's ``normalize``, norms are at least 1e-12."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: Vectors = np.divide(vectors, np.maximum(norms, 1e-12), dtype=np.float32)
    return scaled


def load_tokenizer(
    files: ModelFiles, settings: Settings, *, trust_remote_code: bool = False
) -> PreTrainedTokenizerBase:
    """Load the model's tokenizer.

    Raises:
        MissingError: the folder has no tokenizer, or it needs remote code.
        DamagedError: the tokenizer's files are damaged.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoTokenizer

    body = read_body(transformer_folder(files.folder))
    folder = files.tokenizer
    for path in folder.glob("*"):
        size = path.stat().st_size if path.is_file() else _POINTER_BYTES
        if size < _POINTER_BYTES:
            refuse_pointer(path, path.read_bytes())
        if size > _LARGEST_VOCABULARY and path.name.startswith(_VOCABULARIES):
            raise DamagedError(
                f"{path} has {size:,} bytes; no tokenizer has more than"
                f" {_LARGEST_VOCABULARY // 2**20} MiB. Such a file is made to fill memory, and is"
                " not read."
            )
    options: dict[str, Any] = {"trust_remote_code": trust_remote_code, "local_files_only": True}
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            str(folder), **{**body.tokenizer, **settings.tokenizer, **options}
        )
    except StrictDataclassError as error:
        raise DamagedError(
            f"{files.weights / CONFIG} cannot be used by transformers ({one_line(error)})."
        ) from error
    except (OSError, ValueError, ImportError) as error:
        raise MissingError(load_failure(files, error)) from error
    except Exception as error:  # the library's base class, for a tokenizer.json it cannot read
        raise DamagedError(
            f"The tokenizer in {folder} cannot be read ({type(error).__name__}: {one_line(error)})."
        ) from error
    _refuse_empty(tokenizer, folder)
    if settings.lower_case:
        _lower_case(tokenizer)
    if settings.pooling == Pooling.LAST:
        ensure_end_token(tokenizer, folder)
    return tokenizer


def _refuse_empty(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Refuse the tokenizer that transformers makes up, without words, where there are no files."""
    known = type(tokenizer).vocab_files_names.values()
    names = sorted({*known, "tokenizer.json"})
    if known and not any((folder / name).is_file() for name in names):
        raise MissingError(
            f"The folder {folder} has no tokenizer of its own ({', '.join(names)}). Copy the"
            " tokenizer's files of the model into it."
        )


def _lower_case(tokenizer: Any) -> None:
    """Make a tokenizer lower-case texts, but not the special tokens in them.

    As sentence-transformers does with ``do_lower_case``.
    """
    from tokenizers.normalizers import Lowercase, Sequence

    if not tokenizer.is_fast:
        tokenizer.do_lower_case = True
        return
    own = tokenizer.backend_tokenizer.normalizer
    steps: list[Any] = [own] if own is not None else []
    if isinstance(own, Sequence):
        steps = [own[index] for index in range(len(own))]
    if not any(isinstance(step, Lowercase) for step in steps):
        tokenizer.backend_tokenizer.normalizer = Sequence([Lowercase(), *steps])


def load_failure(files: ModelFiles, error: Exception) -> str:
    """Return the message for a model that transformers cannot load."""
    if "trust_remote_code" in str(error):
        return (
            f"{files.name} needs Python code from its repository, which bge-eval does not run by"
            " default. If you trust its authors, add --trust-remote-code."
        )
    return f"{files.name} could not be loaded from {files.folder}: {one_line(error)}"


def _without_prompt(mask: Tokens, tokens: int) -> Tokens:
    start = mask.argmax(axis=1)[:, None]
    rest: Tokens = mask * (np.arange(mask.shape[1])[None, :] >= start + tokens)
    return rest
