"""What a killed run leaves, taken from an undisturbed one.

At the end of a batch the folder of results is copied. The copy is what `kill -9` would leave there:
what a process has written is the kernel's, and a copied lock is held by nobody.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bge_eval.encode.journal import Journal
from bge_eval.results.unfinished import FOLDER
from torture import content


def stopped_after(
    run: Callable[[Path], Any], place: Path, batches: int, patch: pytest.MonkeyPatch
) -> Path:
    """Run undisturbed into ``place``; return a folder of results as a kill would leave it.

    Args:
        run: evaluates into a folder.
        place: the folder of results.
        batches: batches that are journaled before the kill.
        patch: counts them.
    """
    left = place.with_name(f"{place.name}-killed")
    append, count = Journal.append, 0

    def counted(self: Journal, *args: Any) -> None:
        nonlocal count
        append(self, *args)
        count += 1
        if count == batches:
            shutil.copytree(place, left)

    with patch.context() as patched:
        patched.setattr(Journal, "append", counted)
        run(place)
    assert count > batches, f"only {count} batches: a kill after {batches} would be none"
    assert list(left.glob(f"{FOLDER}/*/*/*.journal"))
    return left


def assert_same(place: Path, other: Path) -> None:
    """Assert that two folders hold the same results, times aside, and no unfinished work."""
    assert content(place) == content(other)
    assert len(content(place)) > 3
    for folder in (place, other):
        assert not (folder / FOLDER).exists()
