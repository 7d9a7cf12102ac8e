"""Files that the user names: there whole, or as they were before."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from bge_eval.errors import StorageError


@contextmanager
def whole_file(path: Path) -> Iterator[TextIO]:
    """Open a text file to write, in UTF-8; it takes its name when it is complete.

    A process that is killed leaves the file as it was, and ``.<name>.new`` beside it, which the
    next write replaces. A device or a pipe is written directly.

    Raises:
        StorageError: the file cannot be written.
    """
    try:
        target = path.resolve()
        if target.exists() and not target.is_file():
            with path.open("w", encoding="utf-8", newline="") as file:
                yield file
            return
        staged = target.with_name(f".{target.name}.new")
        try:
            with staged.open("w", encoding="utf-8", newline="") as file:
                yield file
            if target.exists():
                shutil.copymode(target, staged)
            staged.replace(target)
        except BaseException:
            with suppress(OSError):
                staged.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise StorageError(error, path) from error
