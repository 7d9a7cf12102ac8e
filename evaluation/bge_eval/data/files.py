"""Read the files of a data set line by line; errors name file and line.

A place is a path on disk or inside a zip. Files whose names end in ``.gz`` are decompressed while
they are read.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import zipfile
import zlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias, cast

from bge_eval.encode.config import LFS_POINTER
from bge_eval.errors import DamagedError, one_line, quoted
from bge_eval.results.unpacked import limited

if TYPE_CHECKING:
    import pyarrow as pa

Place: TypeAlias = "Path | zipfile.Path"
"""A folder or file on disk or inside a zip file."""

_BLOCK = 2**20

_NULL_ROW = re.compile(rb"[\n}]\s*null")
_TAIL = 64
"""Bytes of a block that are looked at again with the next, in which a word may go on."""

_UNREADABLE = (OSError, EOFError, zlib.error, zipfile.BadZipFile)
"""What reading a damaged file raises."""


def find_file(folder: Place, name: str) -> Place | None:
    """Return ``name`` or ``name.gz`` below a folder; None if neither exists.

    Raises:
        DamagedError: both exist, and it is unknown which of them counts.
    """
    places = [folder.joinpath(candidate) for candidate in (name, f"{name}.gz")]
    present = [place for place in places if place.is_file()]
    if len(present) > 1:
        raise DamagedError(
            f"{folder} holds {name} and {name}.gz, and only one can be read. Remove the one that"
            " does not count."
        )
    return present[0] if present else None


def fingerprint(files: Mapping[str, Place]) -> str:
    """Return a hash of files' logical names and content: 16 hexadecimal digits.

    Compression does not change it.

    Raises:
        DamagedError: a file is cut off.
    """
    digest = hashlib.sha256()
    for name, place in sorted(files.items()):
        content = hashlib.sha256()
        with _open(place) as file:
            while block := _read(file, place):
                content.update(block)
        digest.update(f"{name}\0{content.hexdigest()}\n".encode())
    return digest.hexdigest()[:16]


def read_through(place: Place, *, of_lines: bool = True) -> None:
    """Read a file to its end, unpacked if its name ends in ``.gz`` or ``.zst``.

    Args:
        place: the file.
        of_lines: one line holds one record; False for a whole JSON document.

    Raises:
        DamagedError: it is cut off, holds far more than its size, or a line without an end.
    """
    with _open(place, of_lines=of_lines, zst=True) as file:
        while _read(file, place):
            pass


def lines(place: Place) -> Iterator[tuple[int, str]]:
    """Yield (line number, text) of every line that is not blank.

    Raises:
        DamagedError: a line is not UTF-8, or the file is cut off.
    """
    number = 0
    with _open(place) as file:
        try:
            for number, raw in enumerate(file, start=1):
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
                if number == 1 and raw.startswith(LFS_POINTER):
                    raise DamagedError(
                        f"{place} is a Git LFS pointer, not the file itself. Fetch it with `git lfs"
                        " pull` in its repository, or copy the file."
                    )
                if line.strip():
                    yield number, line
        except UnicodeDecodeError as error:
            raise DamagedError(
                f"{place}, line {number}: not UTF-8 (byte 0x{error.object[error.start]:02x} at"
                f" position {error.start}). Convert it, for example: iconv -f GB18030 -t UTF-8."
            ) from error
        except _UNREADABLE as error:
            raise DamagedError(
                f"{place}, after line {number}: damaged or cut off ({error}); download it again."
            ) from error


def records(place: Place) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number, object) of a jsonl file.

    Raises:
        DamagedError: a line is not a JSON object.
    """
    for number, line in lines(place):
        try:
            record = json.loads(line, object_pairs_hook=_without_doubles)
        except _TwiceError as error:
            raise DamagedError(
                f"{place}, line {number}: the key {quoted(str(error))} is twice in one object."
            ) from error
        except ValueError as error:
            reason = one_line(error, 100)
            raise DamagedError(f"{place}, line {number}: not JSON ({reason}).") from error
        except RecursionError as error:
            raise DamagedError(
                f"{place}, line {number}: not JSON of a data set: it is too deeply nested."
            ) from error
        if not isinstance(record, dict):
            kind = "null" if record is None else type(record).__name__
            raise DamagedError(f"{place}, line {number}: expected a JSON object, not {kind}.")
        if "\\" in line and (name := _half_pair(record)) is not None:
            raise DamagedError(f"{place}, line {number}: {name} holds half of a surrogate pair.")
        yield number, record


class _TwiceError(Exception):
    """A JSON object has a key twice; the message is the key."""


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of its keys and values; JSON leaves open which of two equal keys counts."""
    made = dict(pairs)
    if len(made) != len(pairs):
        keys = [key for key, _ in pairs]
        raise _TwiceError(next(key for key in keys if keys.count(key) > 1))
    return made


def _half_pair(record: dict[str, Any]) -> str | None:
    """Return the field whose text is no valid Unicode; None if there is none."""
    for name, value in record.items():
        if not _encodable(json.dumps({name: value}, ensure_ascii=False)):
            return name if _encodable(name) else "the name of a field"
    return None


class NotPlainError(Exception):
    """Arrow's parser may misread this jsonl file; read it line by line."""


def plain_records(place: Place, names: Sequence[str]) -> Generator[pa.RecordBatch, None, None]:
    """Yield the rows of a jsonl file, parsed by Arrow on all cores.

    Arrow also accepts objects that span lines or share one, so the number of rows is compared with
    the number of lines.

    Args:
        place: the file.
        names: fields to read as strings; null if absent.

    Raises:
        NotPlainError: read the file line by line instead, which also locates errors.
    """
    import pyarrow as pa
    from pyarrow import json as arrow_json

    if not hasattr(arrow_json, "open_json"):
        raise NotPlainError
    schema = pa.schema([(name, pa.string()) for name in names])
    rows = 0
    with _open(place) as file:
        counted = _Lines(file)
        reader = None
        try:
            reader = arrow_json.open_json(
                pa.PythonFile(counted, mode="r"),
                read_options=arrow_json.ReadOptions(block_size=_BLOCK),
                parse_options=arrow_json.ParseOptions(
                    explicit_schema=schema, unexpected_field_behavior="ignore"
                ),
            )
            for batch in reader:
                batch.validate(full=True)
                rows += len(batch)
                yield batch.select(list(names))
        except (pa.ArrowException, ValueError, *_UNREADABLE) as error:
            raise NotPlainError from error
        finally:
            # A thread of Arrow reads ahead. If it called Python while the interpreter ends, the
            # process would abort, so the end of the file is brought forward and waited for.
            counted.end()
            with suppress(pa.ArrowException, ValueError, *_UNREADABLE):
                for _ in reader or ():
                    pass
    if rows != counted.count or counted.odd:
        raise NotPlainError


class _Lines:
    """A file that counts the lines read from it, and ends at a row that Arrow cannot read.

    Arrow's parser crashes the process at a row that is ``null``.
    """

    closed = False
    odd = False

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._count = 0
        self._last = self._tail = b"\n"
        self._ended = False

    @property
    def count(self) -> int:
        """Return the number of lines read, with or without a final newline."""
        return self._count + (self._last != b"\n")

    def read(self, size: int = -1) -> bytes:
        """Read a block."""
        block = b"" if self._ended else self._file.read(size)
        if b"null" in (joined := self._tail + block) and _NULL_ROW.search(joined):
            self.odd = self._ended = True
            return b""
        self._tail = joined[-_TAIL:]
        if block:
            self._count += block.count(b"\n")
            self._last = block[-1:]
        return block

    def end(self) -> None:
        """Let the file end here."""
        self._ended = True

    def close(self) -> None:
        """Do nothing: the owner of the file closes it."""


def text_of(record: Mapping[str, Any], name: str, place: Place, number: int) -> str:
    """Return a text field; only a title may be absent.

    Raises:
        DamagedError: it is missing, or not a string.
    """
    value = record.get(name)
    if isinstance(value, str):
        return value
    if value is None and name == "title":
        return ""
    problem = "is missing" if name not in record else f"is {json.dumps(value)[:40]}, not a string"
    raise DamagedError(f"{place}, line {number}: {name} {problem}.")


def _encodable(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


@contextmanager
def _open(place: Place, *, of_lines: bool = True, zst: bool = False) -> Iterator[IO[bytes]]:
    """Open a file, unpacked; ``.zst`` only if asked, since fingerprints take it as it is."""
    packed = None
    zst = zst and place.name.endswith(".zst")
    if isinstance(place, zipfile.Path):
        packed = place.root.getinfo(place.at).compress_size
    elif zst or place.name.endswith(".gz"):
        packed = place.stat().st_size
    try:
        opened: Any = place.open("rb")
    except (RuntimeError, NotImplementedError) as error:  # encrypted, or packed in a rare way
        raise DamagedError(f"{place} cannot be unpacked ({one_line(error)}).") from error
    with opened as binary:
        stream: IO[bytes] = binary
        if place.name.endswith(".gz"):
            stream = cast("IO[bytes]", gzip.GzipFile(fileobj=binary, mode="rb"))
        elif zst:
            import pyarrow as pa

            stream = cast("IO[bytes]", pa.CompressedInputStream(binary, "zstd"))
        yield limited(stream, str(place), packed, of_lines=of_lines)


def _read(file: IO[bytes], place: Place) -> bytes:
    try:
        return file.read(_BLOCK)
    except _UNREADABLE as error:
        raise DamagedError(
            f"{place} is damaged or cut off ({error}); download it again."
        ) from error
