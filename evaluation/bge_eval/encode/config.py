"""The JSON files of a model's folder: read in one place, refused by name where damaged."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from bge_eval.errors import DamagedError, UsageError, one_line

CONFIG = "config.json"
MODULES = "modules.json"
_LARGEST = 2**26
"""Bytes of the largest file of settings."""
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
"""The first bytes of the text that Git puts in the place of a large file."""


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
        DamagedError: the file is not JSON, or not a list of objects with a ``type`` and a
            ``path`` inside the folder.
    """
    path = folder / MODULES
    if not path.is_file():
        return None
    content = _read(path)
    if not isinstance(content, list) or not all(isinstance(item, dict) for item in content):
        raise DamagedError(f"{path} is not a list of JSON objects, one for each module.")
    if not content:
        raise DamagedError(f"{path} is an empty list; a model has a module at least.")
    for number, item in enumerate(content, start=1):
        kind, place = item.get("type"), item.get("path", "")
        if not isinstance(kind, str) or not isinstance(place, str):
            raise DamagedError(
                f"{path}: module {number} has no type and path in text, such as"
                ' {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"}.'
            )
        if PurePosixPath(place).is_absolute() or ".." in PurePosixPath(place).parts:
            raise DamagedError(f"{path}: module {number} is outside the model's folder ({place}).")
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


def refuse_pointer(path: Path, start: bytes) -> None:
    """Refuse a file that Git has not fetched.

    Args:
        path: the file.
        start: its first bytes.

    Raises:
        DamagedError: the file is a Git LFS pointer.
    """
    if start.startswith(LFS_POINTER):
        raise DamagedError(
            f"{path} is a Git LFS pointer, a few lines of text in the place of the file itself."
            f" Fetch the file with: git -C {path.parent} lfs pull (after git lfs install); or"
            " download the model with: hf download org/name."
        )


def _read(path: Path) -> Any:
    """Return the JSON in a file, None where the file is missing."""
    if not path.is_file():
        return None
    try:
        if (size := path.stat().st_size) > _LARGEST:
            raise DamagedError(
                f"{path} has {size:,} bytes; no settings of a model take more than"
                f" {_LARGEST // 2**20} MiB."
            )
        content = path.read_bytes()
        refuse_pointer(path, content)
        return json.loads(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise DamagedError(f"{path} is not text in UTF-8, but binary data.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedError(f"{path} is not readable JSON ({one_line(error)}).") from error


def refuse_dual_encoder(name: str, config: Mapping[str, Any]) -> None:
    """Refuse an encoder of images and one of texts that share a space, such as CLIP.

    Args:
        name: the model's name.
        config: the content of ``config.json``.

    Raises:
        UsageError: the configuration is of such a model.
    """
    projects = "projection_dim" in config or str(config.get("model_type")).startswith("siglip")
    if "vision_config" in config and "text_config" in config and projects:
        kind = (config.get("architectures") or [config.get("model_type")])[0]
        raise UsageError(
            f"{name} is a model of images and texts ({kind}): its text vectors come from a"
            " projection of its own, not from --pooling. Add --loader mteb if mteb's registry has"
            " the model, or give --model module:function, which returns an object that encodes."
        )
