"""Reranking data with a query and its candidates in one row: positives and negatives.

::

    <folder>/<split>.jsonl      {"query": "…", "positive": ["…"], "negative": ["…"]}
    a dataset repository        the same three columns in one configuration

The rows become a retrieval task with candidate lists. Documents and queries get the ids of mteb's
own conversion (``mteb.abstasks.text.reranking``). Queries without a positive or without a negative
are left out, as mteb does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bge_eval.data.files import Place, records
from bge_eval.data.rows import RowsFolder, rows_folders
from bge_eval.data.sources import (
    DataIdentity,
    LocalSource,
    attached,
    is_retrieval,
    require_subsets,
)
from bge_eval.errors import DamagedError
from bge_eval.progress import Progress

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask

CANDIDATE_COLUMNS = frozenset({"query", "positive", "negative"})
"""The columns by which reranking rows are recognised."""


@dataclass(frozen=True, slots=True)
class CandidatesSource(LocalSource):
    """The files of reranking rows of a task, in one folder for each subset."""

    folders: Mapping[str, RowsFolder]
    """Subset → its folder."""

    def identity(self, task: AbsTask) -> DataIdentity:
        """Fingerprint the splits that the task scores."""
        splits = tuple(task.eval_splits)
        prints = [folder.fingerprint(splits) for folder in self.folders.values()]
        return DataIdentity("candidates", "+".join(prints), splits, tuple(self.folders))

    def check(self, task: AbsTask) -> None:
        """Raise MissingError if a split has no file."""
        for folder in self.folders.values():
            folder.files(task.eval_splits)

    @contextmanager
    def loaded(self, task: AbsTask, progress: Progress) -> Iterator[None]:
        """Read the rows into corpus, queries, qrels and candidate lists."""
        with progress.step("load"):
            dataset = {
                subset: {
                    split: _read_split(place, split)
                    for split, place in folder.files(task.eval_splits).items()
                }
                for subset, folder in self.folders.items()
            }
        with attached(task, dataset):
            yield


def candidates_source(task: AbsTask, root: Place, dangling: bool) -> CandidatesSource | None:
    """Return the source of a folder of reranking rows, for reranking tasks."""
    if not candidates_marker(task) or not (folders := rows_folders(task, root)):
        return None
    require_subsets(task, root, list(folders), candidates_marker(task))
    return CandidatesSource(root, folders)


def candidates_marker(task: AbsTask) -> str:
    """Return the file by which a folder of reranking rows is recognised."""
    if not is_retrieval(task) or task.metadata.type == "Retrieval":
        return ""
    return f"{task.eval_splits[0]}.jsonl"


def candidates_collection(folder: Path) -> tuple[str, list[str]] | None:
    """Return the task type and the splits of a user's folder, if its first file has candidates."""
    rows = RowsFolder.recognise(folder)
    if rows is None:
        return None
    splits = rows.splits()
    first = next(records(rows.files(splits[:1])[splits[0]]), None)
    if first is None or not set(first[1]) >= CANDIDATE_COLUMNS:
        return None
    return "Reranking", splits


def split_of_candidates(
    rows: Iterable[tuple[str, Mapping[str, Any]]], split: str, origin: str
) -> dict[str, Any]:
    """Convert reranking rows to a retrieval split with candidate lists.

    Args:
        rows: pairs of a row's position, for messages, and its columns query, positive, negative.
        split: the split's name, which is part of the ids.
        origin: the file or repository of the rows, for messages.

    Returns:
        ``corpus`` and ``queries`` tables, ``relevant_docs`` and ``top_ranked``.

    Raises:
        DamagedError: a row is invalid, or no query has both a positive and a negative.
    """
    from datasets import Dataset

    corpus: list[dict[str, str]] = []
    queries: list[dict[str, str]] = []
    qrels: dict[str, dict[str, int]] = {}
    candidates: dict[str, list[str]] = {}
    for where, record in rows:
        lists = {name: _texts(record, name, where) for name in ("positive", "negative")}
        if not isinstance(record.get("query"), str):
            raise DamagedError(f"{where}: query is missing or no text.")
        if not lists["positive"] or not lists["negative"]:
            continue
        query = f"{split}_query{len(queries)}"
        queries.append({"id": query, "text": record["query"]})
        for prefix, name, grade in (("apositive", "positive", 1), ("negative", "negative", 0)):
            for position, text in enumerate(lists[name]):
                document = f"{prefix}_{query}_{position:05d}"
                corpus.append({"id": document, "title": "", "text": text})
                qrels.setdefault(query, {})[document] = grade
                candidates.setdefault(query, []).append(document)
    if not queries:
        raise DamagedError(
            f"{origin} holds no query with at least one positive and one negative candidate."
        )
    return {
        "corpus": Dataset.from_list(corpus),
        "queries": Dataset.from_list(queries),
        "relevant_docs": qrels,
        "top_ranked": candidates,
    }


def _read_split(place: Place, split: str) -> dict[str, Any]:
    rows = ((f"{place}, line {number}", record) for number, record in records(place))
    return split_of_candidates(rows, split, str(place))


def _texts(record: Mapping[str, Any], name: str, where: str) -> list[str]:
    texts = record.get(name)
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise DamagedError(f"{where}: {name} is no list of texts.")
    return texts
