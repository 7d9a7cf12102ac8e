"""The faiss indexes that are kept in a folder: their facts, their list, their removal.

Beside every index ``<digest>.faiss`` lies ``<digest>.json``, which says of which model it is, what
it holds, and in how many seconds it was built. Releases before 0.2 wrote the seconds alone.

An index is built and written under its lock ``.locks/<digest>.lock``, which the system frees when
the process ends. So a partial file whose lock is free is of a process that was killed.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bge_eval.shared.locks import alone, remove_left

_PART = ".part"


@dataclass(frozen=True, slots=True)
class IndexFacts:
    """What is written beside a kept index."""

    model: str
    """Name of the model whose vectors it holds; "" if that is not known."""
    index: str
    """faiss's factory string."""
    vectors: str
    """The representation of the vectors, such as ``int8``."""
    documents: int
    """Number of vectors."""
    dimension: int
    """Dimensions of the vectors."""
    build_seconds: float
    """Wall seconds of training and adding."""
    threads: int
    """Threads that built it."""
    crc32: int
    """Checksum of its file: faiss reads changed bytes as other vectors or links."""

    def write(self, path: Path) -> None:
        """Write the facts of the index in a file, which may come later.

        Raises:
            OSError: they cannot be written.
        """
        staged = part_of(_beside(path))
        try:
            staged.write_text(json.dumps(asdict(self)), encoding="utf-8")
            staged.replace(_beside(path))
        finally:
            with suppress(OSError):  # the folder is read-only
                staged.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class KeptIndex:
    """A kept index in a listing."""

    path: Path
    """Its file."""
    model: str
    """Name of its model; "" if that is not known."""
    name: str
    """The factory string, the representation and the number of vectors; "" if not known."""
    bytes: int
    """Size on disk."""
    used: float
    """Time of the last use, in seconds since 1970."""


@contextmanager
def building(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the lock of an index that is built; what killed processes left is removed.

    In a read-only folder nothing is kept, and each process builds its own.

    Args:
        path: the file of the index.
        waiting: called before the wait for another process that builds it.
    """
    remove_parts(path.parent)
    with alone(path.parent, _lock_name(path), waiting):
        yield


def part_of(path: Path) -> Path:
    """Return the file in which an index or its facts are written before they are whole."""
    return path.with_name(f".{path.name}{_PART}")


def remove_parts(folder: Path) -> None:
    """Remove the partial files of killed processes from a folder of indexes."""
    for part in folder.glob(f".*{_PART}"):
        remove_left(folder, part, _lock_name(part), unlocked_before=False)


def _lock_name(path: Path) -> str:
    """Return the name of the lock of an index, from its file, its facts or a part of them."""
    return path.name.removeprefix(".").partition(".")[0]


def stated_seconds(path: Path) -> float | None:
    """Return the seconds in which a kept index was built; None where nothing states them."""
    try:
        return float(_facts(path)["build_seconds"])
    except (KeyError, TypeError, ValueError):
        return None


def checksum(path: Path) -> int:
    """Return the CRC-32 of a file, read piece by piece.

    Raises:
        OSError: it cannot be read.
    """
    value = 0
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            value = zlib.crc32(piece, value)
    return value


def is_changed(path: Path) -> bool:
    """Return whether a kept index has other bytes than were written; False if nothing says it."""
    stated = _facts(path).get("crc32")
    return stated is not None and stated != checksum(path)


def touch(path: Path) -> None:
    """Note that a kept index is used now; its own file stays as it is."""
    with suppress(OSError):  # the cache is read-only, or an old index has no facts beside it
        os.utime(_beside(path))


def kept_indexes(folder: Path) -> list[KeptIndex]:
    """Return the indexes of a folder, the last used first."""
    entries = []
    for path in folder.glob("*.faiss"):
        facts = _facts(path)
        name = ""
        if {"index", "vectors", "documents"} <= facts.keys():
            name = f"{facts['index']}, {facts['vectors']}, {facts['documents']} documents"
        try:
            size, used = path.stat().st_size, path.stat().st_mtime
        except OSError:  # another process removed it
            continue
        with suppress(OSError):
            used = max(used, _beside(path).stat().st_mtime)
        entries.append(KeptIndex(path, str(facts.get("model", "")), name, size, used))
    return sorted(entries, key=lambda entry: entry.used, reverse=True)


def remove_indexes(folder: Path, entries: Iterable[KeptIndex]) -> None:
    """Remove indexes with their facts, and facts that no index is left of."""
    for entry in entries:
        entry.path.unlink(missing_ok=True)
    for facts in folder.glob("*.json"):
        if not facts.with_suffix(".faiss").exists():
            facts.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    return path.with_suffix(".json")


def _facts(path: Path) -> dict[str, Any]:
    """Return what is written beside an index; {} where it cannot be read."""
    try:
        facts = json.loads(_beside(path).read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return facts if isinstance(facts, dict) else {}
