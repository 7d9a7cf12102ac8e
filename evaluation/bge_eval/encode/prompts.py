"""Which prompt goes before a text, looked up as mteb's sentence-transformers wrapper does."""

from __future__ import annotations

from enum import StrEnum

from bge_eval.encode.settings import Overrides, Prompts


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
    names = [task, task_type]
    if role is not None:
        names = [f"{task}-{role}", task, f"{task_type}-{role}", task_type, role.value]
    if role is Role.DOCUMENT:
        names += _OTHER_DOCUMENT_NAMES
    if prompts.default is not None:
        names.append(prompts.default)
    return next((prompts.texts[name] for name in names if name in prompts.texts), "")
