"""The texts of queries and documents as a model reads them, streamed from an Arrow table.

They are joined by mteb's rules (``mteb._create_dataloaders``): a document is
``title + " " + text`` stripped, a query its text followed by its instruction, a conversation its
turns joined by "; ".
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bge_eval.data.tables import batches
from bge_eval.records import Excerpt, Excerpts, Qrels, Run

if TYPE_CHECKING:
    from datasets import Dataset

EXCERPT_LENGTH = 400
"""Number of characters of a text that are stored beside a run."""
EXCERPT_DEPTH = 10
"""Number of top documents of each query whose texts are stored beside a run."""


def document_texts(
    corpus: Dataset, rows: npt.NDArray[np.int64] | None, size: int
) -> Iterator[list[str]]:
    """Yield the texts of the corpus, or only of some rows, in lists of ``size``."""
    columns = [name for name in ("title", "text") if name in corpus.column_names]
    if rows is not None:
        source = corpus.select_columns(columns)
        for start in range(0, len(rows), size):
            yield _joined(source[rows[start : start + size]])
        return
    waiting: list[str] = []
    for batch in batches(corpus, columns):
        waiting += _joined({name: batch.column(name).to_pylist() for name in columns})
        for _ in range(len(waiting) // size):
            yield waiting[:size]
            del waiting[:size]
    if waiting:
        yield waiting


def _joined(batch: Mapping[str, list[str]]) -> list[str]:
    texts = batch["text"]
    titles = batch.get("title") or [""] * len(texts)
    return [document_text(title, text) for title, text in zip(titles, texts, strict=True)]


def document_text(title: str | None, text: str) -> str:
    """Join a document's title and text as mteb does."""
    return f"{title} {text}".strip() if title else text.strip()


def query_texts(queries: Dataset) -> list[str]:
    """Return every query as the model reads it."""
    instructions: Sequence[str | None] = (
        queries["instruction"] if "instruction" in queries.column_names else [None] * len(queries)
    )
    return [
        _query_text(text, instruction)
        for text, instruction in zip(queries["text"], instructions, strict=True)
    ]


def _query_text(text: Any, instruction: str | None) -> str:
    if isinstance(text, list):
        turns = [f"{t['role']}: {t['content']}" if isinstance(t, Mapping) else t for t in text]
        conversation = "; ".join(turns)
        return f"{instruction} {conversation}" if instruction is not None else conversation
    return f"{text} {instruction}" if instruction is not None else str(text)


def texts_by_id(corpus: Dataset) -> Iterator[tuple[str, str]]:
    """Yield (id, text as the model reads it) of every document, in constant memory."""
    columns = [name for name in ("id", "title", "text") if name in corpus.column_names]
    for batch in batches(corpus, columns):
        rows = {name: batch.column(name).to_pylist() for name in columns}
        texts = rows["text"]
        titles = rows.get("title") or [""] * len(texts)
        for id, title, text in zip(rows["id"], titles, texts, strict=True):
            yield str(id), document_text(title, text or "")


def whole_texts(corpus: Dataset, ids: Collection[str]) -> dict[str, str]:
    """Return the texts of some documents as the model reads them, in one pass over the corpus.

    Args:
        corpus: with columns ``id``, ``text`` and perhaps ``title``.
        ids: the documents; those that the corpus lacks are left out.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    columns = [name for name in ("id", "title", "text") if name in corpus.column_names]
    wanted = pa.array(sorted(ids), pa.string())
    texts: dict[str, str] = {}
    for batch in batches(corpus, columns):
        mask = pc.is_in(batch["id"].cast(pa.string()), value_set=wanted)
        for row in batch.filter(mask).to_pylist():
            texts[str(row["id"])] = document_text(row.get("title"), row["text"] or "")
    return texts


def excerpts(queries: Dataset, corpus: Dataset, run: Run, qrels: Qrels) -> Excerpts:
    """Return the texts of judged queries, their relevant documents and their ten top documents.

    One pass over the corpus, in constant memory.

    Args:
        queries: with columns ``id`` and ``text``.
        corpus: with columns ``id``, ``text`` and perhaps ``title``.
        run: the retrieved documents.
        qrels: the judgements; other queries are left out.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    documents: set[str] = set()
    for query, judged in qrels.items():
        scores = run.get(query, {})
        documents.update(document for document, grade in judged.items() if grade > 0)
        documents.update(heapq.nlargest(EXCERPT_DEPTH, scores, key=lambda doc: (scores[doc], doc)))
    columns = [name for name in ("id", "title", "text") if name in corpus.column_names]
    texts_by_id: dict[str, Excerpt] = {}
    ids = pa.array(sorted(documents), pa.string())
    for batch in batches(corpus, columns):
        mask = pc.is_in(batch["id"].cast(pa.string()), value_set=ids)
        for row in batch.filter(mask).to_pylist():
            texts_by_id[str(row["id"])] = Excerpt(
                (row.get("title") or "")[:EXCERPT_LENGTH], (row["text"] or "")[:EXCERPT_LENGTH]
            )
    texts = zip(map(str, queries["id"]), query_texts(queries), strict=True)
    return Excerpts(
        {query: text[:EXCERPT_LENGTH] for query, text in texts if query in qrels}, texts_by_id
    )
