"""The settings of a row by value, where its folder names them by a digest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bge_eval.results.identity import Identity

_HASHED = ("prompts", "examples")
"""Settings that name a result's folder by a digest; their values are in the identity."""
_OF_ROLE = {"query_prompt": "query", "document_prompt": "document"}
"""Prompts of one role that name a folder by a digest, or by "none" → the role."""
_LONG = 60
"""Characters of a prompt in a system's name."""
_MANY = 2
"""Different prompts of one role that are listed; more are counted."""


def settings_by_value(settings: str, identities: Sequence[Identity]) -> str:
    """Return the settings of a row that are not the model's own, by value; "" for none.

    A result's folder names long settings, such as prompts, by a digest; their values come from the
    identities of the results.

    Args:
        settings: the row's settings as its folder has them, e.g. "prompts=1f0c22ab".
        identities: those of its results.
    """
    parts = []
    for setting in filter(None, settings.split(", ")):
        name, _, value = setting.partition("=")
        as_it_is = [f"{name.replace('_', ' ')} {value}"]
        if name in _HASHED:
            parts += _values(name, identities)
        elif name in _OF_ROLE and value != "none":
            # Models of other kinds may record no prompts.
            parts += _values("prompts", identities, only=_OF_ROLE[name]) or as_it_is
        else:
            parts += as_it_is
    return ", ".join(parts) or ""


def _values(name: str, identities: Sequence[Identity], only: str | None = None) -> list[str]:
    """Return the values of a setting whose folder has only its digest.

    Args:
        name: the setting.
        identities: those of the row's results.
        only: the role whose prompts are meant; None for all.
    """
    by_role: dict[str, dict[str, None]] = {}
    for identity in identities:
        value = identity.model.get(name)
        roles = value if isinstance(value, Mapping) else {name: value}
        for role, text in roles.items():
            if text and only in (None, role):
                by_role.setdefault(str(role), {}).setdefault(str(text))
    parts = []
    for role, texts in by_role.items():
        what = f"{role} prompt" if name == "prompts" else role
        if len(texts) > _MANY:
            parts.append(f"{len(texts)} {what}s, by task")
        else:
            parts.append(f"{what} " + " or ".join(f"“{_shortened(text)}”" for text in texts))
    return parts or ([f"other {name}"] if only is None else [])


def _shortened(text: str) -> str:
    return text if len(text) <= _LONG else f"{text[: _LONG - 1]}…"
