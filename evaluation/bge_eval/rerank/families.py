"""Which family a reranker is of, read from its ``config.json``, and its object.

A causal language model scores by the logit of a word after a prompt, and which word and prompt
cannot be seen in its files: run as anything else it would give numbers that mean nothing. So
only the layouts of rerankers that are known are recognised; the rest is asked for.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bge_eval.errors import DamagedError, UsageError
from bge_eval.progress import Progress
from bge_eval.records import ModelFiles
from bge_eval.rerank.cross_encoder import CrossEncoderReranker
from bge_eval.rerank.kinds import RerankerKind
from bge_eval.rerank.late import LateInteractionReranker
from bge_eval.rerank.layered import layerwise, lightweight
from bge_eval.rerank.llm import PREDICT, YES_OR_NO, LLMReranker, load_yes_logit
from bge_eval.rerank.reranker import Reranker

_COMPRESS_LAYERS = (8,)
"""Where FlagEmbedding compresses unless told otherwise."""


_ARCHITECTURES = {
    "LayerWiseMiniCPMForCausalLM": RerankerKind.LAYERWISE,
    "CostWiseGemmaForCausalLM": RerankerKind.LIGHTWEIGHT,
}


@dataclass(frozen=True, slots=True)
class RerankerOptions:
    """What the user said of the reranker; None leaves its own way."""

    kind: RerankerKind | None = None
    """``--reranker-kind``"""
    dtype: str = "float32"
    """``--dtype``"""
    max_length: int | None = None
    """``--reranker-max-length``"""
    layers: int | None = None
    """``--reranker-layers``: stop after these many."""
    compress_ratio: int | None = None
    """``--reranker-compress``: token vectors of the passage that become one."""
    compress_layers: tuple[int, ...] | None = None
    """``--reranker-compress-layers``: the layers before which that happens."""
    device: str | None = None
    """``--device``; of several, the first computes"""
    batch_tokens: int | None = None
    """``--batch-tokens``"""
    trust_remote_code: bool = False
    """``--trust-remote-code``"""
    backend: str = "auto"
    """``--backend``; of cross-encoders alone"""


def load_reranker(
    files: ModelFiles, options: RerankerOptions, progress: Progress | None = None
) -> Reranker:
    """Return the reranker that lies in some files; weights are loaded when they are needed.

    Raises:
        UsageError: its files do not say how it scores, or an option does not fit its family.
        DamagedError: its configuration is unreadable.
    """
    kind = options.kind or reranker_kind(files)
    machine: dict[str, Any] = {
        "dtype": options.dtype,
        "max_length": options.max_length,
        "device": options.device,
        "batch_tokens": options.batch_tokens,
        "trust_remote_code": options.trust_remote_code,
        "progress": progress,
    }
    _refuse_unfit(kind, options)
    if kind is RerankerKind.CROSS_ENCODER:
        return CrossEncoderReranker(files, backend=options.backend, **machine)
    if kind is RerankerKind.LATE:
        return LateInteractionReranker(files, **machine)
    settings: dict[str, Any] = {"kind": str(kind)}
    if kind is RerankerKind.LLM:
        return LLMReranker(files, load_yes_logit, question=YES_OR_NO, settings=settings, **machine)
    settings["layers"] = options.layers
    if kind is RerankerKind.LAYERWISE:
        load = layerwise(options.layers)
        return LLMReranker(files, load, question=YES_OR_NO, settings=settings, **machine)
    ratio = None if options.compress_ratio == 1 else options.compress_ratio
    settings["compress_ratio"] = ratio
    at = options.compress_layers or _COMPRESS_LAYERS
    settings["compress_layers"] = ",".join(map(str, at)) if ratio else None
    load = lightweight(options.layers, ratio or 1, at)
    return LLMReranker(files, load, question=PREDICT, settings=settings, **machine)


def _refuse_unfit(kind: RerankerKind, options: RerankerOptions) -> None:
    """Refuse options that this family would not look at."""
    compress = options.compress_ratio is not None or options.compress_layers is not None
    layered = (RerankerKind.LAYERWISE, RerankerKind.LIGHTWEIGHT)
    if options.dtype == "int8":
        raise UsageError(
            "--dtype int8 is for embedders, not for rerankers. Evaluate the embedder alone, then"
            " rerank its saved runs with --first-stage."
        )
    unfit = ""
    if options.layers is not None and kind not in layered:
        unfit = "--reranker-layers"
    elif compress and kind is not RerankerKind.LIGHTWEIGHT:
        unfit = "--reranker-compress"
    elif options.compress_layers and not options.compress_ratio:
        raise UsageError("--reranker-compress-layers needs --reranker-compress RATIO.")
    if unfit:
        raise UsageError(f"{unfit} means nothing to a reranker of the kind {kind}.")


def reranker_kind(files: ModelFiles) -> RerankerKind:
    """Tell a reranker's family by its files.

    Raises:
        UsageError: they do not say it.
        DamagedError: ``config.json`` is unreadable.
    """
    if (files.folder / "colbert_linear.pt").is_file():
        return RerankerKind.LATE
    if (files.folder / "modules.json").is_file():
        if "Pooling" in (files.folder / "modules.json").read_text(encoding="utf-8"):
            raise UsageError(
                f"{files.name} is an embedder. --reranker-kind late re-orders by the late"
                " interaction of its token vectors."
            )
        return RerankerKind.CROSS_ENCODER  # sentence-transformers wrote down how it scores
    architecture = _architecture(files.folder)
    if architecture in _ARCHITECTURES:
        return _ARCHITECTURES[architecture]
    if architecture.endswith("ForCausalLM") and "bge-reranker" in files.name:
        return RerankerKind.LLM
    if architecture.endswith("ForCausalLM"):
        raise UsageError(
            f"{files.name} is a language model ({architecture}), and its files do not say how it"
            ' scores a pair. If it was trained as bge-reranker-v2-gemma was (the logit of "Yes"'
            " after BGE's question), say --reranker-kind llm; a sentence-transformers"
            " CrossEncoder is known by its modules.json."
        )
    return RerankerKind.CROSS_ENCODER


def _architecture(folder: Path) -> str:
    path = folder / "config.json"
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DamagedError(f"{path} is not readable JSON ({error}).") from error
    return str((config.get("architectures") or [""])[0])
