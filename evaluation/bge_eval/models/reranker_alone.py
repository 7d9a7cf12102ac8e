"""A reranker without a retriever, on the candidate lists of reranking tasks, as mteb runs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bge_eval.errors import UsageError
from bge_eval.models.base import Model, model_meta
from bge_eval.progress import Progress
from bge_eval.records import Run
from bge_eval.rerank.filing import own_experiment
from bge_eval.rerank.reranker import Reranker
from bge_eval.rerank.second_stage import score_candidates

if TYPE_CHECKING:
    from datasets import Dataset
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.models import ModelMeta


class RerankerAlone(Model):
    """mteb's SearchProtocol over the candidates of a reranking task."""

    def __init__(self, reranker: Reranker, progress: Progress | None = None) -> None:
        """Take a reranker.

        Args:
            reranker: scores pairs.
            progress: receives every step.
        """
        super().__init__(progress)
        self._reranker = reranker

    @property
    def packages(self) -> tuple[str, ...]:
        """Return the reranker's packages."""
        return self._reranker.packages

    @property
    def mteb_model_meta(self) -> ModelMeta:
        """Return the reranker's own record; settings that are not its own are its experiment."""
        identity = self._reranker.identity()
        own = {
            "name": identity["name"],
            "revision": identity["revision"],
            "experiment_kwargs": own_experiment(identity) or None,
        }
        return model_meta(own, framework=["PyTorch"], model_type=["cross-encoder"])

    def identity(self, task: TaskMetadata) -> dict[str, Any]:
        """Return the reranker's identity.

        Raises:
            UsageError: the task has no candidates to re-order.
        """
        if not task.type.endswith("Reranking"):
            raise UsageError(
                f"{task.name} is a task of type {task.type}: it gives a reranker no candidates to"
                " re-order. Name the retriever with --model, or a run with --first-stage."
                if "Retrieval" in task.type
                else f"{task.name} is a task of type {task.type}, which a reranker alone cannot do."
            )
        return self._reranker.identity()

    def search(
        self,
        queries: Dataset,
        *,
        top_ranked: Mapping[str, Sequence[str]] | None = None,
        **kwargs: Any,
    ) -> Run:
        """Score the candidates of every query; see `Model.search`.

        Raises:
            UsageError: the task has no candidates.
        """
        corpus = self._take_corpus()
        if top_ranked is None:
            raise UsageError("This task gives a reranker no candidates to re-order.")
        if hasattr(self._reranker, "unfinished"):
            self._reranker.unfinished = self.unfinished
        candidates = {query: list(top_ranked.get(query, ())) for query in queries["id"]}
        return score_candidates(self._reranker, corpus, queries, candidates)
