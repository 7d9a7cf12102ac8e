"""Evaluate text embedding models and rerankers on MTEB, BEIR and C-MTEB.

The command line is ``bge-eval``; in Python::

    import bge_eval, mteb

    model = bge_eval.load_model("BAAI/bge-base-en-v1.5")
    mteb.evaluate(model, mteb.get_tasks(["SciFact"]))

Importing this package loads neither torch nor mteb.
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
    from bge_eval.encode.dense import DenseModel

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

    from bge_eval.encode.dense import DenseModel
    from bge_eval.encode.settings import overrides_from
    from bge_eval.models import ModelOptions, open_model

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
        raise UsageError(f"load_model returns encoders; {name} is none. See bge_eval.models.")
    return model
