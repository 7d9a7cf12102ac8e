"""What an interrupted run has left of one call: its scores, or its representations of texts.

Vectors that any later run may use are in the user's store. What serves one task alone (a
reranker's scores, a server's vectors, BGE-M3's representations) is kept in a store of the task
until its result is saved; see `bge_eval.results.unfinished`.

A row belongs to its call: to the same inputs in the same order. So a continued call makes the
batches of the interrupted one, and equal inputs in different batches keep their own rounding.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bge_eval.encode.shards import Keys, text_keys
from bge_eval.encode.store import EmbeddingStore
from bge_eval.progress import Progress
from bge_eval.records import Vectors

_WIDTH = 256
"""Numbers in a row of the store, of which a record takes as many as it needs."""

Rows = npt.NDArray[np.int64]


class CallScores:
    """The scores of one call, each with its pair's place."""

    def __init__(
        self,
        store: EmbeddingStore | None,
        pairs: Sequence[tuple[str, str]],
        progress: Progress | None = None,
    ) -> None:
        """Read the scores that an interrupted run has computed.

        Args:
            store: the task's unfinished work; None keeps nothing.
            pairs: the pairs of the call, all of them.
            progress: is told how many scores were there.
        """
        self.values = np.full(len(pairs), np.nan)
        """``(n_pairs,)`` float64; not a number where a score is lacking."""
        self.known = np.zeros(len(pairs), np.bool_)
        """``(n_pairs,)``: which scores are there."""
        self.is_continued = False
        """Whether an interrupted run has computed some of them."""
        self._space = None
        if store is None or not pairs:
            return
        self._space = store.space("scores", {"of": "pairs"})
        self._keys = _row_keys((text for pair in pairs for text in pair), len(pairs))
        self.known, halves = self._space.get(self._keys)
        if halves is not None:
            self.values[self.known] = halves.view(np.float64)[:, 0]
            self.is_continued = True
            _tell(progress, int(self.known.sum()))

    def lacks(self, rows: Rows | Sequence[int]) -> bool:
        """Return whether one of some pairs has no score yet."""
        return not self.known[rows].all()

    def put(self, rows: Rows | Sequence[int], scores: Any) -> None:
        """Take the scores of a batch, which outlive this process if they are finite.

        Args:
            rows: ``(batch,)``: the places of its pairs.
            scores: ``(batch,)``, or one number for all.
        """
        self.values[rows] = scores
        self.known[rows] = True
        new = self.values[rows]
        if self._space is not None and np.isfinite(new).all():
            self._space.put(self._keys[rows], new.reshape(-1, 1).view(np.float32))

    def forget(self) -> None:
        """Drop all scores: what gave them has changed."""
        self.known[:] = False
        self.is_continued = False
        if self._space is not None:
            self._space.clear()


class CallRecords:
    """The representations of one call's texts: arrays of any length."""

    def __init__(
        self,
        store: EmbeddingStore | None,
        kind: str,
        context: str,
        texts: Sequence[str],
        progress: Progress | None = None,
    ) -> None:
        """Name the call.

        Args:
            store: the task's unfinished work; None keeps nothing.
            kind: what the records are.
            context: what they depend on beside the texts: a prompt.
            texts: the texts of the call, all of them.
            progress: is told how many texts were finished.
        """
        self._progress = progress
        self._count = len(texts)
        self._space = None if store is None else store.space(kind, {"of": kind})
        if self._space is not None:
            self._call = _digest([context, *texts])

    def get(self) -> dict[int, list[Vectors]]:
        """Return text's place → its arrays, of texts that an interrupted run has finished."""
        if self._space is None or not self._count:
            return {}
        known, first = self._space.get(self._keys([(row, 0) for row in range(self._count)]))
        if first is None:
            return {}
        places = np.flatnonzero(known).tolist()
        pieces = (first[:, 0].view(np.int32) + _WIDTH - 1) // _WIDTH
        further = [
            (row, piece)
            for row, count in zip(places, pieces.tolist(), strict=True)
            for piece in range(1, count)
        ]
        parts = {row: [first[index]] for index, row in enumerate(places)}
        if further:
            there, rest = self._space.get(self._keys(further))
            if rest is not None:
                rows = [row for (row, _), is_there in zip(further, there, strict=True) if is_there]
                for row, part in zip(rows, rest, strict=True):
                    parts[row].append(part)
        whole = {
            row: _unpacked(np.concatenate(parts[row]))
            for row, count in zip(places, pieces.tolist(), strict=True)
            if len(parts[row]) == count
        }
        _tell(self._progress, len(whole))
        return whole

    def put(self, rows: Rows | Sequence[int], arrays: Sequence[Sequence[npt.NDArray[Any]]]) -> None:
        """Keep the arrays of a batch's texts.

        Args:
            rows: ``(batch,)``: the places of the texts.
            arrays: for each text its arrays of float32 or int32, of one or two dimensions.
        """
        if self._space is None or not len(rows):
            return
        packed = [_packed(each).reshape(-1, _WIDTH) for each in arrays]
        keys = self._keys(
            [
                (int(row), piece)
                for row, pieces in zip(rows, packed, strict=True)
                for piece in range(len(pieces))
            ]
        )
        self._space.put(keys, np.concatenate(packed))

    def _keys(self, pieces: Iterable[tuple[int, int]]) -> Keys:
        return text_keys([f"{self._call} {row} {piece}" for row, piece in pieces])


def _tell(progress: Progress | None, count: int) -> None:
    """Report what was there, in a phase of its own: the model spent no time on it."""
    if progress is not None and count:
        with progress.step("store") as step:
            step.advance(count)


def _packed(arrays: Sequence[npt.NDArray[Any]]) -> Vectors:
    """Return arrays of 4-byte numbers as one, which begins with its length and their shapes."""
    shapes = [(array.shape[0], array.shape[1] if array.ndim == 2 else -1) for array in arrays]
    body = [np.ascontiguousarray(array).reshape(-1).view(np.float32) for array in arrays]
    length = 2 + 2 * len(arrays) + sum(map(len, body))
    numbers = [length, len(arrays), *(size for shape in shapes for size in shape)]
    head = np.array(numbers, np.int32).view(np.float32)
    padding = np.zeros(-length % _WIDTH, np.float32)
    return np.concatenate([head, *body, padding])


def _unpacked(record: Vectors) -> list[Vectors]:
    """Return the arrays of a record; those of int32 are seen as float32."""
    numbers = record.view(np.int32)
    count = int(numbers[1])
    shapes = numbers[2 : 2 + 2 * count].reshape(-1, 2).tolist()
    start, arrays = 2 + 2 * count, []
    for rows, columns in shapes:
        size = rows * max(columns, 1) if columns else 0
        array = record[start : start + size]
        arrays.append(array if columns < 0 else array.reshape(rows, columns))
        start += size
    return arrays


def _digest(texts: Iterable[str]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for text in texts:
        raw = text.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "big") + raw)
    return digest.hexdigest()


def _row_keys(texts: Iterable[str], count: int) -> Keys:
    call = _digest(texts)
    return text_keys([f"{call} {row}" for row in range(count)])
