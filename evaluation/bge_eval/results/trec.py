"""TREC runs and qrels, per-query scores and excerpts of texts, as gzipped files."""

from __future__ import annotations

import gzip
import io
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from bge_eval.errors import DamagedError
from bge_eval.records import Excerpt, Excerpts, Qrels, Run
from bge_eval.results.judgements import add_judgement, judgements
from bge_eval.results.unpacked import open_text
from bge_eval.search.ranking import ranked

_UNREADABLE = (OSError, EOFError, zlib.error, ValueError)
"""What reading a damaged file raises; a UnicodeDecodeError is a ValueError."""


def write_run(path: Path, run: Mapping[str, Mapping[str, float]], tag: str) -> None:
    """Write a run: ``query Q0 document rank score tag``, tab-separated, best first.

    Scores are written in full, so that they read back as the same numbers.
    """
    label = "_".join(tag.split()) or "bge-eval"
    with _gzip_writer(path) as file:
        for query, scores in run.items():
            for rank, document in enumerate(ranked(scores), start=1):
                score = float(scores[document])
                file.write(f"{query}\tQ0\t{document}\t{rank}\t{score!r}\t{label}\n")


def read_run(path: Path) -> Run:
    """Read a run file, gzipped or plain.

    Raises:
        DamagedError: a line does not have six columns, a query has a document twice, or a score
            is not a number.
    """
    run: Run = {}
    try:
        with open_text(path) as file:
            for number, line in enumerate(file, start=1):
                # Our files have tabs, so ids may hold spaces; other tools use either.
                cells = line.rstrip("\r\n").split("\t") if "\t" in line else line.split()
                if len(cells) != 6:
                    if not line.strip():
                        continue
                    raise DamagedError(
                        f"{path}, line {number}: a TREC run has six columns, found {len(cells)}."
                    )
                documents, score = run.setdefault(cells[0], {}), _score(cells[4])
                if cells[2] in documents or not math.isfinite(score):
                    problem = "is there twice" if cells[2] in documents else f"scores {cells[4]}"
                    raise DamagedError(
                        f"{path}, line {number}: document '{cells[2]}' of query '{cells[0]}'"
                        f" {problem}."
                    )
                documents[cells[2]] = score
    except _UNREADABLE as error:
        raise DamagedError(f"{path} is no readable run file ({error}).") from error
    return run


def _score(text: str) -> float:
    """Return a score, NaN for what is no number."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def read_heads(
    path: Path, depth: int, qrels: Mapping[str, Mapping[str, int]]
) -> dict[str, tuple[list[str], dict[str, int]]]:
    """Read every query's top documents and the ranks of its relevant ones.

    For runs of `write_run`, whose lines are ordered; the file is streamed, not held in memory.

    Args:
        path: the run.
        depth: number of top documents for each query.
        qrels: query id → document id → grade; only its queries are read.

    Returns:
        Query id → (top documents, best first; relevant document → rank from 1). Relevant
        documents that were not retrieved have no rank.
    """
    heads: dict[str, tuple[list[str], dict[str, int]]] = {query: ([], {}) for query in qrels}
    query, rank = "", 0
    try:
        with open_text(path) as file:
            for line in file:
                cells = line.split("\t", 3)
                if cells[0] != query:
                    query, rank = cells[0], 0
                    head, ranks = heads.get(query, ([], {}))
                    judged = qrels.get(query, {})
                rank += 1
                document = cells[2]
                if rank <= depth:
                    head.append(document)
                if judged.get(document, 0) > 0:
                    ranks[document] = rank
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, IndexError) as error:
        raise DamagedError(f"{path} is no readable run file ({error}).") from error
    return heads


def write_qrels(path: Path, qrels: Mapping[str, Mapping[str, int]]) -> None:
    """Write judgements: ``query 0 document grade``, tab-separated."""
    with _gzip_writer(path) as file:
        for query, judged in qrels.items():
            for document, grade in judged.items():
                file.write(f"{query}\t0\t{document}\t{int(grade)}\n")


def read_qrels(path: Path) -> Qrels:
    """Read TREC qrels, or BEIR's three columns, gzipped or plain (`bge_eval.results.judgements`).

    Raises:
        DamagedError: a line has neither format, a grade is not a whole number, or two judgements
            contradict each other.
    """
    qrels: Qrels = {}
    try:
        with open_text(path) as file:
            numbered = ((number, line.rstrip("\r\n")) for number, line in enumerate(file, start=1))
            for each in judgements(numbered, path):
                add_judgement(qrels, each, path)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DamagedError(f"{path} holds no readable qrels ({error}).") from error
    return qrels


def write_excerpts(path: Path, texts: Excerpts) -> None:
    """Write one JSON line for each query, then one for each document."""
    with _gzip_writer(path) as file:
        for query, text in texts.queries.items():
            file.write(json.dumps({"query": query, "text": text}, ensure_ascii=False) + "\n")
        for document, excerpt in texts.documents.items():
            line = {"document": document, "title": excerpt.title, "text": excerpt.text}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def read_excerpts(path: Path) -> Excerpts:
    """Read a file of `write_excerpts`.

    Raises:
        DamagedError: the file is not readable.
    """
    queries: dict[str, str] = {}
    documents: dict[str, Excerpt] = {}
    try:
        with open_text(path) as file:
            for line in file:
                item = json.loads(line)
                if "query" in item:
                    queries[item["query"]] = item["text"]
                else:
                    documents[item["document"]] = Excerpt(item["title"], item["text"])
    except (
        OSError,
        EOFError,
        zlib.error,
        ValueError,
        KeyError,
        TypeError,
        RecursionError,
    ) as error:
        raise DamagedError(f"{path} holds no readable texts ({error}).") from error
    return Excerpts(queries, documents)


def write_per_query(
    path: Path,
    measures: Sequence[str],
    values: Mapping[str, Sequence[float]],
    *,
    head: str = "query-id",
) -> None:
    """Write a header, then one line for each query (or item): its id, its value of each measure."""
    with _gzip_writer(path) as file:
        file.write("\t".join([head, *measures]) + "\n")
        for query, row in values.items():
            file.write("\t".join([query, *(f"{value:.9g}" for value in row)]) + "\n")


def read_per_query(path: Path) -> tuple[list[str], dict[str, list[float]]]:
    """Read a per-query file: the measures' names, and query id → values in their order.

    Raises:
        DamagedError: the file is not readable.
    """
    try:
        with open_text(path) as file:
            header = file.readline().rstrip("\n").split("\t")
            table = [line.rstrip("\n").split("\t") for line in file]
        if any(len(row) != len(header) for row in table):
            raise ValueError("a line has another number of columns than the first")
        return header[1:], {row[0]: [float(cell) for cell in row[1:]] for row in table}
    except _UNREADABLE as error:
        raise DamagedError(f"{path} holds no readable scores ({error}).") from error


def _gzip_writer(path: Path) -> io.TextIOWrapper:
    # mtime=0: the same content gives the same bytes.
    binary = gzip.GzipFile(path, "wb", compresslevel=6, mtime=0)
    return io.TextIOWrapper(binary, encoding="utf-8", newline="\n")
