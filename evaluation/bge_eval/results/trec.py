"""TREC run files and per-query score files, gzipped, written whole or not at all."""

from __future__ import annotations

import gzip
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from bge_eval.errors import DamagedError
from bge_eval.records import Run


def write_run(path: Path, run: Mapping[str, Mapping[str, float]], tag: str) -> None:
    """Write a run: ``query Q0 document rank score tag``, tab-separated, best first.

    Scores are written in full, so that they read back as the same numbers.
    """
    label = "_".join(tag.split()) or "bge-eval"
    with _gzip_writer(path) as file:
        for query, scores in run.items():
            ranked = sorted(scores, key=lambda doc: (scores[doc], doc), reverse=True)
            for rank, document in enumerate(ranked, start=1):
                score = float(scores[document])
                file.write(f"{query}\tQ0\t{document}\t{rank}\t{score!r}\t{label}\n")


def read_run(path: Path) -> Run:
    """Read a run file, gzipped or plain.

    Raises:
        DamagedError: a line has not six columns, a document is there twice for a query, or a
            score is no number.
    """
    run: Run = {}
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                # Our own files have tabs, so ids may hold spaces; other tools write either.
                cells = line.rstrip("\n").split("\t") if "\t" in line else line.split()
                if len(cells) != 6:
                    raise DamagedError(
                        f"{path}, line {number}: a TREC run has six columns, found {len(cells)}."
                    )
                documents, score = run.setdefault(cells[0], {}), float(cells[4])
                if cells[2] in documents or not math.isfinite(score):
                    wrong = "is there twice" if cells[2] in documents else f"scores {cells[4]}"
                    raise DamagedError(
                        f"{path}, line {number}: document '{cells[2]}' of query '{cells[0]}'"
                        f" {wrong}."
                    )
                documents[cells[2]] = score
    except (OSError, EOFError, UnicodeDecodeError, ValueError) as error:
        raise DamagedError(f"{path} is no readable run file ({error}).") from error
    return run


def write_per_query(
    path: Path, measures: Sequence[str], values: Mapping[str, Sequence[float]]
) -> None:
    """Write one line a query: its id and its value of each measure, with a header."""
    with _gzip_writer(path) as file:
        file.write("\t".join(["query-id", *measures]) + "\n")
        for query, row in values.items():
            file.write("\t".join([query, *(f"{value:.9g}" for value in row)]) + "\n")


def read_per_query(path: Path) -> tuple[list[str], dict[str, list[float]]]:
    """Read a per-query file: the measures' names, and query id → values in their order."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        header = file.readline().rstrip("\n").split("\t")
        rows = (line.rstrip("\n").split("\t") for line in file)
        return header[1:], {row[0]: [float(cell) for cell in row[1:]] for row in rows}


def _gzip_writer(path: Path) -> io.TextIOWrapper:
    # mtime=0: the same content gives the same bytes.
    binary = gzip.GzipFile(path, "wb", compresslevel=6, mtime=0)
    return io.TextIOWrapper(binary, encoding="utf-8", newline="\n")
