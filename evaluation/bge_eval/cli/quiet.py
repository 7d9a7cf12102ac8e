"""Environment variables, streams and filters, set before libraries are imported."""

from __future__ import annotations

import logging
import os
import sys
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


def encode_everything() -> None:
    """Let the streams print every character where the locale has few, as in Latin-1.

    A pipe or a file gets UTF-8, as every file of the program. On a terminal, and where
    ``PYTHONIOENCODING`` names an encoding, a character that it lacks is printed by its number.
    """
    for stream in (sys.stdout, sys.stderr):
        encoding = (getattr(stream, "encoding", None) or "utf-8").casefold()
        if encoding.startswith("utf") or not hasattr(stream, "reconfigure"):
            continue
        if stream.isatty() or "PYTHONIOENCODING" in os.environ:
            stream.reconfigure(errors="backslashreplace")
        else:
            stream.reconfigure(encoding="utf-8")
