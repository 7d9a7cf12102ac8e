"""Merge stores: the vectors that several machines encoded, in one store."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bge_eval.encode.journal import ENDING, read_journal
from bge_eval.encode.shards import Shard, read_shard, write_shard
from bge_eval.encode.store import Space
from bge_eval.errors import DamagedError, MissingError, StorageError, UsageError, one_line


@dataclass(slots=True)
class Merged:
    """What a merge did."""

    spaces: int = 0
    """Models and prompts whose vectors were read."""
    added: int = 0
    """Vectors that the store did not have."""
    present: int = 0
    """Vectors that it had already; they are not compared, and its own are kept."""
    damaged: list[str] = field(default_factory=list)
    """Files that were left out, with the reason."""


def merge(source: Path, target: Path, note: Callable[[str], None] = lambda text: None) -> Merged:
    """Add the vectors, markers and searches of one store to another; the source stays as it is.

    Files are verified as they are read. What a killed process left in a journal is taken too, and
    so is what a running process has written until now. Repeating a merge adds nothing.

    Args:
        source: the store to read.
        target: the store to add to; created if need be.
        note: receives messages.

    Raises:
        MissingError: the source is no store.
        UsageError: it is the target itself.
        DamagedError: a space's facts differ between the stores.
        StorageError: the target cannot be written.
    """
    folders = sorted(path.parent for path in source.glob("*/space.json"))
    markers = sorted(
        path
        for path in (source / "parts").rglob("[!.]*")
        if path.suffix in (".json", ".npz") and path.is_file()
    )
    if not folders and not markers:
        raise MissingError(
            f"{source} is no store of embeddings: it has no folder with a space.json. Name the"
            " folder that --store had, or the folder 'embeddings' of the other machine's cache."
        )
    if target.exists() and source.samefile(target):
        raise UsageError(f"{source} is the store itself: name the stores of other machines.")
    merged = Merged()
    try:
        for folder in folders:
            _merge_space(folder, target / folder.name, merged, note)
        for path in markers:
            _copy(path, target / path.relative_to(source))
    except OSError as error:
        raise StorageError(error, target, "A repeated merge goes on where it stopped.") from error
    return merged


def _merge_space(source: Path, target: Path, merged: Merged, note: Callable[[str], None]) -> None:
    facts = source / "space.json"
    if not (target / "space.json").is_file():
        _copy(facts, target / "space.json")
    _refuse_other_facts(facts, target / "space.json")
    space = Space(target, {}, note)
    merged.spaces += 1
    for path in [*sorted(source.glob("*.shard")), *sorted(source.glob(f"*{ENDING}"))]:
        for shard in _shards(path, merged):
            keys = shard.keys()
            new = ~space.knows(keys)
            _, first = np.unique(keys, axis=0, return_index=True)
            rows = np.sort(first[new[first]])
            merged.present += len(keys) - len(rows)
            merged.added += len(rows)
            if len(rows):
                space.adopt(write_shard(target, keys[rows], np.asarray(shard.vectors[rows])))


def _shards(path: Path, merged: Merged) -> list[Shard]:
    try:
        if path.suffix == ENDING:
            return read_journal(path, merged.damaged.append)
        return [read_shard(path)]
    except FileNotFoundError:  # its process merged it meanwhile
        return []
    except ValueError as error:
        merged.damaged.append(f"{path} was left out: {one_line(error)}.")
        return []


def _refuse_other_facts(one: Path, other: Path) -> None:
    """Refuse to mix vectors; sizes that only one store knows do not matter.

    Raises:
        DamagedError: the files describe different models or prompts, or cannot be read.
    """
    try:
        facts = [json.loads(path.read_text(encoding="utf-8")) for path in (one, other)]
    except ValueError as error:
        raise DamagedError(f"{one} or {other} is not JSON ({one_line(error)}).") from error
    for each in facts:
        each.pop("parameters", None)
    if facts[0] != facts[1]:
        raise DamagedError(
            f"{one} and {other} describe different vectors. Remove the damaged folder and merge"
            " again."
        )


def _copy(source: Path, target: Path) -> None:
    """Copy a small file in one go; the newer one stays."""
    if target.is_file() and target.stat().st_mtime >= source.stat().st_mtime:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    staged = target.with_name(f".{target.name}")
    shutil.copy2(source, staged)
    staged.replace(target)
