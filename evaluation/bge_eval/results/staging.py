"""Folders in which the files of a result are written, before they are moved into their place.

Each is named after the lock under which it is written, ``<output>/.staging-<lock>``. So whoever
holds the lock knows that a folder of this name was left by a process that was killed.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bge_eval.results.locks import folder_lock, lock_name
from bge_eval.shared.locks import remove_left

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
        remove_left(output, staging, staging.name.removeprefix(_PREFIX), unlocked_before=True)
