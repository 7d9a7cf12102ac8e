"""The line that introduces an encoder: the settings that decide its scores."""

from __future__ import annotations

from bge_eval.encode.files import ModelFiles
from bge_eval.encode.prompts import Prompts
from bge_eval.encode.settings import Overrides, Settings


def settings_line(
    files: ModelFiles, settings: Settings, prompts: Prompts, overrides: Overrides, rules: str
) -> str:
    """Return the settings of an encoder in one line.

    Args:
        files: the model's files.
        settings: the settings, with the user's values in place of the model's.
        prompts: the model's prompts.
        overrides: the user's options.
        rules: the name of the protocol that the user stated; "" if none.
    """
    parts = [
        f"{settings.pooling} pooling",
        "normalised" if settings.normalize else "not normalised",
        f"{settings.max_length} tokens",
        str(settings.similarity),
        str(settings.dtype),
        _query_prompt(prompts, overrides),
    ]
    if overrides.prompts:
        parts.append(f"{len(overrides.prompts)} prompts of --prompts before them")
    if rules:
        parts.append(f"by the rules of {rules}")
    if settings.truncate_dim:
        parts.insert(2, f"first {settings.truncate_dim} dimensions")
    if settings.modules:
        parts.insert(1, f"modules {' → '.join(settings.modules)}")
    if files.base is not None:
        parts.insert(0, f"adapter of {files.base.name}")
    return f"{files.name} at {files.revision[:12]}: {', '.join(parts)}"


def _query_prompt(prompts: Prompts, overrides: Overrides) -> str:
    """Return what stands before queries, and where it comes from."""
    override = overrides.query_prompt
    if prompts.instructions is not None and override is None:
        return f"mteb's task instructions ({prompts.source})"
    query = prompts.texts.get("query", "") if override is None else override
    source = prompts.source if override is None else "--query-prompt"
    return f"query prompt {query!r} ({source})" if query else "no query prompt"
