"""Arrow tables on disk: written once, memory-mapped for single rows, streamed for whole passes.

A pass over the whole corpus reads the file and not the mapping, because every touched page of a
mapping counts as memory of the process.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bge_eval.errors import temporary

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

_OURS = "{} rows, written by bge-eval"
"""Description that marks our tables with their number of rows; a selection has fewer."""
_WAITING = 8
"""Largest number of batches that wait for the disk."""
_ROWS = 4096


class TableWriter:
    """Writes record batches to a file in a thread of its own; a context manager."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        import pyarrow as pa

        self._path = path
        self._sink = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_stream(self._sink, schema)
        self._pool = ThreadPoolExecutor(1, "table-writer")
        self._written: list[Future[None]] = []

    def write(self, batch: pa.RecordBatch) -> None:
        """Queue a batch; blocks while too many are waiting.

        Raises:
            TemporaryError: the file cannot be written.
        """
        self._written.append(self._pool.submit(self._writer.write_batch, batch))
        with temporary(self._path):
            self._wait(_WAITING)

    def __enter__(self) -> TableWriter:
        return self

    def __exit__(self, *_: object) -> None:
        with temporary(self._path), closing(self._sink), self._writer:
            try:
                self._wait(0)
            finally:
                self._pool.shutdown()

    def _wait(self, waiting: int) -> None:
        """Wait until no more than some batches wait for the disk."""
        while len(self._written) > waiting:
            self._written.pop(0).result()


def open_table(path: Path) -> Dataset:
    """Return a written table, memory-mapped."""
    from datasets import Dataset

    table = Dataset.from_file(str(path))
    table.info.description = _OURS.format(len(table))
    return table


def batches(corpus: Dataset, columns: Sequence[str]) -> Iterator[pa.RecordBatch | pa.Table]:
    """Yield all rows of a data set in order, a few thousand at a time.

    Args:
        corpus: any data set; a table of `open_table` is read from its file.
        columns: names of the columns to yield.
    """
    import pyarrow as pa

    path = _file_of(corpus)
    if path is None:
        yield from corpus.select_columns(list(columns)).with_format("arrow").iter(_ROWS)
        return
    with pa.OSFile(path, "rb") as source:
        names = pa.ipc.open_stream(source).schema.names
        places = [names.index(name) for name in columns]
        source.seek(0)
        options = pa.ipc.IpcReadOptions(included_fields=places)
        for batch in pa.ipc.open_stream(source, options=options):
            yield batch.select(list(columns))


def _file_of(corpus: Any) -> str | None:
    """Return the file with exactly the rows of a data set; None if there is no such file."""
    if corpus.info.description != _OURS.format(len(corpus)) or corpus._indices is not None:
        return None
    files = [str(file["filename"]) for file in corpus.cache_files]
    return files[0] if len(files) == 1 else None
