"""The contract of every model, and what all kinds share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from bge_eval.errors import UsageError
from bge_eval.progress import Progress, WorkDone
from bge_eval.records import Run
from bge_eval.search.engines import EXACT

if TYPE_CHECKING:
    from datasets import Dataset
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.models import ModelMeta

    from bge_eval.encode.store import EmbeddingStore


class KeepsCorpus:
    """The first half of mteb's search: ``index`` keeps the corpus until ``search`` takes it."""

    _corpus: Dataset | None = None

    def index(self, corpus: Dataset, **kwargs: Any) -> None:
        """Keep the corpus for the next search."""
        self._corpus = corpus

    def _take_corpus(self) -> Dataset:
        """Return the indexed corpus and forget it.

        Raises:
            UsageError: no corpus was indexed.
        """
        if self._corpus is None:
            raise UsageError("search() was called before index(): there is no corpus to search.")
        corpus, self._corpus = self._corpus, None
        return corpus


class Model(KeepsCorpus, ABC):
    """A first stage that mteb can score: an encoder, BM25, saved runs, a reranker alone.

    Every model searches (mteb's SearchProtocol). One that ``encodes`` also has ``encode`` and
    ``similarity`` (EncoderProtocol), which tasks without a search need.
    """

    encodes: ClassVar[bool] = False
    """Whether it has ``encode`` and ``similarity``."""
    is_saved: ClassVar[bool] = False
    """Whether its runs were made before, so that evaluating it alone adds nothing to a fusion."""
    unfinished: EmbeddingStore | None = None
    """Keeps what a task has computed until its result is saved, of a kind that no store keeps."""

    def __init__(self, progress: Progress | None = None) -> None:
        """Start without a corpus.

        Args:
            progress: receives every step; silent by default.
        """
        self.progress = progress or Progress()
        self.task_prompts: dict[str, Mapping[str, str]] = {}
        """Task → role → prompt, for collections that state their own."""
        self.filed: dict[str, str] = {}
        """Task → the name under which its results are filed, another one for a cut."""

    def __str__(self) -> str:
        """Return the introduction, or the name where there is none."""
        return "\n".join(self.introduction()) or str(self.mteb_model_meta.name)

    # ── identity ────────────────────────────────────────────────────────────────────────────

    @property
    @abstractmethod
    def mteb_model_meta(self) -> ModelMeta:
        """Return mteb's record, under which results are filed."""

    @abstractmethod
    def identity(self, task: TaskMetadata) -> dict[str, Any]:
        """Return everything about the model that the scores of one task depend on.

        Raises:
            UsageError: the model cannot do this task.
            MissingError: the model is a saved run and there is none of this task.
        """

    @property
    def packages(self) -> tuple[str, ...]:
        """Return the packages, beside those of every run, whose version can change a score."""
        return ()

    @property
    def index_facts(self) -> Mapping[str, Any]:
        """Return the index and its parameters, in the identity of every result."""
        # Models without an index are recorded as exact search: their results were saved so before
        # indexes had names, and must still count as done.
        return EXACT.identity()

    def machine_settings(self) -> dict[str, Any]:
        """Return the settings that change the run time but not the score, as far as known."""
        return {}

    def worked_before(self, identity: str) -> list[WorkDone]:
        """Return the work that other runs have done for a result, for its record.

        Args:
            identity: the digest of the result's identity.
        """
        return []

    def introduction(self) -> tuple[str, ...]:
        """Return lines for people: the settings that decide the score."""
        return ()

    def check_data(self, task: str, data: Mapping[str, Any]) -> None:
        """Check that the model fits the data of a task; only saved runs can fail to.

        Args:
            task: mteb's task name.
            data: the identity of the data, with their fingerprint.

        Raises:
            UsageError: a saved run was made on other data.
        """

    def begin(self, task: str, prompts: Mapping[str, str], filed: str) -> None:
        """Take what a task states of itself, before its identity is asked for.

        Args:
            task: mteb's task name.
            prompts: role → prompt that the task's collection gives.
            filed: the name under which its results are filed.
        """
        self.task_prompts[task] = prompts
        self.filed[task] = filed

    def flush(self) -> None:
        """Write the vectors that are not yet in the embedding store."""

    # ── mteb's SearchProtocol ───────────────────────────────────────────────────────────────

    @abstractmethod
    def search(
        self,
        queries: Dataset,
        *,
        task_metadata: TaskMetadata,
        hf_split: str,
        hf_subset: str,
        top_k: int,
        top_ranked: Mapping[str, Sequence[str]] | None = None,
        **kwargs: Any,
    ) -> Run:
        """Search the indexed corpus once.

        Args:
            queries: with columns ``id``, ``text`` and perhaps ``instruction``.
            task_metadata: the task.
            hf_split: the split.
            hf_subset: the subset.
            top_k: documents to return for each query.
            top_ranked: query id → candidate ids, in reranking tasks; only those are scored.
            **kwargs: mteb's other arguments.

        Returns:
            Query id → document id → score, best first, equal scores by descending id.

        Raises:
            UsageError: no corpus was indexed.
        """


def registered_meta(name: str) -> ModelMeta | None:
    """Return the entry of mteb's registry for a model's name, if mteb knows it."""
    from mteb.models.model_implementations import MODEL_REGISTRY

    return MODEL_REGISTRY.get(name)


def model_meta(own: Mapping[str, Any], **unregistered: Any) -> ModelMeta:
    """Return mteb's record of a model.

    Args:
        own: fields to set; at least ``name`` and ``revision``.
        **unregistered: further fields for models that mteb does not know.
    """
    from mteb.models import ModelMeta

    registered = registered_meta(str(own["name"]))
    if registered is not None:
        return registered.model_copy(update=dict(own), deep=True)
    return ModelMeta.create_empty(overwrites={**own, **unregistered})
