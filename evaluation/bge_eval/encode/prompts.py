"""A model's prompts, and the prompt of a text by task and role, as mteb's wrappers choose it."""

from __future__ import annotations

import tomllib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bge_eval.encode.protocol import ProtocolName
from bge_eval.errors import DamagedError, MissingError, UsageError

if TYPE_CHECKING:
    from mteb.abstasks.task_metadata import TaskMetadata

    from bge_eval.encode.registry import RegistryEntry
    from bge_eval.encode.settings import Overrides


class Role(StrEnum):
    """The role of a text in a task; mteb's prompt type."""

    QUERY = "query"
    DOCUMENT = "document"


_STAND_INS = {Role.QUERY: (), Role.DOCUMENT: ("passage", "corpus")}
"""Other names of a role's prompt in sentence-transformers' ``encode_document``."""


@dataclass(frozen=True, slots=True)
class Instructions:
    """Task instructions of an instruction-tuned model."""

    template: str | Callable[..., str] | None
    """Text with ``{instruction}``, mteb's function of instruction and prompt type, or None where
    the instruction itself is put before the text."""
    by_name: Mapping[str, str] | None = None
    """The model's instructions by task, task type or role; they override mteb's."""
    for_documents: bool = True
    """Whether documents get an instruction too."""
    priority: tuple[str, ...] | None = None
    """Order of mteb's instruction sources; None is mteb's default order."""

    def formatted(self, instruction: str) -> str:
        """Return an instruction in the template."""
        if self.template is None:
            return instruction
        if callable(self.template):
            return self.template(instruction)
        return self.template.format(instruction=instruction)


@dataclass(frozen=True, slots=True)
class Prompts:
    """A model's prompts, by mteb's prompt name (``query``, a task type, a task)."""

    texts: Mapping[str, str] = field(default_factory=dict)
    """Prompt name → text."""
    default: str | None = None
    """Name of the fallback prompt (sentence-transformers' ``default_prompt_name``)."""
    source: str = "none"
    """Origin of the prompts: "model files", "mteb registry" or "none"."""
    instructions: Instructions | None = None
    """Task instructions of an instruction-tuned model; None for other models."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Role → prompt that the model's files name for it and mteb leaves out."""

    @property
    def has_text(self) -> bool:
        """Return whether a prompt has any text."""
        return any(self.texts.values())


def model_prompts(
    st_config: Mapping[str, Any],
    registry: RegistryEntry | None = None,
    protocol: ProtocolName | None = None,
) -> Prompts:
    """Return a model's prompts from its files and mteb's registry.

    mteb runs a model through sentence-transformers, which since version 5.1 gives every model an
    empty ``query`` and an empty ``document`` prompt. In retrieval, ``passage``, ``corpus`` and the
    default prompt of a model's files are therefore never used; they are in the result's
    ``left_out``. The protocol ``model-files`` uses them.

    Args:
        st_config: the content of ``config_sentence_transformers.json``.
        registry: the model's entry in mteb's registry; its prompts replace those of the files.
        protocol: the rules for prompts; None for the leaderboard's.

    Raises:
        DamagedError: the default prompt has no text.
    """
    own = {str(name): str(text or "") for name, text in (st_config.get("prompts") or {}).items()}
    default = st_config.get("default_prompt_name")
    empty = {role.value: "" for role in Role}
    if default is not None and default not in {**empty, **own}:
        raise DamagedError(
            f"config_sentence_transformers.json names the default prompt '{default}', but its"
            f" prompts are: {', '.join(own) or 'none'}."
        )
    meant = _meant_by_author(own, default)
    if protocol is ProtocolName.MODEL_FILES:
        source = "model files" if any(own.values()) else "none"
        return Prompts({**empty, **own, **meant}, default, source)
    if registry is not None and registry.instructions is not None:
        return Prompts(own, default, "mteb registry", registry.instructions)
    if registry is not None and registry.prompts:
        return Prompts(registry.prompts, default, "mteb registry")
    left_out = {role: text for role, text in meant.items() if not own.get(role)}
    source = "model files" if any(own.values()) else "none"
    return Prompts({**empty, **own}, default, source, left_out=left_out)


def _meant_by_author(own: Mapping[str, str], default: str | None) -> dict[str, str]:
    """Return role → prompt that a model's files name for it, by any of its names.

    A default prompt stands in for a missing one, unless it is the other role's.
    """
    meant = {}
    for role in Role:
        names = [role.value, *_STAND_INS[role]]
        others = {name for other in Role if other is not role for name in _names_of_role(other)}
        if default is not None and default not in others:
            names.append(default)
        if text := next((own[name] for name in names if own.get(name)), None):
            meant[role.value] = text
    return meant


def left_out_note(prompts: Prompts, overrides: Overrides) -> tuple[str, ...]:
    """Return a line about the prompts that the model's files name and mteb leaves out, if any."""
    by_role = {"query": overrides.query_prompt, "document": overrides.document_prompt}
    unused = {role: text for role, text in prompts.left_out.items() if by_role[role] is None}
    if not unused:
        return ()
    named = " and ".join(f"{text!r} for a {role}" for role, text in unused.items())
    return (
        f"Note: the model's files name the prompt {named}, which mteb with sentence-transformers"
        f" 5.1 or newer does not use in retrieval. --protocol {ProtocolName.MODEL_FILES} uses it.",
    )


def _names_of_role(role: Role) -> tuple[str, ...]:
    return (role.value, *_STAND_INS[role])


def resolve_prompt(
    prompts: Prompts, overrides: Overrides, task: TaskMetadata, role: Role | None
) -> str:
    """Return the prompt for one role in one task, "" if the model has none.

    The user's overrides come first, also where they are empty.

    Args:
        prompts: the model's prompts.
        overrides: the user's prompts.
        task: the task.
        role: query or document; None where the task has no roles (STS, classification).
    """
    by_role = {Role.QUERY: overrides.query_prompt, Role.DOCUMENT: overrides.document_prompt}
    if role is not None and (text := by_role[role]) is not None:
        return text
    names = names_of(task.name, task.type, role)
    if (text := _first(names, overrides.prompts or {})) is not None:
        return text
    if prompts.instructions is not None:
        return _instructed(prompts, prompts.instructions, task, role)
    return _prompted(prompts, names, role)


def _prompted(prompts: Prompts, names: list[str], role: Role | None) -> str:
    """Return the prompt as mteb's ``SentenceTransformerEncoderWrapper`` chooses it.

    The order is that of ``mteb.models.abs_encoder.get_prompt_name``; then, as in
    sentence-transformers' ``encode_query``, ``encode_document`` and ``encode``, the other names of
    a document prompt and the model's default prompt.
    """
    if role is not None:
        names = [*names, *_STAND_INS[role]]
    if prompts.default is not None:
        names = [*names, prompts.default]
    return _first(names, prompts.texts) or ""


def _instructed(
    prompts: Prompts, instructions: Instructions, task: TaskMetadata, role: Role | None
) -> str:
    """Return the prompt as mteb's ``InstructSentenceTransformerModel`` chooses it.

    Documents without an instruction get sentence-transformers' default prompt.
    """
    if role is Role.DOCUMENT and not instructions.for_documents:
        return prompts.texts.get(prompts.default or "", "")
    return resolve_instruction(instructions, task, role)


_USUAL = "Given a web search query, retrieve relevant passages that answer the query"
"""The instruction of a retrieval task that is not known."""


def usual_prompts(prompts: Prompts, overrides: Overrides) -> tuple[str, str]:
    """Return the prompts of a query and of a document in retrieval, whatever the task.

    Args:
        prompts: the model's prompts.
        overrides: the user's prompts.
    """
    by_role = {Role.QUERY: overrides.query_prompt, Role.DOCUMENT: overrides.document_prompt}

    def usual(role: Role) -> str:
        if (text := by_role[role]) is not None:
            return text
        names = [f"Retrieval-{role}", "Retrieval", role.value]
        if (text := _first(names, overrides.prompts or {})) is not None:
            return text
        instructions = prompts.instructions
        if instructions is None:
            return _prompted(prompts, names, role)
        if role is Role.DOCUMENT:
            return (
                "" if instructions.for_documents else prompts.texts.get(prompts.default or "", "")
            )
        return instructions.formatted(_first(names, instructions.by_name or {}) or _USUAL)

    return usual(Role.QUERY), usual(Role.DOCUMENT)


def names_of(task: str, task_type: str, role: Role | None) -> list[str]:
    """Return the prompt names that match a task and role, the most specific first."""
    if role is None:
        return [task, task_type]
    return [f"{task}-{role}", task, f"{task_type}-{role}", task_type, role.value]


def resolve_instruction(
    instructions: Instructions, metadata: TaskMetadata, role: Role | None
) -> str:
    """Return mteb's instruction for a task, in the model's template.

    mteb's code selects and formats the instruction
    (``mteb.models.abs_encoder.AbsEncoder.get_task_instruction``).
    """
    from mteb.models.abs_encoder import AbsEncoder, PromptSource
    from mteb.types import PromptType

    class Instructed(AbsEncoder):
        """A model with the template, for mteb's code."""

        def encode(self, *args: Any, **kwargs: Any) -> Any:
            raise NotImplementedError

    model = Instructed()
    model.instruction_template = instructions.template
    model.prompts_dict = dict(instructions.by_name) if instructions.by_name else None
    if instructions.priority:
        model.prompt_priority = [PromptSource.from_str(name) for name in instructions.priority]
    prompt_type = PromptType(role.value) if role is not None else None
    with warnings.catch_warnings():
        # mteb warns where a task has an instruction for queries only, which is intended.
        warnings.filterwarnings("ignore", message="Prompt type .* not found")
        return model.get_task_instruction(metadata, prompt_type)


def _first(names: list[str], texts: Mapping[str, str]) -> str | None:
    return next((texts[name] for name in names if name in texts), None)


def read_prompts(path: Path) -> dict[str, str]:
    """Read a prompts file: TOML with prompt names and texts.

    Raises:
        MissingError: the file does not exist.
        DamagedError: the file is not TOML.
        UsageError: a name is no task, task type or role, or a prompt is not a string.
    """
    from mteb.models.abs_encoder import AbsEncoder

    if not path.is_file():
        raise MissingError(f"The prompts file {path} does not exist.")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DamagedError(f"{path} is not TOML ({error}).") from error
    for name, text in content.items():
        if not isinstance(text, str):
            raise UsageError(f"{path}: the prompt of '{name}' must be a string, not {text!r}.")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                AbsEncoder.validate_task_to_prompt_name({name: text})
        except KeyError as error:
            raise UsageError(
                f"{path}: '{name}' is no prompt name. A prompt is named by a task (SciFact), a task"
                " type (Retrieval), a role ('query' or 'document'), or a task or task type with a"
                " role (SciFact-query)."
            ) from error
    return content
