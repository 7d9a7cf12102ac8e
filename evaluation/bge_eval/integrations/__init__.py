"""bge-eval inside other libraries' training loops.

::

    from bge_eval.integrations import TrainerCallback

    trainer = Trainer(…, callbacks=[TrainerCallback(["SciFact"], data_dir="datasets")])

    from bge_eval.integrations import SentenceTransformerEvaluator

    trainer = SentenceTransformerTrainer(…, evaluator=SentenceTransformerEvaluator(["SciFact"]))
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bge_eval.integrations.sentence_transformers import SentenceTransformerEvaluator
    from bge_eval.integrations.transformers import TrainerCallback

__all__ = ["SentenceTransformerEvaluator", "TrainerCallback"]

_MODULES = {
    "SentenceTransformerEvaluator": "bge_eval.integrations.sentence_transformers",
    "TrainerCallback": "bge_eval.integrations.transformers",
}


def __getattr__(name: str) -> Any:
    """Import a class with its library when it is first used."""
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'bge_eval.integrations' has no attribute '{name}'")
