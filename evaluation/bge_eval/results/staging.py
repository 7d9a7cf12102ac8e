"""Folders in which the files of a result are written, before they are moved into their place.

Each is named after the lock under which it is written, ``<output>/.staging-<lock>``. So whoever
holds the lock knows that a folder of this name was left by a process that was killed.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import Timeout

from bge_eval.encode.cache import remove_abandoned
from bge_eval.results.locks import folder_lock, lock_at, lock_name

_PREFIX = ".staging-"


@contextmanager
def staging_folder(output: Path, folder: Path) -> Iterator[Path]:
    """Hold the lock of a model's folder, with an empty folder to write its next files into.

    Args:
        output: the folder of results. The new folder is inside, on the same file system, so that
            a move is one rename.
        folder: the model's folder in it.
    """
    with folder_lock(output, folder):
        staging = output / f"{_PREFIX}{lock_name(output, folder)}"
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        try:
            yield staging
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def remove_staged(output: Path) -> None:
    """Remove the folders that killed processes left; those of running processes stay."""
    for staging in output.glob(f"{_PREFIX}*"):
        lock = lock_at(output, staging.name.removeprefix(_PREFIX))
        if not Path(lock.lock_file).exists():  # of another command, or of an earlier version
            remove_abandoned([staging])
            continue
        try:
            with lock.acquire(timeout=0):
                shutil.rmtree(staging, ignore_errors=True)
        except (OSError, Timeout):  # being written, or not ours to remove
            continue
