"""OpenVINO, imported without its telemetry."""

from __future__ import annotations

import importlib
import sys
from typing import Any

# OpenVINO reports each import to its makers over the network if this package can be imported.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

openvino: Any = importlib.import_module("openvino")
"""The package ``openvino``."""
