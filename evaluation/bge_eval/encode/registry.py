"""What mteb's registry states about a model, as mteb's own loader would use it.

Only the loaders that put a prompt before the text are read: ``SentenceTransformerEncoderWrapper``
and ``InstructSentenceTransformerModel`` (``mteb/models/sentence_transformer_wrapper.py``,
``instruct_wrapper.py``). A model with any other loader runs here only with a prompt of the user's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bge_eval.encode.prompts import Instructions
from bge_eval.errors import UsageError

PLAIN_LOADERS = frozenset(
    {
        "SentenceTransformerEncoderWrapper",
        "sentence_transformers_loader",
        "InstructSentenceTransformerModel",
        "q3e_instruct_loader",
    }
)
"""Loaders of mteb's registry that put prompts or instructions before the text, as we do."""
_PROMPTED = frozenset({"SentenceTransformerEncoderWrapper", "sentence_transformers_loader"})
_PROMPTED_OPTIONS = frozenset({"model_prompts", "embed_dim"})
_INSTRUCTED_OPTIONS = frozenset(
    {
        *("instruction_template", "apply_instruction_to_passages", "prompts_dict"),
        *("prompt_priority", "max_seq_length", "padding_side", "add_eos_token"),
        *("include_prompt", "embed_dim"),
    }
)
_TOKENIZER_OPTIONS = frozenset({"tokenizer_kwargs", "processor_kwargs"})
_DECIDED_HERE = frozenset(
    {
        # Precision and attention (--dtype, the backend), consent to foreign code, the device.
        *("model_kwargs", "config_kwargs", "trust_remote_code", "device"),
        # Options of other modalities.
        *("fps", "max_frames", "num_frames", "min_frames", "target_sampling_rate", "max_samples"),
    }
)


@dataclass(frozen=True, slots=True)
class RegistryEntry:
    """The settings in a model's entry; None where the model's files decide."""

    loader: str | None
    """Name of mteb's loader; None if mteb has none for the model."""
    prompts: Mapping[str, str] | None = None
    """Prompt name → text; they replace those of the model's files."""
    instructions: Instructions | None = None
    """Task instructions of an instruction-tuned model."""
    similarity: str | None = None
    """mteb's name of the similarity."""
    max_length: int | None = None
    """Longest input in tokens."""
    truncate_dim: int | None = None
    """Number of leading dimensions to use."""
    pool_prompt: bool | None = None
    """Whether pooling includes the prompt's tokens."""
    tokenizer: Mapping[str, Any] = field(default_factory=dict)
    """Options of the tokenizer."""
    unread: tuple[str, ...] = ()
    """Options of the loader that bge-eval does not honour, or that mteb's loader refuses."""


def registry_entry(name: str) -> RegistryEntry | None:
    """Return what mteb's registry states about a model, None if mteb does not know it.

    Args:
        name: ``org/model``.
    """
    from mteb.models.model_implementations import MODEL_REGISTRY

    meta = MODEL_REGISTRY.get(name)
    if meta is None:
        return None
    loader = _loader_name(meta)
    options: Mapping[str, Any] = meta.loader_kwargs
    similarity = meta.similarity_fn_name
    return RegistryEntry(
        loader,
        prompts=dict(options.get("model_prompts") or {}) or None,
        instructions=_instructions(loader, options),
        similarity=str(similarity.value) if similarity is not None else None,
        max_length=_max_length(options),
        truncate_dim=options.get("embed_dim"),
        pool_prompt=options.get("include_prompt"),
        tokenizer=_tokenizer_options(options),
        unread=_unread(loader, options),
    )


def has_prompts(name: str) -> bool:
    """Return whether mteb's registry states prompts of a model."""
    entry = registry_entry(name)
    return entry is not None and entry.prompts is not None


def refuse_other_loader(name: str, entry: RegistryEntry | None) -> None:
    """Refuse a model that mteb does not run by putting a prompt before the text.

    Args:
        name: ``org/model``.
        entry: its entry in mteb's registry, if it has one.

    Raises:
        UsageError: mteb runs it as a reranker, with a loader of its own, or with options that are
            not honoured here.
    """
    if entry is None or entry.loader is None:
        return
    if "CrossEncoder" in entry.loader or "Rerank" in entry.loader:
        raise UsageError(
            f"mteb runs {name} as a reranker ({entry.loader}), not as an embedder. Name it with"
            f" --reranker {name}, and give a first stage with --model."
        )
    if entry.loader not in PLAIN_LOADERS:
        raise UsageError(
            f"mteb runs {name} through a loader of its own ({entry.loader}), which formats"
            " instructions in a way that bge-eval does not do yet; without them the score would"
            " not be this model's. Add --loader mteb, or give the instruction with --query-prompt"
            " to run it all the same."
        )
    if entry.unread:
        raise UsageError(
            f"mteb's registry gives {name} the option {', '.join(entry.unread)}, which its loader"
            f" ({entry.loader}) does not take, so nothing states how its texts are prompted. Give"
            " the instruction with --query-prompt to run it all the same."
        )


def _loader_name(meta: Any) -> str | None:
    loader = getattr(meta.loader, "func", meta.loader)
    return getattr(loader, "__name__", None)


def _instructions(loader: str | None, options: Mapping[str, Any]) -> Instructions | None:
    if loader == "q3e_instruct_loader":
        from mteb.models.model_implementations.qwen3_models import instruction_template

        return Instructions(instruction_template, for_documents=False)
    if loader != "InstructSentenceTransformerModel":
        return None
    priority = options.get("prompt_priority")
    return Instructions(
        options.get("instruction_template"),
        options.get("prompts_dict"),
        bool(options.get("apply_instruction_to_passages", True)),
        tuple(map(str, priority)) if priority else None,
    )


def _max_length(options: Mapping[str, Any]) -> int | None:
    """Return the length that the loader sets on the tokenizer."""
    if length := options.get("max_seq_length"):
        return int(length)
    for name in sorted(_TOKENIZER_OPTIONS):
        if length := (options.get(name) or {}).get("model_max_length"):
            return int(length)
    return None


def _tokenizer_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tokenizer options of an entry.

    Without ``add_eos_token`` last-token pooling of e5-mistral would read the wrong token.
    """
    tokenizer: dict[str, Any] = {}
    for name in sorted(_TOKENIZER_OPTIONS):
        tokenizer |= dict(options.get(name) or {})
    tokenizer |= {
        name: options[name] for name in ("add_eos_token", "padding_side") if name in options
    }
    tokenizer.pop("model_max_length", None)
    return {name: value for name, value in tokenizer.items() if isinstance(value, str | int | bool)}


def _unread(loader: str | None, options: Mapping[str, Any]) -> tuple[str, ...]:
    if loader not in PLAIN_LOADERS:
        return ()
    own = _PROMPTED_OPTIONS if loader in _PROMPTED else _INSTRUCTED_OPTIONS
    return tuple(sorted(options.keys() - own - _TOKENIZER_OPTIONS - _DECIDED_HERE))
