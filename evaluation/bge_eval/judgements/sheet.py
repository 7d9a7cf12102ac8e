"""A sheet of documents to judge, as CSV or jsonl: one row for each query and document.

::

    task, query_id, document_id, query, document, grade, judge, control

``grade`` is empty until the document is judged: 0 for irrelevant, higher for relevant. A control
row is judged already; it measures how the judge agrees with the judgements that exist, and never
becomes a judgement. Cells that a spreadsheet would take for a formula begin with an apostrophe.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from bge_eval.errors import DamagedError, MissingError, UsageError
from bge_eval.results.judgements import grade as whole_grade
from bge_eval.results.whole import whole_file

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""First characters that a spreadsheet takes for a formula."""
_TEXTS = ("query", "document")


@dataclass(frozen=True, slots=True)
class Row:
    """A query and a document to judge."""

    task: str
    """The task, with subset and split, e.g. "SciFact/default/test"."""
    query_id: str
    """Query id."""
    document_id: str
    """Document id."""
    query: str
    """The query's whole text."""
    document: str
    """The document's title and text."""
    grade: int | None = None
    """The grade; None until it is judged."""
    judge: str = ""
    """Who judged it, e.g. "llm:llama-3" or a person's name."""
    control: bool = False
    """Whether it is judged already and only measures agreement."""


COLUMNS = tuple(field.name for field in fields(Row))
"""The columns in their order."""


def write_sheet(path: Path, rows: Iterable[Row]) -> None:
    """Write a sheet; the name's ending, .csv or .jsonl, decides the format.

    Raises:
        UsageError: the name has another ending, or the folder does not exist.
    """
    suffix = writable(path)
    with whole_file(path) as file:
        if suffix == ".jsonl":
            file.writelines(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows)
            return
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            cells = asdict(row)
            cells["grade"] = "" if row.grade is None else row.grade
            cells["control"] = "yes" if row.control else ""
            for name in _TEXTS:
                if cells[name].startswith(_FORMULA):
                    cells[name] = f"'{cells[name]}"
            writer.writerow(cells)


def writable(path: Path) -> str:
    """Return the ending of a sheet's name; raise what `write_sheet` raises, before any work."""
    if not path.parent.is_dir():
        raise UsageError(f"{path}: the folder {path.parent} does not exist.")
    return _suffix(path)


def read_sheet(path: Path) -> list[Row]:
    """Read a sheet.

    Raises:
        MissingError: the file does not exist.
        DamagedError: a column is absent, a grade is no whole number from 0 on, or a document
            stands there twice for one query.
    """
    if not path.is_file():
        raise MissingError(f"There is no sheet of judgements {path}.")
    suffix = _suffix(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DamagedError(f"{path} is no readable sheet ({error}).") from error
    rows: list[Row] = []
    seen: set[tuple[str, str, str]] = set()
    for number, record in enumerate(
        _records(path, text, suffix), start=2 if suffix == ".csv" else 1
    ):
        row = _row(path, number, record)
        key = (row.task, row.query_id, row.document_id)
        if key in seen:
            raise DamagedError(
                f"{path}, row {number}: '{row.document_id}' stands there twice for query"
                f" '{row.query_id}'."
            )
        seen.add(key)
        rows.append(row)
    return rows


def _records(path: Path, text: str, suffix: str) -> Sequence[dict[str, Any]]:
    try:
        if suffix == ".jsonl":
            records = [json.loads(line) for line in text.splitlines() if line.strip()]
            if not all(isinstance(record, dict) for record in records):
                raise ValueError("a line is no JSON object")
            return records
        return list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    except (ValueError, csv.Error, RecursionError) as error:
        raise DamagedError(f"{path} is no readable sheet ({error}).") from error


def _row(path: Path, number: int, record: dict[str, Any]) -> Row:
    lacking = [name for name in ("task", "query_id", "document_id", "grade") if name not in record]
    if lacking:
        raise DamagedError(
            f"{path}, row {number}: no column {', '.join(lacking)}. Expected {', '.join(COLUMNS)}."
        )
    grade = record["grade"]
    text = "" if grade is None else str(grade).strip()
    if text and not (text.isascii() and text.isdecimal()):
        raise DamagedError(
            f"{path}, row {number}: the grade is '{text}', expected a whole number from 0 on, or"
            " nothing."
        )
    control = record.get("control") in (True, "yes")
    return Row(
        str(record["task"]), str(record["query_id"]), str(record["document_id"]),
        str(record.get("query") or ""), str(record.get("document") or ""),
        whole_grade(text, f"{path}, row {number}") if text else None,
        str(record.get("judge") or ""), control,
    )  # fmt: skip


def _suffix(path: Path) -> str:
    if path.suffix not in (".csv", ".jsonl"):
        raise UsageError(f"{path}: a sheet of judgements is .csv or .jsonl.")
    return path.suffix
