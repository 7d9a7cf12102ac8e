"""The lines of a file of judgements (qrels), by one rule for every place that reads one.

A line has three columns, ``query document grade``, as BEIR's files have, or TREC's four, ``query
iteration document grade``; all lines have as many. Columns are separated by tabs, or by spaces
where the first line has no tab. The first line may be a header, which is recognised by the name of
its last column (`GRADE_NAMES`). A grade is a whole number from -10,000 to 10,000; ``1.0`` is 1.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from bge_eval.errors import DamagedError, quoted
from bge_eval.records import Qrels

GRADE_NAMES = (
    "score", "grade", "relevance", "rel", "label", "judgement", "judgment", "rating", "qrel",
)  # fmt: skip
"""Names of the last column of a header, in lower case."""
_COLUMNS = (3, 4)
_LARGEST_GRADE = 10_000
"""trec_eval counts documents in an array as long as the largest grade; beyond memory it crashes."""
_WHOLE = re.compile(r"[+-]?[0-9]{1,300}(\.0*)?", re.ASCII)
_DOCUMENTS = ("doc", "corpus", "passage")


@dataclass(frozen=True, slots=True)
class Judgement:
    """One judgement of a file."""

    line: int
    """The number of its line, from 1."""
    query: str
    """The query's id."""
    document: str
    """The document's id."""
    grade: int
    """The relevance grade."""


def judgements(lines: Iterable[tuple[int, str]], file: object) -> Iterator[Judgement]:
    """Yield the judgements of a file's lines.

    Args:
        lines: the number and the text of every line, without its end; blank lines do not count.
        file: the file, for messages.

    Raises:
        DamagedError: a line has another number of columns, or its grade is not a whole number; the
            message names the file and the line.
    """
    separator: str | None = None
    width = 0
    for number, line in lines:
        if not line.strip():
            continue
        if not width:
            separator = "\t" if "\t" in line else None
        cells = [cell.strip() for cell in line.split(separator)]
        if len(cells) not in ((width,) if width else _COLUMNS):
            expected = f"{width} columns, as above" if width else "three columns or four"
            raise DamagedError(
                f"{file}, line {number}: expected {expected} (query, document, grade; TREC's files"
                f" have a column 0 after the query), separated by tabs or by spaces;"
                f" there are {len(cells)}: '{line[:60]}'."
            )
        first, width = not width, len(cells)
        if first and cells[-1].casefold() in GRADE_NAMES:
            _check_header(cells, number, file)
            continue
        yield Judgement(number, cells[0], cells[-2], grade(cells[-1], f"{file}, line {number}"))


def add_judgement(qrels: Qrels, judgement: Judgement, file: object) -> None:
    """Add a judgement to those before it.

    Raises:
        DamagedError: the document was already judged with another grade.
    """
    judged = qrels.setdefault(judgement.query, {})
    before = judged.setdefault(judgement.document, judgement.grade)
    if before != judgement.grade:
        raise DamagedError(
            f"{file}, line {judgement.line}: '{judgement.query}' and '{judgement.document}' were"
            f" already judged {before}, now {judgement.grade}."
        )


def grade(text: str, where: str) -> int:
    """Return a grade; ``1.0`` is 1.

    Raises:
        DamagedError: it is not a whole number, or too large for trec_eval.
    """
    shown = quoted(text, 40)
    if not _WHOLE.fullmatch(text):
        raise DamagedError(
            f"{where}: the grade {shown} is not a whole number. (A header's last column is called"
            f" {', '.join(GRADE_NAMES[:4])} …)"
        )
    value = int(text.partition(".")[0])
    if abs(value) > _LARGEST_GRADE:
        raise DamagedError(
            f"{where}: the grade {shown} is too large. Grades go from {-_LARGEST_GRADE} to"
            f" {_LARGEST_GRADE}; map them to fewer, such as 0 to 3."
        )
    return value


def _check_header(cells: list[str], number: int, file: object) -> None:
    if any(word in cells[0].casefold() for word in _DOCUMENTS):
        raise DamagedError(
            f"{file}, line {number}: the header names the columns {', '.join(cells)}; expected the"
            " query first, then the document, then the grade."
        )
