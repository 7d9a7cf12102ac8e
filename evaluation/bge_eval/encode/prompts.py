"""Prompt lookup by task and role, in the order of mteb's sentence-transformers wrapper."""

from __future__ import annotations

import tomllib
import warnings
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bge_eval.encode.settings import Instructions, Overrides, Prompts
from bge_eval.errors import DamagedError, MissingError, UsageError

if TYPE_CHECKING:
    from mteb.abstasks.task_metadata import TaskMetadata


class Role(StrEnum):
    """The role of a text in a task; mteb's prompt type."""

    QUERY = "query"
    DOCUMENT = "document"


_OTHER_DOCUMENT_NAMES = ("passage", "corpus")
"""Other names of the document prompt in sentence-transformers' ``encode_document``."""


def resolve_prompt(
    prompts: Prompts, overrides: Overrides, *, task: str, task_type: str, role: Role | None
) -> str:
    """Return the prompt for one role in one task, "" if the model has none.

    The order is mteb's (``mteb.models.abs_encoder.get_prompt_name``): the task with the role,
    the task, the task type with the role, the task type, the role; then, as
    sentence-transformers' ``encode_query`` and ``encode_document`` do, the other names of a
    document prompt and the model's default prompt. The user's overrides come first.

    Args:
        prompts: the model's prompts.
        overrides: the user's prompts.
        task: mteb's task name.
        task_type: mteb's task type ("Retrieval").
        role: query or document; None where the task has no roles (STS, classification).
    """
    by_role = {Role.QUERY: overrides.query_prompt, Role.DOCUMENT: overrides.document_prompt}
    if role is not None and (text := by_role[role]) is not None:
        return text
    names = names_of(task, task_type, role)
    if (text := _first(names, overrides.prompts or {})) is not None:
        return text
    if role is Role.DOCUMENT:
        names += _OTHER_DOCUMENT_NAMES
    if prompts.default is not None:
        names.append(prompts.default)
    return _first(names, prompts.texts) or ""


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

    if role is Role.DOCUMENT and not instructions.for_documents:
        return ""

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
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
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
