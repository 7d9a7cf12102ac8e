"""The Python API, as ``bge_eval`` exports it.

`evaluate` and `load_model` call the code behind ``bge-eval run`` and return what it would have
saved and printed. Heavy libraries are imported inside the calls.
"""

from bge_eval.api.evaluating import evaluate, load_model
from bge_eval.api.results import Results
from bge_eval.api.settings import ModelSettings
from bge_eval.results.cut import Lite
from bge_eval.scale.cluster import ClusterOptions

__all__ = ["ClusterOptions", "Lite", "ModelSettings", "Results", "evaluate", "load_model"]
