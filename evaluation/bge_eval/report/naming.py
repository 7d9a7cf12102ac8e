"""Names of systems: their settings by value, and short names for plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from bge_eval.leaderboard.rows import Row
from bge_eval.results.saved import SavedResult

_HASHED = ("prompts", "examples")
"""Settings that name a result's folder by a digest; their values are in the identity."""
_LONG = 60
"""Characters of a prompt in a system's name."""
_MANY = 2
"""Different prompts of one role that are listed; more are counted."""


def facts(results: Sequence[SavedResult]) -> dict[str, str]:
    """Return setting → value of the results' identities; differing values are joined."""
    values: dict[str, dict[str, None]] = {}

    def add(name: str, value: object) -> None:
        if value not in (None, "", [], {}):
            values.setdefault(name, {}).setdefault(str(value))

    for result in results:
        record, identity = result.record, result.identity
        model: Mapping[str, Any] = identity.model if identity else {}
        for name in ("pooling", "similarity", "dtype", "max_length", "truncate_dim"):
            add(name.replace("_", " "), model.get(name))
        for role, prompt in (model.get("prompts") or {}).items():
            add(f"{role} prompt", prompt)
        reranker: Mapping[str, Any] = (identity.reranker if identity else None) or {}
        add("reranker", reranker.get("name"))
        add("reranked", reranker.get("top_k"))
        add("index", identity.index if identity else "")
        add("device", record.device)
        for package in ("bge-eval", "mteb", "torch", "transformers"):
            add(package, identity.packages.get(package) if identity else "")
        add("run on", record.created[:10])
    return {name: ", ".join(distinct) for name, distinct in values.items()}


def settings_by_value(row: Row, results: Sequence[SavedResult]) -> str:
    """Return the settings of a row that are not the model's own, by value; "" for none.

    A result's folder names long settings, such as prompts, by a digest; their values come from the
    identities of the results.

    Args:
        row: the row of the leaderboard.
        results: its results.
    """
    parts = []
    for setting in filter(None, row.settings.split(", ")):
        name, _, value = setting.partition("=")
        parts += (
            _values(name, results) if name in _HASHED else [f"{name.replace('_', ' ')} {value}"]
        )
    return ", ".join(parts) or ""


def without_settings(row: Row) -> str:
    """Return the model and its second stage."""
    return replace(row, settings="").label


def short_names(rows: Sequence[Row], settings: Sequence[str]) -> list[str]:
    """Return short distinct names for plots.

    Args:
        rows: the rows of the leaderboard.
        settings: their settings, from `settings_by_value`.
    """
    one_model = len(rows) > 1 and len({row.model for row in rows}) == 1
    shorts = []
    for row, own in zip(rows, settings, strict=True):
        name = row.model.rpartition("/")[2]
        if own:
            name = own if one_model else f"{name} · {own}"
        if row.reranker:
            first = "" if one_model and not own else f"{name} "
            name = f"{first}+ {row.reranker.rpartition('/')[2]}"
        shorts.append(name)
    labels = [
        short if shorts.count(short) == 1 else row.label
        for short, row in zip(shorts, rows, strict=True)
    ]
    return [
        label if labels.count(label) == 1 else f"{label} {row.revision[:8]}"
        for label, row in zip(labels, rows, strict=True)
    ]


def _values(name: str, results: Sequence[SavedResult]) -> list[str]:
    """Return the values of a setting whose folder has only its digest."""
    by_role: dict[str, dict[str, None]] = {}
    for result in results:
        value = result.identity.model.get(name) if result.identity else None
        roles = value if isinstance(value, Mapping) else {name: value}
        for role, text in roles.items():
            if text:
                by_role.setdefault(str(role), {}).setdefault(str(text))
    parts = []
    for role, texts in by_role.items():
        what = f"{role} prompt" if name == "prompts" else role
        if len(texts) > _MANY:
            parts.append(f"{len(texts)} {what}s, by task")
        else:
            parts.append(f"{what} " + " or ".join(f"“{_shortened(text)}”" for text in texts))
    return parts or [f"other {name}"]


def _shortened(text: str) -> str:
    return text if len(text) <= _LONG else f"{text[: _LONG - 1]}…"
