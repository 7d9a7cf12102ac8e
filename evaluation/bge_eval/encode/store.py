"""The embedding store: a text is embedded once per model and prompt.

::

    <store>/<org__model>-<digest>/      a space: model identity × prompt
        space.json                      the hashed facts
        <time>-<random>.shard           thousands of vectors; written in one go, never changed

A vector's key is a 128-bit hash of its text. A shard stores its keys sorted, for batched lookups in
a memory-mapped file with a checksum. Every process writes new shards, so no lock is needed. If two
shards store the same text, their vectors differ by rounding at most; the first one is used.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bge_eval.encode.cache import cache_folder, entries_to_remove, remove_abandoned
from bge_eval.errors import UsageError
from bge_eval.records import Vectors

Keys = npt.NDArray[np.uint64]
"""``(n, 2)``: the halves of the texts' hashes."""

_MAGIC = b"bge-eval shard 1"
_HEADER = np.dtype([("magic", "S16"), ("count", "<u8"), ("dimension", "<u8"), ("crc", "<u8")])
_SHARD_BYTES = 64 * 2**20
_SHARD_SECONDS = 20.0
_SMALL_ROWS = 1024
_MANY_SMALL = 64
_LEAST_FREE = 2 * 2**30
"""Bytes of disk space to leave free; below them nothing more is stored."""


def default_store() -> Path:
    """Return the default folder of the store."""
    return cache_folder() / "embeddings"


def text_keys(texts: Sequence[str]) -> Keys:
    """Hash texts to ``(n_texts, 2)`` uint64."""
    joined = b"".join(
        hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        for text in texts
    )
    return np.frombuffer(joined, np.dtype("<u8")).reshape(-1, 2)


class _Shard:
    """A memory-mapped file of vectors."""

    def __init__(self, path: Path) -> None:
        """Open and verify a shard.

        Raises:
            ValueError: the file is truncated or its checksum does not match.
            OSError: the file cannot be read.
        """
        self.path = path
        raw = np.memmap(path, np.uint8, "r")
        if len(raw) < _HEADER.itemsize:
            raise ValueError("it is truncated")
        header = raw[: _HEADER.itemsize].view(_HEADER)[0]
        count, dimension = int(header["count"]), int(header["dimension"])
        body = raw[_HEADER.itemsize :]
        if header["magic"] != _MAGIC or len(body) != count * (20 + 4 * dimension):
            raise ValueError("it is truncated")
        if zlib.crc32(body.data) != int(header["crc"]):
            raise ValueError("its checksum does not match")
        self.count = count
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

    def keys(self) -> Keys:
        """Return the keys in row order."""
        keys = np.empty((self.count, 2), np.uint64)
        keys[self._row] = np.stack([self._high, self._low], axis=1)
        return keys


class Space:
    """The stored vectors of one model with one prompt."""

    def __init__(self, folder: Path, facts: dict[str, Any], note: Callable[[str], None]) -> None:
        """Open a space; its folder is created with the first shard.

        Args:
            folder: the folder of the shards.
            facts: the model's identity and the prompt.
            note: receives messages about damaged shards and a full disk.
        """
        self._folder = folder
        self._facts = facts
        self._note = note
        self._paths = sorted(folder.glob("*.shard")) if folder.is_dir() else []
        self._shards: dict[Path, _Shard | None] = {}
        self._next = 0
        self._waiting: dict[tuple[int, int], Vectors] = {}
        self._written = time.monotonic()
        self._closed = False
        if self._paths:
            with suppress(OSError):  # the store is read-only for this user
                os.utime(folder)

    def get(self, keys: Keys) -> tuple[npt.NDArray[np.bool_], Vectors | None]:
        """Look up vectors.

        Args:
            keys: the keys of texts.

        Returns:
            Which keys are stored, ``(n,)`` bool, and their vectors in the same order,
            ``(n_stored, dim)`` float32, None if none is stored.
        """
        stored = np.zeros(len(keys), np.bool_)
        vectors: Vectors | None = None
        pending = np.arange(len(keys))
        for shard in self._in_order():
            if not len(pending):
                break
            hit, rows = shard.find(keys[pending])
            if not len(rows):
                continue
            if vectors is None:
                vectors = np.empty((len(keys), shard.vectors.shape[1]), np.float32)
            vectors[pending[hit]] = shard.vectors[rows]
            stored[pending[hit]] = True
            pending = pending[~hit]
            self._next = (self._paths.index(shard.path) + 1) % len(self._paths)
        if self._waiting:
            for index in pending.tolist():
                vector = self._waiting.get((int(keys[index, 0]), int(keys[index, 1])))
                if vector is None:
                    continue
                if vectors is None:
                    vectors = np.empty((len(keys), len(vector)), np.float32)
                vectors[index], stored[index] = vector, True
        return stored, None if vectors is None else vectors[stored]

    def put(self, keys: Keys, vectors: Vectors) -> None:
        """Add vectors; they are written with the next shard, within seconds."""
        if self._closed:
            return
        for key, vector in zip(keys.tolist(), vectors, strict=True):
            self._waiting[key[0], key[1]] = vector
        size = len(self._waiting) * 4 * vectors.shape[1]
        if size >= _SHARD_BYTES or time.monotonic() - self._written >= _SHARD_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write the pending vectors as a shard."""
        if not self._waiting or self._closed:
            return
        keys = np.array(list(self._waiting), np.uint64).reshape(-1, 2)
        vectors = np.stack(list(self._waiting.values()))
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            if shutil.disk_usage(self._folder).free < _LEAST_FREE + vectors.nbytes:
                raise OSError(28, "less than 2 GiB would be left free on the disk")
            self._describe(vectors.shape[1])
            self._paths.append(_write(self._folder, keys, vectors))
            self._merge_small()
        except OSError as error:
            self._closed = True
            self._note(f"Embeddings are no longer stored in {self._folder.parent}: {error}.")
        self._waiting = {}
        self._written = time.monotonic()

    def _describe(self, dimension: int) -> None:
        path = self._folder / "space.json"
        if not path.is_file():
            staged = self._folder / f".{secrets.token_hex(4)}.json"
            text = json.dumps({**self._facts, "dimension": dimension}, indent=2, ensure_ascii=False)
            staged.write_text(text, encoding="utf-8")
            staged.replace(path)

    def _in_order(self) -> Iterator[_Shard]:
        """Yield the shards, from the one after the last hit."""
        # A corpus is read in the order in which it was written.
        for path in [*self._paths[self._next :], *self._paths[: self._next]]:
            if path not in self._shards:
                self._shards[path] = self._opened(path)
            shard = self._shards[path]
            if shard is not None:
                yield shard

    def _opened(self, path: Path) -> _Shard | None:
        try:
            return _Shard(path)
        except FileNotFoundError:  # pruned or merged by another process
            return None
        except OSError as error:
            self._note(f"Stored embeddings are unreadable ({path}: {error}) and computed again.")
            return None
        except ValueError as error:
            self._note(f"Stored embeddings are damaged ({path}: {error}) and computed again.")
            with suppress(OSError):
                path.unlink(missing_ok=True)
            return None

    def _merge_small(self) -> None:
        """Merge many small shards into one, to keep lookups fast."""
        limit = _HEADER.itemsize + _SMALL_ROWS * 2048
        small = [path for path in self._paths if 0 < _size(path) < limit]
        if len(small) < _MANY_SMALL:
            return
        # Another process may merge the same shards; it writes their vectors before it removes them.
        opened = {path: shard for path in small if (shard := self._opened(path)) is not None}
        if not opened:
            return
        keys = np.concatenate([shard.keys() for shard in opened.values()])
        _, first = np.unique(keys, axis=0, return_index=True)
        first.sort()
        vectors = np.concatenate([shard.vectors for shard in opened.values()])
        merged = _write(self._folder, keys[first], vectors[first])
        for path in opened:
            path.unlink(missing_ok=True)
        self._paths = sorted({*self._folder.glob("*.shard"), merged})
        self._shards = {}
        self._next = 0


def _size(path: Path) -> int:
    """Return a file's size in bytes, 0 if another process has removed it."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


class EmbeddingStore:
    """A folder of spaces."""

    def __init__(self, root: Path, note: Callable[[str], None] = lambda text: None) -> None:
        """Use a folder; it is created with the first shard.

        Args:
            root: the store's folder.
            note: receives messages about damaged shards and a full disk.
        """
        self.root = root
        self._note = note
        self._spaces: dict[str, Space] = {}

    def space(self, name: str, facts: dict[str, Any]) -> Space:
        """Return the space of a model and prompt.

        Args:
            name: the model's name, part of the folder's name.
            facts: everything that a vector depends on besides its text; JSON values.
        """
        canonical = json.dumps(facts, sort_keys=True, separators=(",", ":"))
        digest = hashlib.sha256(canonical.encode()).hexdigest()[:20]
        if digest not in self._spaces:
            folder = self.root / f"{name.replace('/', '__')}-{digest}"
            self._spaces[digest] = Space(folder, {"name": name, **facts}, self._note)
        return self._spaces[digest]

    def flush(self) -> None:
        """Write all pending vectors."""
        for space in self._spaces.values():
            space.flush()


@dataclass(frozen=True, slots=True)
class StoredSpace:
    """A space in a listing."""

    folder: Path
    """The folder of the space."""
    model: str
    """The model's name and precision."""
    prompt: str
    """The prompt of every text."""
    dimension: int
    """Length of the vectors."""
    texts: int
    """Number of vectors."""
    bytes: int
    """Size on disk."""
    used: float
    """Time of the last use, in seconds since 1970."""


def stored_spaces(root: Path) -> list[StoredSpace]:
    """Return the spaces of a store, the last used first."""
    spaces = []
    for path in root.glob("*/space.json"):
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
            sizes = [shard.stat().st_size for shard in path.parent.glob("*.shard")]
            used = path.parent.stat().st_mtime
        except (OSError, ValueError):
            continue
        dimension = int(facts.get("dimension", 0))
        texts = sum((size - _HEADER.itemsize) // (20 + 4 * dimension) for size in sizes)
        spaces.append(
            StoredSpace(
                path.parent,
                f"{facts.get('name', '?')} ({facts.get('dtype', '?')})",
                str(facts.get("prompt", "")),
                dimension,
                texts,
                sum(sizes),
                used,
            )
        )
    return sorted(spaces, key=lambda space: space.used, reverse=True)


def prune(
    root: Path,
    *,
    model: str | None = None,
    older_than: float | None = None,
    largest: int | None = None,
    everything: bool = False,
) -> list[StoredSpace]:
    """Remove spaces.

    Args:
        root: the store's folder.
        model: remove spaces of models whose name contains this, ignoring case.
        older_than: remove spaces unused for this many seconds.
        largest: remove the least recently used spaces until the store has at most so many bytes.
        everything: remove all spaces.

    Returns:
        The removed spaces.

    Raises:
        UsageError: no condition is set.
    """
    if not everything and model is None and older_than is None and largest is None:
        raise UsageError("Pass what to remove: --model, --older-than, --max-size or --all.")
    spaces = stored_spaces(root)
    removed = entries_to_remove(spaces, model, older_than, everything)
    if largest is not None:
        size = sum(space.bytes for space in spaces if space not in removed)
        for space in reversed(spaces):
            if size <= largest:
                break
            if space not in removed:
                removed.append(space)
                size -= space.bytes
    for space in removed:
        shutil.rmtree(space.folder, ignore_errors=True)
    remove_abandoned(root.glob("*/.*"))
    return removed


def _write(folder: Path, keys: Keys, vectors: Vectors) -> Path:
    """Write a shard under a temporary name, then rename it, so that it is never partial."""
    order = np.argsort(keys[:, 0], kind="stable").astype(np.uint32)
    parts = [
        np.ascontiguousarray(keys[order, 0], "<u8"),
        np.ascontiguousarray(keys[order, 1], "<u8"),
        order.astype("<u4"),
        np.ascontiguousarray(vectors, "<f4"),
    ]
    crc = 0
    for part in parts:
        crc = zlib.crc32(part.reshape(-1).view(np.uint8).data, crc)
    header = np.array([(_MAGIC, len(keys), vectors.shape[1], crc)], _HEADER)
    name = f"{time.time_ns():020d}-{secrets.token_hex(4)}"
    staged = folder / f".{name}"
    try:
        with staged.open("wb") as file:
            header.tofile(file)
            for part in parts:
                part.tofile(file)
        path = folder / f"{name}.shard"
        staged.replace(path)
    finally:
        staged.unlink(missing_ok=True)
    return path
