"""The journal of a process: every batch of vectors is on disk as soon as it is encoded.

A journal is a file of small shards, one after another, each written by one call and verified by
its own checksum. A killed process leaves a journal whose last shard may be partial; the next
process that opens the space makes a shard of the others. A lock, which the operating system
releases when a process ends in whatever way, tells the journals of running processes from those
of dead ones.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from bge_eval.encode.shards import (
    Keys,
    Shard,
    TruncatedError,
    encoded,
    merged,
    new_name,
    write_shard,
)
from bge_eval.records import Vectors

ENDING = ".journal"
_LOCK = ".lock"
_OLD = 86_400.0
"""Seconds after which a file under a temporary name is nobody's."""


class Journal:
    """The journal that this process writes in one space."""

    def __init__(self, folder: Path) -> None:
        """Lock a new journal and create it.

        Raises:
            OSError: the folder cannot be written.
        """
        self._path = folder / f"{new_name()}{ENDING}"
        # The lock first: a journal without one belongs to a dead process.
        self._lock = _lock_of(self._path)
        self._lock.acquire(timeout=0)
        self._file = self._path.open("wb", buffering=0)
        weakref.finalize(self, self._file.close)

    def append(self, keys: Keys, vectors: Vectors) -> None:
        """Write vectors; they outlive this process once this returns.

        Raises:
            OSError: the disk is full, or a limit on the size of files is reached.
        """
        rest = memoryview(encoded(keys, vectors))
        while rest:
            rest = rest[self._file.write(rest) :]

    def close(self, *, remove: bool) -> None:
        """Give the journal up.

        Args:
            remove: delete it, because its vectors are in a shard.
        """
        self._file.close()
        if remove:
            self._path.unlink(missing_ok=True)
            with suppress(OSError):
                Path(self._lock.lock_file).unlink()
        self._lock.release()


def recover(folder: Path, note: Callable[[str], None]) -> list[Shard]:
    """Turn the journals of dead processes into shards.

    Args:
        folder: the space's folder.
        note: receives a message about a damaged journal.

    Returns:
        The content of journals that cannot become shards, because the folder is read-only or the
        disk is full.
    """
    _remove_staged(folder)
    kept: list[Shard] = []
    # A process that died between its last two steps leaves the lock of a journal that is gone.
    left = (path for ending in (ENDING, _LOCK) for path in folder.glob(f"*{ending}"))
    for path in sorted({path.with_suffix(ENDING) for path in left}):
        lock = _lock_of(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:  # its process runs
            continue
        except OSError:  # a read-only folder
            kept += read_journal(path, note)
            continue
        try:
            shards = read_journal(path, note)
            try:
                if shards:
                    write_shard(folder, *merged(shards))
                path.unlink(missing_ok=True)
                Path(lock.lock_file).unlink(missing_ok=True)
            except OSError:
                kept += shards
        finally:
            lock.release()
    return kept


def _remove_staged(folder: Path) -> None:
    """Remove files that a killed process had begun: each took its name within moments."""
    with suppress(OSError):  # a read-only folder
        for path in folder.glob(".*"):
            if path.is_file() and time.time() - path.stat().st_mtime > _OLD:
                path.unlink(missing_ok=True)


def _lock_of(journal: Path) -> FileLock:
    return FileLock(journal.with_suffix(_LOCK), thread_local=False)


def read_journal(path: Path, note: Callable[[str], None]) -> list[Shard]:
    """Return the whole shards of a journal.

    Args:
        path: the journal, of a process that has ended or still writes.
        note: receives a message if it is damaged.
    """
    shards: list[Shard] = []
    offset = 0
    try:
        size = path.stat().st_size
        raw = np.memmap(path, np.uint8, "r") if size else np.empty(0, np.uint8)
        while offset < size:
            shards.append(Shard(raw[offset:]))
            offset += shards[-1].size
    except FileNotFoundError:  # another process recovered it
        return []
    except TruncatedError:  # the process died while it wrote this one
        pass
    except (OSError, ValueError) as error:
        note(
            f"The embeddings from byte {offset} of {path} are damaged ({error}) and computed again."
        )
    return shards
