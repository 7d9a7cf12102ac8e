"""The side on which a reranker's pairs are padded, so that a score does not depend on its batch.

Behind padding on the left, models with absolute positions give a pair other positions than alone,
and heads that read the first token read padding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bge_eval.encode.body import tokenizer_options
from bge_eval.encode.config import CONFIG, read_modules, read_object, transformer_folder
from bge_eval.encode.files import ModelFiles
from bge_eval.encode.positions import (
    LAST_TOKEN_TYPES,
    OWN_POSITIONS,
    counts_padding,
    pads_left,
)
from bge_eval.rerank.reranker import has_module


def padding_fact(files: ModelFiles, *, remote_code: bool) -> dict[str, str]:
    """Return the fact of a cross-encoder whose scores once depended on the batch; {} for others.

    Args:
        files: the model's files.
        remote_code: whether Python code that comes with the model may run.

    Raises:
        DamagedError: a file is damaged.
    """
    config = read_object(files.weights / CONFIG)
    moved = counts_padding(config) or _reads_first(files, config, remote_code=remote_code)
    if not moved:
        return {}
    options = tokenizer_options(transformer_folder(files.folder))
    # sentence-transformers pads on the left before this module, whatever the tokenizer says.
    left = has_module(files, "LogitScore") or pads_left(files.tokenizer, options)
    return dict(OWN_POSITIONS) if left else {}


def pad_apart(model: Any, files: ModelFiles, *, remote_code: bool) -> None:
    """Make a loaded cross-encoder pad so that a pair's score is the one that it has alone.

    Args:
        model: sentence-transformers' ``CrossEncoder``.
        files: the model's files.
        remote_code: whether Python code that comes with the model may run.
    """
    if model.tokenizer.padding_side != "left":
        return
    config = read_object(files.weights / CONFIG)
    if _reads_first(files, config, remote_code=remote_code):
        model.tokenizer.padding_side = "right"
    else:
        from bge_eval.runtime.own_positions import number_own_tokens

        number_own_tokens(model[0].auto_model)


def _reads_first(files: ModelFiles, config: Mapping[str, Any], *, remote_code: bool) -> bool:
    """Return whether a classifier of transformers scores a pair by another token than its last.

    With code of its own, what it reads is not known.
    """
    alone = len(read_modules(files.folder) or [{}]) == 1
    classifies = any(
        str(name).endswith("ForSequenceClassification")
        for name in config.get("architectures") or []
    )
    own_code = remote_code and "auto_map" in config
    return (
        alone and classifies and not own_code and config.get("model_type") not in LAST_TOKEN_TYPES
    )
