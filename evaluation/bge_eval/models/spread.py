"""The encoding of texts by workers elsewhere, in the batches of one machine.

A window of texts is tokenised and batched together (`bge_eval.runtime.text_encoder`), so a window,
or every n-th batch of one, is what a worker gets. Whoever computes a batch, it is the batch that
one machine would have made, and the vectors are the same. This process reads the texts, keeps the
vectors and searches; it holds the windows in flight, never the corpus.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn, Protocol

import numpy as np
import numpy.typing as npt

from bge_eval.data.texts import document_texts
from bge_eval.encode.part import Share
from bge_eval.encode.shards import Keys, text_keys
from bge_eval.errors import DamagedError, StorageError
from bge_eval.models.form import Form
from bge_eval.records import Vectors
from bge_eval.runtime.batches import WINDOW
from bge_eval.runtime.text_encoder import Batch, Distinct, TextEncoder, load_tokenizer
from bge_eval.search.exact import chunk_rows

if TYPE_CHECKING:
    from datasets import Dataset

    from bge_eval.models.transformer import EncoderModel
    from bge_eval.progress import Step

_UNITS = 4
"""Pieces of work that should be left for each worker; when fewer windows are left, they are cut."""
_LEAST = 32
"""Texts below which a window is not cut further."""


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """Texts that are batched together."""

    texts: Sequence[str]
    """The inputs, distinct."""
    form: Form
    """What is put around each; it chooses the encoder."""
    prompt: str
    """What the encoder puts before each."""
    wanted: npt.NDArray[np.bool_]
    """``(n_texts,)``: the texts to encode; the others keep their places in the batches."""
    copies: npt.NDArray[np.int64]
    """``(n_texts,)``: how many texts of the task each one counts for."""
    start: int
    """The place of the first text among all texts of the call."""
    pieces: int
    """The number of workers that share the window, batch by batch."""
    keys: Keys | None = None
    """``(n_texts, 2)``: the keys of the texts in the store."""


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """The vectors of one piece of a window."""

    rows: npt.NDArray[np.int64]
    """``(n,)``: the texts, by their place in the window."""
    vectors: Vectors
    """``(n, dim)`` float32, neither normalised nor truncated."""
    tokens: int
    """The number of their tokens."""


@dataclass(slots=True)
class Elsewhere:
    """A model that is loaded by the workers: what is known of it here, in place of a `Forward`."""

    backend: str
    """Name of the backend."""
    device: str
    """Device of a worker."""
    dimension: int
    """Length of the vectors."""
    parameters: int
    """Number of weights; 0 if the backend does not report it."""
    batch_tokens: int
    """Tokens of a batch, padding included."""

    def run(self, batches: Iterable[Batch]) -> NoReturn:
        """Raise: batches are computed by the workers."""
        raise NotImplementedError("the weights are loaded by the workers")


class Workers(Protocol):
    """Workers that encode with the same model as this process would."""

    @property
    def count(self) -> int:
        """Return the number of workers."""

    def open(self, model: EncoderModel) -> Elsewhere:
        """Return what a worker says of its model, which is loaded for it.

        Raises:
            UsageError: a worker's model differs from the one here.
            NotReadyError: no worker can start, or load the model.
        """

    def encode(
        self, model: EncoderModel, windows: Iterable[Window]
    ) -> Iterator[tuple[Window, Encoded]]:
        """Yield the pieces of all windows, in any order; few windows are taken ahead.

        Raises:
            NotReadyError: no worker is left, or one piece ends every worker.
        """


def open_spread(model: EncoderModel, workers: Workers) -> SpreadEncoder:
    """Return the encoder whose batches the workers compute; no weights are loaded here."""
    facts = workers.open(model)
    return SpreadEncoder(model, facts, lambda windows: workers.encode(model, windows), Form())


class SpreadEncoder(TextEncoder):
    """An encoder whose batches are computed by workers."""

    def __init__(
        self,
        model: EncoderModel,
        facts: Elsewhere,
        encode: Callable[[Iterable[Window]], Iterator[tuple[Window, Encoded]]],
        form: Form,
    ) -> None:
        """Load the tokenizer alone, which some models need to make their inputs.

        Args:
            model: the model whose workers these are.
            facts: what the workers say of it.
            encode: gives windows to the workers.
            form: what is put around each text.
        """
        super().__init__(
            load_tokenizer(model.files, model.settings, trust_remote_code=model.trusts_remote_code),
            facts,
            model.settings,
            batch_tokens=facts.batch_tokens,
            progress=model.progress,
        )
        self._model = model
        self._facts = facts
        self._encode = encode
        self._form = form

    def of(self, form: Form) -> SpreadEncoder:
        """Return the same encoder for texts of another form."""
        if form == self._form:
            return self
        return SpreadEncoder(self._model, self._facts, self._encode, form)

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
        """Yield what the workers encode; see `TextEncoder.parts`. There are no shares of shares."""
        assert share is None and needed is None, "--engine and --shard exclude each other"
        copies = np.ones(len(texts), np.int64) if copies is None else copies
        wanted = np.ones(len(texts), np.bool_) if wanted is None else wanted
        total, workers = -(-len(texts) // WINDOW), self._model.workers
        assert workers is not None
        count = workers.count

        def windows() -> Iterator[Window]:
            for start in range(0, len(texts), WINDOW):
                rows = slice(start, start + WINDOW)
                if wanted[rows].any():
                    pieces = _pieces(int(wanted[rows].sum()), total - start // WINDOW, count)
                    of_window = (texts[rows], self._form, prompt, wanted[rows], copies[rows])
                    yield Window(*of_window, start, pieces)

        encoded = 0
        for window, piece in self._encode(windows()):
            if step is not None:
                step.advance(int(window.copies[piece.rows].sum()), piece.tokens)
            encoded += len(piece.rows)
            yield window.start + piece.rows, piece.vectors
        _refuse_gaps(encoded, int(wanted.sum()), self._model.files.name)


def encode_ahead(model: EncoderModel, workers: Workers, corpus: Dataset, form: Form) -> None:
    """Encode and store a corpus before it is searched.

    The search of a chunk waits for the chunk's vectors, and workers would wait for the search. Here
    the windows of many chunks are under way together, so that they do not.

    Args:
        model: an encoder with a store.
        workers: who encode.
        corpus: the documents.
        form: what is put around each.

    Raises:
        StorageError: vectors cannot be stored, so encoding more would be in vain.
    """
    space, encoder = model.space_of(form), model.encoder
    flying: set[int] = set()
    wanted = encoded = 0
    with model.progress.step("encode corpus", len(corpus), "documents") as step:

        def windows() -> Iterator[Window]:
            nonlocal wanted
            chunk = chunk_rows(encoder.dimension)
            total = -(-len(corpus) // WINDOW)
            done = 0
            for texts in document_texts(corpus, None, chunk):
                inputs, prompt = model.inputs(texts, form)
                distinct = Distinct(inputs)
                keys = text_keys(distinct.texts)
                known = space.knows(keys)
                halves = keys[:, 0].tolist()
                new = ~known & np.array([half not in flying for half in halves], np.bool_)
                flying.update(half for half, is_new in zip(halves, new, strict=True) if is_new)
                wanted += int(new.sum())
                step.advance(int(distinct.copies[~new].sum()))
                for start in range(0, len(new), WINDOW):
                    rows = slice(start, start + WINDOW)
                    if (texts_to_encode := int(new[rows].sum())) > 0:
                        left = max(total - (done + start) // WINDOW, 1)
                        pieces = _pieces(texts_to_encode, left, workers.count)
                        of_window = (distinct.texts[rows], form, prompt, new[rows])
                        yield Window(*of_window, distinct.copies[rows], start, pieces, keys[rows])
                done += len(texts)

        for window, piece in workers.encode(model, windows()):
            assert window.keys is not None
            keys = window.keys[piece.rows]
            step.advance(int(window.copies[piece.rows].sum()), piece.tokens)
            with model.progress.step("store"):
                space.put(keys, piece.vectors, encoder.parameters)
            if space.failure is not None:
                raise StorageError(space.failure, space.folder, "Free space, and run it again.")
            flying.difference_update(keys[:, 0].tolist())
            encoded += len(keys)
    _refuse_gaps(encoded, wanted, model.files.name)


def _pieces(texts: int, windows: int, workers: int) -> int:
    """Return into how many pieces a window is cut, given how many windows are left with it."""
    return max(1, min(workers, -(-_UNITS * workers // windows), texts // _LEAST))


def _refuse_gaps(encoded: int, wanted: int, name: str) -> None:
    """Refuse pieces that do not fit together.

    Raises:
        DamagedError: workers cut a window differently, so texts are missing or there twice.
    """
    if encoded != wanted:
        raise DamagedError(
            f"The workers encoded {encoded:,} of {wanted:,} texts with {name}: their tokenizers or"
            " their versions of bge-eval differ. Install the same versions on every node."
        )
