"""Evaluate text embedding models and rerankers on MTEB, BEIR and C-MTEB.

The command line is ``bge-eval``; in Python::

    import bge_eval, mteb

    model = bge_eval.load_model("BAAI/bge-base-en-v1.5")
    mteb.evaluate(model, mteb.get_tasks(["SciFact"]))

Importing this package loads neither torch nor mteb.

The rooms, from the top floor to the ground. A room imports only from the floors below it; a test
reads this list and checks every import::

    cli           the commands: parsing and printing; pytest's fixture
    gate          baselines, rules, the verdict on a run, JUnit and GitHub annotations
    evaluation    the one short function: find the data, score, save
    judge         the only border to mteb's task machinery
    suites        suites and tasks by name
    models        open a model by name; the base class, one file for each kind of model
    rerank        the second stage and the families of rerankers
    report        the HTML page
    compare       two or more systems on the same tasks, with significance
    leaderboard   rows, averages, intervals, published models, costs
    data          readers, sources, checking, own collections; texts and tables
    measures      measures by name, values of single queries, rescoring
    results       identity, run record, TREC runs, the output folder, export
    statistics    intervals, paired tests, corrections
    runtime       everything that computes: torch, OpenVINO, ONNX, batches, pooling, devices
    remote        requests to model servers
    encode        a model's files, settings, prompts and protocol; the embedding store
    search        the order of documents, the exact engine
    records       the types that every room uses: vectors, runs, qrels
    resources     where the data files of the package are
    progress      steps, their progress and their seconds
    errors        every error that is raised on purpose, with its exit code
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bge_eval.errors import (
    BgeEvalError,
    DamagedError,
    MissingError,
    NotReadyError,
    UsageError,
)

if TYPE_CHECKING:
    from bge_eval.models.dense import DenseModel

    __version__: str

__all__ = [
    "BgeEvalError",
    "DamagedError",
    "MissingError",
    "NotReadyError",
    "UsageError",
    "__version__",
    "load_model",
]


def __getattr__(name: str) -> str:
    """Return ``__version__``; looking it up takes a fifth of the time of ``--help``."""
    if name == "__version__":
        from importlib.metadata import version

        return version("bge-eval")
    raise AttributeError(f"module 'bge_eval' has no attribute '{name}'")


def load_model(name: str, revision: str | None = None, **options: Any) -> DenseModel:
    """Return a model object for ``mteb.evaluate``.

    Args:
        name: a hub id, a local folder, ``builtin:all-MiniLM-L6-v2``, or a server's address.
        revision: branch, tag or commit of a hub model; what a served one is filed under.
        **options: ``device``, ``batch_tokens``, ``backend``, ``trust_remote_code``, ``offline``;
            ``store``, a folder for embeddings, or False to store none; ``adapter``, a folder;
            ``api`` and ``api_model`` of a server; and the model's own settings to override:
            ``pooling``, ``normalize``, ``max_length``, ``similarity``, ``dtype``,
            ``truncate_dim``, ``query_prompt``, ``document_prompt``.

    Raises:
        UsageError: an option does not exist or does not fit the model.
        MissingError: the model is not to be had.
        DamagedError: its files cannot be used.
    """
    from pathlib import Path

    from bge_eval.encode.settings import overrides_from
    from bge_eval.models.dense import DenseModel
    from bge_eval.models.opening import ModelOptions, open_model

    other = (
        *("device", "batch_tokens", "backend", "store", "adapter"),
        *("trust_remote_code", "offline", "api", "api_model"),
    )
    chosen = {name: options.pop(name) for name in other if name in options}
    for folder in ("store", "adapter"):
        if isinstance(chosen.get(folder), str):
            chosen[folder] = Path(chosen[folder])
    model = open_model(name, ModelOptions(revision, overrides_from(options), **chosen))
    if not isinstance(model, DenseModel):
        raise UsageError(
            f"load_model returns encoders; {name} is none. See bge_eval.models.opening."
        )
    return model
