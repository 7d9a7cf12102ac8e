"""A saved first stage, re-ordered at the top, as an object that mteb evaluates.

mteb's own second stage keeps only the candidates that the reranker scored. Here the tail keeps
its order beneath them, so recall beyond the depth is the first stage's. Up to the depth both
give the same measures; `head_only` gives what mteb gives in full.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bge_eval.data.texts import document_texts, query_texts
from bge_eval.records import Run, SplitKey
from bge_eval.rerank.reranker import Reranker
from bge_eval.search.ranking import ranked

if TYPE_CHECKING:
    from datasets import Dataset
    from mteb.models import ModelMeta


class SecondStage:
    """mteb's SearchProtocol over first-stage runs and a reranker."""

    def __init__(
        self,
        first_stage: Mapping[SplitKey, Run],
        reranker: Reranker,
        top_k: int,
        meta: ModelMeta,
    ) -> None:
        """Remember the first stage.

        Args:
            first_stage: (subset, split) → run.
            reranker: scores pairs.
            top_k: how many documents of each query are re-ordered.
            meta: mteb's record under which the result is filed.
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
        """Return the record under which the result is filed."""
        return self._meta

    def index(self, corpus: Dataset, **kwargs: Any) -> None:
        """Take the corpus; only candidates are read from it."""
        self._corpus = corpus

    def search(self, queries: Dataset, *, hf_split: str, hf_subset: str, **kwargs: Any) -> Run:
        """Return the first stage with its first ``top_k`` documents re-ordered.

        With ``head_only`` set, the documents beneath are left out, as in mteb's own second
        stage. Pairs are scored once, however often a part is asked for.
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
    """Score documents of the corpus for each query.

    Args:
        reranker: scores pairs.
        corpus: only the candidates are read from it.
        queries: with columns ``id``, ``text`` and perhaps ``instruction``.
        candidates: query id → document ids.
    """
    texts = dict(zip(queries["id"], query_texts(queries), strict=True))
    documents = _texts_of(corpus, {doc for docs in candidates.values() for doc in docs})
    pairs = [(texts[query], documents[doc]) for query, docs in candidates.items() for doc in docs]
    scores = iter(reranker.score(pairs).tolist())
    return {query: {doc: next(scores) for doc in docs} for query, docs in candidates.items()}


def with_tail(head: Mapping[str, float], first_stage: Mapping[str, float]) -> dict[str, float]:
    """Put the documents that were not re-ordered beneath those that were, in their old order.

    Their scores only carry the order: one below the head's lowest, then down in steps of one.
    """
    tail = [doc for doc in ranked(first_stage) if doc not in head]
    floor = min(head.values(), default=0.0) - 1.0
    return {**head, **{doc: floor - rank for rank, doc in enumerate(tail)}}


def _texts_of(corpus: Dataset, wanted: Iterable[str]) -> dict[str, str]:
    wanted = set(wanted)
    rows = np.array([row for row, doc in enumerate(corpus["id"]) if doc in wanted], np.int64)
    if not len(rows):
        return {}
    texts = (text for batch in document_texts(corpus, rows, 4096) for text in batch)
    return dict(zip(corpus[rows]["id"], texts, strict=True))
