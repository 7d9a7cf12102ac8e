"""Names and identities of served models, and token counts without a tokenizer."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from bge_eval.encode.files import ModelFiles
from bge_eval.remote.apis import Api, Served
from bge_eval.remote.client import Client

_OWNERS = {"api.openai.com": "openai", "api.cohere.com": "Cohere"}
"""Host → organisation name of its models in mteb."""

SERVER_TOLERANCE = 1e-2
"""Relative difference below which two answers of a server are the same model's, rounded."""


def served_files(client: Client, served: Served, version: str | None) -> ModelFiles:
    """Return the name and revision under which a served model's results are saved."""
    parts = [re.sub(r"[^\w.-]", "_", part) for part in served.model.split("/") if part]
    owner = _OWNERS.get(client.host, "served")
    name = "/".join(parts[-2:] if len(parts) > 1 else [owner, *parts])
    revision = re.sub(r"[^\w.-]", "_", version or served.version)
    return ModelFiles(name, revision, Path(), from_hub=True)


def server_identity(client: Client, api: Api, served: Served) -> dict[str, Any]:
    """Return a server's part of the identity: address, API, model and version; never the key."""
    return {
        "url": client.url,
        "api": str(api),
        "model": served.model,
        "version": served.version,
        **served.details,
    }


def estimated_tokens(text: str) -> int:
    """Return an upper estimate of tokens: one per 3 ASCII characters, one per other character."""
    others = sum(map(ord("\x7f").__lt__, map(ord, text))) if not text.isascii() else 0
    return 2 + (len(text) - others) // 3 + others
