"""`evaluate` and `load_model`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bge_eval.api.opening import Opener, forbid_connections
from bge_eval.api.results import Results
from bge_eval.errors import UsageError

if TYPE_CHECKING:
    from typing import Unpack

    from bge_eval.api.settings import ModelSettings
    from bge_eval.models.base import Model
    from bge_eval.progress import Progress
    from bge_eval.rerank.reranker import Reranker
    from bge_eval.results.cut import Lite
    from bge_eval.scale.cluster import ClusterOptions
    from bge_eval.tracking.tracker import Target


def evaluate(
    model: str | Model,
    tasks: str | Path | Iterable[str | Path],
    *,
    reranker: str | Reranker | None = None,
    rerank_top_k: int = 100,
    engine: Literal["ray"] | ClusterOptions | None = None,
    subsets: Iterable[str] = (),
    languages: Iterable[str] = (),
    limit: int | None = None,
    lite: Lite | None = None,
    data_dir: str | Path | Iterable[str | Path] = (),
    output: str | Path = "results/runs",
    offline: bool = False,
    overwrite: bool = False,
    fail_fast: bool = False,
    allow_dangling_qrels: bool = False,
    allow_other_data: bool = False,
    track: str | Iterable[str] = (),
    track_project: str = "bge-eval",
    progress: Progress | None = None,
    **settings: Unpack[ModelSettings],
) -> Results:
    """Evaluate a model on tasks and save the results, as ``bge-eval run`` does.

    A task that fails does not stop the others; see `Results.failures`.

    Args:
        model: a name as ``--model`` takes it, or an object from `load_model`.
        tasks: suites (``"beir"``), tasks (``"SciFact"``) and folders (``"./tickets"``).
        reranker: a second stage: a hub id or a folder, or a reranker object.
        rerank_top_k: how many of each query's first documents it re-orders.
        engine: ``"ray"`` spreads the work over this machine's cores or GPUs;
            ``ClusterOptions("head:6379", workers=8)`` over a cluster's. Model and reranker are
            names then.
        subsets: only these subsets of tasks that have several.
        languages: only tasks and subsets in these languages, e.g. ``["zho"]``.
        limit: only the first queries of every task. Results are filed as ``SciFact@limit=50``,
            and `Results` names them so.
        lite: cut every corpus; filed as ``SciFact@lite=1000``.
        data_dir: your folders of data sets, searched in order.
        output: the folder of results.
        offline: open no connection. Sets ``HF_HUB_OFFLINE`` for this process.
        overwrite: run tasks again that have a result.
        fail_fast: stop at the first task that fails.
        allow_dangling_qrels: accept judgements of documents that the corpus lacks.
        allow_other_data: accept data of another size or script than the task's own.
        track: trackers that get the scores with their intervals once they are saved, as
            ``--track`` takes them, e.g. ``"mlflow=http://localhost:5000"``. One that fails is a
            warning.
        track_project: the trackers' project.
        progress: is told of every step; silent by default.
        **settings: how to run the model, if ``model`` is a name; see `ModelSettings`.

    Raises:
        UsageError: a name or a setting is wrong, or does not fit the model.
        MissingError: the model, the data of a task or a tracker's client is not on this machine.
        DamagedError: the model's files cannot be used.
    """
    if offline:
        forbid_connections()
    targets = _trackers(_listed(track), track_project, offline=offline)
    from bge_eval.evaluation.evaluate import evaluate as evaluate_tasks
    from bge_eval.evaluation.options import Options
    from bge_eval.suites.catalogue import plan
    from bge_eval.suites.cutting import cut_tasks

    planned = cut_tasks(plan(_listed(tasks), list(subsets), list(languages)), limit, lite)
    if settings and not isinstance(model, str):
        names = ", ".join(settings)
        raise UsageError(f"{names}: the model is already loaded. Give settings to load_model.")
    options = Options(
        output=Path(output),
        data_dirs=tuple(Path(folder) for folder in _listed(data_dir)),
        offline=offline,
        overwrite=overwrite,
        fail_fast=fail_fast,
        dangling=allow_dangling_qrels,
        other_data=allow_other_data,
        rerank_top_k=rerank_top_k,
    )
    with Opener(settings, offline, progress).stages(model, reranker, engine) as (first, second):
        report = evaluate_tasks(first, planned, options, reranker=second, progress=progress)
    files = {task: tuple(paths) for task, paths in report.done.items()}
    results = Results(options.output, files, dict(report.failed), tuple(report.reused))
    if targets and files:
        from bge_eval.tracking.sending import send_or_warn

        send_or_warn(results.table(), targets, options.output)
    return results


def load_model(
    name: str,
    *,
    offline: bool = False,
    progress: Progress | None = None,
    **settings: Unpack[ModelSettings],
) -> Model:
    """Return a model for `evaluate` or for ``mteb.evaluate``.

    Args:
        name: a hub id, a local folder, ``builtin:all-MiniLM-L6-v2``, ``bm25``, the address of a
            server, ``package.module:function``, or ``run:`` with the path of a saved run.
        offline: open no connection. Sets ``HF_HUB_OFFLINE`` for this process.
        progress: is told of every step; silent by default.
        **settings: how to run the model; see `ModelSettings`.

    Raises:
        UsageError: a setting does not exist, or does not fit this kind of model.
        MissingError: the model is not on this machine and cannot be fetched.
        DamagedError: the model's files cannot be used.
    """
    if offline:
        forbid_connections()
    return Opener(settings, offline, progress).model(name)


def _trackers(texts: list[str], project: str, *, offline: bool) -> list[Target]:
    """Return the trackers, checked; without one nothing of them is imported."""
    if not texts:
        return []
    from bge_eval.tracking.sending import read_targets

    return read_targets(texts, project, offline=offline)


def _listed(values: str | Path | Iterable[str | Path]) -> list[str]:
    """Return one name or several as a list of texts."""
    return [str(each) for each in ([values] if isinstance(values, str | Path) else values)]
