"""The cache of files that can be re-created: embeddings and converted models."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TypeVar


class CacheEntry(Protocol):
    """An entry of the cache: stored embeddings or a converted model."""

    @property
    def model(self) -> str:
        """Return the name of its model."""

    @property
    def used(self) -> float:
        """Return when it was last used, in seconds since 1970."""


_Entry = TypeVar("_Entry", bound=CacheEntry)


def cache_folder() -> Path:
    """Return the folder: ``BGE_EVAL_CACHE``, else ``bge-eval`` in the user's cache folder."""
    folder = os.environ.get("BGE_EVAL_CACHE")
    if folder:
        return Path(folder).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "bge-eval"


def entries_to_remove(
    entries: Sequence[_Entry], model: str | None, older_than: float | None, everything: bool
) -> list[_Entry]:
    """Return the entries that match at least one condition.

    Args:
        entries: all entries.
        model: match models whose name contains this, ignoring case.
        older_than: match entries unused for this many seconds.
        everything: match all.
    """
    return [
        entry
        for entry in entries
        if everything
        or (model is not None and model.casefold() in entry.model.casefold())
        or (older_than is not None and time.time() - entry.used > older_than)
    ]
