"""A reranker evaluated by itself on the candidate lists of reranking tasks, as mteb does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bge_eval.errors import UsageError
from bge_eval.progress import Progress
from bge_eval.records import Run
from bge_eval.rerank.filing import own_experiment
from bge_eval.rerank.reranker import Reranker
from bge_eval.rerank.second_stage import score_candidates

if TYPE_CHECKING:
    from datasets import Dataset
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.models import ModelMeta


class RerankerAlone:
    """mteb's SearchProtocol over the candidates that a reranking task brings."""

    def __init__(self, reranker: Reranker, progress: Progress | None = None) -> None:
        """Take a reranker.

        Args:
            reranker: scores pairs.
            progress: told of what is done.
        """
        self.progress = progress or Progress()
        self.task_prompts: dict[str, Mapping[str, str]] = {}
        self._reranker = reranker
        self._corpus: Dataset | None = None

    @property
    def packages(self) -> tuple[str, ...]:
        """Return the packages, beside those of every run, whose version can change a score."""
        return self._reranker.packages

    @property
    def mteb_model_meta(self) -> ModelMeta:
        """Return the reranker's own record; settings that are not its own are its experiment."""
        from mteb.models import ModelMeta
        from mteb.models.model_implementations import MODEL_REGISTRY

        said = self._reranker.identity()
        own = {
            "name": said["name"],
            "revision": said["revision"],
            "experiment_kwargs": own_experiment(said) or None,
        }
        registered = MODEL_REGISTRY.get(said["name"])
        if registered is not None:
            return registered.model_copy(update=own, deep=True)
        return ModelMeta.create_empty(
            overwrites={**own, "framework": ["PyTorch"], "model_type": ["cross-encoder"]}
        )

    def identity(self, task: TaskMetadata) -> dict[str, Any]:
        """Return everything the scores of one task depend on.

        Raises:
            UsageError: the task gives no candidates to re-order.
        """
        if not task.type.endswith("Reranking"):
            raise UsageError(
                f"{task.name} is a task of type {task.type}: it gives a reranker no candidates to"
                " re-order. Name the retriever with --model, or a run with --first-stage."
                if "Retrieval" in task.type
                else f"{task.name} is a task of type {task.type}, which a reranker alone cannot do."
            )
        return self._reranker.identity()

    def machine_settings(self) -> dict[str, Any]:
        """Return what changes the time but not the score."""
        return {}

    def index(self, corpus: Dataset, **kwargs: Any) -> None:
        """Take the corpus; only candidates are read from it."""
        self._corpus = corpus

    def search(
        self,
        queries: Dataset,
        *,
        top_ranked: Mapping[str, Sequence[str]] | None = None,
        **kwargs: Any,
    ) -> Run:
        """Score the candidates of every query.

        Raises:
            UsageError: the task gives no candidates.
        """
        assert self._corpus is not None, "mteb calls index() before search()"
        corpus, self._corpus = self._corpus, None
        if top_ranked is None:
            raise UsageError("This task gives a reranker no candidates to re-order.")
        candidates = {query: list(top_ranked.get(query, ())) for query in queries["id"]}
        return score_candidates(self._reranker, corpus, queries, candidates)
