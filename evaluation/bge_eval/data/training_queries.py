"""Queries that a model may have been trained on: of other splits, or of a training file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bge_eval.data.files import Place, find_file, records
from bge_eval.data.retrieval_folder import RetrievalFolder, RetrievalSource
from bge_eval.data.sources import DataSource
from bge_eval.errors import DamagedError, MissingError

_KEYS = ("query", "anchor", "text", "sentence1", "question")
"""Fields of a training file that hold the query, in the order in which they are tried."""


def other_splits(source: DataSource, subset: str, scored: Sequence[str]) -> dict[str, str] | None:
    """Return the queries that the other splits of a collection judge.

    Args:
        source: the source of the task's data.
        subset: the subset.
        scored: the splits that are scored.

    Returns:
        "train: <id>" → text; None for a layout that does not show its other splits.

    Raises:
        DamagedError: a line is invalid; the message names file and line.
    """
    folder = source.folders.get(subset) if isinstance(source, RetrievalSource) else None
    if folder is None:
        return None
    queries: dict[str, str] = {}
    for split in folder.splits():
        if split not in scored:
            queries |= _of_split(folder, split)
    return queries


def _of_split(folder: RetrievalFolder, split: str) -> dict[str, str]:
    files = folder.files([split])
    place = next(place for name, place in files.items() if "qrels" in name)
    judged = {judgement.query for judgement in folder.dialect.judgements(place)}
    key = folder.dialect.id_key
    return {
        f"{split}: {record[key]}": str(record.get("text") or "")
        for _, record in records(folder.queries_file(split))
        if str(record.get(key)) in judged
    }


def training_file(path: Path) -> dict[str, str]:
    """Return the queries of a jsonl file of training data: "<file>:<line>" → text.

    Raises:
        MissingError: the file does not exist.
        DamagedError: a line has no query; the message names the fields that are looked for.
    """
    place: Place | None = find_file(path.parent, path.name)
    if place is None:
        raise MissingError(f"There is no file of training data {path}.")
    queries: dict[str, str] = {}
    for number, record in records(place):
        text = next((record[key] for key in _KEYS if isinstance(record.get(key), str)), None)
        if text is None:
            raise DamagedError(
                f"{path}, line {number}: no query. Expected one of the fields {', '.join(_KEYS)};"
                f" its fields are {', '.join(map(str, record))}."
            )
        queries[f"{path.name}:{number}"] = text
    return queries
