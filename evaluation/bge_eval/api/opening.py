"""Opens the model, the reranker and the cluster that a call of `evaluate` names."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from bge_eval.api.settings import ModelSettings, model_options, reranker_options
from bge_eval.errors import UsageError

if TYPE_CHECKING:
    from bge_eval.models.base import Model
    from bge_eval.progress import Progress
    from bge_eval.rerank.reranker import Reranker
    from bge_eval.scale.cluster import ClusterOptions

_OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
"""Environment variables that the Hugging Face libraries read when they are imported."""


@dataclass(frozen=True, slots=True)
class Opener:
    """Opens models and rerankers with the settings of one call."""

    settings: ModelSettings
    """How to run the model; those that a reranker shares hold for it, too."""
    offline: bool
    """Open no connection."""
    progress: Progress | None
    """Receives every step; None shows nothing."""

    def model(self, name: str, reranker: Reranker | None = None) -> Model:
        """Open a model.

        Args:
            name: as ``--model`` takes it.
            reranker: the second stage, which may honour settings that the model does not support.

        Raises:
            UsageError: the settings of requests are set, and the name is no server's address.
        """
        from bge_eval.models.kinds import beside
        from bge_eval.models.opening import open_model
        from bge_eval.remote.client import is_address

        options = model_options(self.settings, offline=self.offline)
        limits = [each for each in ("api_concurrency", "api_timeout") if each in self.settings]
        if limits and not is_address(name):
            raise UsageError(
                f"{', '.join(limits)}: for a server's address, such as http://host, not {name}."
            )
        return open_model(name, beside(reranker, options), self.progress)

    def reranker(self, name: str) -> Reranker:
        """Open a reranker from the hub or a folder."""
        from bge_eval.encode.locate import locate
        from bge_eval.rerank.families import load_reranker

        options = reranker_options(self.settings)
        files = locate(name, offline=self.offline, onnx=options.backend == "onnx")
        return load_reranker(files, options, self.progress)

    @contextmanager
    def stages(
        self,
        model: str | Model,
        reranker: str | Reranker | None,
        engine: Literal["ray"] | ClusterOptions | None,
    ) -> Iterator[tuple[Model, Reranker | None]]:
        """Yield the first and the second stage, whose work a cluster does if there is one."""
        if engine is not None:
            if not isinstance(model, str) or not isinstance(reranker, str | None):
                raise UsageError(
                    "engine: workers open model and reranker by name. Give names, or leave engine"
                    " out."
                )
            with self._spread(model, reranker, engine) as stages:
                yield stages
            return
        if isinstance(reranker, str):
            reranker = self.reranker(reranker)
        if isinstance(model, str):
            model = self.model(model, reranker)
        yield model, reranker

    @contextmanager
    def _spread(
        self, model: str, reranker: str | None, engine: Literal["ray"] | ClusterOptions
    ) -> Iterator[tuple[Model, Reranker | None]]:
        """Yield the stages whose work a cluster does."""
        from bge_eval.progress import Progress
        from bge_eval.scale.cluster import named_cluster
        from bge_eval.scale.engine import ClusterReranker, Engine

        progress = self.progress or Progress()  # one for all, which records what the workers do
        opener = replace(self, progress=progress)
        where = named_cluster(engine).on(self.settings.get("device"))
        with Engine(where, progress, offline=self.offline) as cluster:
            second: Reranker | None = None
            if reranker is not None:
                options = reranker_options(self.settings)
                second = ClusterReranker(opener.reranker(reranker), reranker, options, cluster)
            first = opener.model(model, second)
            cluster.spread_all([first], [model], reranks=second is not None)
            yield first, second


def forbid_connections() -> None:
    """Let the Hugging Face libraries open no connection in this process.

    Raises:
        UsageError: they are imported already and read their settings then.
    """
    constants = sys.modules.get("huggingface_hub.constants")
    if constants is not None and not constants.HF_HUB_OFFLINE:
        raise UsageError(
            "offline=True comes too late: huggingface_hub was imported before and may connect."
            " Set HF_HUB_OFFLINE=1 before Python starts."
        )
    for name in _OFFLINE:
        os.environ[name] = "1"
