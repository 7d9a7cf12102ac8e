"""Download BEIR's public zips, resume interrupted downloads and verify checksums.

beir's own downloader starts again each time, and accepts half a file or an error page as the zip.
A zip is read without unpacking, so its checksum can be verified again.
"""

from __future__ import annotations

import hashlib
import urllib.error
import urllib.request
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bge_eval.errors import DamagedError, MissingError

if TYPE_CHECKING:
    from bge_eval.progress import Progress

_BLOCK = 2**18
_LARGEST_ZIP = 50 * 2**30
"""Bytes after which a server that states no length is not read on; BEIR's largest zip has 5 GB."""


@dataclass(frozen=True, slots=True)
class PublishedZip:
    """A published zip."""

    name: str
    """File name without .zip."""
    url: str
    """Its address."""
    md5: str
    """Published MD5 checksum."""


def fetch_zip(published: PublishedZip, data_dir: Path, progress: Progress) -> Path:
    """Download a zip into a data folder, unless it exists there with the right checksum.

    An interrupted download is resumed. The file gets its name only when it is complete and
    verified.

    Raises:
        MissingError: the download failed.
        DamagedError: the downloaded file differs from the published one.
    """
    target = data_dir / f"{published.name}.zip"
    if target.is_file() and _md5(target) == published.md5:
        return target
    data_dir.mkdir(parents=True, exist_ok=True)
    partial = data_dir / f"{published.name}.zip.part"
    try:
        _receive(published.url, partial, progress)
    except (OSError, ValueError) as error:  # URLError and HTTPError are OSErrors
        raise MissingError(
            f"{published.url} could not be downloaded: {error}. What arrived is kept; the same"
            " command resumes the download."
        ) from error
    actual = _md5(partial)
    if actual != published.md5:
        start = partial.read_bytes()[:2]
        partial.unlink()
        raise DamagedError(
            f"{published.url} is not the published file: its MD5 is {actual}, expected"
            f" {published.md5}{'' if start == b'PK' else ', and it is no zip'}. It was removed."
        )
    if not zipfile.is_zipfile(partial):
        partial.unlink()
        raise DamagedError(f"{published.url} is no zip. It was removed.")
    partial.replace(target)
    return target


def _receive(url: str, partial: Path, progress: Progress) -> None:
    """Resume a partial file; start again if the server does not support ranges."""
    present = partial.stat().st_size if partial.is_file() else 0
    request = urllib.request.Request(url)
    if present:
        request.add_header("Range", f"bytes={present}-")
    try:
        reply = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # the file is complete
            return
        raise
    with reply:
        appending = reply.status == 206
        length = reply.headers.get("Content-Length")
        total = int(length) if length else None
        received = 0
        with (
            partial.open("ab" if appending else "wb") as file,
            progress.step(f"fetch {partial.name.removesuffix('.part')}", total, "bytes") as step,
        ):
            while block := reply.read(_BLOCK):
                file.write(block)
                received += len(block)
                if received > (total or _LARGEST_ZIP):
                    raise OSError(f"the server sends more than {total or _LARGEST_ZIP:,} bytes")
                step.advance(len(block))
    if total is not None and received < total:
        raise OSError(f"the connection ended after {received:,} of {total:,} bytes")


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
