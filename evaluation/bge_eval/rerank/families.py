"""Which family a reranker is of, read from its ``config.json``, and its object.

A causal language model scores by the logit of a word after a prompt, and which word and prompt
cannot be seen in its files: run as anything else it would give numbers that mean nothing. So
only the layouts of rerankers that are known are recognised; the rest is asked for.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from bge_eval.errors import DamagedError, UsageError
from bge_eval.progress import Progress
from bge_eval.records import ModelFiles
from bge_eval.rerank.cross_encoder import CrossEncoderReranker
from bge_eval.rerank.reranker import Reranker


class RerankerKind(StrEnum):
    """How a reranker scores a pair."""

    CROSS_ENCODER = "cross-encoder"


@dataclass(frozen=True, slots=True)
class RerankerOptions:
    """What the user said of the reranker; None leaves its own way."""

    kind: RerankerKind | None = None
    """``--reranker-kind``"""
    dtype: str = "float32"
    """``--dtype``"""
    max_length: int | None = None
    """``--reranker-max-length``"""
    device: str | None = None
    """``--device``"""
    batch_tokens: int | None = None
    """``--batch-tokens``"""
    trust_remote_code: bool = False
    """``--trust-remote-code``"""


def load_reranker(
    files: ModelFiles, options: RerankerOptions, progress: Progress | None = None
) -> Reranker:
    """Return the reranker that lies in some files; weights are loaded when they are needed.

    Raises:
        UsageError: its files do not say how it scores, or an option does not fit its family.
        DamagedError: its configuration is unreadable.
    """
    kind = options.kind or reranker_kind(files)
    assert kind is RerankerKind.CROSS_ENCODER
    return CrossEncoderReranker(
        files,
        dtype=options.dtype,
        max_length=options.max_length,
        device=options.device,
        batch_tokens=options.batch_tokens,
        trust_remote_code=options.trust_remote_code,
        progress=progress,
    )


def reranker_kind(files: ModelFiles) -> RerankerKind:
    """Tell a reranker's family by its files.

    Raises:
        UsageError: they do not say it.
        DamagedError: ``config.json`` is unreadable.
    """
    if (files.folder / "modules.json").is_file():
        return RerankerKind.CROSS_ENCODER  # sentence-transformers wrote down how it scores
    architecture = _architecture(files.folder)
    if architecture.endswith("ForCausalLM"):
        raise UsageError(
            f"{files.name} is a language model ({architecture}), and its files do not say how it"
            " scores a pair."
        )
    return RerankerKind.CROSS_ENCODER


def _architecture(folder: Path) -> str:
    path = folder / "config.json"
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DamagedError(f"{path} is not readable JSON ({error}).") from error
    return str((config.get("architectures") or [""])[0])
