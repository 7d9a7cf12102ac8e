"""Encode one part of what a task searches, into the store, and search nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bge_eval.data.texts import document_texts, query_texts
from bge_eval.encode.part import Part, SeenKeys, Share
from bge_eval.encode.prompts import Role
from bge_eval.encode.store import Space
from bge_eval.errors import UsageError
from bge_eval.models.dense import candidate_rows
from bge_eval.models.form import Form
from bge_eval.models.transformer import EncoderModel, ShareCounts
from bge_eval.runtime.batches import WINDOW
from bge_eval.search.exact import chunk_rows

if TYPE_CHECKING:
    from datasets import Dataset
    from mteb.abstasks.task_metadata import TaskMetadata


class PartialEncoding:
    """A model that encodes one part of every corpus; mteb sees a model that searches.

    The queries belong to part 1. The texts of the other parts are read and hashed, because a text
    is encoded only where it comes first.
    """

    def __init__(self, model: EncoderModel, part: Part) -> None:
        """Encode with a model that has a store.

        Args:
            model: the encoder.
            part: the part to encode.

        Raises:
            UsageError: the model stores no vectors.
        """
        if model.store is None:
            raise UsageError(
                "--shard leaves vectors in the store for a later run, and --no-store keeps none:"
                " leave one of them out."
            )
        self._model = model
        self._part = part
        self._seen: dict[Space, SeenKeys] = {}
        self._corpus: Dataset | None = None
        self._counts: dict[Space, ShareCounts] = {}

    @property
    def mteb_model_meta(self) -> Any:
        """Return mteb's record of the model."""
        return self._model.mteb_model_meta

    def counts(self) -> dict[Space, ShareCounts]:
        """Return what was met and encoded since the last call, by the space of the vectors."""
        before, self._counts = self._counts, {}
        return before

    def index(self, corpus: Dataset, **kwargs: Any) -> None:
        """Keep the corpus for the next search."""
        self._corpus = corpus

    def search(
        self,
        queries: Dataset,
        *,
        task_metadata: TaskMetadata,
        top_ranked: Mapping[str, Sequence[str]] | None = None,
        **kwargs: Any,
    ) -> dict[str, dict[str, float]]:
        """Encode the part's queries and documents, in the order of a search; the run is empty."""
        assert self._corpus is not None, "mteb indexes before it searches"
        corpus, self._corpus = self._corpus, None
        asked = query_texts(queries)
        with self._model.progress.step("encode queries", len(asked), "texts") as step:
            share = Share(Part(1, 1), 1) if self._part.number == 1 else None
            self._take(asked, self._model.form(task_metadata, Role.QUERY), share, step)
        form = self._model.form(task_metadata, Role.DOCUMENT)
        rows = None if top_ranked is None else candidate_rows(corpus, queries["id"], top_ranked)
        whole = len(corpus) if rows is None else len(rows)
        chunk = chunk_rows(self._model.encoder.dimension)
        shares = _shares(self._part, whole, chunk)
        with self._model.progress.step("encode corpus", whole, "documents") as step:
            for texts in document_texts(corpus, rows, chunk):
                self._take(texts, form, next(shares), step)
        return {}

    def _take(self, texts: list[str], form: Form, share: Share | None, step: Any) -> None:
        space = self._model.space_of(form)
        seen = self._seen.setdefault(space, SeenKeys())
        done = self._model.encode_share(texts, form, share, seen, step)
        counts = self._counts.setdefault(space, ShareCounts(0, 0, 0))
        counts.met += done.met
        counts.encoded += done.encoded
        counts.stored += done.stored


def _shares(part: Part, documents: int, chunk: int) -> Iterator[Share]:
    """Yield the share of a part in every chunk of a corpus.

    Args:
        part: the part.
        documents: the number of documents.
        chunk: documents of a chunk.
    """
    of_chunk = -(-chunk // WINDOW)
    whole, rest = divmod(documents, chunk)
    share = Share(part, whole * of_chunk + -(-rest // WINDOW))
    for number in range(whole + 1):
        yield share.beginning(number * of_chunk)
