"""Encoder settings and prompts: from the model's files, mteb's registry and the user's options.

The sources, each overriding the one before: the sentence-transformers files in the model's folder
(``modules.json``, ``1_Pooling/config.json``, ``sentence_bert_config.json``,
``config_sentence_transformers.json``), mteb's model registry, the table of published checkpoints,
and the options of the command line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from bge_eval.encode.checkpoints import Checkpoint, checkpoint
from bge_eval.encode.config import module_kind, read_modules, read_object, transformer_folder
from bge_eval.encode.copies import Copy, recognise
from bge_eval.encode.files import ModelFiles
from bge_eval.encode.positions import token_positions
from bge_eval.encode.prompts import Instructions, Prompts, model_prompts
from bge_eval.encode.protocol import ProtocolName
from bge_eval.encode.registry import RegistryEntry, registry_entry
from bge_eval.errors import DamagedError, UsageError, did_you_mean


class Pooling(StrEnum):
    """The reduction of token vectors to one text vector."""

    CLS = "cls"
    MEAN = "mean"
    LAST = "last"


class Similarity(StrEnum):
    """The similarity of a query vector and a document vector."""

    COSINE = "cosine"
    DOT = "dot"


class Dtype(StrEnum):
    """The precision of the forward pass."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"
    INT8 = "int8"


class Backend(StrEnum):
    """The libraries that run the forward pass."""

    AUTO = "auto"
    TORCH = "torch"
    OPENVINO = "openvino"
    ONNX = "onnx"


@dataclass(frozen=True, slots=True)
class Settings:
    """The encoder settings that scores depend on, besides weights and prompts."""

    pooling: Pooling
    """The pooling of token vectors."""
    normalize: bool
    """Whether vectors are scaled to unit L2 norm."""
    max_length: int
    """Longest input in tokens, special tokens included; longer texts are truncated."""
    similarity: Similarity
    """The similarity that ranks documents."""
    dtype: Dtype = Dtype.FLOAT32
    """Precision of the forward pass; vectors are always float32."""
    truncate_dim: int | None = None
    """Number of leading dimensions to use (Matryoshka models); None uses all."""
    lower_case: bool = False
    """Whether texts are lower-cased before tokenisation."""
    pool_prompt: bool = True
    """Whether pooling includes the prompt's tokens."""
    tokenizer: Mapping[str, Any] = field(default_factory=dict)
    """Tokenizer options from mteb's registry (add_eos_token, padding_side)."""


_CHOICES: dict[str, type[StrEnum]] = {
    "pooling": Pooling,
    "similarity": Similarity,
    "dtype": Dtype,
    "protocol": ProtocolName,
}
"""The fields of `Overrides` that take one of a few values."""


@dataclass(frozen=True, slots=True)
class Overrides:
    """The user's options; None leaves the model's own value."""

    pooling: Pooling | None = None
    """``--pooling``"""
    normalize: bool | None = None
    """``--normalize / --no-normalize``"""
    max_length: int | None = None
    """``--max-length``"""
    similarity: Similarity | None = None
    """``--similarity``"""
    dtype: Dtype | None = None
    """``--dtype``"""
    truncate_dim: int | None = None
    """``--truncate-dim``"""
    query_prompt: str | None = None
    """``--query-prompt``"""
    document_prompt: str | None = None
    """``--document-prompt``"""
    instruction_format: str | None = None
    """``--instruction-format``: the template that turns a task instruction into a query prompt."""
    prompts: Mapping[str, str] | None = None
    """``--prompts``: prompt name (task, task type, role) → text; overrides the model's prompts."""
    protocol: ProtocolName | None = None
    """``--protocol``: the rules for query prompts and normalisation."""
    known_as: str | None = None
    """``--known-as``: the published model that a local folder is a copy of, or "none"."""

    def __post_init__(self) -> None:
        """Take the values of choices as text, too.

        Raises:
            UsageError: a value is none of its option's choices.
        """
        for name, kind in _CHOICES.items():
            value = getattr(self, name)
            if value is None:
                continue
            if value not in list(kind):
                raise UsageError(f"{name} is '{value}'; it can be {', '.join(kind)}.")
            object.__setattr__(self, name, kind(value))


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A model's own settings and prompts, before the user's overrides."""

    settings: Settings
    """Settings from the model's files and mteb's registry."""
    prompts: Prompts
    """Prompts from the same sources."""
    copy: Copy = field(default_factory=Copy)
    """Which published model the files are."""


def read_model_config(
    files: ModelFiles, overrides: Overrides, *, use_registry: bool = True
) -> ModelConfig:
    """Read a model's settings from its folder and from mteb's registry.

    The overrides only fill gaps of the files: a folder without sentence-transformers files does
    not define its pooling.

    Raises:
        UsageError: neither the files nor the overrides define the pooling.
        DamagedError: a file is unreadable, or names a module that bge-eval cannot run.
    """
    folder = files.folder
    modules = read_modules(folder)
    body_folder = transformer_folder(folder)
    st_config = read_object(folder / "config_sentence_transformers.json")
    copy = recognise(files, overrides.known_as) if use_registry else Copy()
    registry = registry_entry(copy.name) if copy.name is not None else None
    published = checkpoint(copy.name) if copy.name is not None else None
    pooling, pool_prompt, normalize = (
        _from_modules(folder, modules) if modules is not None else _bare(published, overrides)
    )
    if pooling is None:
        raise UsageError(
            f"{files.name} has no sentence-transformers files (modules.json), so its pooling is"
            " not defined. Add --pooling cls, mean or last (and --normalize if its authors do)."
        )
    body = read_object(body_folder / "sentence_bert_config.json")
    prompts, similarity = _prompts_and_similarity(st_config, registry, overrides.protocol)
    if overrides.protocol is ProtocolName.MODEL_FILES:
        _refuse_format(overrides)
    elif overrides.instruction_format is not None:
        instructions = _from_template(overrides.instruction_format)
        prompts = Prompts(source="--instruction-format", instructions=instructions)
    elif published is not None:
        prompts = published.prompts() or prompts
    if similarity is None and modules is None and published is not None and published.similarity:
        similarity = Similarity(published.similarity)
    if similarity is None:
        # A bare encoder with --no-normalize was trained for the inner product (RetroMAE's scripts
        # search by it); sentence-transformers models default to cosine.
        bare_dot = modules is None and overrides.normalize is False
        similarity = Similarity.DOT if bare_dot else Similarity.COSINE
    settings = Settings(
        pooling=pooling,
        normalize=normalize,
        max_length=_max_length(body_folder, body, registry),
        similarity=similarity,
        truncate_dim=_truncate_dim(st_config, registry),
        lower_case=bool(body.get("do_lower_case", False)),
        pool_prompt=pool_prompt and (registry is None or registry.pool_prompt is not False),
        tokenizer=registry.tokenizer if registry is not None else {},
    )
    return ModelConfig(settings, prompts, copy)


def _bare(published: Checkpoint | None, overrides: Overrides) -> tuple[Pooling | None, bool, bool]:
    """Return the pooling of a folder without modules, and whether vectors are normalised."""
    pooling = overrides.pooling
    if published is not None and published.pooling is not None:
        pooling = Pooling(published.pooling)
    return pooling, True, published is not None and bool(published.normalize)


def registered_prompts(name: str) -> tuple[Prompts, Similarity | None]:
    """Return a model's prompts and similarity from mteb's registry, or from its model card."""
    prompts, similarity = _prompts_and_similarity({}, registry_entry(name))
    published = checkpoint(name)
    return (published and published.prompts()) or prompts, similarity


def apply_overrides(settings: Settings, overrides: Overrides) -> Settings:
    """Return the settings with the user's values in place of the model's."""
    values = {
        name: value
        for name in (item.name for item in fields(Settings))
        if (value := getattr(overrides, name, None)) is not None
    }
    for name in ("max_length", "truncate_dim"):
        if name in values and values[name] < 1:
            raise UsageError(f"--{name.replace('_', '-')} must be at least 1, not {values[name]}.")
    return replace(settings, **values)


def _from_modules(folder: Path, modules: list[dict[str, Any]]) -> tuple[Pooling, bool, bool]:
    pooling: tuple[Pooling, bool] | None = None
    normalize = False
    for module in modules:
        kind = module_kind(module)
        if kind == "Pooling":
            config = read_object(folder / str(module.get("path", "")) / "config.json")
            pooling = _pooling(config, folder), bool(config.get("include_prompt", True))
        elif kind == "Normalize":
            normalize = True
        elif kind != "Transformer":
            raise DamagedError(
                f"{folder / 'modules.json'} names the module '{kind}', which bge-eval cannot run"
                " (it runs Transformer, Pooling and Normalize). Scores without it would be wrong."
            )
    if pooling is None:
        raise DamagedError(f"{folder / 'modules.json'} names no Pooling module.")
    return pooling[0], pooling[1], normalize


_POOLING_NAMES = {"cls": Pooling.CLS, "mean": Pooling.MEAN, "lasttoken": Pooling.LAST}
_POOLING_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "lasttoken",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
}


def _pooling(config: Mapping[str, Any], folder: Path) -> Pooling:
    """Read the pooling from a mode name or, in older files, from one flag per mode."""
    mode = config.get("pooling_mode")
    if mode is None:
        mode = [name for flag, name in _POOLING_FLAGS.items() if config.get(flag)] or ["mean"]
    modes = [mode] if isinstance(mode, str) else list(mode)
    if len(modes) == 1 and modes[0] in _POOLING_NAMES:
        return _POOLING_NAMES[modes[0]]
    raise DamagedError(
        f"The model in {folder} pools by {' + '.join(modes)}; bge-eval pools by"
        f" {', '.join(Pooling)}. Scores with another pooling would be wrong."
    )


def _max_length(
    folder: Path, body: Mapping[str, Any], registry: RegistryEntry | None = None
) -> int:
    """Return sentence-transformers' maximum length, at most the number of positions."""
    config = read_object(folder / "config.json")
    tokenizer = read_object(folder / "tokenizer_config.json")
    positions = token_positions(config)
    limits = [] if positions is None else [positions]
    limit = registry.max_length if registry is not None else None
    limit = limit or body.get("max_seq_length") or tokenizer.get("model_max_length")
    if isinstance(limit, int | float) and 0 < limit < 10**9:
        limits.append(int(limit))
    return min(limits, default=512)


def _truncate_dim(st_config: Mapping[str, Any], registry: RegistryEntry | None) -> int | None:
    own = registry.truncate_dim if registry is not None else None
    return own if own is not None else st_config.get("truncate_dim")


def _prompts_and_similarity(
    st_config: Mapping[str, Any],
    registry: RegistryEntry | None,
    protocol: ProtocolName | None = None,
) -> tuple[Prompts, Similarity | None]:
    named = st_config.get("similarity_fn_name")
    if registry is not None and registry.similarity is not None:
        named = registry.similarity
    prompts = model_prompts(st_config, registry, protocol)
    if named in (None, "cosine", "dot"):
        return prompts, Similarity(named) if named else None
    raise DamagedError(
        f"The model compares vectors by '{named}'; bge-eval searches by cosine or dot."
        + did_you_mean(str(named), Similarity)
    )


def _refuse_format(overrides: Overrides) -> None:
    if overrides.instruction_format is not None:
        raise UsageError(
            f"--protocol {ProtocolName.MODEL_FILES} takes the prompts of the model's files, so"
            " --instruction-format does not apply. Leave one of the two out."
        )


def _from_template(template: str) -> Instructions:
    template = template.replace("\\n", "\n")
    if template.count("{instruction}") != 1:
        raise UsageError(
            "--instruction-format must contain {instruction} once, such as"
            f" '<instruct>{{instruction}}\\n<query>', not '{template}'."
        )
    return Instructions(template, for_documents=False)


def overrides_from(options: Mapping[str, Any]) -> Overrides:
    """Check a mapping of option names to values and turn it into overrides.

    Raises:
        UsageError: an option or its value is unknown.
    """
    names = [item.name for item in fields(Overrides)]
    for name in options:
        if name not in names:
            raise UsageError(
                f"Unknown option '{name}'.{did_you_mean(name, names)} Options: {', '.join(names)}."
            )
    return Overrides(**options)
