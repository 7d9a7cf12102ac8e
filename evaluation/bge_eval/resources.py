"""Where the data files that belong to the package lie, in a checkout and in a wheel."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def tasks_folder() -> Path:
    """Return the folder of suite files and embedded collections (``tasks/`` in a checkout)."""
    installed = _PACKAGE / "_data" / "tasks"
    if installed.is_dir():
        return installed
    return _PACKAGE.parents[1] / "tasks"
