"""A row's name of the user's own: one line in a file beside the results.

It is no part of the identity: naming a row anew computes nothing again.
"""

from __future__ import annotations

from pathlib import Path

from bge_eval.errors import UsageError
from bge_eval.results.whole import whole_file

_FILE = "label.txt"
_LONGEST = 80
"""Characters of a label; a longer one makes every table too wide."""


def check_label(label: str) -> str:
    """Return a label without spaces around it.

    Raises:
        UsageError: it is empty, too long, or has more than one line.
    """
    text = label.strip()
    if not text or len(text) > _LONGEST or not text.isprintable():
        raise UsageError(
            f"--label takes one line of 1 to {_LONGEST} characters, such as 'step 3000', not"
            f" {label!r}."
        )
    return text


def write_label(folder: Path, label: str) -> None:
    """Name the row of all results in a folder, such as ``results/org__model/<revision>``."""
    with whole_file(folder / _FILE) as file:
        file.write(f"{label}\n")


def read_label(folder: Path) -> str:
    """Return the label of a folder's results; "" where there is none."""
    try:
        return (folder / _FILE).read_text(encoding="utf-8").strip()[:_LONGEST]
    except (OSError, UnicodeDecodeError):
        return ""
