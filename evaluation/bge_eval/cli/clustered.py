"""``bge-eval run --engine ray``: the models and the reranker of a run on a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bge_eval.cli.opening import Opener
from bge_eval.cli.records import reranker_options
from bge_eval.models.base import Model
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
        opener: opens what the options name, which it has checked.
        cluster: the cluster; None computes here.

    Raises:
        UsageError: options contradict each other, or nothing can be computed elsewhere.
        MissingError: files, or Ray, are missing.
    """
    if cluster is None:
        yield opener.open()
        return
    with Engine(cluster, opener.progress, offline=opener.offline) as engine:
        models, second = opener.open_models(open_reranker(opener, engine))
        name = opener.reranker.reranker
        reranks = name is not None and not is_address(name)
        engine.spread_all(models, opener.model.names, reranks=reranks)
        yield models, second


def open_reranker(opener: Opener, engine: Engine) -> Reranker | None:
    """Return the second stage, whose pairs the workers score unless a server does; see `Opener`."""
    second, name = opener.open_reranker(), opener.reranker.reranker
    if second is None or name is None or is_address(name):
        return second
    options = reranker_options(opener.reranker, opener.model, opener.machine)
    return ClusterReranker(second, name, options, engine)
