"""What was fetched into a folder, so that it can be verified where there is no network.

``.bge-eval.json`` in the folder names every file with its size and SHA-256, after the hub's own
checksums were found to hold.
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
    """Within the repository."""
    size: int
    """Bytes."""
    sha256: str | None
    """Of large files, as the hub states it."""
    git_oid: str
    """Of small files: the SHA-1 of git's blob."""

    def fits(self, path: Path) -> bool:
        """Tell whether a file is this one, by its content."""
        if path.stat().st_size != self.size:
            return False
        if self.sha256 is not None:
            return _digest(path, "sha256") == self.sha256
        return _digest(path, "sha1", b"blob %d\0" % self.size) == self.git_oid


def write_manifest(folder: Path, repositories: Mapping[str, str], files: Iterable[Fetched]) -> None:
    """Record the files of a folder.

    Args:
        folder: where they lie.
        repositories: repository → commit.
        files: as the hub describes them; each was found to fit.
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
    """Compare files with what is known of them; one sentence for each that does not fit.

    Args:
        place: a task's folder, or the inside of a zip.
        data_dirs: the data folders, above which no manifest is looked for.
        md5: the checksum of a zip, where it is published.
    """
    if isinstance(place, zipfile.Path):
        path = Path(str(place.root.filename))
        if md5 is None or (found := _digest(path, "md5")) == md5:
            return []
        return [f"{path}: its MD5 is {found}, published is {md5}."]
    folder = _with_manifest(place, data_dirs)
    if folder is None:
        return []
    said = []
    for name, known in read_manifest(folder)["files"].items():
        path = folder / name
        if not path.is_file():
            said.append(f"{path} is missing.")
        elif path.stat().st_size != known["size"]:
            size = path.stat().st_size
            said.append(f"{path} has {size:,} bytes, {known['size']:,} were fetched.")
        elif _digest(path, "sha256") != known["sha256"]:
            said.append(f"{path} is not what was fetched: its SHA-256 differs.")
    return said


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read a folder's manifest.

    Raises:
        DamagedError: it is no manifest.
    """
    path = folder / NAME
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        for known in content["files"].values():
            _ = known["size"], known["sha256"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(
            f"{path} is no list of fetched files ({type(error).__name__}: {error}). Remove it, or"
            " fetch the data again."
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
