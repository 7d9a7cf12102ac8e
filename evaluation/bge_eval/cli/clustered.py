"""``bge-eval run --engine ray``: the models and the reranker of a run on a cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from bge_eval.cli.opening import Opener
from bge_eval.cli.records import reranker_options
from bge_eval.errors import UsageError
from bge_eval.models.base import Model
from bge_eval.models.transformer import EncoderModel
from bge_eval.remote.client import is_address
from bge_eval.rerank.reranker import Reranker
from bge_eval.scale.cluster import ClusterOptions
from bge_eval.scale.engine import ClusterReranker, Engine


@contextmanager
def opened(
    opener: Opener, cluster: ClusterOptions | None
) -> Iterator[tuple[list[Model], Reranker | None]]:
    """Yield the models and the second stage, whose work a cluster does if there is one.

    Args:
        opener: opens what the options name.
        cluster: the cluster; None computes here.

    Raises:
        UsageError: options contradict each other, or nothing can be computed elsewhere.
        MissingError: files, or Ray, are missing.
    """
    if cluster is None:
        yield opener.open()
        return
    opener.check()
    with Engine(cluster, opener.progress, offline=opener.offline) as engine:
        second = opener.open_reranker()
        name = opener.reranker.reranker
        served = name is not None and is_address(name)
        if second is not None and name is not None and not served:
            options = reranker_options(opener.reranker, opener.model, opener.machine)
            second = ClusterReranker(second, name, options, engine)
        models, second = opener.open_models(second)
        _spread(models, opener, engine, reranks=second is not None and not served)
        yield models, second


def _spread(models: Sequence[Model], opener: Opener, engine: Engine, *, reranks: bool) -> None:
    """Let the encoders' texts be encoded by the workers; others compute here.

    Raises:
        UsageError: nothing is left for the workers.
    """
    encoders = [
        (model, name)
        for model, name in zip(models, opener.model.names, strict=False)
        if isinstance(model, EncoderModel)
    ]
    if not encoders and not reranks and opener.model.names:
        raise UsageError(
            "--engine ray spreads the texts of encoders and the pairs of rerankers whose weights"
            f" bge-eval loads; {', '.join(opener.model.names)} is none. Leave --engine out."
        )
    for encoder, name in encoders:
        engine.spread(encoder, name)
    for model, name in zip(models, opener.model.names, strict=False):
        if not isinstance(model, EncoderModel):
            engine.progress.note(f"{name}: has no texts for workers; this machine computes it.")
