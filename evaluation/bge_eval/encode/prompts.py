"""Which prompt goes before a text, looked up as mteb's sentence-transformers wrapper does."""

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
    """What a text is in a task; mteb's prompt type."""

    QUERY = "query"
    DOCUMENT = "document"


_OTHER_DOCUMENT_NAMES = ("passage", "corpus")
"""Names that sentence-transformers' encode_document also takes a document prompt from."""


def resolve_prompt(
    prompts: Prompts, overrides: Overrides, *, task: str, task_type: str, role: Role | None
) -> str:
    """Return the text to put before every input of one role in one task ("" for none).

    The order is mteb's (``mteb.models.abs_encoder.get_prompt_name``): the task with the role,
    the task, the task type with the role, the task type, the role; then, as
    sentence-transformers' ``encode_query`` and ``encode_document`` do, the other names of a
    document prompt and the model's default prompt. What the user said comes before all.

    Args:
        prompts: the model's prompts.
        overrides: the user's, which win for their role.
        task: mteb's task name.
        task_type: mteb's task type ("Retrieval").
        role: query or document; None where the task has no roles (STS, classification).
    """
    said = {Role.QUERY: overrides.query_prompt, Role.DOCUMENT: overrides.document_prompt}
    if role is not None and (text := said[role]) is not None:
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
    """Return the names under which a prompt of a task is looked up, the nearest first."""
    if role is None:
        return [task, task_type]
    return [f"{task}-{role}", task, f"{task_type}-{role}", task_type, role.value]


def resolve_instruction(
    instructions: Instructions, metadata: TaskMetadata, role: Role | None
) -> str:
    """Return mteb's instruction for a task in the model's own format, as mteb's wrapper does.

    The choice of the instruction and the formatting are mteb's own code
    (``mteb.models.abs_encoder.AbsEncoder.get_task_instruction``).
    """
    from mteb.models.abs_encoder import AbsEncoder, PromptSource
    from mteb.types import PromptType

    if role is Role.DOCUMENT and not instructions.for_documents:
        return ""

    class Instructed(AbsEncoder):
        """Only carries the model's format into mteb's code."""

        def encode(self, *args: Any, **kwargs: Any) -> Any:
            raise NotImplementedError

    carrier = Instructed()
    carrier.instruction_template = instructions.template
    carrier.prompts_dict = dict(instructions.by_name) if instructions.by_name else None
    if instructions.priority:
        carrier.prompt_priority = [PromptSource.from_str(name) for name in instructions.priority]
    prompt_type = PromptType(role.value) if role is not None else None
    with warnings.catch_warnings():
        # mteb warns where a task has an instruction for queries alone; that is what is meant.
        warnings.filterwarnings("ignore", message="Prompt type .* not found")
        return carrier.get_task_instruction(metadata, prompt_type)


def _first(names: list[str], texts: Mapping[str, str]) -> str | None:
    return next((texts[name] for name in names if name in texts), None)


def read_prompts(path: Path) -> dict[str, str]:
    """Read a prompts file: TOML with prompt names and texts.

    Raises:
        MissingError: there is no such file.
        DamagedError: it is not TOML.
        UsageError: a name is no task, task type or role.
    """
    from mteb.models.abs_encoder import AbsEncoder

    if not path.is_file():
        raise MissingError(f"There is no prompts file {path}.")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DamagedError(f"{path} is not TOML ({error}).") from error
    for name, text in content.items():
        if not isinstance(text, str):
            raise UsageError(f"{path}: the prompt of '{name}' is no text but {text!r}.")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                AbsEncoder.validate_task_to_prompt_name({name: text})
        except KeyError as error:
            raise UsageError(
                f"{path}: '{name}' names nothing that has a prompt. A prompt is named by a task"
                " (SciFact), a task type (Retrieval), 'query' or 'document', or one of the first"
                " two with the role (SciFact-query)."
            ) from error
    return content
