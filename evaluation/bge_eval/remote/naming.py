"""What a served model is called, in files and in identities, and how long texts are about."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from bge_eval.records import ModelFiles
from bge_eval.remote.apis import Api, Served
from bge_eval.remote.client import Client

_OWNERS = {"api.openai.com": "openai", "api.cohere.com": "Cohere"}
"""Hosts whose models are filed under the name that mteb gives their makers."""


def served_files(client: Client, served: Served, version: str | None) -> ModelFiles:
    """Return the name and revision under which the results of a served model are filed."""
    parts = [re.sub(r"[^\w.-]", "_", part) for part in served.model.split("/") if part]
    owner = _OWNERS.get(client.host, "served")
    name = "/".join(parts[-2:] if len(parts) > 1 else [owner, *parts])
    revision = re.sub(r"[^\w.-]", "_", version or served.version)
    return ModelFiles(name, revision, Path(), from_hub=True)


def server_identity(client: Client, api: Api, served: Served) -> dict[str, Any]:
    """Return what an identity says of a server: where and what it is, never the key."""
    return {
        "url": client.url,
        "api": str(api),
        "model": served.model,
        "version": served.version,
        **served.details,
    }


def estimated_tokens(text: str) -> int:
    """Estimate tokens without a tokenizer, rather too many: 3 Latin letters, or 1 other sign."""
    others = sum(map(ord("\x7f").__lt__, map(ord, text))) if not text.isascii() else 0
    return 2 + (len(text) - others) // 3 + others
