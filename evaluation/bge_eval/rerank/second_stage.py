"""Reranking of a saved first stage, as a search model for mteb.

mteb's second stage drops the documents below the rerank depth. Here they follow in first-stage
order, so recall beyond the depth is the first stage's. Measures up to the depth are equal;
`head_only` drops the tail and reproduces mteb's run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bge_eval.data.texts import document_texts, query_texts
from bge_eval.errors import DamagedError, quoted
from bge_eval.records import Run, SplitKey
from bge_eval.rerank.reranker import Reranker
from bge_eval.search.ranking import ranked

if TYPE_CHECKING:
    from datasets import Dataset
    from mteb.models import ModelMeta


class SecondStage:
    """First-stage runs and a reranker behind mteb's ``SearchProtocol``."""

    def __init__(
        self,
        first_stage: Mapping[SplitKey, Run],
        reranker: Reranker,
        top_k: int,
        meta: ModelMeta,
    ) -> None:
        """Combine first-stage runs and a reranker.

        Args:
            first_stage: (subset, split) → run.
            reranker: scores pairs.
            top_k: number of documents to rerank per query.
            meta: mteb's model record of the result.
        """
        self.head_only = False
        self._first_stage = first_stage
        self._reranker = reranker
        self._top_k = top_k
        self._meta = meta
        self._corpus: Dataset | None = None
        self._heads: dict[SplitKey, Run] = {}

    @property
    def mteb_model_meta(self) -> ModelMeta:
        """Return mteb's model record of the result."""
        return self._meta

    def index(self, corpus: Dataset, **kwargs: Any) -> None:
        """Store the corpus; only candidates are read from it."""
        self._corpus = corpus

    def search(self, queries: Dataset, *, hf_split: str, hf_subset: str, **kwargs: Any) -> Run:
        """Return the first-stage run with its first ``top_k`` documents reranked.

        With ``head_only`` the other documents are left out, as in mteb's second stage. The scores
        of a split are computed once.
        """
        key = (hf_subset, hf_split)
        if key not in self._heads:
            self._heads[key] = self._score_heads(queries, self._first_stage[key])
        heads = self._heads[key]
        if self.head_only:
            return {query: dict(head) for query, head in heads.items()}
        first = self._first_stage[key]
        return {query: with_tail(heads[query], first.get(query, {})) for query in heads}

    def _score_heads(self, queries: Dataset, run: Run) -> Run:
        assert self._corpus is not None, "mteb calls index() before search()"
        corpus, self._corpus = self._corpus, None
        candidates = {query: ranked(run.get(query, {}), self._top_k) for query in queries["id"]}
        return score_candidates(self._reranker, corpus, queries, candidates)


def score_candidates(
    reranker: Reranker,
    corpus: Dataset,
    queries: Dataset,
    candidates: Mapping[str, Sequence[str]],
) -> Run:
    """Score every query's candidates.

    Args:
        reranker: scores pairs.
        corpus: the documents; only candidates are read.
        queries: columns ``id``, ``text`` and optionally ``instruction``.
        candidates: query id → document ids.
    """
    texts = dict(zip(queries["id"], query_texts(queries), strict=True))
    documents = _texts_of(corpus, {doc for docs in candidates.values() for doc in docs})
    pairs = [(texts[query], documents[doc]) for query, docs in candidates.items() for doc in docs]
    scored = np.asarray(reranker.score(pairs), np.float64)
    if scored.shape != (len(pairs),):
        raise DamagedError(
            f"{reranker.name} gave scores of shape {scored.shape} for {len(pairs)} pairs; expected"
            " one score for each pair."
        )
    if not np.isfinite(scored).all():
        query, document = pairs[int((~np.isfinite(scored)).argmax())]
        raise DamagedError(
            f"{reranker.name} gave a score that is not finite for the query {quoted(query)} and the"
            f" document {quoted(document)}."
        )
    scores = iter(scored.tolist())
    return {query: {doc: next(scores) for doc in docs} for query, docs in candidates.items()}


def with_tail(head: Mapping[str, float], first_stage: Mapping[str, float]) -> dict[str, float]:
    """Append the documents that were not reranked, in first-stage order.

    Their scores only encode the order: they start 1 below the head's lowest and fall by 1.
    """
    tail = [doc for doc in ranked(first_stage) if doc not in head]
    floor = min(head.values(), default=0.0) - 1.0
    return {**head, **{doc: floor - rank for rank, doc in enumerate(tail)}}


def _texts_of(corpus: Dataset, ids: Iterable[str]) -> dict[str, str]:
    ids = set(ids)
    rows = np.array([row for row, doc in enumerate(corpus["id"]) if doc in ids], np.int64)
    if not len(rows):
        return {}
    texts = (text for batch in document_texts(corpus, rows, 4096) for text in batch)
    return dict(zip(corpus[rows]["id"], texts, strict=True))
