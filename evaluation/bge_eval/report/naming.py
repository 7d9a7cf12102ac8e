"""Facts about systems, and short names for plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from bge_eval.leaderboard.rows import Row
from bge_eval.results.saved import SavedResult


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


def without_settings(row: Row) -> str:
    """Return the model and its second stage."""
    return replace(row, settings="", described="").label


def short_names(rows: Sequence[Row], settings: Sequence[str]) -> list[str]:
    """Return short distinct names for plots.

    Args:
        rows: the rows of the leaderboard.
        settings: their settings, `Row.shown_settings`.
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
