"""Where what can be made again is kept: embeddings, converted models."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

_ABANDONED = 3600
"""Seconds after which what a process was writing is nobody's: it was killed."""


class Kept(Protocol):
    """Something in the cache: stored embeddings, a converted model."""

    @property
    def model(self) -> str:
        """Return the name of the model that it is of."""

    @property
    def used(self) -> float:
        """Return when it was last used, in seconds since 1970."""


_Kept = TypeVar("_Kept", bound=Kept)


def cache_folder() -> Path:
    """Return the folder: ``BGE_EVAL_CACHE``, else ``bge-eval`` in the user's cache folder."""
    said = os.environ.get("BGE_EVAL_CACHE")
    if said:
        return Path(said).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "bge-eval"


def chosen(
    kept: Sequence[_Kept], model: str | None, older_than: float | None, everything: bool
) -> list[_Kept]:
    """Return what is to be removed.

    Args:
        kept: what there is.
        model: what is of models whose name contains this, letter case aside.
        older_than: what was not used for this many seconds.
        everything: all of it.
    """
    return [
        one
        for one in kept
        if everything
        or (model is not None and model.casefold() in one.model.casefold())
        or (older_than is not None and time.time() - one.used > older_than)
    ]


def remove_abandoned(staged: Iterable[Path]) -> None:
    """Remove what processes were writing when they were killed; what is young may be alive."""
    for path in staged:
        try:
            if time.time() - path.stat().st_mtime <= _ABANDONED:
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        except OSError:  # its owner, or another process, was first
            continue
