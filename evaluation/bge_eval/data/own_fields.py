"""Fields of queries and documents beside id, title and text, such as a topic or a date.

They are read from the columns of the loaded tables, and for the layouts of text files, whose tables
keep id, title and text alone, from the files: ``{"_id": "q1", "text": "…", "topic": "visa"}`` or
``{…, "metadata": {"topic": "visa"}}``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from bge_eval.data.files import Place, records
from bge_eval.data.retrieval_folder import RetrievalFolder, RetrievalSource
from bge_eval.data.sources import DataSource
from bge_eval.records import SplitKey

if TYPE_CHECKING:
    from datasets import Dataset

FieldValues: TypeAlias = dict[str, dict[str, list[str | float]]]
"""Field → id → values, e.g. ``{"topic": {"q1": ["visa"]}}``."""

_NOT_OWN = {"_id", "id", "title", "text", "instruction", "metadata"}


def query_fields(source: DataSource, part: SplitKey, queries: Dataset) -> FieldValues:
    """Return the own fields of the queries of one part of a task.

    Args:
        source: the source of the task's data.
        part: (subset, split).
        queries: the loaded queries.
    """
    folder = _folder(source, part[0])
    rows = (
        _file_rows(folder, folder.queries_file(part[1]))
        if folder is not None
        else ((str(row["id"]), row) for row in queries)
    )
    return _collected(rows, set(map(str, queries["id"])))


def document_fields(
    source: DataSource, part: SplitKey, corpus: Dataset, ids: Collection[str]
) -> FieldValues:
    """Return the own fields of some documents of one part of a task; see `query_fields`."""
    folder = _folder(source, part[0])
    if folder is None:
        own = [name for name in corpus.column_names if name not in _NOT_OWN - {"metadata"}]
        if not own:
            return {}
        rows: Iterator[tuple[str, Mapping[str, Any]]] = (
            (str(row["id"]), row) for row in corpus.select_columns(["id", *own])
        )
    else:
        rows = _file_rows(folder, folder.corpus_file())
    return _collected(rows, set(ids))


def _folder(source: DataSource, subset: str) -> RetrievalFolder | None:
    return source.folders.get(subset) if isinstance(source, RetrievalSource) else None


def _file_rows(folder: RetrievalFolder, place: Place) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for _, record in records(place):
        yield str(record.get(folder.dialect.id_key)), record


def _collected(rows: Iterator[tuple[str, Mapping[str, Any]]], ids: set[str]) -> FieldValues:
    fields: FieldValues = {}
    for id, row in rows:
        if id not in ids:
            continue
        metadata = row.get("metadata")
        inner = metadata if isinstance(metadata, Mapping) else {}
        own = {name: value for name, value in row.items() if name not in _NOT_OWN}
        for name, value in {**inner, **own}.items():
            if values := _values(value):
                fields.setdefault(str(name), {})[id] = values
    return fields


def _values(value: Any) -> list[str | float]:
    """Return a field's values: texts and numbers, of a list each; others are left out."""
    if isinstance(value, list):
        return [inner for item in value for inner in _values(item)]
    if isinstance(value, bool):
        return ["yes" if value else "no"]
    if isinstance(value, int | float):
        return [value] if value == value else []
    return [value] if isinstance(value, str) and value.strip() else []
