"""Unfinished work: what a task has computed until its result is saved.

::

    <output>/.unfinished/<task>-<identity's digest>/   an embedding store of one stage of one task

The vectors of local encoders serve later runs and are in the user's store. A server's vectors,
BGE-M3's representations and a reranker's scores serve their own task alone. They are journaled
here batch by batch (`bge_eval.encode.journal`), so that a killed run goes on where it stopped, and
removed once the result is saved. The journal is not synced to the disk: what a killed process has
written is the kernel's already, and of a power cut checksums tell what is whole.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bge_eval.encode.store import EmbeddingStore

FOLDER = ".unfinished"
_LONGEST = 30 * 24 * 3600
"""Seconds after which nobody goes on with unfinished work, and it is removed."""


@contextmanager
def unfinished_work(
    output: Path, stage: str, holder: Any, note: Callable[[str], None]
) -> Iterator[None]:
    """Give a model or a reranker the store of its unfinished work while it does a task.

    Args:
        output: the folder of results.
        stage: names the task and everything that its scores depend on.
        holder: takes the store as ``unfinished``, if it has such an attribute.
        note: receives messages about damaged files and a full disk.
    """
    if not hasattr(holder, "unfinished"):
        yield
        return
    folder = output / FOLDER / stage
    _remove_old(folder.parent)
    store = EmbeddingStore(folder, note)
    holder.unfinished = store
    try:
        yield
    except BaseException:
        # This process may live on and try again: its own journal would be locked.
        store.flush()
        raise
    finally:
        holder.unfinished = None
    store.close()
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):  # another task's work is there
        folder.parent.rmdir()


def _remove_old(root: Path) -> None:
    with suppress(OSError):
        for folder in root.iterdir():
            if time.time() - folder.stat().st_mtime > _LONGEST:
                shutil.rmtree(folder, ignore_errors=True)
