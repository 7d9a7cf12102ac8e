"""Which models are worth a conversion to OpenVINO, told without importing it."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

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
