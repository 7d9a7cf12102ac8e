"""Checkpoints that a trainer writes: which are there, which are complete, links to the best.

A checkpoint is a folder with a model whose name ends in its step: ``checkpoint-500`` of Hugging
Face's Trainer, of sentence-transformers' and of FlagEmbedding's, or ``step_500``, ``epoch-3``.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bge_eval.encode.weights import LONGEST_HEADER
from bge_eval.errors import MissingError, StorageError

_STEP = re.compile(r"^(?!\.).*?(\d+)$")
_DEFINING = ("config.json", "modules.json", "adapter_config.json")
_INDEX = ".index.json"
_STATE = "trainer_state.json"
"""The trainer's last file but for the random state; without it, a folder must have been at rest."""
_REST = 10.0
"""Seconds without a change after which a folder without the trainer's state is complete."""
_MARK = ".bge-eval-links"
"""A file in a folder of links, which says that the folder is ours to remove."""


@dataclass(frozen=True, slots=True, order=True)
class Checkpoint:
    """One checkpoint; in the order of steps."""

    step: int
    """The number at the end of its name."""
    folder: Path
    """Its folder."""

    @property
    def name(self) -> str:
        """Return the folder's name."""
        return self.folder.name

    def is_complete(self, now: float | None = None) -> bool:
        """Return whether a model is there in full, and nobody is writing it.

        The weights of a safetensors file are complete if the file is as long as its header says.
        A trainer writes its state after the weights; a folder without one must have been at rest
        for ten seconds.

        Args:
            now: seconds since 1970; None for the clock.
        """
        try:
            files = [path for path in self.folder.rglob("*") if path.is_file()]
            if not any((self.folder / name).is_file() for name in _DEFINING):
                return False
            weights = [path for path in files if path.suffix in (".safetensors", ".bin")]
            weights = [path for path in weights if path.name != "training_args.bin"]
            if not weights or not all(map(_is_whole, weights)) or not _has_shards(files):
                return False
            if (self.folder / _STATE).is_file():
                json.loads((self.folder / _STATE).read_text(encoding="utf-8"))
                return True
            newest = max(path.stat().st_mtime for path in files)
            return (time.time() if now is None else now) - newest >= _REST
        except (OSError, ValueError):  # it is being written, or was removed
            return False


def find_checkpoints(folder: Path) -> list[Checkpoint]:
    """Return the checkpoints in a folder by step, complete or not.

    Raises:
        MissingError: there is no such folder.
    """
    if not folder.is_dir():
        raise MissingError(
            f"There is no folder {folder}. Name the trainer's output folder, which holds"
            " checkpoint-500 and others; make it if the training has not begun."
        )
    checkpoints = []
    for path in folder.iterdir():
        match = _STEP.match(path.name)
        # Names such as tmp-checkpoint-500 are those of checkpoints that are being written.
        if match and path.is_dir() and not path.name.startswith(("tmp", "runs")):
            checkpoints.append(Checkpoint(int(match[1]), path))
    return sorted(checkpoints)


def keep_links(best: Sequence[Checkpoint], folder: Path) -> None:
    """Let a folder hold links to the best checkpoints, and no others that it held before.

    Files are hard links, which stay when a trainer removes its checkpoint; across file systems
    they are copies. Only folders that were made here are removed.

    Args:
        best: the checkpoints to keep. One that is gone stays as it was linked.
        folder: the folder of links, made if need be.

    Raises:
        StorageError: the folder cannot be written.
    """
    names = {checkpoint.name for checkpoint in best}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.iterdir():
            if old.name not in names and (old / _MARK).is_file():
                shutil.rmtree(old)
        for checkpoint in best:
            target = folder / checkpoint.name
            if target.exists() or not checkpoint.folder.is_dir():
                continue
            staged = folder / f".{checkpoint.name}"
            shutil.rmtree(staged, ignore_errors=True)
            shutil.copytree(checkpoint.folder, staged, copy_function=_link)
            (staged / _MARK).write_text("Links made by bge-eval watch --keep-best.\n")
            staged.rename(target)
    except OSError as error:
        raise StorageError(error, folder, "Choose another --best-folder.") from error


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _is_whole(path: Path) -> bool:
    """Return whether a file of weights is as long as it says; other formats only need content."""
    size = path.stat().st_size
    if path.suffix != ".safetensors":
        return size > 0
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 + length or not 0 < length <= LONGEST_HEADER:
            return False
        header = json.loads(file.read(length))
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    return size == 8 + length + max(ends, default=0)


def _has_shards(files: Sequence[Path]) -> bool:
    """Return whether every file that an index of weights names is there."""
    for index in (path for path in files if path.name.endswith(_INDEX)):
        names = json.loads(index.read_text(encoding="utf-8")).get("weight_map", {}).values()
        if not all((index.parent / name).is_file() for name in names):
            return False
    return True
