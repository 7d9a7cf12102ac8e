"""Read and check a dataset in the BEIR layout.

::

    <folder>/corpus.jsonl        {"_id": "d1", "title": "…", "text": "…"}     (title may be absent)
    <folder>/queries.jsonl       {"_id": "q1", "text": "…"}
    <folder>/qrels/<split>.tsv   query-id <TAB> corpus-id <TAB> score, with a header line

Each file may be gzipped (``.gz``). The corpus streams from the file into an Arrow table on
disk and is memory-mapped from there: what stays in memory is eight bytes a document.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn

import numpy as np
import numpy.typing as npt

from bge_eval.errors import DamagedError, MissingError
from bge_eval.records import Qrels

if TYPE_CHECKING:
    from datasets import Dataset

    from bge_eval.progress import Progress

_ROWS_PER_BATCH = 4096
_QRELS_HEADER = ("query-id", "corpus-id", "score")


@dataclass(frozen=True, slots=True)
class RetrievalSplit:
    """One split of a retrieval task, ready for mteb."""

    corpus: Dataset
    """Memory-mapped, columns id, title, text."""
    queries: Dataset
    """The queries that the split's qrels judge, in the file's order; columns id, text."""
    qrels: Qrels
    """The judgements."""


@dataclass(frozen=True, slots=True)
class BeirFolder:
    """A folder known to be in the BEIR layout."""

    path: Path
    """The folder."""

    @staticmethod
    def recognise(path: Path) -> BeirFolder | None:
        """Return the folder if it has a corpus file, else None."""
        folder = BeirFolder(path)
        return folder if folder._file("corpus.jsonl") else None

    def splits(self) -> list[str]:
        """Return the names of the splits that have qrels."""
        files = sorted((self.path / "qrels").glob("*.tsv*"))
        return sorted({file.name.split(".tsv")[0] for file in files})

    def files(self, splits: Iterable[str]) -> dict[str, Path]:
        """Return the files that some splits need, by their logical name.

        Raises:
            MissingError: one is not there; says which splits are.
        """
        needed = {"corpus.jsonl": None, "queries.jsonl": None}
        needed |= {f"qrels/{split}.tsv": None for split in splits}
        found: dict[str, Path] = {}
        for name in needed:
            path = self._file(name)
            if path is None:
                self._missing(name)
            found[name] = path
        return found

    def fingerprint(self, splits: Iterable[str]) -> str:
        """Return 16 hexadecimal digits made from the content that these splits are scored on.

        The same data gives the same fingerprint whether it is gzipped or not.
        """
        digest = hashlib.sha256()
        for name, path in sorted(self.files(splits).items()):
            content = hashlib.sha256()
            with _open(path) as file:
                while block := _read(file, path):
                    content.update(block)
            digest.update(f"{name}\0{content.hexdigest()}\n".encode())
        return digest.hexdigest()[:16]

    def load(
        self, splits: Sequence[str], scratch: Path, progress: Progress, *, dangling: bool = False
    ) -> dict[str, RetrievalSplit]:
        """Read and check everything that these splits need.

        Args:
            splits: split names.
            scratch: an empty folder for the memory-mapped table; it must outlive the result.
            progress: told of the reading.
            dangling: accept (and report) judgements of documents that the corpus lacks.

        Returns:
            Split name → its data; the corpus is shared.

        Raises:
            DamagedError: names file and line of what is wrong.
            MissingError: a file is not there.
        """
        files = self.files(splits)
        with progress.step("load", None, "documents") as step:
            path = files["corpus.jsonl"]
            corpus, known = _to_arrow(path, scratch, ("title", "text"), step.advance)
            queries, known_queries = _to_arrow(files["queries.jsonl"], scratch, ("text",))
        _refuse_duplicates(files["corpus.jsonl"], known)
        _refuse_duplicates(files["queries.jsonl"], known_queries)
        query_ids = list(queries["id"])
        result: dict[str, RetrievalSplit] = {}
        for split in splits:
            path = files[f"qrels/{split}.tsv"]
            qrels, lost = _read_qrels(path, set(query_ids), np.sort(known))
            if lost and not dangling:
                document, line = lost[0]
                raise DamagedError(
                    f"{path}, line {line}: document '{document}' is not in"
                    f" {files['corpus.jsonl'].name} ({len(lost)} such in the file). If the set is"
                    " published like that, --allow-dangling-qrels keeps them as documents that"
                    " cannot be found."
                )
            if lost:
                progress.note(
                    f"{path}: {len(lost)} judged documents are not in the corpus and count as"
                    " never found."
                )
            judged = [row for row, query in enumerate(query_ids) if query in qrels]
            result[split] = RetrievalSplit(corpus, queries.select(judged), qrels)
        return result

    def _file(self, name: str) -> Path | None:
        for candidate in (self.path / name, self.path / f"{name}.gz"):
            if candidate.is_file():
                return candidate
        return None

    def _missing(self, name: str) -> NoReturn:
        if name.startswith("qrels/"):
            present = ", ".join(self.splits()) or "none"
            raise MissingError(
                f"{self.path} has no {name} (or {name}.gz). Splits with qrels there: {present}."
            )
        raise MissingError(
            f"{self.path} has no {name} (or {name}.gz). The BEIR layout is corpus.jsonl,"
            " queries.jsonl and qrels/<split>.tsv."
        )


def _open(path: Path) -> IO[bytes]:
    # gzip.open gives a GzipFile, which reads like any binary file.
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


def _read(file: IO[bytes], path: Path) -> bytes:
    try:
        return file.read(2**20)
    except (OSError, EOFError) as error:
        raise DamagedError(f"{path} is damaged or cut off ({error}); get it again.") from error


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line number, text) of every line that is not blank."""
    number = 0
    with _open(path) as file:
        try:
            for number, raw in enumerate(file, start=1):
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
                if line.strip():
                    yield number, line
        except UnicodeDecodeError as error:
            raise DamagedError(
                f"{path}, line {number}: not UTF-8 (byte 0x{error.object[error.start]:02x} at"
                f" position {error.start}). Convert it, for example: iconv -f GB18030 -t UTF-8."
            ) from error
        except (OSError, EOFError) as error:
            raise DamagedError(
                f"{path}, after line {number}: damaged or cut off ({error}); get it again."
            ) from error


def _records(path: Path) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Yield (line number, id, record) of a jsonl file, checking each line's form."""
    for number, line in _lines(path):
        try:
            record = json.loads(line)
        except ValueError as error:
            raise DamagedError(f"{path}, line {number}: not JSON ({error}).") from error
        if not isinstance(record, dict):
            raise DamagedError(
                f"{path}, line {number}: expected an object with _id and text, found"
                f" {type(record).__name__}."
            )
        key = record.get("_id")
        if isinstance(key, int) and not isinstance(key, bool):
            key = str(key)
        if not isinstance(key, str) or not key:
            raise DamagedError(
                f"{path}, line {number}: no _id (found the keys {', '.join(map(str, record))})."
            )
        yield number, key, record


def _to_arrow(
    path: Path, scratch: Path, columns: tuple[str, ...], advance: Any = lambda count: None
) -> tuple[Dataset, npt.NDArray[np.int64]]:
    """Stream a jsonl file into a memory-mapped table; also return a hash of every id."""
    import pyarrow as pa
    from datasets import Dataset

    schema = pa.schema([(name, pa.string()) for name in ("id", *columns)])
    target = scratch / f"{path.name}.arrow"
    hashes = array("q")
    rows: dict[str, list[str]] = {name: [] for name in schema.names}
    with pa.OSFile(str(target), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:

        def flush() -> None:
            writer.write_batch(pa.record_batch([rows[name] for name in schema.names], schema))
            advance(len(rows["id"]))
            for values in rows.values():
                values.clear()

        for number, key, record in _records(path):
            hashes.append(hash(key))
            rows["id"].append(key)
            for name in columns:
                rows[name].append(_text(record, name, path, number))
            if len(rows["id"]) == _ROWS_PER_BATCH:
                flush()
        if rows["id"]:
            flush()
    if not hashes:
        raise DamagedError(f"{path} is empty: expected one JSON object a line.")
    return Dataset.from_file(str(target)), np.frombuffer(hashes, np.int64)


def _text(record: dict[str, Any], name: str, path: Path, number: int) -> str:
    value = record.get(name)
    if isinstance(value, str):
        if "\\ud" in ascii(value) and not _encodable(value):
            raise DamagedError(f"{path}, line {number}: {name} holds half of a surrogate pair.")
        return value
    if value is None and name == "title":
        return ""
    found = "is missing" if name not in record else f"is {json.dumps(value)[:40]}, not a string"
    raise DamagedError(f"{path}, line {number}: {name} {found}.")


def _encodable(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refuse_duplicates(path: Path, hashes: npt.NDArray[np.int64]) -> None:
    """Raise if an id stands twice. Equal hashes only say where to look; the ids decide."""
    ordered = np.sort(hashes)
    suspects = set(ordered[1:][ordered[1:] == ordered[:-1]].tolist())
    if not suspects:
        return
    seen: dict[str, int] = {}
    for number, key, _ in _records(path):
        if hash(key) not in suspects:
            continue
        if key in seen:
            raise DamagedError(
                f"{path}, line {number}: _id '{key}' was already used in line {seen[key]}."
            )
        seen[key] = number


def _read_qrels(
    path: Path, queries: set[str], documents: npt.NDArray[np.int64]
) -> tuple[Qrels, list[tuple[str, int]]]:
    """Read a qrels file; also return (document, line) of judgements outside the corpus.

    ``documents`` are the sorted hashes of the corpus ids: 64 bits, so that taking a missing
    document for a present one is as good as impossible.
    """
    qrels: Qrels = {}
    lost: list[tuple[str, int]] = []
    header = True
    for number, line in _lines(path):
        cells = line.split("\t")
        if header:
            header = False
            if tuple(cell.strip() for cell in cells[:3]) != _QRELS_HEADER:
                raise DamagedError(
                    f"{path}, line {number}: expected the header"
                    f" 'query-id<TAB>corpus-id<TAB>score', found '{line[:60]}'."
                )
            continue
        if len(cells) != 3:
            raise DamagedError(
                f"{path}, line {number}: expected three columns with tabs between, found"
                f" {len(cells)} ('{line[:60]}')."
            )
        query, document, grade = (cell.strip() for cell in cells)
        try:
            score = int(grade)
        except ValueError as error:
            raise DamagedError(
                f"{path}, line {number}: the score '{grade}' is no integer."
            ) from error
        if query not in queries:
            raise DamagedError(f"{path}, line {number}: query '{query}' is not in queries.jsonl.")
        judged = qrels.setdefault(query, {})
        if judged.get(document, score) != score:
            raise DamagedError(
                f"{path}, line {number}: '{query}' and '{document}' were already judged"
                f" {judged[document]}, now {score}."
            )
        judged[document] = score
        key = hash(document)
        place = int(np.searchsorted(documents, key))
        if place == len(documents) or int(documents[place]) != key:
            lost.append((document, number))
    if not qrels:
        raise DamagedError(f"{path} holds no judgements.")
    return qrels, lost
