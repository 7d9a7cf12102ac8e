"""The Python API: `evaluate`, `load_model` and `Results`, as ``bge_eval`` exports them.

Both functions call the code behind ``bge-eval run`` and return what it would have saved and
printed. Heavy libraries are imported inside the calls.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeVar

from bge_eval.errors import BgeEvalError, UsageError, did_you_mean
from bge_eval.results.cut import Lite
from bge_eval.scale.cluster import ClusterOptions

if TYPE_CHECKING:
    from typing import Unpack

    import pandas as pd

    from bge_eval.evaluation import Options
    from bge_eval.leaderboard.board import Leaderboard
    from bge_eval.models.base import Model
    from bge_eval.progress import Progress
    from bge_eval.rerank.reranker import Reranker, RerankerOptions
    from bge_eval.tracking.tracker import Target

_Choice = TypeVar("_Choice", bound=StrEnum)

_MODEL_OPTIONS = (
    *("revision", "device", "batch_tokens", "backend", "store", "trust_remote_code"),
    *("api", "api_model", "m3_mode", "m3_weights", "examples", "adapter", "loader"),
)
"""Settings that are fields of `models.kinds.ModelOptions`; the others override the model's."""
_OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
"""Environment variables that the Hugging Face libraries read when they are imported."""


class ModelSettings(TypedDict, total=False):
    """How to run a model. A setting that is left out keeps the model's own value.

    The names are those of ``bge-eval run``.
    """

    revision: str | None
    """Branch, tag or commit of a hub model; the version of a served model."""
    pooling: Literal["cls", "mean", "last", "max", "mean_sqrt_len_tokens", "weightedmean"] | None
    """Which token vectors become the text's vector."""
    normalize: bool | None
    """Scale vectors to unit length."""
    similarity: Literal["cosine", "dot"] | None
    """How a query vector is compared with a document vector."""
    max_length: int | None
    """Longest input in tokens; longer texts are cut."""
    truncate_dim: int | None
    """Keep this many leading dimensions (Matryoshka models)."""
    dtype: Literal["float32", "float16", "bfloat16", "int8", "int8-dynamic"]
    """Precision of the forward pass. float32 reproduces published scores."""
    calibration: str | Path | None
    """JSON lines of ``{query, text}`` that int8 is calibrated with. Default: the package's own."""
    query_prompt: str | None
    """Text put before every query; "" for none."""
    document_prompt: str | None
    """Text put before every document; "" for none."""
    prompts: Mapping[str, str] | str | Path | None
    """Prompts by task, task type or role, or a TOML file of them."""
    protocol: Literal["leaderboard", "model-card", "model-files"]
    """Whose rules decide which prompts texts get."""
    known_as: str | None
    """The hub's model that a local folder is a copy of; "none" if it is none that is known."""
    instruction_format: str | None
    """Template of a task instruction, e.g. ``"Instruct: {instruction}\\nQuery: "``."""
    examples: str | Path | None
    """JSON file of in-context examples."""
    adapter: str | Path | None
    """Folder of a PEFT adapter that is merged into the weights."""
    m3_mode: str | None
    """BGE-M3's kinds of vectors, e.g. ``"dense,sparse,colbert"``."""
    m3_weights: str | None
    """Their weights, e.g. ``"1,0.3,1"``."""
    loader: Literal["mteb"] | None
    """"mteb" lets mteb load and run the model."""
    api: Literal["openai", "infinity", "tei", "cohere"] | None
    """Interface of the server, for a model that is an address."""
    api_model: str | None
    """The model's name on the server. Default: the only one."""
    api_concurrency: int
    """Requests sent at once. Default: 8."""
    api_timeout: float
    """Seconds to wait for an answer. Default: 600."""
    index: str
    """``"flat"`` (exact), or a factory string of faiss, e.g. ``"HNSW32"``."""
    index_params: Mapping[str, float]
    """Parameters of the index, e.g. ``{"efSearch": 64}``."""
    vectors: Literal["float32", "float16", "int8", "binary"]
    """How vectors are stored."""
    rescore_top: int | None
    """How many of each query's first documents are scored again with the full vectors."""
    index_depth: int | None
    """How many documents faiss's index is asked for. Default: 1000, mteb's deepest cutoff."""
    device: str | None
    """``"cpu"``, ``"cuda:0"``, ``"cuda:0,cuda:1"``, ``"mps"``. Default: every GPU."""
    backend: Literal["auto", "torch", "openvino", "onnx"]
    """Library of the forward pass."""
    batch_tokens: int | None
    """Most tokens in a batch, padding included."""
    store: bool | str | Path
    """Folder of stored embeddings. True is the user's cache folder, False stores none."""
    trust_remote_code: bool
    """Run Python code that comes with the model."""


@dataclass(frozen=True, slots=True)
class Results:
    """The results of one `evaluate` call."""

    folder: Path
    """The folder of results, which ``bge-eval table`` and mteb's ``ResultCache`` read."""
    files: Mapping[str, tuple[Path, ...]]
    """Task → its result files: the first stage, then the reranked one if there is one."""
    failures: Mapping[str, BgeEvalError]
    """Task → why it could not be evaluated."""
    reused: tuple[str, ...] = ()
    """Tasks whose result was already in the folder."""

    def score(self, task: str, measure: str = "main", *, first_stage: bool = False) -> float:
        """Return one task's score, 0 to 1.

        Args:
            task: mteb's task name, or the name of your own collection.
            measure: ``"main"`` for the task's own, or ``"nDCG@10"``, ``"RR@10"``, ``"R@100"`` …
            first_stage: return the score before reranking.

        Raises:
            BgeEvalError: the task failed; the error is the task's own.
            UsageError: the task was not evaluated, or has no such measure.
        """
        if task in self.failures:
            raise self.failures[task]
        if task not in self.files:
            raise UsageError(
                f"{task} was not evaluated. There are results of: {', '.join(self.files)}."
            )
        stage = 0 if first_stage else -1
        rows = self._board([self.files[task][stage]], [task], measure).rows
        if not rows:
            raise UsageError(f"The result of {task} has no {measure}. Its own measure is 'main'.")
        return rows[0].scores[task]

    def scores(self, measure: str = "main") -> dict[str, float]:
        """Return task → score for every task that was evaluated, 0 to 1.

        Raises:
            UsageError: a task has no such measure.
        """
        return {task: self.score(task, measure) for task in self.files}

    def table(self, measure: str = "main") -> Leaderboard:
        """Return the table that ``bge-eval run`` prints: one row for each stage."""
        paths = [path for stages in self.files.values() for path in stages]
        return self._board(paths, list(self.files), measure)

    def to_pandas(self, measure: str = "main") -> pd.DataFrame:
        """Return the table as a data frame: a row for each stage, a column for each task."""
        return self.table(measure).frame()

    @staticmethod
    def _board(paths: list[Path], tasks: list[str], measure: str) -> Leaderboard:
        from bge_eval.leaderboard.reading import leaderboard
        from bge_eval.measures.mteb_keys import MAIN_KEY, parse_key

        key = MAIN_KEY if measure == "main" else parse_key(measure)
        return leaderboard(paths, measure=measure, key=key, tasks=tasks)


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
    targets = _trackers([str(each) for each in _listed(track)], track_project, offline=offline)
    from bge_eval import evaluation
    from bge_eval.suites.catalogue import plan
    from bge_eval.suites.cutting import cut_tasks

    planned = plan([str(task) for task in _listed(tasks)], list(subsets), list(languages))
    planned = cut_tasks(planned, limit, lite)
    if settings and not isinstance(model, str):
        names = ", ".join(settings)
        raise UsageError(f"{names}: the model is already loaded. Give settings to load_model.")
    options = evaluation.Options(
        output=Path(output),
        data_dirs=tuple(Path(folder) for folder in _listed(data_dir)),
        offline=offline,
        overwrite=overwrite,
        fail_fast=fail_fast,
        dangling=allow_dangling_qrels,
        other_data=allow_other_data,
        rerank_top_k=rerank_top_k,
    )
    with _opened(model, reranker, settings, options, engine, progress) as (first, second):
        report = evaluation.evaluate(first, planned, options, reranker=second, progress=progress)
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
    return _open(name, settings, offline=offline, progress=progress)


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


def _trackers(texts: list[str], project: str, *, offline: bool) -> list[Target]:
    """Return the trackers, checked; without one nothing of them is imported."""
    if not texts:
        return []
    from bge_eval.tracking.sending import read_targets

    return read_targets(texts, project, offline=offline)


def _open(
    name: str,
    settings: ModelSettings,
    reranker: Reranker | None = None,
    *,
    offline: bool,
    progress: Progress | None,
) -> Model:
    """Open a model; the only place that translates `ModelSettings` to the records below."""
    from bge_eval.encode.prompts import read_prompts
    from bge_eval.encode.settings import overrides_from
    from bge_eval.models.kinds import ModelOptions, beside
    from bge_eval.models.opening import open_model
    from bge_eval.remote.client import Limits
    from bge_eval.search.index import IndexOptions, Precision

    known = ModelSettings.__annotations__
    for key in settings:
        if key not in known:
            raise UsageError(
                f"There is no setting '{key}'.{did_you_mean(key, known)} Settings: "
                f"{', '.join(known)}."
            )
    values: dict[str, Any] = dict(settings)
    limits = {"concurrency": values.pop("api_concurrency", 8)}
    limits["timeout"] = values.pop("api_timeout", 600.0)
    index = IndexOptions.checked(
        values.pop("index", "flat"),
        values.pop("index_params", {}),
        _choice("vectors", values.pop("vectors", "float32"), Precision),
        values.pop("rescore_top", None),
        values.pop("index_depth", None),
    )
    machine = {key: values.pop(key) for key in _MODEL_OPTIONS if key in values}
    for key in ("store", "adapter", "examples"):
        if isinstance(path := machine.get(key), str):
            machine[key] = Path(path).expanduser()
    if isinstance(file := values.get("calibration"), str):
        values["calibration"] = Path(file).expanduser()
    if isinstance(file := values.get("prompts"), str | Path):
        values["prompts"] = read_prompts(Path(file))
    options = ModelOptions(
        overrides=overrides_from(values),
        offline=offline,
        limits=Limits(**limits),
        index=index,
        **machine,
    )
    return open_model(name, beside(reranker, options), progress)


@contextmanager
def _opened(
    model: str | Model,
    reranker: str | Reranker | None,
    settings: ModelSettings,
    options: Options,
    engine: Literal["ray"] | ClusterOptions | None,
    progress: Progress | None,
) -> Iterator[tuple[Model, Reranker | None]]:
    """Yield the model and the second stage, whose work a cluster does if there is one."""
    offline, chosen = options.offline, _reranker_options(settings)
    if engine is None:
        if isinstance(reranker, str):
            reranker = _open_reranker(reranker, chosen, offline=offline, progress=progress)
        if isinstance(model, str):
            model = _open(model, settings, reranker, offline=offline, progress=progress)
        yield model, reranker
        return
    from bge_eval.progress import Progress
    from bge_eval.scale.cluster import named_cluster
    from bge_eval.scale.engine import ClusterReranker, Engine

    if not isinstance(model, str) or not isinstance(reranker, str | None):
        raise UsageError(
            "engine: workers open model and reranker by name. Give names, or leave engine out."
        )
    progress = progress or Progress()  # one for all, which records what the workers do
    where = named_cluster(engine).on(settings.get("device"))
    with Engine(where, progress, offline=offline) as cluster:
        second: Reranker | None = None
        if reranker is not None:
            second = _open_reranker(reranker, chosen, offline=offline, progress=progress)
            second = ClusterReranker(second, reranker, chosen, cluster)
        first = _open(model, settings, second, offline=offline, progress=progress)
        cluster.spread_all([first], [model], reranks=second is not None)
        yield first, second


def _open_reranker(
    name: str, options: RerankerOptions, *, offline: bool, progress: Progress | None
) -> Reranker:
    from bge_eval.encode.locate import locate
    from bge_eval.rerank.families import load_reranker

    files = locate(name, offline=offline, onnx=options.backend == "onnx")
    return load_reranker(files, options, progress)


def _reranker_options(settings: ModelSettings) -> RerankerOptions:
    """Return those settings of the model that hold for its reranker, too."""
    from bge_eval.encode.protocol import ProtocolName
    from bge_eval.rerank.reranker import RerankerOptions

    texts = settings.get("calibration")
    return RerankerOptions(
        dtype=settings.get("dtype", "float32"),
        calibration=None if texts is None else Path(texts).expanduser(),
        device=settings.get("device"),
        batch_tokens=settings.get("batch_tokens"),
        trust_remote_code=settings.get("trust_remote_code", False),
        backend=settings.get("backend", "auto"),
        protocol=_choice("protocol", settings.get("protocol", "leaderboard"), ProtocolName),
    )


def _choice(name: str, value: str, kind: type[_Choice]) -> _Choice:
    """Return the member of an enumeration that a setting names."""
    if value not in list(kind):
        raise UsageError(f"{name} is '{value}'; it can be {', '.join(kind)}.")
    return kind(value)


def _listed(values: str | Path | Iterable[str | Path]) -> list[str | Path]:
    """Return one value or several as a list."""
    return [values] if isinstance(values, str | Path) else list(values)
