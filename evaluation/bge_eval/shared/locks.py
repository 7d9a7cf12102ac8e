"""Locks of files and folders that are written in a folder, in ``<folder>/.locks``.

The operating system releases a lock when its process ends, in whatever way. So what is written
under a lock that is free was left by a process that was killed. The files of locks stay: removing
one would let two processes hold the same lock.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

_FOLDER = ".locks"
_ABANDONED = 3600
"""Age in seconds at which a file that has no lock counts as left by a killed process."""


def lock_at(folder: Path, name: str) -> FileLock:
    """Return the lock of a name in a folder, not acquired.

    Raises:
        OSError: the folder of locks cannot be made.
    """
    locks = folder / _FOLDER
    locks.mkdir(parents=True, exist_ok=True)
    # Each call makes a lock of its own, so that threads exclude each other as processes do.
    return FileLock(locks / f"{name}.lock", thread_local=False)


@contextmanager
def alone(folder: Path, name: str, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the lock of a name; in a folder that is read-only, hold nothing.

    Args:
        folder: the folder in which something is made, if it can be written.
        name: the name of what is made.
        waiting: called before the wait for another process that makes it.
    """
    lock = None
    with suppress(OSError):
        lock = lock_at(folder, name)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            waiting()
            lock.acquire(poll_interval=0.1)
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def remove_left(folder: Path, left: Path, name: str, *, unlocked_before: bool) -> None:
    """Remove what a killed process left in a folder; what a running one writes stays.

    Args:
        folder: the folder of what is written.
        left: the file or folder.
        name: the name of the lock under which it was written.
        unlocked_before: whether an earlier version, which may still run, wrote such names without
            a lock. They are removed when they are old.
    """
    if unlocked_before and not (folder / _FOLDER / f"{name}.lock").exists():
        remove_abandoned([left])
        return
    with suppress(OSError, Timeout), lock_at(folder, name).acquire(timeout=0):
        _remove(left)


def remove_abandoned(left: Iterable[Path]) -> None:
    """Remove partial files and folders that have no lock; recent ones may still be written."""
    for path in left:
        with suppress(OSError):  # another process removed it first
            if time.time() - path.stat().st_mtime > _ABANDONED:
                _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
