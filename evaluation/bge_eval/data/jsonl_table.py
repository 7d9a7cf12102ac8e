"""Stream the jsonl file of a corpus or of queries into a memory-mapped Arrow table.

The rows go straight to disk; eight bytes an id stay in memory, to find duplicates and to check the
qrels.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bge_eval.data.files import NotPlainError, Place, plain_records, records, text_of
from bge_eval.data.tables import TableWriter, open_table
from bge_eval.errors import DamagedError

if TYPE_CHECKING:
    from datasets import Dataset

_ROWS_PER_BATCH = 4096


def _records(place: Place, id_key: str) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Yield (line number, id, record), checking that there is an id."""
    for number, record in records(place):
        key = record.get(id_key)
        if isinstance(key, int) and not isinstance(key, bool):
            key = str(key)
        if not isinstance(key, str) or not key:
            raise DamagedError(
                f"{place}, line {number}: no {id_key} (its keys are {', '.join(map(str, record))})."
            )
        yield number, key, record


def read_table(
    place: Place,
    id_key: str,
    target: Path,
    columns: tuple[str, ...],
    advance: Callable[[int], None] = lambda count: None,
) -> tuple[Dataset, npt.NDArray[np.int64]]:
    """Stream a jsonl file into a memory-mapped table.

    Args:
        place: the file, one JSON object a line.
        id_key: the field that holds the id.
        target: the table's file.
        columns: the fields to read as texts.
        advance: called with the number of rows read.

    Returns:
        The table, columns ``id`` and ``columns``, and the 64-bit hash of every id.

    Raises:
        DamagedError: a line is invalid, an id is used twice, or the file is empty.
    """
    names = (id_key, *columns)
    hashes = _parse_with_arrow(place, target, names, advance)
    if hashes is None:
        hashes = _line_by_line(place, id_key, target, columns, advance)
    if not len(hashes):
        raise DamagedError(f"{place} is empty: expected one JSON object a line.")
    _refuse_duplicates(place, id_key, hashes)
    return open_table(target), hashes


def _line_by_line(
    place: Place,
    id_key: str,
    target: Path,
    columns: tuple[str, ...],
    advance: Callable[[int], None],
) -> npt.NDArray[np.int64]:
    """Write the table line by line: slower, but errors name the line."""
    import pyarrow as pa

    schema = pa.schema([(name, pa.string()) for name in ("id", *columns)])
    hashes = array("q")
    rows: dict[str, list[str]] = {name: [] for name in schema.names}
    with TableWriter(target, schema) as table:

        def flush() -> None:
            table.write(pa.record_batch([rows[name] for name in schema.names], schema))
            advance(len(rows["id"]))
            for values in rows.values():
                values.clear()

        for number, key, record in _records(place, id_key):
            hashes.append(hash(key))
            rows["id"].append(key)
            for name in columns:
                rows[name].append(text_of(record, name, place, number))
            if len(rows["id"]) == _ROWS_PER_BATCH:
                flush()
        if rows["id"]:
            flush()
    return np.frombuffer(hashes, np.int64)


def _refuse_duplicates(place: Place, id_key: str, hashes: npt.NDArray[np.int64]) -> None:
    """Raise if an id is used twice: equal hashes name the suspects, the ids decide."""
    ordered = np.sort(hashes)
    suspects = set(ordered[1:][ordered[1:] == ordered[:-1]].tolist())
    if not suspects:
        return
    seen: dict[str, int] = {}
    for number, key, _ in _records(place, id_key):
        if hash(key) not in suspects:
            continue
        if key in seen:
            raise DamagedError(
                f"{place}, line {number}: {id_key} '{key}' was already used in line {seen[key]}."
            )
        seen[key] = number


def _parse_with_arrow(
    place: Place, target: Path, names: Sequence[str], advance: Callable[[int], None]
) -> npt.NDArray[np.int64] | None:
    """Write the table with Arrow's parser, several times as fast as line by line.

    The first of ``names`` is the id's. Returns the hash of every id, or None if the file has a line
    that is not one object whose id and texts are strings.
    """
    import pyarrow as pa

    schema = pa.schema([(name, pa.string()) for name in ("id", *names[1:])])
    hashes = array("q")
    plain = False
    # Closed here: an error's traceback would keep the reader alive until the interpreter ends, and
    # then Arrow's thread, which still reads ahead, aborts the process.
    with TableWriter(target, schema) as table, closing(plain_records(place, names)) as parsed:
        try:
            for batch in parsed:
                texts = [
                    column.fill_null("") if name == "title" else column
                    for name, column in zip(names, batch.columns, strict=True)
                ]
                ids = texts[0].to_pylist()
                if not all(ids) or any(column.null_count for column in texts):
                    break
                hashes.extend(map(hash, ids))
                table.write(pa.record_batch(texts, schema))
                advance(len(ids))
            else:
                plain = True
        except NotPlainError:
            pass
    if plain:
        return np.frombuffer(hashes, np.int64)
    # The file is read again line by line, so its rows are counted again.
    advance(-len(hashes))
    return None
