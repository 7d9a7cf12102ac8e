"""The embedding store: a text is embedded once per model and prompt.

::

    <store>/<org__model>-<digest>/      a space: model identity × prompt
        space.json                      the hashed facts
        <time>-<random>.shard           thousands of vectors; written in one go, never changed
        <time>-<random>.journal         the latest batches of a running or killed process
        <time>-<random>.shard.damaged   a shard whose checksum does not match, set aside

Every batch is appended to the process's journal as soon as it is encoded, and becomes part of a
shard later (`bge_eval.encode.shards`, `bge_eval.encode.journal`). Processes write files of their
own, so they never wait for each other. If two shards store the same text, their vectors differ by
rounding at most; the first one is used.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bge_eval.encode.cache import cache_folder, entries_to_remove
from bge_eval.encode.journal import ENDING, Journal, recover
from bge_eval.encode.shards import (
    Keys,
    Shard,
    headers,
    merged,
    read_shard,
    shard_size,
    write_shard,
)
from bge_eval.errors import UsageError
from bge_eval.records import Vectors
from bge_eval.shared.locks import remove_abandoned

_SHARD_BYTES = 64 * 2**20
_SMALL_ROWS = 1024
_MANY_SMALL = 64
_LEAST_FREE = 2 * 2**30
"""Bytes of disk space to leave free; below them nothing more is stored."""


def default_store() -> Path:
    """Return the default folder of the store."""
    return cache_folder() / "embeddings"


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
        self._recovered = recover(folder, note) if folder.is_dir() else []
        self._paths = sorted(folder.glob("*.shard")) if folder.is_dir() else []
        self.is_continued = bool(self._paths or self._recovered)
        """Whether an earlier process has stored vectors here."""
        self._shards: dict[Path, Shard | None] = {}
        self._next = 0
        self._waiting: dict[tuple[int, int], Vectors] = {}
        self._journal: Journal | None = None
        self._closed = False
        self.failure: OSError | None = None
        """Why nothing more is stored; None while vectors are stored."""
        self._parameters = 0
        # The vectors' dimension and the model's parameters, as far as space.json states them.
        self.sizes = _sizes(folder)
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
        for place, shard in self._in_order():
            if not len(pending):
                break
            hit, rows = shard.find(keys[pending])
            if not len(rows):
                shard.release()
                continue
            if vectors is None:
                vectors = np.empty((len(keys), shard.vectors.shape[1]), np.float32)
            vectors[pending[hit]] = shard.vectors[rows]
            shard.release()
            stored[pending[hit]] = True
            pending = pending[~hit]
            self._next = (place + 1) % max(len(self._paths), 1)
        if self._waiting:
            for index in pending.tolist():
                vector = self._waiting.get((int(keys[index, 0]), int(keys[index, 1])))
                if vector is None:
                    continue
                if vectors is None:
                    vectors = np.empty((len(keys), len(vector)), np.float32)
                vectors[index], stored[index] = vector, True
        return stored, None if vectors is None else vectors[stored]

    @property
    def folder(self) -> Path:
        """Return the folder of the shards."""
        return self._folder

    @property
    def packages(self) -> dict[str, str]:
        """Return the packages that the vectors depend on, with their versions."""
        return dict(self._facts.get("packages", {}))

    def knows(self, keys: Keys) -> npt.NDArray[np.bool_]:
        """Return which keys are stored, ``(n,)`` bool."""
        known = np.zeros(len(keys), np.bool_)
        for place, shard in self._in_order():
            pending = np.flatnonzero(~known)
            if not len(pending):
                break
            hit, _ = shard.find(keys[pending])
            shard.release()
            if hit.any():
                known[pending[hit]] = True
                self._next = (place + 1) % max(len(self._paths), 1)
        if self._waiting:
            for index in np.flatnonzero(~known).tolist():
                known[index] = (int(keys[index, 0]), int(keys[index, 1])) in self._waiting
        return known

    def put(self, keys: Keys, vectors: Vectors, parameters: int = 0) -> None:
        """Store vectors, of a model of some parameters: in the journal, in a shard later."""
        if self._closed:
            return
        self._parameters = parameters or self._parameters
        for key, vector in zip(keys.tolist(), vectors, strict=True):
            self._waiting[key[0], key[1]] = vector
        try:
            if self._journal is None:
                self._journal = self._new_journal(vectors.shape[1])
            self._journal.append(keys, vectors)
        except OSError as error:
            self._give_up(error)
        if len(self._waiting) * 4 * vectors.shape[1] >= _SHARD_BYTES:
            self.flush()

    def adopt(self, shard: Path) -> None:
        """Take up a shard that was written into the folder."""
        self._paths.append(shard)

    def flush(self) -> None:
        """Make a shard of the journal."""
        if not self._waiting or self._closed:
            return
        keys = np.array(list(self._waiting), np.uint64).reshape(-1, 2)
        vectors = np.stack(list(self._waiting.values()))
        try:
            self._paths.append(write_shard(self._folder, keys, vectors))
        except OSError as error:
            self._give_up(error)
            return
        self._waiting = {}
        if self._journal is not None:
            self._journal.close(remove=True)
            self._journal = None
        with suppress(OSError):  # the next shard reports what is wrong with the disk
            self._merge_small()

    def close(self) -> None:
        """Store nothing more, and forget what is in the journal."""
        self._closed = True
        self._waiting = {}
        if self._journal is not None:
            self._journal.close(remove=True)
            self._journal = None

    def clear(self) -> None:
        """Remove all vectors; others can be stored afterwards."""
        was_closed = self._closed
        self.close()
        self._closed = was_closed
        for path in self._paths:
            path.unlink(missing_ok=True)
        self._paths, self._recovered, self._shards, self._next = [], [], {}, 0
        self.is_continued = False

    def _new_journal(self, dimension: int) -> Journal:
        self._folder.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(self._folder).free < _LEAST_FREE + _SHARD_BYTES:
            raise OSError(28, "less than 2 GiB would be left free on the disk")
        self._describe(dimension)
        return Journal(self._folder)

    def _give_up(self, error: OSError) -> None:
        """Store nothing more; what is in the journal stays there."""
        self._closed = True
        self.failure = error
        if self._journal is not None:
            self._journal.close(remove=False)
            self._journal = None
        self._note(f"Embeddings are no longer stored in {self._folder.parent}: {error}.")

    def _describe(self, dimension: int) -> None:
        sizes = {"dimension": dimension}
        if parameters := self._parameters or self.sizes.get("parameters"):
            sizes["parameters"] = parameters
        if sizes != self.sizes:
            staged = self._folder / f".{secrets.token_hex(4)}.json"
            text = json.dumps({**self._facts, **sizes}, indent=2, ensure_ascii=False)
            staged.write_text(text, encoding="utf-8")
            staged.replace(self._folder / "space.json")
            self.sizes = sizes

    def _in_order(self) -> Iterator[tuple[int, Shard]]:
        """Yield the shards with their places, from the one after the last hit."""
        yield from ((self._next, shard) for shard in self._recovered)
        # A corpus is read in the order in which it was written.
        count = len(self._paths)
        for place in [*range(self._next, count), *range(min(self._next, count))]:
            path = self._paths[place]
            if path not in self._shards:
                self._shards[path] = self._opened(path)
            shard = self._shards[path]
            if shard is not None:
                yield place, shard

    def _opened(self, path: Path) -> Shard | None:
        try:
            return read_shard(path)
        except FileNotFoundError:  # pruned or merged by another process
            return None
        except OSError as error:
            self._note(f"Stored embeddings are unreadable ({path}: {error}) and computed again.")
            return None
        except ValueError as error:
            aside = path.with_name(f"{path.name}.damaged")
            with suppress(OSError):
                path.replace(aside)
            self._note(
                f"Stored embeddings are damaged ({path}: {error}): they are set aside as"
                f" {aside.name} and computed again."
            )
            return None

    def _merge_small(self) -> None:
        """Merge many small shards into one, to keep lookups fast."""
        limit = shard_size(_SMALL_ROWS, 512)
        small = [path for path in self._paths if 0 < _size(path) < limit]
        if len(small) < _MANY_SMALL:
            return
        # Another process may merge the same shards; it writes their vectors before it removes them.
        opened = {path: shard for path in small if (shard := self._opened(path)) is not None}
        if not opened:
            return
        whole = write_shard(self._folder, *merged(list(opened.values())))
        for path in opened:
            path.unlink(missing_ok=True)
        self._paths = sorted({*self._folder.glob("*.shard"), whole})
        self._shards = {}
        self._next = 0


def _sizes(folder: Path) -> dict[str, int]:
    """Return the sizes that a space's file states; {} without a readable one."""
    try:
        facts = json.loads((folder / "space.json").read_text(encoding="utf-8"))
        return {name: int(facts[name]) for name in ("dimension", "parameters") if name in facts}
    except (OSError, ValueError, TypeError, RecursionError):
        return {}


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

    def close(self) -> None:
        """Store nothing more; vectors that are only in a journal are lost."""
        for space in self._spaces.values():
            space.close()


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
            files = [*path.parent.glob("*.shard"), *path.parent.glob(f"*{ENDING}")]
            texts = sum(count for file in files for count, _ in headers(file))
            size = sum(file.stat().st_size for file in files)
            used = path.parent.stat().st_mtime
            dimension = int(facts.get("dimension", 0))
        except (OSError, ValueError, TypeError, AttributeError, RecursionError):
            continue
        spaces.append(
            StoredSpace(
                path.parent,
                f"{facts.get('name', '?')} ({facts.get('dtype', '?')})",
                str(facts.get("prompt", "")),
                dimension,
                texts,
                size,
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
