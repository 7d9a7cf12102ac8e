"""Shards: files of vectors with their keys and a checksum, written once and never changed.

::

    header    magic, number of vectors, dimension, checksum of the rest
    keys      the upper halves, sorted, then the lower halves
    rows      the row of each key
    vectors   (n, dimension) float32

A vector's key is a 128-bit hash of its text. The sorted keys allow batched lookups in a
memory-mapped file.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import secrets
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bge_eval.records import Vectors

Keys = npt.NDArray[np.uint64]
"""``(n, 2)``: the halves of the texts' hashes."""

Bytes = npt.NDArray[np.uint8]
"""The bytes of a file."""

HEADER = np.dtype([("magic", "S16"), ("count", "<u8"), ("dimension", "<u8"), ("crc", "<u8")])
_MAGIC = b"bge-eval shard 1"


class TruncatedError(ValueError):
    """The file ends within a shard."""


def text_keys(texts: Sequence[str]) -> Keys:
    """Hash texts to ``(n_texts, 2)`` uint64."""
    joined = b"".join(
        hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        for text in texts
    )
    return np.frombuffer(joined, np.dtype("<u8")).reshape(-1, 2)


class Shard:
    """Vectors with their keys, in a memory-mapped file."""

    def __init__(self, raw: Bytes) -> None:
        """Verify a shard.

        Args:
            raw: ``(n_bytes,)`` that begin with the shard; what follows it is ignored.

        Raises:
            TruncatedError: there are fewer bytes than its header says.
            ValueError: this is no shard, or its checksum does not match.
        """
        if len(raw) < HEADER.itemsize:
            raise TruncatedError("it is truncated")
        header = raw[: HEADER.itemsize].view(HEADER)[0]
        if header["magic"] != _MAGIC:
            raise ValueError("it does not begin as a shard does")
        count, dimension = int(header["count"]), int(header["dimension"])
        self.size = shard_size(count, dimension)
        """Number of its bytes."""
        if len(raw) < self.size:
            raise TruncatedError("it is truncated")
        body = raw[HEADER.itemsize : self.size]
        if zlib.crc32(body.data) != int(header["crc"]):
            raise ValueError("its checksum does not match")
        self.count = count
        self._raw = raw
        self._high = body[: 8 * count].view("<u8")
        self._low = body[8 * count : 16 * count].view("<u8")
        self._row = body[16 * count : 20 * count].view("<u4")
        self.vectors = body[20 * count :].view("<f4").reshape(count, dimension)

    def find(self, keys: Keys) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
        """Return which keys are in the shard, ``(n,)`` bool, and their rows."""
        index = np.searchsorted(self._high, keys[:, 0])
        index[index == self.count] = 0
        hit = (self._high[index] == keys[:, 0]) & (self._low[index] == keys[:, 1])
        return hit, self._row[index[hit]].astype(np.int64)

    def release(self) -> None:
        """Give the pages that were read back to the system, which reads them again if need be.

        Every page of a mapping that was read counts as memory of the process.
        """
        mapping = getattr(self._raw, "_mmap", None)
        if mapping is not None and hasattr(mmap, "MADV_DONTNEED"):
            mapping.madvise(mmap.MADV_DONTNEED)

    def keys(self) -> Keys:
        """Return the keys in row order."""
        keys = np.empty((self.count, 2), np.uint64)
        keys[self._row] = np.stack([self._high, self._low], axis=1)
        return keys


def shard_size(count: int, dimension: int) -> int:
    """Return the size in bytes of a shard with a number of vectors."""
    return HEADER.itemsize + count * (20 + 4 * dimension)


def read_shard(path: Path) -> Shard:
    """Open and verify a shard's file.

    Raises:
        ValueError: the file is truncated, or its checksum does not match.
        OSError: the file cannot be read.
    """
    if not path.stat().st_size:
        raise TruncatedError("it is empty")
    raw = np.memmap(path, np.uint8, "r")
    shard = Shard(raw)
    if len(raw) != shard.size:
        raise ValueError("it is longer than its header says")
    return shard


def encoded(keys: Keys, vectors: Vectors) -> bytes:
    """Return a shard's bytes.

    Args:
        keys: the keys of the vectors.
        vectors: ``(n, dim)`` float32.
    """
    order = np.argsort(keys[:, 0], kind="stable").astype(np.uint32)
    body = b"".join(
        part.tobytes()
        for part in (
            np.ascontiguousarray(keys[order, 0], "<u8"),
            np.ascontiguousarray(keys[order, 1], "<u8"),
            order.astype("<u4"),
            np.ascontiguousarray(vectors, "<f4"),
        )
    )
    header = np.array([(_MAGIC, len(keys), vectors.shape[1], zlib.crc32(body))], HEADER)
    return header.tobytes() + body


def write_shard(folder: Path, keys: Keys, vectors: Vectors) -> Path:
    """Write a shard under a temporary name, then rename it, so that it is never partial."""
    name = new_name()
    staged, path = folder / f".{name}", folder / f"{name}.shard"
    try:
        with staged.open("wb") as file:
            file.write(encoded(keys, vectors))
            file.flush()
            os.fsync(file.fileno())  # else a crash of the machine may leave an empty file
        staged.replace(path)
    finally:
        staged.unlink(missing_ok=True)
    return path


def merged(shards: Sequence[Shard]) -> tuple[Keys, Vectors]:
    """Return the vectors of several shards, each key once, in the order of the shards."""
    keys = np.concatenate([shard.keys() for shard in shards])
    _, first = np.unique(keys, axis=0, return_index=True)
    first.sort()
    return keys[first], np.concatenate([shard.vectors for shard in shards])[first]


def headers(path: Path) -> Iterator[tuple[int, int]]:
    """Yield the number of vectors and the dimension of every whole shard in a file."""
    size, offset = path.stat().st_size, 0
    with path.open("rb") as file:
        while offset + HEADER.itemsize <= size:
            file.seek(offset)
            header = np.frombuffer(file.read(HEADER.itemsize), HEADER)[0]
            count, dimension = int(header["count"]), int(header["dimension"])
            offset += shard_size(count, dimension)
            if header["magic"] != _MAGIC or offset > size:
                return
            yield count, dimension


def new_name() -> str:
    """Return a name for a file that no other process uses; names sort by time."""
    return f"{time.time_ns():020d}-{secrets.token_hex(4)}"
