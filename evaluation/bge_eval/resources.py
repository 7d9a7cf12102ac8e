"""Folders of the package's data files, in a checkout and in a wheel."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def tasks_folder() -> Path:
    """Return the folder of suite files and embedded collections (``tasks/`` in a checkout)."""
    return _folder("tasks")


def published_folder() -> Path:
    """Return the folder of published scores (``results/published/`` in a checkout)."""
    return _folder("published", "results")


def _folder(name: str, *above: str) -> Path:
    installed = _PACKAGE / "_data" / name
    return installed if installed.is_dir() else _PACKAGE.parents[1].joinpath(*above, name)
