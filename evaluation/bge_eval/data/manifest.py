"""The manifest of a downloaded folder: its files, sizes and checksums, to verify offline.

``.bge-eval.json`` lists every file with its size and SHA-256. It is written after the hub's
checksums were verified.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bge_eval.data.files import Place
from bge_eval.errors import DamagedError

NAME = ".bge-eval.json"
"""The manifest's file name."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A file as the hub describes it."""

    path: str
    """Path within the repository."""
    size: int
    """Size in bytes."""
    sha256: str | None
    """The hub's SHA-256 of a large file; None for a small one."""
    git_oid: str
    """The SHA-1 of git's blob, the checksum of a small file."""

    def fits(self, path: Path) -> bool:
        """Tell whether a file has this size and checksum."""
        if path.stat().st_size != self.size:
            return False
        if self.sha256 is not None:
            return _digest(path, "sha256") == self.sha256
        return _digest(path, "sha1", b"blob %d\0" % self.size) == self.git_oid


def write_manifest(folder: Path, repositories: Mapping[str, str], files: Iterable[Fetched]) -> None:
    """Record the files of a folder.

    Args:
        folder: their folder.
        repositories: repository → commit.
        files: as the hub describes them, already verified.
    """
    content = {
        "repositories": dict(repositories),
        "files": {
            file.path: {"size": file.size, "sha256": _digest(folder / file.path, "sha256")}
            for file in files
        },
    }
    text = json.dumps(content, indent=1, ensure_ascii=False, sort_keys=True)
    partial = folder / f"{NAME}.part"
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(folder / NAME)


def damaged_files(place: Place, data_dirs: Iterable[Path], md5: str | None = None) -> list[str]:
    """Compare files with their manifest; return one sentence for each that differs.

    Args:
        place: a task's folder, or the inside of a zip.
        data_dirs: the data folders; no manifest is searched above them.
        md5: the published checksum of a zip, if there is one.
    """
    if isinstance(place, zipfile.Path):
        path = Path(str(place.root.filename))
        if md5 is None or (actual := _digest(path, "md5")) == md5:
            return []
        return [f"{path}: its MD5 is {actual}, expected {md5}."]
    folder = _with_manifest(place, data_dirs)
    if folder is None:
        return []
    problems = []
    for name, entry in read_manifest(folder)["files"].items():
        path = folder / name
        if not path.is_file():
            problems.append(f"{path} is missing.")
        elif path.stat().st_size != entry["size"]:
            size = path.stat().st_size
            problems.append(f"{path} has {size:,} bytes, expected {entry['size']:,}.")
        elif _digest(path, "sha256") != entry["sha256"]:
            problems.append(f"{path} is not the downloaded file: its SHA-256 differs.")
    return problems


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read a folder's manifest.

    Raises:
        DamagedError: the file is not a manifest.
    """
    path = folder / NAME
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        for entry in content["files"].values():
            _ = entry["size"], entry["sha256"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedError(
            f"{path} is no manifest of downloaded files ({type(error).__name__}:"
            f" {error}). Remove it, or download the data again."
        ) from error
    return content


def _with_manifest(place: Path, data_dirs: Iterable[Path]) -> Path | None:
    """Return the folder with the manifest: the place or one above it, below a data folder."""
    tops = {data_dir.resolve() for data_dir in data_dirs}
    for folder in (place, *place.parents):
        if (folder / NAME).is_file():
            return folder
        if folder.resolve() in tops:
            break
    return None


def _digest(path: Path, algorithm: str, before: bytes = b"") -> str:
    digest = hashlib.new(algorithm, before, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
