"""The modules of a sentence-transformers folder, and which library runs them.

sentence-transformers runs a list of modules, one after another: a transformer, a pooling, perhaps
linear layers and a normalisation. bge-eval runs the transformer in its own batches and backends
and the modules after it as they are (`bge_eval.runtime.head`). Folders with another beginning or
with inputs by role run in sentence-transformers itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from bge_eval.encode.body import read_body, token_limit
from bge_eval.encode.config import (
    CONFIG,
    MODULES,
    module_kind,
    read_modules,
    read_object,
)
from bge_eval.encode.weights import check_weights
from bge_eval.errors import DamagedError, UsageError

ST_CONFIG = "config_sentence_transformers.json"
_AFTER = {"Pooling", "Dense", "LayerNorm", "Normalize", "Dropout"}
"""Modules that read token vectors or text vectors, and no tokens."""
_SENTENCE = "sentence_embedding"
_MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""The flags of older files, in the order in which several poolings are concatenated."""


class Library(StrEnum):
    """The class that runs a folder."""

    OURS = "bge-eval"
    SENTENCE = "SentenceTransformer"
    SPARSE = "SparseEncoder"
    MULTI_VECTOR = "MultiVectorEncoder"


@dataclass(frozen=True, slots=True)
class Module:
    """One module of ``modules.json``."""

    kind: str
    """Its class without the package, such as "Pooling"."""
    reference: str
    """Its class with the package, as the file names it."""
    folder: Path
    """The folder of its files."""
    config: Mapping[str, Any]
    """The content of its own ``config.json``."""


def modules_of(folder: Path) -> list[Module] | None:
    """Return the modules of a folder, None for a bare encoder.

    Raises:
        DamagedError: a file is damaged.
    """
    entries = read_modules(folder)
    if entries is None:
        return None
    modules = []
    for entry in entries:
        place = folder / str(entry.get("path", ""))
        kind = module_kind(entry)
        config = {} if kind.endswith("Transformer") else read_object(place / CONFIG)
        modules.append(Module(kind, str(entry["type"]), place, config))
    return modules


def library_of(folder: Path) -> Library:
    """Return which library runs a folder.

    Raises:
        UsageError: the folder is a reranker.
        DamagedError: a file is damaged, or names a kind of model that no library runs.
    """
    if is_multi_vector(folder):
        return Library.MULTI_VECTOR
    named = read_object(folder / ST_CONFIG).get("model_type", Library.SENTENCE)
    if named == Library.SPARSE:
        return Library.SPARSE
    if named == "CrossEncoder":
        raise UsageError(
            f"{folder} is a reranker (model_type CrossEncoder in {ST_CONFIG}), which encodes no"
            " single text. Pass it to --reranker."
        )
    if named != Library.SENTENCE:
        raise DamagedError(
            f"{folder / ST_CONFIG} has the model_type {named!r}; expected SentenceTransformer,"
            " SparseEncoder, MultiVectorEncoder or CrossEncoder."
        )
    modules = modules_of(folder)
    if modules is None:
        return Library.OURS
    first, *rest = modules
    plain = (
        _is_own(first, "Transformer")
        and all(_is_own(module, *_AFTER) for module in rest)
        and not read_body(first.folder).by_library
    )
    return Library.OURS if plain else Library.SENTENCE


@dataclass(frozen=True, slots=True)
class After:
    """What follows the transformer."""

    pooling: str
    """``cls``, ``mean``, ``last`` …, or several joined by ``+``."""
    pool_prompt: bool
    """Whether the pooling includes the prompt's tokens."""
    normalize: bool
    """Whether text vectors are scaled to unit norm at the end."""
    modules: tuple[str, ...]
    """Folders of the modules before that, where they are more than a pooling."""


def after_transformer(folder: Path, config: Mapping[str, Any]) -> After | None:
    """Return what ``modules.json`` runs after the transformer, None for a bare encoder.

    Args:
        folder: the model's folder.
        config: the content of the transformer's ``config.json``.

    Raises:
        DamagedError: the modules cannot follow the transformer, or their files are damaged.
    """
    modules = modules_of(folder)
    if modules is None:
        return None
    width = config.get("hidden_size", config.get("d_model"))
    check_modules(folder, modules[1:], width if isinstance(width, int) else None)
    run, normalize = split_normalisation(modules[1:])
    [pooling] = [module for module in run if module.kind == "Pooling"]
    return After(
        pooling_of(pooling),
        bool(pooling.config.get("include_prompt", True)),
        normalize,
        tuple(module.folder.name for module in run) if len(run) > 1 else (),
    )


def read_st_config(folder: Path) -> dict[str, Any]:
    """Return the content of ``config_sentence_transformers.json``, ``{}`` where it is missing.

    Raises:
        DamagedError: it is damaged, or has prompts or a dimension of another type.
    """
    path = folder / ST_CONFIG
    content = read_object(path)
    prompts = content.get("prompts") or {}
    texts = prompts.values() if isinstance(prompts, dict) else [0]
    if not all(text is None or isinstance(text, str) for text in texts):
        raise DamagedError(f"{path}: prompts is {prompts!r}; expected names with their texts.")
    token_limit(content.get("truncate_dim"), f"{path}: truncate_dim")
    return content


def is_multi_vector(folder: Path) -> bool:
    """Return whether a folder holds a model with a vector for each token.

    sentence-transformers' MultiVectorEncoder, PyLate's models and ColBERT's own layout.

    Raises:
        DamagedError: a file is damaged.
    """
    if "HF_ColBERT" in (read_object(folder / CONFIG).get("architectures") or []):
        return True
    named = read_object(folder / ST_CONFIG).get("model_type")
    return named in ("ColBERT", Library.MULTI_VECTOR)


def pooling_of(module: Module) -> str:
    """Return the poolings of a Pooling module, joined by ``+``.

    Raises:
        DamagedError: the module has no config.json, names no pooling or an unknown one.
    """
    path = module.folder / CONFIG
    if not path.is_file():
        raise DamagedError(
            f"{path} is missing, so the pooling is not defined. Copy the module's folder, or leave"
            f" {MODULES} out and add --pooling."
        )
    mode = module.config.get("pooling_mode")
    if mode is None:
        mode = [name for flag, name in _FLAGS.items() if module.config.get(flag)]
    modes = [mode] if isinstance(mode, str) else mode
    if not isinstance(modes, list) or not modes:
        raise DamagedError(
            f"{path} names no pooling. Expected pooling_mode ({', '.join(_MODES)}), or one of the"
            " flags pooling_mode_cls_token, pooling_mode_mean_tokens … set to true."
        )
    if unknown := [name for name in modes if name not in _MODES]:
        raise DamagedError(
            f"{path} pools by {unknown[0]!r}; sentence-transformers knows {', '.join(_MODES)}."
        )
    return "+".join("last" if name == "lasttoken" else name for name in modes)


def check_modules(folder: Path, modules: list[Module], width: int | None) -> None:
    """Refuse modules that cannot follow the transformer.

    Args:
        folder: the model's folder.
        modules: the modules after the transformer.
        width: length of the transformer's token vectors; None where config.json does not say.

    Raises:
        DamagedError: there is no pooling or more than one; a module has another width, lacks its
            weights, or has an activation that is not torch's.
    """
    poolings = [module for module in modules if module.kind == "Pooling"]
    if len(poolings) != 1:
        raise DamagedError(
            f"{folder / MODULES} names {len(poolings) or 'no'} Pooling modules; expected one."
        )
    stated = poolings[0].config
    expected = stated.get("embedding_dimension", stated.get("word_embedding_dimension"))
    changed = any(module.kind == "Dense" for module in modules[: modules.index(poolings[0])])
    if width is not None and not changed and expected is not None and expected != width:
        raise DamagedError(
            f"{poolings[0].folder / CONFIG} is for token vectors of {expected} dimensions; this"
            f" transformer's have {width}. The folder mixes files of two models."
        )
    for module in modules:
        if module.kind in ("Dense", "LayerNorm"):
            check_weights(module.folder)
        activation = module.config.get("activation_function", "torch.")
        if module.kind == "Dense" and not str(activation).startswith("torch."):
            raise DamagedError(
                f"{module.folder / CONFIG} has the activation {activation}, which is no class of"
                " torch. sentence-transformers would use Tanh in its place."
            )


def split_normalisation(modules: list[Module]) -> tuple[list[Module], bool]:
    """Return the modules before a last normalisation, and whether there is one.

    bge-eval normalises by itself, after the embedding store. Dropout does nothing in use.

    Args:
        modules: the modules after the transformer.
    """
    rest = [module for module in modules if module.kind != "Dropout"]
    normalize = False
    while rest and rest[-1].kind == "Normalize" and _reads_texts(rest[-1]):
        rest.pop()
        normalize = True
    return rest, normalize


def _reads_texts(module: Module) -> bool:
    """Return whether a module reads and writes the vector of a text, not those of its tokens."""
    read = module.config.get("module_input_name", _SENTENCE)
    return bool(read == _SENTENCE == (module.config.get("module_output_name") or read))


def _is_own(module: Module, *kinds: str) -> bool:
    """Return whether a module is sentence-transformers' own, of one of some kinds."""
    return module.kind in kinds and module.reference.startswith("sentence_transformers.")
