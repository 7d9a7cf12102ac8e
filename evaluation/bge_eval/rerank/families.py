"""The table of reranker families, and the choice of a family by a model's files.

A causal language model scores by the logit of a word after a prompt, and its files name neither.
So only known layouts are recognised; for others the user states the kind.
"""

from __future__ import annotations

from bge_eval.encode.files import ModelFiles
from bge_eval.errors import UsageError
from bge_eval.progress import Progress
from bge_eval.rerank import cross_encoder, late, layered, llm, qwen3
from bge_eval.rerank.kinds import RerankerKind
from bge_eval.rerank.reranker import (
    Family,
    Reranker,
    RerankerOptions,
    architecture,
    has_module,
)

__all__ = ["FAMILIES", "RerankerOptions", "load_reranker", "reranker_kind"]

FAMILIES: dict[RerankerKind, Family] = {
    RerankerKind.LATE: late.FAMILY,
    RerankerKind.LAYERWISE: layered.LAYERWISE,
    RerankerKind.LIGHTWEIGHT: layered.LIGHTWEIGHT,
    RerankerKind.MATROYSHKA: layered.MATROYSHKA,
    RerankerKind.QWEN3: qwen3.FAMILY,
    RerankerKind.LLM: llm.FAMILY,
    RerankerKind.CROSS_ENCODER: cross_encoder.FAMILY,
}
"""Every family, in the order in which they are asked whether they recognise a model."""


def load_reranker(
    files: ModelFiles, options: RerankerOptions, progress: Progress | None = None
) -> Reranker:
    """Return the reranker in a model's files; its weights are loaded when first used.

    Raises:
        UsageError: the files do not tell how it scores, or an option does not fit its family.
        DamagedError: ``config.json`` is damaged.
    """
    kind = options.kind or reranker_kind(files)
    family = FAMILIES[kind]
    _check_options(kind, family, options)
    return family.open(files, options, progress)


def _check_options(kind: RerankerKind, family: Family, options: RerankerOptions) -> None:
    """Refuse options that the family does not support."""
    if options.dtype == "int8-dynamic" or (
        options.dtype == "int8" and kind is not RerankerKind.CROSS_ENCODER
    ):
        raise UsageError(
            f"--dtype {options.dtype} is not for rerankers of the kind {kind}: int8 is for"
            " embedders and cross-encoders, int8-dynamic for embedders. Evaluate the embedder"
            " alone, then rerank its saved runs with --first-stage."
        )
    compress = options.compress_ratio is not None or options.compress_layers is not None
    used = {"layers": options.layers is not None, "compress": compress}
    for option, is_set in used.items():
        if is_set and option not in family.options:
            raise UsageError(
                f"--reranker-{option} does not apply to rerankers of the kind {kind}. Leave it out."
            )
    if options.compress_layers and not options.compress_ratio:
        raise UsageError("--reranker-compress-layers needs --reranker-compress RATIO.")


def reranker_kind(files: ModelFiles) -> RerankerKind:
    """Return the family of a reranker's files.

    Raises:
        UsageError: the files do not tell it.
        DamagedError: ``config.json`` or ``modules.json`` is damaged.
    """
    for kind, family in FAMILIES.items():
        if family.recognises(files):
            return kind
    if has_module(files, "Pooling"):
        raise UsageError(
            f"{files.name} is an embedder, not a reranker. To rerank by the late interaction of"
            " its token vectors, add --reranker-kind late."
        )
    name = architecture(files)
    if not name.endswith("ForCausalLM"):
        raise UsageError(
            f"{files.name} is not a reranker: the architecture in its config.json,"
            f" {name or '(none)'}, has no head that scores a pair. A cross-encoder's ends with"
            " ForSequenceClassification. To rerank by the late interaction of an embedder's token"
            " vectors, add --reranker-kind late."
        )
    raise UsageError(
        f"{files.name} is a language model ({name}), and its files do not tell how it scores a"
        ' pair. If it was trained like bge-reranker-v2-gemma (the logit of "Yes" after BGE\'s'
        " question), add --reranker-kind llm; if like Qwen3-Reranker, add --reranker-kind qwen3."
        " A sentence-transformers CrossEncoder is recognised by"
        " its modules.json."
    )
