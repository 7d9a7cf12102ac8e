"""How a model turns token vectors into one vector, read from the model's own files.

Sources, the later winning: the sentence-transformers files in the folder (``modules.json``,
``1_Pooling/config.json``, ``sentence_bert_config.json``, ``config_sentence_transformers.json``),
mteb's model registry (prompts and similarity of the models it knows), and what the user says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from bge_eval.encode.config import module_kind, read_modules, read_object, transformer_folder
from bge_eval.encode.positions import token_positions
from bge_eval.encode.protocol import ProtocolName
from bge_eval.errors import DamagedError, UsageError, did_you_mean
from bge_eval.records import ModelFiles


class Pooling(StrEnum):
    """Which token vectors become the text's vector."""

    CLS = "cls"
    MEAN = "mean"
    LAST = "last"


class Similarity(StrEnum):
    """How a query vector and a document vector are compared."""

    COSINE = "cosine"
    DOT = "dot"


class Dtype(StrEnum):
    """The precision in which the model's arithmetic is done."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"
    INT8 = "int8"


class Backend(StrEnum):
    """The libraries that can do the forward pass."""

    AUTO = "auto"
    TORCH = "torch"
    OPENVINO = "openvino"
    ONNX = "onnx"


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything about the encoder that a score depends on, besides weights and prompts."""

    pooling: Pooling
    """Which token vectors are pooled."""
    normalize: bool
    """Whether vectors are scaled to unit L2 norm."""
    max_length: int
    """Longest input in tokens, special tokens included; longer texts are cut."""
    similarity: Similarity
    """How vectors are compared."""
    dtype: Dtype = Dtype.FLOAT32
    """Precision of the forward pass; vectors are float32 always."""
    truncate_dim: int | None = None
    """Keep only the first dimensions (Matryoshka models); None keeps all."""
    lower_case: bool = False
    """Whether texts are put in lower case before the tokenizer sees them."""
    pool_prompt: bool = True
    """Whether the prompt's tokens take part in the pooling."""
    tokenizer: Mapping[str, Any] = field(default_factory=dict)
    """Options of the tokenizer that mteb's registry states (add_eos_token, padding_side)."""


@dataclass(frozen=True, slots=True)
class Overrides:
    """What the user said; None leaves the model's own value."""

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
    """``--instruction-format``: how mteb's task instruction is put before a query."""
    prompts: Mapping[str, str] | None = None
    """``--prompts``: prompt name (task, task type, role) → text, before the model's own."""
    protocol: ProtocolName | None = None
    """``--protocol``: whose rules say where the query prompt goes and what is normalised."""


@dataclass(frozen=True, slots=True)
class Instructions:
    """How an instruction-tuned model gets mteb's task instructions."""

    template: str | Callable[..., str]
    """Text with ``{instruction}``, or mteb's function of instruction and prompt type."""
    by_name: Mapping[str, str] | None = None
    """The model's own instructions by task, task type or role, before mteb's."""
    for_documents: bool = True
    """Whether documents get one too."""
    priority: tuple[str, ...] | None = None
    """Order of mteb's instruction sources, where the model has its own."""


@dataclass(frozen=True, slots=True)
class Prompts:
    """The texts put before inputs, by mteb's prompt name (``query``, a task type, a task)."""

    texts: Mapping[str, str] = field(default_factory=dict)
    """Prompt name → text."""
    default: str | None = None
    """Name of the prompt used where no other fits (sentence-transformers' default_prompt_name)."""
    source: str = "none"
    """Where they come from: "model files", "mteb registry" or "none"."""
    instructions: Instructions | None = None
    """For instruction-tuned models, how mteb's task instructions are put to them."""


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A model's own settings and prompts, before the user's overrides."""

    settings: Settings
    """Settings as the model's files and mteb's registry give them."""
    prompts: Prompts
    """Prompts likewise."""


def read_model_config(
    files: ModelFiles, overrides: Overrides, *, use_registry: bool = True
) -> ModelConfig:
    """Read a model's settings from its folder and from mteb's registry.

    The overrides are only looked at for what the files cannot say: a folder without
    sentence-transformers files does not tell how it pools.

    Raises:
        UsageError: the files do not say how to pool, and neither did the user.
        DamagedError: a file is unreadable, or names a module that cannot be run faithfully.
    """
    folder = files.folder
    modules = read_modules(folder)
    body_folder = transformer_folder(folder)
    st_config = read_object(folder / "config_sentence_transformers.json")
    registry = _registry_entry(files.name) if use_registry else None
    pooling, pool_prompt, normalize = (
        _from_modules(folder, modules) if modules is not None else (overrides.pooling, True, False)
    )
    if pooling is None:
        raise UsageError(
            f"{files.name} has no sentence-transformers files (modules.json), so it does not say"
            " how it pools. Add --pooling cls, mean or last (and --normalize if its authors do)."
        )
    body = read_object(body_folder / "sentence_bert_config.json")
    prompts, stated = _prompts_and_similarity(st_config, registry)
    if (form := overrides.instruction_format or _FORMATS.get(files.name)) is not None:
        source = "--instruction-format" if overrides.instruction_format else "its model card"
        prompts = Prompts(source=source, instructions=_own_format(form))
    if stated is None:
        # A bare encoder whose vectors are expressly not normalised was trained for the inner
        # product (RetroMAE's scripts search so); sentence-transformers models default to cosine.
        bare_dot = modules is None and overrides.normalize is False
        stated = Similarity.DOT if bare_dot else Similarity.COSINE
    settings = Settings(
        pooling=pooling,
        normalize=normalize,
        max_length=_max_length(body_folder, body),
        similarity=stated,
        truncate_dim=st_config.get("truncate_dim"),
        lower_case=bool(body.get("do_lower_case", False)),
        pool_prompt=pool_prompt and (registry is None or _registered(registry, "include_prompt")),
        tokenizer=_tokenizer_options(registry) if registry is not None else {},
    )
    return ModelConfig(settings, prompts)


def registered_prompts(name: str) -> tuple[Prompts, Similarity | None]:
    """Return the prompts and the similarity that mteb's registry has for a model's name."""
    return _prompts_and_similarity({}, _registry_entry(name))


def apply_overrides(settings: Settings, overrides: Overrides) -> Settings:
    """Return the settings with the user's values in place of the model's."""
    said = {
        name: value
        for name in (item.name for item in fields(Settings))
        if (value := getattr(overrides, name, None)) is not None
    }
    for name in ("max_length", "truncate_dim"):
        if name in said and said[name] < 1:
            raise UsageError(f"--{name.replace('_', '-')} must be at least 1, not {said[name]}.")
    return replace(settings, **said)


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
                f"{folder / 'modules.json'} holds a module '{kind}' that bge-eval cannot run"
                " (it runs Transformer, Pooling and Normalize); a score without it would be wrong."
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
    """Read the pooling of either form that sentence-transformers has written over the years."""
    mode = config.get("pooling_mode")
    if mode is None:
        mode = [name for flag, name in _POOLING_FLAGS.items() if config.get(flag)] or ["mean"]
    modes = [mode] if isinstance(mode, str) else list(mode)
    if len(modes) == 1 and modes[0] in _POOLING_NAMES:
        return _POOLING_NAMES[modes[0]]
    raise DamagedError(
        f"The model in {folder} pools by {' + '.join(modes)}; bge-eval pools by"
        f" {', '.join(Pooling)}. A score with another pooling would not be this model's."
    )


def _max_length(folder: Path, body: Mapping[str, Any]) -> int:
    """Return the limit that sentence-transformers would use, never above what positions allow."""
    config = read_object(folder / "config.json")
    tokenizer = read_object(folder / "tokenizer_config.json")
    positions = token_positions(config)
    limits = [] if positions is None else [positions]
    stated = body.get("max_seq_length") or tokenizer.get("model_max_length")
    if isinstance(stated, int | float) and 0 < stated < 10**9:
        limits.append(int(stated))
    return min(limits, default=512)


def _prompts_and_similarity(
    st_config: Mapping[str, Any], registry: Any
) -> tuple[Prompts, Similarity | None]:
    own = {str(name): str(text) for name, text in (st_config.get("prompts") or {}).items() if text}
    prompts = Prompts()
    if own:
        prompts = Prompts(own, st_config.get("default_prompt_name"), "model files")
    named = st_config.get("similarity_fn_name")
    if registry is not None:
        registered = registry.loader_kwargs.get("model_prompts")
        if registered:
            prompts = Prompts(dict(registered), None, "mteb registry")
        if (instructions := _instructions(registry)) is not None:
            prompts = Prompts(source="mteb registry", instructions=instructions)
        if registry.similarity_fn_name is not None:
            named = str(registry.similarity_fn_name.value)
    if named in (None, "cosine", "dot"):
        return prompts, Similarity(named) if named else None
    raise DamagedError(
        f"The model compares vectors by '{named}'; bge-eval searches by cosine or dot."
        + did_you_mean(str(named), Similarity)
    )


_FORMATS = {
    "BAAI/bge-multilingual-gemma2": "<instruct>{instruction}\n<query>",
    "BAAI/bge-en-icl": "<instruct>{instruction}\n<query>",
}
"""Model cards' formats of the instruction, where mteb's entry has none."""


def _own_format(form: str) -> Instructions:
    form = form.replace("\\n", "\n")
    if form.count("{instruction}") != 1:
        raise UsageError(
            "--instruction-format holds {instruction} once, such as"
            f" '<instruct>{{instruction}}\\n<query>', not '{form}'."
        )
    return Instructions(form, for_documents=False)


def _registered(registry: Any, name: str) -> bool:
    return bool(registry.loader_kwargs.get(name, True))


def _tokenizer_options(registry: Any) -> dict[str, Any]:
    """Return what mteb's entry tells the tokenizer.

    Without its end token a model like e5-mistral would be pooled at the wrong place.
    """
    options = registry.loader_kwargs
    told = dict(options.get("tokenizer_kwargs") or {})
    told |= {name: options[name] for name in ("add_eos_token", "padding_side") if name in options}
    return {name: value for name, value in told.items() if isinstance(value, str | int | bool)}


def _instructions(registry: Any) -> Instructions | None:
    """Read from mteb's entry how it instructs a model, or None if it does not."""
    options = registry.loader_kwargs
    loader = getattr(registry.loader, "func", registry.loader)
    name = getattr(loader, "__name__", "")
    if name == "q3e_instruct_loader":
        from mteb.models.model_implementations.qwen3_models import instruction_template

        return Instructions(instruction_template, for_documents=False)
    if name != "InstructSentenceTransformerModel" or not options.get("instruction_template"):
        return None
    priority = options.get("prompt_priority")
    return Instructions(
        options["instruction_template"],
        options.get("prompts_dict"),
        bool(options.get("apply_instruction_to_passages", True)),
        tuple(map(str, priority)) if priority else None,
    )


def _registry_entry(name: str) -> Any:
    """Return mteb's entry for a model name, or None if mteb does not know it."""
    from mteb.models.model_implementations import MODEL_REGISTRY

    return MODEL_REGISTRY.get(name)


def overrides_from(options: Mapping[str, Any]) -> Overrides:
    """Check a mapping of option names to values and turn it into overrides.

    Raises:
        UsageError: an option is unknown, or a choice is none of those there are.
    """
    known = [item.name for item in fields(Overrides)]
    for name in options:
        if name not in known:
            raise UsageError(
                f"There is no option '{name}'.{did_you_mean(name, known)} Options: "
                f"{', '.join(known)}."
            )
    choices = {"pooling": Pooling, "similarity": Similarity, "dtype": Dtype}
    choices |= {"protocol": ProtocolName}
    checked = dict(options)
    for name, kind in choices.items():
        value = checked.get(name)
        if value is None:
            continue
        if value not in list(kind):
            raise UsageError(f"{name} is '{value}'; it can be {', '.join(kind)}.")
        checked[name] = kind(value)
    return Overrides(**checked)
