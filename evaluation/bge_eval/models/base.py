"""What every model offers, whichever kind it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from bge_eval.progress import Progress
from bge_eval.records import Run

if TYPE_CHECKING:
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.models import ModelMeta


class Model(Protocol):
    """What can be evaluated: an encoder, runs made before, a reranker alone.

    It searches (mteb's SearchProtocol); one that also has ``encode`` and ``similarity``
    (EncoderProtocol) does the tasks that search nothing, too.
    """

    progress: Progress
    """Told of every step."""
    task_prompts: dict[str, Mapping[str, str]]
    """Task → role → prompt, for collections that state their own."""

    @property
    def index(self) -> Callable[..., None]:
        """Return mteb's index."""

    @property
    def search(self) -> Callable[..., Run]:
        """Return mteb's search."""

    @property
    def packages(self) -> tuple[str, ...]:
        """Return the packages, beside those of every run, whose version can change a score."""

    @property
    def mteb_model_meta(self) -> ModelMeta:
        """Return the record under which results are filed."""

    def identity(self, task: TaskMetadata) -> dict[str, Any]:
        """Return everything about the model that the scores of one task depend on."""

    def machine_settings(self) -> dict[str, Any]:
        """Return what changes the time but not the score."""
