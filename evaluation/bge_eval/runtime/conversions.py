"""Conversions to OpenVINO as far as they need it not: which are worth it, and which are kept."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from bge_eval.encode.cache import chosen, remove_abandoned

FACTS = "model.json"
"""What is known of a converted model, beside it."""

CONVERTED_TYPES = {"bert", "distilbert", "electra", "mpnet", "roberta", "xlm-roberta"}
"""transformers' model types of which conversions are compared with torch in our tests."""
_WORTH_CONVERTING = 32 * 2**20
"""Bytes of weights below which the conversion takes longer than it saves."""


def worth_converting(folder: Path) -> bool:
    """Return whether a transformer's folder holds a model to convert, and OpenVINO is there."""
    if find_spec("openvino") is None:
        return False
    weights = [*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")]
    if max((path.stat().st_size for path in weights), default=0) < _WORTH_CONVERTING:
        return False
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # whoever loads the model says it better
        return False
    return isinstance(config, dict) and config.get("model_type") in CONVERTED_TYPES


@dataclass(frozen=True, slots=True)
class KeptModel:
    """What a person wants to know of a converted model in the cache."""

    folder: Path
    """Where it lies."""
    model: str
    """The model's name."""
    bytes: int
    """Its size on the disk."""
    used: float
    """When it was last used, in seconds since 1970."""


def kept_folder(cache: Path) -> Path:
    """Return where a cache folder has its converted models."""
    return cache / "openvino"


def kept_models(cache: Path) -> list[KeptModel]:
    """List the converted models of a cache folder, latest used first."""
    kept = []
    for path in kept_folder(cache).glob(f"*/{FACTS}"):
        try:
            name = str(json.loads(path.read_text(encoding="utf-8"))["model"])
            size = sum(file.stat().st_size for file in path.parent.iterdir())
            kept.append(KeptModel(path.parent, name, size, path.parent.stat().st_mtime))
        except (OSError, ValueError, KeyError, TypeError):
            continue  # another process removes it, or it is none of ours
    return sorted(kept, key=lambda one: one.used, reverse=True)


def prune_kept(
    cache: Path,
    *,
    model: str | None = None,
    older_than: float | None = None,
    everything: bool = False,
) -> list[KeptModel]:
    """Remove converted models; they are converted again when they are needed.

    Args:
        cache: the cache folder.
        model: those whose name contains this, letter case aside.
        older_than: those not used for this many seconds.
        everything: all of them.

    Returns:
        What was removed.
    """
    doomed = chosen(kept_models(cache), model, older_than, everything)
    for kept in doomed:
        shutil.rmtree(kept.folder, ignore_errors=True)
    remove_abandoned(kept_folder(cache).glob(".staging-*"))
    return doomed
