"""Locks of an output folder: the same task is not run twice, and no two processes save at once.

The files of locks stay in ``<output>/.locks``; see `bge_eval.shared.locks`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from bge_eval.errors import BgeEvalError, StorageError
from bge_eval.shared.locks import lock_at


class BusyError(BgeEvalError):
    """Another process runs this task with this model."""


@contextmanager
def storage(output: Path) -> Iterator[None]:
    """Raise the system's errors as errors of a folder of results.

    Raises:
        StorageError: a file of the folder cannot be written or read.
    """
    try:
        yield
    except Timeout:  # an error of the system by its class, and none of the folder
        raise
    except OSError as error:
        raise StorageError(
            error, output, "Results that were saved before are unharmed; --output names the folder."
        ) from error


@contextmanager
def task_lock(
    output: Path, results: Sequence[Path], waiting: Callable[[], None] | None = None
) -> Iterator[None]:
    """Hold the locks of one task's results.

    Args:
        output: the folder of results.
        results: mteb's JSON of every stage.
        waiting: called once before the wait for another process; None does not wait.

    Raises:
        BusyError: another process holds a lock, and ``waiting`` is None.
        StorageError: the folder cannot be written.
    """
    with ExitStack() as stack:
        # All processes take locks in the same order, so that none waits for another in a circle.
        for result in sorted(results):
            lock = _lock(output, result)
            try:
                with storage(output):
                    lock.acquire(timeout=0)
            except Timeout:
                if waiting is None:
                    raise BusyError(f"{result} is being made by another process.") from None
                waiting()
                with storage(output):
                    lock.acquire(poll_interval=0.5)
            stack.callback(lock.release)
        yield


@contextmanager
def folder_lock(output: Path, folder: Path) -> Iterator[None]:
    """Hold the lock of a model's folder, while files that its results share are changed."""
    lock = _lock(output, folder)
    lock.acquire()
    try:
        yield
    finally:
        lock.release()


def lock_name(output: Path, path: Path) -> str:
    """Return the name of the lock of a result or a folder."""
    digest = hashlib.sha256(path.relative_to(output).as_posix().encode()).hexdigest()[:16]
    return f"{path.stem[:80]}-{digest}"


def _lock(output: Path, path: Path) -> FileLock:
    """Return the lock of a result or a folder, not acquired."""
    with storage(output):
        return lock_at(output, lock_name(output, path))
