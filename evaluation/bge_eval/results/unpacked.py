"""Files of lines, plain or compressed, read with limits: no file can fill the memory.

A few kilobytes can unpack to gigabytes (a decompression bomb), and a file can be one line without
an end. Both are refused by name while the file is read.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from bge_eval.errors import DamagedError

LONGEST_LINE = 2**26
"""Bytes of the longest line: no document has 64 MiB."""
MOST_TIMES = 100
"""Most times that a file's content may be larger than the file; of text it is 3 to 20."""
ALWAYS = 2**26
"""Bytes that any file may unpack to."""
_BLOCK = 2**18


class _Limited(io.RawIOBase):
    """A stream that ends with an error where it passes a limit."""

    def __init__(
        self, stream: IO[bytes], name: str, packed: int | None, longest: int | None
    ) -> None:
        """Read a stream.

        Args:
            stream: the content, unpacked.
            name: the file, for messages.
            packed: the bytes that it takes in the file or archive; None for a plain file.
            longest: the bytes of its longest line; None where it has no lines.
        """
        self._stream = stream
        self._longest = longest
        self._name = name
        self._most = None if packed is None else max(ALWAYS, packed * MOST_TIMES)
        self._packed = packed
        self._read = self._line = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        block = self._stream.read(len(buffer))
        buffer[: len(block)] = block
        self._read += len(block)
        if self._most is not None and self._read > self._most:
            raise DamagedError(
                f"{self._name} unpacks to more than {self._most // 2**20:,} MiB from"
                f" {self._packed:,} bytes, {MOST_TIMES} times as much and more: such a file is"
                " made to fill memory or disk, and is not read on. If you trust it, unpack it"
                " yourself."
            )
        end = block.rfind(b"\n")
        self._line = self._line + len(block) if end < 0 else len(block) - end - 1
        if self._longest is not None and self._line > self._longest:
            raise DamagedError(
                f"{self._name} holds a line of more than {self._longest // 2**20} MiB, at byte"
                f" {self._read - self._line:,}; no text of a data set is as long. One line holds"
                " one record."
            )
        return len(block)


def limited(
    stream: IO[bytes], name: str, packed: int | None = None, *, of_lines: bool = True
) -> IO[bytes]:
    """Return a stream that is read within the limits.

    Args:
        stream: the content, unpacked.
        name: the file, for messages.
        packed: the bytes that it takes in the file or archive; None for a plain file.
        of_lines: lines are no longer than `LONGEST_LINE`.
    """
    raw = _Limited(stream, name, packed, LONGEST_LINE if of_lines else None)
    return cast("IO[bytes]", io.BufferedReader(raw, _BLOCK))


@contextmanager
def open_text(path: Path) -> Iterator[IO[str]]:
    """Open a file of lines in UTF-8 for reading, unpacked if its name ends in ``.gz``.

    Raises:
        OSError: it cannot be opened, or is no gzip file.
    """
    with path.open("rb") as binary:
        stream: IO[bytes] = binary
        packed = None
        if path.suffix == ".gz":
            stream = cast("IO[bytes]", gzip.GzipFile(fileobj=binary, mode="rb"))
            packed = path.stat().st_size
        yield io.TextIOWrapper(cast("Any", limited(stream, str(path), packed)), encoding="utf-8")


def unpack(packed: bytes, most: int | None = None) -> bytes:
    """Return what gzip has packed.

    Raises:
        ValueError: it is more than so many bytes.
        OSError: it is not gzip's.
    """
    most = most or ALWAYS
    with gzip.GzipFile(fileobj=io.BytesIO(packed)) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"it unpacks to more than {most // 2**20} MiB")
    return content
