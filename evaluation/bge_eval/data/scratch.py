"""Temporary folders for the tables of a task, removed at its end, or by the next after a kill.

A folder holds a lock, which the system frees when the process ends. So a folder whose lock is free
is of a process that was killed.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from bge_eval.errors import temporary

_PREFIX = "bge-eval-"
_LOCK = ".lock"


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Give a temporary folder for memory-mapped tables; it is removed at the end.

    Raises:
        TemporaryError: the folder cannot be made.
    """
    place = Path(tempfile.gettempdir())
    remove_abandoned(place)
    with temporary(place):
        folder, lock = _locked_folder()
    try:
        yield folder
    finally:
        lock.release()
        shutil.rmtree(folder, ignore_errors=True)


def remove_abandoned(place: Path) -> None:
    """Remove the folders that killed processes of this user left in a folder."""
    for folder in place.glob(f"{_PREFIX}*/{_LOCK}"):
        with suppress(OSError, Timeout):
            if _is_ours(folder.parent):
                with FileLock(folder, thread_local=False).acquire(timeout=0):
                    shutil.rmtree(folder.parent, ignore_errors=True)


def _locked_folder() -> tuple[Path, FileLock]:
    """Return a new folder with its lock."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        lock = FileLock(folder / _LOCK, thread_local=False)
        with suppress(FileNotFoundError):
            lock.acquire()
            if (folder / _LOCK).exists():
                return folder, lock
        # Another process took the folder for an abandoned one before it was locked.
        lock.release()


def _is_ours(folder: Path) -> bool:
    """Return whether this is a folder and this user's: another user may have placed a link."""
    facts = folder.lstat()
    return stat.S_ISDIR(facts.st_mode) and (
        not hasattr(os, "getuid") or facts.st_uid == os.getuid()
    )
