"""Completion markers: which parts of which tasks are encoded, in the store beside the vectors.

::

    <store>/parts/<identity>/SciFact-2-of-3.json

The folder is named by the digest of the result's identity: model, settings, prompts, data and the
versions of packages. So a marker of other data or of another model says nothing about this one.
A marker is a record for people and schedulers. A run trusts only the vectors.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bge_eval.encode.part import Part
from bge_eval.encode.shards import headers
from bge_eval.errors import DamagedError, one_line
from bge_eval.progress import WorkDone
from bge_eval.results.environment import environment
from bge_eval.results.identity import versions

FOLDER = "parts"
"""The folder of the markers within a store."""
FORMAT = 1
"""Version of the markers' format."""


@dataclass(frozen=True, slots=True)
class Marker:
    """One part of one task is encoded."""

    task: str
    """mteb's task name."""
    model: str
    """The model's name."""
    part: Part
    """The part."""
    identity: str
    """The digest of the result's identity."""
    packages: dict[str, str]
    """The versions that the vectors depend on."""
    texts: int
    """Different texts of the task, of all parts."""
    encoded: int
    """Texts that this part encoded when it last ran."""
    spaces: dict[str, int]
    """Folder of vectors within the store → the vectors that it held in the end, at least."""
    seconds: float
    """How long the part took."""
    retries: int = 0
    """How often the part was begun before, and killed or repeated."""
    created: str = ""
    """When it was done: ISO 8601, UTC."""
    machine: str = ""
    """The processor or GPUs, for people."""


def begin(root: Path, identity: str, task: str, part: Part) -> int:
    """Note in a store that a part is begun, and return how often it was begun before.

    Args:
        root: the store's folder.
        identity: the digest of the result's identity.
        task: mteb's task name.
        part: the part.
    """
    folder = root / FOLDER / identity
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{task}-{part.number}-of-{part.count}.begun"
    with path.open("a+b") as file:  # several processes may append
        file.write(f"{datetime.now(UTC).isoformat(timespec='seconds')}\n".encode())
        file.flush()
        file.seek(0)
        return file.read().count(b"\n") - 1


def mark(root: Path, marker: Marker) -> Path:
    """Write a marker into a store, in one go.

    Args:
        root: the store's folder.
        marker: what is done; ``created`` and ``machine`` are filled in.
    """
    folder = root / FOLDER / marker.identity
    folder.mkdir(parents=True, exist_ok=True)
    here = environment()
    content = asdict(marker) | {
        "format": FORMAT,
        "part": marker.part.number,
        "of": marker.part.count,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": here.machine,
    }
    path = folder / f"{marker.task}-{marker.part.number}-of-{marker.part.count}.json"
    staged = folder / f".{secrets.token_hex(4)}"
    try:
        with staged.open("w", encoding="utf-8") as file:
            file.write(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        staged.replace(path)
    finally:
        staged.unlink(missing_ok=True)
    return path


def read_markers(root: Path) -> list[Marker]:
    """Read all markers of a store, sorted by model, task and part.

    Raises:
        DamagedError: a marker is not readable, or of another format.
    """
    markers = [_read(path) for path in (root / FOLDER).glob("*/*-of-*.json")]
    return sorted(markers, key=lambda each: (each.model, each.task, each.created, each.part.number))


def parts_of(root: Path, identity: str) -> list[WorkDone]:
    """Return the parts that encoded for one result, as its ``run.json`` lists them.

    Args:
        root: the store's folder.
        identity: the digest of the result's identity.
    """
    markers = [_read(path) for path in sorted((root / FOLDER / identity).glob("*-of-*.json"))]
    return [
        WorkDone(
            f"part {marker.part}",
            marker.machine,
            shards=1,
            items=marker.encoded,
            seconds=marker.seconds,
            retries=marker.retries,
        )
        for marker in sorted(markers, key=lambda each: (each.part.count, each.part.number))
    ]


def _read(path: Path) -> Marker:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("format") != FORMAT:
            raise ValueError(f"its format is not {FORMAT}")
        part = Part(int(content.pop("part")), int(content.pop("of")))
        return Marker(part=part, **content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(
            f"The marker {path} cannot be read ({type(error).__name__}: {one_line(error)}). Remove"
            " it and run its part again: what is encoded is not encoded twice."
        ) from error


@dataclass(frozen=True, slots=True)
class Progression:
    """The parts of one task with one model."""

    model: str
    """The model's name."""
    task: str
    """mteb's task name."""
    count: int
    """The number of parts."""
    done: tuple[int, ...]
    """The numbers of the parts that are done."""
    missing: tuple[int, ...]
    """The numbers of the others."""
    stale: str
    """Why a run would encode again what the markers call done, or ""."""
    texts: int
    """Different texts of the whole task."""
    seconds: float
    """The time of all parts that are done."""


def progressions(root: Path, markers: Sequence[Marker]) -> list[Progression]:
    """Return what is done of every task that has a marker.

    Args:
        root: the store's folder.
        markers: its markers.
    """
    groups: dict[tuple[str, str, int], list[Marker]] = {}
    for marker in markers:
        groups.setdefault((marker.identity, marker.task, marker.part.count), []).append(marker)
    listed = []
    for (_, task, count), own in groups.items():
        done = sorted({marker.part.number for marker in own})
        listed.append(
            Progression(
                own[0].model,
                task,
                count,
                tuple(done),
                tuple(number for number in range(1, count + 1) if number not in done),
                next(filter(None, (_stale(root, marker) for marker in own)), ""),
                max(marker.texts for marker in own),
                sum(marker.seconds for marker in own),
            )
        )
    return listed


def _stale(root: Path, marker: Marker) -> str:
    """Return why a marker's vectors are not used by a run here, or ""."""
    here = versions(marker.packages)
    changed = [
        f"{name} {version} → {here.get(name, 'none')}"
        for name, version in marker.packages.items()
        if here.get(name, "") != version
    ]
    if changed:
        return f"other versions here: {', '.join(changed)}"
    for name, least in marker.spaces.items():
        files = [*(root / name).glob("*.shard"), *(root / name).glob("*.journal")]
        if sum(count for file in files for count, _ in headers(file)) < least:
            return f"part {marker.part.number}: its vectors were removed"
    return ""
