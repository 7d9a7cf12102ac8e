"""Encoder settings and prompts: from the model's files, mteb's registry and the user's options.

The sources, each overriding the one before: the sentence-transformers files in the model's folder
(``modules.json``, ``1_Pooling/config.json``, ``sentence_bert_config.json``,
``config_sentence_transformers.json``), mteb's model registry, the table of published checkpoints,
and the options of the command line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from bge_eval.encode.body import longest_input, read_body
from bge_eval.encode.calibration import Calibration, read_calibration
from bge_eval.encode.checkpoints import Checkpoint, checkpoint
from bge_eval.encode.config import CONFIG, read_object, refuse_dual_encoder, transformer_folder
from bge_eval.encode.copies import Copy, recognise
from bge_eval.encode.files import ModelFiles
from bge_eval.encode.modules import After, Library, after_transformer, library_of, read_st_config
from bge_eval.encode.prompts import Instructions, Prompts, model_prompts, usual_prompts
from bge_eval.encode.protocol import ProtocolName
from bge_eval.encode.registry import RegistryEntry, registry_entry
from bge_eval.errors import DamagedError, UsageError, did_you_mean


class Pooling(StrEnum):
    """The reduction of token vectors to one text vector."""

    CLS = "cls"
    MEAN = "mean"
    LAST = "last"
    MAX = "max"
    MEAN_SQRT_LEN = "mean_sqrt_len_tokens"
    WEIGHTED_MEAN = "weightedmean"


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
    """Calibrated, in OpenVINO on a CPU; see `bge_eval.runtime.quantized`."""
    INT8_DYNAMIC = "int8-dynamic"
    """torch's: int8 weights, the range of a layer's inputs taken from each batch."""


class Backend(StrEnum):
    """The libraries that run the forward pass."""

    AUTO = "auto"
    TORCH = "torch"
    OPENVINO = "openvino"
    ONNX = "onnx"


@dataclass(frozen=True, slots=True)
class Settings:
    """The encoder settings that scores depend on, besides weights and prompts."""

    pooling: str
    """The pooling of token vectors: one of `Pooling`, or several joined by ``+``."""
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
    modules: tuple[str, ...] = ()
    """Folders of the modules that run after the transformer, where they are more than a pooling."""
    calibration: str = ""
    """Digest of the texts that int8 was calibrated with; "" in any other precision."""

    def facts(self) -> dict[str, Any]:
        """Return the settings as an identity states them, name → value."""
        facts = asdict(self)
        if not self.modules:  # as in results that were saved before there were modules
            del facts["modules"]
        if not self.calibration:
            del facts["calibration"]
        if self.lower_case:  # results saved as true also lower-cased special tokens ("[SEP]")
            facts["lower_case"] = "by the tokenizer"
        return facts


_CHOICES: dict[str, type[StrEnum]] = {
    "pooling": Pooling,
    "similarity": Similarity,
    "dtype": Dtype,
    "protocol": ProtocolName,
}
"""The fields of `Overrides` that take one of a few values."""


def take_choices(record: object, choices: Mapping[str, type[StrEnum]]) -> None:
    """Replace texts in a new, frozen record by the values of their choices; None stays.

    Args:
        record: the record.
        choices: field → its choices.

    Raises:
        UsageError: a value is none of its option's choices.
    """
    for name, kind in choices.items():
        value = getattr(record, name)
        if value is None:
            continue
        if value not in list(kind):
            raise UsageError(f"{name} is '{value}'; it can be {', '.join(kind)}.")
        object.__setattr__(record, name, kind(value))


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
    calibration: Path | None = None
    """``--calibration``: the file of texts for int8; None takes the package's own."""
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
        take_choices(self, _CHOICES)


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
    if (library := library_of(folder)) is not Library.OURS:
        raise UsageError(
            f"{files.name} runs in sentence-transformers ({library}), not in bge-eval's encoder:"
            " open it with --model, or bge_eval.load_model."
        )
    body = read_body(transformer_folder(folder))
    config = read_object(files.weights / CONFIG)
    st_config = read_st_config(folder)
    copy = recognise(files, overrides.known_as) if use_registry else Copy()
    registry = registry_entry(copy.name) if copy.name is not None else None
    published = checkpoint(copy.name) if copy.name is not None else None
    own = after_transformer(folder, config)
    after = own or _bare(published)
    pooling = after.pooling if after is not None else overrides.pooling
    if own is None:
        refuse_dual_encoder(files.name, config)
    if pooling is None:
        raise UsageError(
            f"{files.name} has no sentence-transformers files (modules.json), so its pooling is"
            " not defined. Add --pooling cls, mean or last (and --normalize if its authors do)."
        )
    prompts, similarity = _prompts_and_similarity(st_config, registry, overrides.protocol)
    prompts = _chosen_prompts(prompts, published, overrides)
    settings = Settings(
        pooling=Pooling(pooling) if pooling in list(Pooling) else pooling,
        normalize=after is not None and after.normalize,
        max_length=longest_input(
            files, config, body, registry.max_length if registry is not None else None
        ),
        similarity=similarity or _bare_similarity(own, published, overrides),
        truncate_dim=_truncate_dim(st_config, registry),
        lower_case=body.lower_case,
        pool_prompt=(after is None or after.pool_prompt)
        and (registry is None or registry.pool_prompt is not False),
        tokenizer=registry.tokenizer if registry is not None else {},
        modules=after.modules if after is not None else (),
    )
    return ModelConfig(settings, prompts, copy)


def _chosen_prompts(own: Prompts, published: Checkpoint | None, overrides: Overrides) -> Prompts:
    """Return the prompts of the template, of the published checkpoint, or the model's own.

    Raises:
        UsageError: there is a template, and the protocol takes the model's own; or it is wrong.
    """
    if overrides.protocol is ProtocolName.MODEL_FILES:
        _refuse_format(overrides)
        return own
    if overrides.instruction_format is not None:
        instructions = _from_template(overrides.instruction_format)
        return Prompts(source="--instruction-format", instructions=instructions)
    return (published and published.prompts()) or own


def _bare_similarity(
    own: After | None, published: Checkpoint | None, overrides: Overrides
) -> Similarity:
    """Return how vectors are compared where neither files nor registry tell."""
    if own is not None:
        return Similarity.COSINE
    if published is not None and published.similarity:
        return Similarity(published.similarity)
    # A bare encoder with --no-normalize was trained for the inner product (RetroMAE's scripts
    # search by it); sentence-transformers models default to cosine.
    return Similarity.DOT if overrides.normalize is False else Similarity.COSINE


def _bare(published: Checkpoint | None) -> After | None:
    """Return the pooling and normalisation of a published checkpoint without modules."""
    if published is None or published.pooling is None:
        return None
    return After(published.pooling, True, bool(published.normalize), ())


def registered_prompts(name: str) -> tuple[Prompts, Similarity | None]:
    """Return a model's prompts and similarity from mteb's registry, or from its model card."""
    prompts, similarity = _prompts_and_similarity({}, registry_entry(name))
    published = checkpoint(name)
    return (published and published.prompts()) or prompts, similarity


def apply_overrides(
    settings: Settings, overrides: Overrides, prompts: Prompts | None = None
) -> Settings:
    """Return the settings with the user's values in place of the model's.

    Args:
        settings: the model's.
        overrides: the user's.
        prompts: the model's, which stand before the texts that int8 is calibrated with.

    Raises:
        UsageError: a number is below 1, or there are texts for int8 in another precision.
        MissingError: there is no file of texts.
        DamagedError: it is not readable.
    """
    values = {
        name: value
        for name in (item.name for item in fields(Settings))
        if (value := getattr(overrides, name, None)) is not None
    }
    for name in ("max_length", "truncate_dim"):
        if name in values and values[name] < 1:
            raise UsageError(f"--{name.replace('_', '-')} must be at least 1, not {values[name]}.")
    values["calibration"] = calibration_digest(overrides.dtype, overrides.calibration)
    if values["calibration"]:
        values["calibration"] = calibration_of(overrides, prompts or Prompts()).digest
    return replace(settings, **values)


def calibration_of(overrides: Overrides, prompts: Prompts) -> Calibration:
    """Return the texts that int8 is calibrated with, and the prompts before them.

    Task instructions differ by task, and a model is calibrated once: the prompts are those of
    retrieval in general.
    """
    calibration = read_calibration(overrides.calibration)
    return calibration.prompted(*usual_prompts(prompts, overrides))


def calibration_digest(dtype: str | None, path: Path | None) -> str:
    """Return the digest of the texts that a precision is calibrated with; "" if it is not.

    Args:
        dtype: the precision; None is float32.
        path: the user's file of texts; None is the package's own.

    Raises:
        UsageError: there is a file, and the precision takes none.
        MissingError: there is no such file.
        DamagedError: it is not readable.
    """
    if dtype == Dtype.INT8:
        return read_calibration(path).digest
    if path is not None:
        raise UsageError(
            f"--calibration is for --dtype int8, not for {dtype or Dtype.FLOAT32}. Leave one out."
        )
    return ""


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
