"""Environment variables and filters that libraries read when they are imported."""

from __future__ import annotations

import logging
import os
import warnings

DEBUG = "BGE_EVAL_DEBUG"
"""Environment variable that ``--debug`` sets."""


def prepare(*, offline: bool = False) -> None:
    """Set what the libraries read at import, and keep their messages out of the output.

    Args:
        offline: let the Hugging Face libraries open no connection.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    if offline:
        for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
            os.environ[name] = "1"
    if not os.environ.get(DEBUG):
        warnings.simplefilter("ignore")
        for name in ("mteb", "datasets", "sentence_transformers", "huggingface_hub"):
            logging.getLogger(name).setLevel(logging.ERROR)
