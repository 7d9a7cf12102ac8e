"""The JSON files of a model's folder: read in one place, refused by name where damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bge_eval.errors import DamagedError

CONFIG = "config.json"
MODULES = "modules.json"


def read_config(folder: Path) -> dict[str, Any]:
    """Return the content of a transformer's ``config.json``.

    Raises:
        DamagedError: the file is missing, not JSON or not an object.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise DamagedError(f"{path} is missing; a Hugging Face model needs it.")
    return read_object(path)


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file, ``{}`` where the file is missing.

    Raises:
        DamagedError: the file is not JSON, or not an object.
    """
    content = _read(path)
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise DamagedError(f"{path} holds a {type(content).__name__}; expected a JSON object.")
    return content


def read_modules(folder: Path) -> list[dict[str, Any]] | None:
    """Return the modules in sentence-transformers' ``modules.json``, None where it is missing.

    Raises:
        DamagedError: the file is not JSON, or not a list of objects.
    """
    path = folder / MODULES
    if not path.is_file():
        return None
    content = _read(path)
    if not isinstance(content, list) or not all(isinstance(item, dict) for item in content):
        raise DamagedError(f"{path} is not a list of JSON objects, one for each module.")
    return content


def module_kind(module: dict[str, Any]) -> str:
    """Return the class of a module without its package, such as "Pooling"."""
    return str(module.get("type", "")).rsplit(".", 1)[-1]


def transformer_folder(folder: Path) -> Path:
    """Return the folder of the transformer's own files, which ``modules.json`` may name.

    Raises:
        DamagedError: ``modules.json`` is damaged.
    """
    for module in read_modules(folder) or []:
        if module_kind(module).endswith("Transformer"):
            return folder / str(module.get("path", ""))
    return folder


def _read(path: Path) -> Any:
    """Return the JSON in a file, None where the file is missing."""
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DamagedError(f"{path} is not readable JSON ({error}).") from error
