"""OpenVINO conversions that pay off, and those in the cache; OpenVINO is not imported."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from bge_eval.encode.cache import entries_to_remove
from bge_eval.encode.config import CONFIG, read_object
from bge_eval.shared.locks import lock_at, remove_left

FACTS = "model.json"
"""Name of the file with a converted model's facts."""
_STAGING = ".staging-"

CONVERTED_TYPES = {"bert", "distilbert", "electra", "mpnet", "roberta", "xlm-roberta"}
"""Model types whose conversions our tests compare with torch."""
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


@contextmanager
def staging_folder(folder: Path) -> Iterator[Path]:
    """Hold the lock of a model that is saved, with an empty folder to write it into.

    The system frees the lock when the process ends, so a folder whose lock is free is of a process
    that was killed, and is removed.

    Args:
        folder: the model's folder, beside which the new one lies.

    Raises:
        OSError: the folders cannot be written.
    """
    place = folder.parent
    staging = folder.with_name(f"{_STAGING}{folder.name}")
    _remove_staged(place)
    with lock_at(place, staging.name):
        # Another process may have been killed since.
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        try:
            yield staging
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _remove_staged(place: Path) -> None:
    """Remove the folders that nobody writes any more."""
    for left in place.glob(f"{_STAGING}*"):
        remove_left(place, left, left.name, unlocked_before=True)


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A converted model in a listing."""

    folder: Path
    """Folder of the model."""
    model: str
    """Name of the model."""
    bytes: int
    """Size on disk."""
    used: float
    """Time of the last use, in seconds since 1970."""


def stored_folder(cache: Path) -> Path:
    """Return the folder of converted models in a cache folder."""
    return cache / "openvino"


def stored_models(cache: Path) -> list[StoredModel]:
    """Return the converted models of a cache folder, the last used first."""
    models = []
    for path in stored_folder(cache).glob(f"[!.]*/{FACTS}"):
        try:
            name = str(json.loads(path.read_text(encoding="utf-8"))["model"])
            size = sum(file.stat().st_size for file in path.parent.iterdir())
            models.append(StoredModel(path.parent, name, size, path.parent.stat().st_mtime))
        except (OSError, ValueError, KeyError, TypeError):
            continue  # another process is removing it, or it is not a converted model
    return sorted(models, key=lambda entry: entry.used, reverse=True)


def prune_models(
    cache: Path,
    *,
    model: str | None = None,
    older_than: float | None = None,
    everything: bool = False,
) -> list[StoredModel]:
    """Remove converted models from the cache.

    Args:
        cache: the cache folder.
        model: remove models whose name contains this, ignoring case.
        older_than: remove models unused for this many seconds.
        everything: remove all models.

    Returns:
        The removed models.
    """
    removed = entries_to_remove(stored_models(cache), model, older_than, everything)
    for entry in removed:
        shutil.rmtree(entry.folder, ignore_errors=True)
    _remove_staged(stored_folder(cache))
    return removed
