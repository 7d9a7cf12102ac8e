"""Encode one part of what a task searches, into the store, and perhaps search that part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bge_eval.data.texts import document_texts, query_texts
from bge_eval.encode.part import Part, SeenKeys, Share
from bge_eval.encode.prompts import Role
from bge_eval.encode.shards import text_keys
from bge_eval.encode.store import Space
from bge_eval.errors import StorageError, UsageError
from bge_eval.models.base import KeepsCorpus
from bge_eval.models.dense import candidate_rows
from bge_eval.models.form import Form
from bge_eval.models.searched import SearchedParts
from bge_eval.models.transformer import EncoderModel
from bge_eval.runtime.batches import WINDOW
from bge_eval.runtime.text_encoder import Distinct
from bge_eval.search.exact import ExactSearch, chunk_rows

if TYPE_CHECKING:
    from datasets import Dataset
    from mteb.abstasks.task_metadata import TaskMetadata


@dataclass(slots=True)
class ShareCounts:
    """The texts of one call that no earlier call had."""

    met: int
    """Their number."""
    encoded: int
    """Those that were encoded now."""
    stored: int
    """Those whose vectors are in the store now."""


class PartialEncoding(KeepsCorpus):
    """A model that encodes one part of every corpus; mteb sees a model that searches.

    The queries belong to part 1. The texts of the other parts are read and hashed, because a text
    is encoded only where it comes first.
    """

    def __init__(self, model: EncoderModel, part: Part, *, searches: bool = False) -> None:
        """Encode with a model that has a store.

        Args:
            model: the encoder.
            part: the part to encode.
            searches: search the part too. Then whole chunks are dealt, and every part encodes the
                queries.

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
        self._searches = searches
        self._seen: dict[Space, SeenKeys] = {}
        self._counts: dict[Space, ShareCounts] = {}

    @property
    def mteb_model_meta(self) -> Any:
        """Return mteb's record of the model."""
        return self._model.mteb_model_meta

    def counts(self) -> dict[Space, ShareCounts]:
        """Return what was met and encoded since the last call, by the space of the vectors."""
        before, self._counts = self._counts, {}
        return before

    def search(
        self,
        queries: Dataset,
        *,
        task_metadata: TaskMetadata,
        top_k: int,
        top_ranked: Mapping[str, Sequence[str]] | None = None,
        **kwargs: Any,
    ) -> dict[str, dict[str, float]]:
        """Encode the part's queries and documents, in the order of a search; the run is empty."""
        corpus = self._take_corpus()
        asked = query_texts(queries)
        with self._model.progress.step("encode queries", len(asked), "texts") as step:
            own = self._searches or self._part.number == 1
            share = Share(Part(1, 1), 1) if own else None
            self._take(asked, self._model.form(task_metadata, Role.QUERY), share, step)
        form = self._model.form(task_metadata, Role.DOCUMENT)
        rows = None if top_ranked is None else candidate_rows(corpus, queries["id"], top_ranked)
        whole = len(corpus) if rows is None else len(rows)
        chunk = chunk_rows(self._model.encoder.dimension)
        searches = self._searches and rows is None
        shares = _shares(self._part, whole, chunk, together=searches)
        again = self._repeated(corpus, form, chunk, shares) if searches else None
        with self._model.progress.step("encode corpus", whole, "documents") as step:
            texts_and_shares = zip(document_texts(corpus, rows, chunk), shares, strict=False)
            for texts, share in texts_and_shares:
                self._take(texts, form, share, step, again)
        if searches:
            self._search(corpus, task_metadata, asked, top_k, chunk, shares)
        return {}

    def _repeated(
        self, corpus: Dataset, form: Form, chunk: int, shares: Sequence[Share]
    ) -> SeenKeys:
        """Return the texts of the part's chunks, some of which other chunks may have first."""
        own = SeenKeys()
        for texts, share in zip(document_texts(corpus, None, chunk), shares, strict=False):
            if share.takes_all:
                texts, _ = self._model.inputs(texts, form)
                own.add(text_keys(Distinct(texts).texts))
        return own

    def _search(
        self,
        corpus: Dataset,
        task_metadata: TaskMetadata,
        asked: list[str],
        top_k: int,
        chunk: int,
        shares: Sequence[Share],
    ) -> None:
        """Search the part's chunks, whose vectors are all in the store, and keep the best."""
        model = self._model
        queries = model.vectors_of(asked, model.form(task_metadata, Role.QUERY))
        form = model.form(task_metadata, Role.DOCUMENT)
        ids = corpus.select_columns(["id"])
        search = ExactSearch(queries, top_k, lambda rows: list(ids[rows]["id"]))
        with model.progress.step("search", len(corpus), "documents") as step:
            row = 0
            for texts, share in zip(document_texts(corpus, None, chunk), shares, strict=False):
                if share.takes_all:
                    search.add(model.vectors_of(texts, form), row)
                row += len(texts)
                step.advance(len(texts))
            parts = SearchedParts(model.space_of(form), corpus, queries, top_k)
            parts.save(self._part, search.kept())

    def _take(
        self,
        texts: list[str],
        form: Form,
        share: Share | None,
        step: Any,
        again: SeenKeys | None = None,
    ) -> None:
        """Encode and store what the part takes of a sequence of texts.

        Args:
            texts: the texts of all parts.
            form: what is put around each.
            share: the batches to encode; None encodes nothing.
            step: receives the progress.
            again: texts whose batches are encoded here in any case.

        Raises:
            StorageError: vectors cannot be stored, so encoding more would be in vain.
        """
        model, space = self._model, self._model.space_of(form)
        seen = self._seen.setdefault(space, SeenKeys())
        counts = self._counts.setdefault(space, ShareCounts(0, 0, 0))
        texts, prompt = model.inputs(texts, form)
        distinct = Distinct(texts)
        keys = text_keys(distinct.texts)
        new = seen.add(keys)
        known = space.knows(keys)
        counts.met += int(new.sum())
        counts.stored += int((known & new).sum())
        step.advance(int(distinct.copies[known | ~new].sum()))
        if share is None:
            return
        for rows, pooled in model.encoder_of(form).parts(
            distinct.texts,
            prompt,
            step,
            copies=distinct.copies,
            wanted=new & ~known,
            share=share,
            needed=None if again is None else again.has(keys),
        ):
            with model.progress.step("store"):
                space.put(keys[rows], pooled, model.encoder.parameters)
            if space.failure is not None:
                raise StorageError(space.failure, space.folder, "Free space, and run it again.")
            counts.encoded += len(rows)
            counts.stored += len(rows)


def _shares(part: Part, documents: int, chunk: int, *, together: bool) -> list[Share]:
    """Return the share of a part in every chunk of a corpus.

    Args:
        part: the part.
        documents: the number of documents.
        chunk: documents of a chunk.
        together: deal whole chunks.
    """
    of_chunk = -(-chunk // WINDOW)
    whole, rest = divmod(documents, chunk)
    windows = whole * of_chunk + -(-rest // WINDOW)
    share = Share(part, windows, 0, of_chunk if together else None)
    return [share.beginning(number * of_chunk) for number in range(whole + 1)]
