"""Evaluate text embedding models and rerankers on MTEB, BEIR and C-MTEB.

The command line is ``bge-eval``; in Python::

    import bge_eval

    results = bge_eval.evaluate("BAAI/bge-base-en-v1.5", ["SciFact", "NFCorpus"])
    results.score("SciFact")            # 0.74345, as published
    results.to_pandas("R@100")

Importing this package loads neither torch nor mteb.

The rooms, from the top floor to the ground. A room imports only from the floors below it; a test
reads this list and checks every import::

    cli           the commands: parsing and printing; pytest's fixture
    integrations  callbacks for the training loops of transformers and sentence-transformers
    api           the Python API: evaluate, load_model, Results
    curve         what shorter, compressed and indexed vectors cost: scores, recall, memory, speed
    gate          baselines, rules, the verdict on a run, JUnit and GitHub annotations
    experiment    the file of an experiment: settings, grids, what is chosen on another split
    scale         beyond one machine: parts of corpora, a cluster; what a run will take
    reproduction  published scores to reproduce: the tables, what a score amounts to beside one
    training      checkpoints of a training that runs: complete ones, links to the best
    evaluation    find the data, let mteb score, save; the only border to mteb's task machinery
    suites        suites and tasks by name
    models        open a model by name; the base class, one file for each kind of model
    rerank        the second stage and the families of rerankers
    judgements    unjudged documents: bounds, sheets to judge, a language model as judge
    mistakes      failed queries: kinds, groups, training data from them
    audit         faults of data sets: duplicates, leaks, broken texts; what they move in a score
    tracking      saved scores sent to TensorBoard, MLflow, Weights & Biases and Trackio
    report        the HTML page
    compare       two or more systems on the same tasks, with significance
    leaderboard   rows, averages, intervals, published models, costs
    data          layouts of data sets and their readers, checks, own collections; texts and tables
    measures      measures by name, values by query, rescoring
    results       identity, run record, TREC runs, the output folder, export
    statistics    intervals, paired tests, corrections
    runtime       everything that computes: torch, OpenVINO, ONNX, batches, pooling, devices
    remote        requests to model servers
    encode        a model's files, settings, prompts and protocol; published checkpoints; the store
    search        the order of documents, the exact engine, faiss's indexes, compressed vectors
    records       the types that every room uses: vectors, runs, qrels
    shared        folders that several processes write: locks, what killed processes left
    resources     where the data files of the package are
    progress      steps, their progress and their seconds
    errors        every error that is raised on purpose, with its exit code
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from bge_eval.errors import (
    BgeEvalError,
    DamagedError,
    MissingError,
    NotReadyError,
    UsageError,
)

if TYPE_CHECKING:
    from bge_eval.api import ModelSettings, Results, evaluate, load_model
    from bge_eval.results.cut import Lite
    from bge_eval.scale.cluster import ClusterOptions

    __version__: str

__all__ = [
    "BgeEvalError",
    "ClusterOptions",
    "DamagedError",
    "Lite",
    "MissingError",
    "ModelSettings",
    "NotReadyError",
    "Results",
    "UsageError",
    "__version__",
    "evaluate",
    "load_model",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that ``--help`` does not wait for it."""
    if name == "__version__":
        from importlib.metadata import version

        return version("bge-eval")
    if name in __all__:
        return getattr(import_module("bge_eval.api"), name)
    raise AttributeError(f"module 'bge_eval' has no attribute '{name}'")
