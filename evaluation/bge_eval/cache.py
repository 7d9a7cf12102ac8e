"""Where what can be made again is kept: embeddings, converted models."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return the folder: ``BGE_EVAL_CACHE``, else ``bge-eval`` in the user's cache folder."""
    said = os.environ.get("BGE_EVAL_CACHE")
    if said:
        return Path(said).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "bge-eval"
