"""What `bge_eval.evaluate` asks of a model, whatever runs behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from bge_eval.progress import Progress
from bge_eval.records import Run

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.models import ModelMeta


class Model(Protocol):
    """An encoder, a lexical index, saved runs or a fusion of them.

    It searches (mteb's SearchProtocol). A model that also encodes has mteb's ``encode`` and
    ``similarity``, and only such a model can be run on tasks that search nothing.
    """

    progress: Progress
    """Told of every long step."""

    @property
    def task_prompts(self) -> dict[str, Mapping[str, str]]:
        """Task → role → prompt, filled by the caller for collections that state their own."""

    @property
    def mteb_model_meta(self) -> ModelMeta:
        """Return mteb's record of the model, under which results are filed."""

    def identity(self, task: TaskMetadata) -> dict[str, Any]:
        """Return everything about the model that the scores of one task depend on.

        It has at least ``name`` and ``revision``.
        """

    def machine_settings(self) -> dict[str, Any]:
        """Return what changes the time but not the score."""

    def index(self, corpus: Any, **kwargs: Any) -> None:
        """Take the corpus that the next search is about (``id``, ``title``, ``text``)."""

    def search(
        self,
        queries: Any,
        *,
        task_metadata: TaskMetadata,
        hf_split: str,
        hf_subset: str,
        top_k: int,
        top_ranked: Mapping[str, Sequence[str]] | None = None,
        **kwargs: Any,
    ) -> Run:
        """Return query id → document id → score for ``top_k`` documents or given candidates."""


class PairReranker(Protocol):
    """A second stage: scores pairs of texts."""

    def identity(self) -> dict[str, Any]:
        """Return everything that scores depend on, ``name`` and ``revision`` among it."""

    def score(self, pairs: Sequence[tuple[str, str]]) -> npt.NDArray[np.float64]:
        """Score (query, document) pairs, ``(n_pairs,)``, higher is more relevant."""
