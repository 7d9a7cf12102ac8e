"""What is known of OpenVINO conversions without importing it: which pay off, which are cached."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from bge_eval.encode.cache import entries_to_remove, remove_abandoned
from bge_eval.encode.config import CONFIG, read_object

FACTS = "model.json"
"""The file of a converted model's facts, in its folder."""

CONVERTED_TYPES = {"bert", "distilbert", "electra", "mpnet", "roberta", "xlm-roberta"}
"""The model types whose conversions our tests compare with torch."""
_WORTH_CONVERTING = 32 * 2**20
"""Bytes of weights below which a conversion takes longer than it saves."""


def worth_converting(folder: Path) -> bool:
    """Return whether converting a transformer pays off here, and OpenVINO is installed."""
    if find_spec("openvino") is None:
        return False
    weights = [*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")]
    if max((path.stat().st_size for path in weights), default=0) < _WORTH_CONVERTING:
        return False
    return read_object(folder / CONFIG).get("model_type") in CONVERTED_TYPES


@dataclass(frozen=True, slots=True)
class KeptModel:
    """A converted model as the user sees it in a listing."""

    folder: Path
    """Its folder."""
    model: str
    """The model's name."""
    bytes: int
    """Its size on the disk."""
    used: float
    """When it was last used, in seconds since 1970."""


def kept_folder(cache: Path) -> Path:
    """Return the folder of converted models in a cache folder."""
    return cache / "openvino"


def kept_models(cache: Path) -> list[KeptModel]:
    """Return the converted models of a cache folder, last used first."""
    kept = []
    for path in kept_folder(cache).glob(f"*/{FACTS}"):
        try:
            name = str(json.loads(path.read_text(encoding="utf-8"))["model"])
            size = sum(file.stat().st_size for file in path.parent.iterdir())
            kept.append(KeptModel(path.parent, name, size, path.parent.stat().st_mtime))
        except (OSError, ValueError, KeyError, TypeError):
            continue  # another process is removing it, or it is not a converted model
    return sorted(kept, key=lambda entry: entry.used, reverse=True)


def prune_kept(
    cache: Path,
    *,
    model: str | None = None,
    older_than: float | None = None,
    everything: bool = False,
) -> list[KeptModel]:
    """Remove converted models; they are converted again when needed.

    Args:
        cache: the cache folder.
        model: remove those whose name contains this, ignoring case.
        older_than: remove those unused for this many seconds.
        everything: remove all.

    Returns:
        The removed models.
    """
    doomed = entries_to_remove(kept_models(cache), model, older_than, everything)
    for kept in doomed:
        shutil.rmtree(kept.folder, ignore_errors=True)
    remove_abandoned(kept_folder(cache).glob(".staging-*"))
    return doomed
