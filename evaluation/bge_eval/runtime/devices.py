"""What can be known of this machine without importing torch, which takes seconds."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_DRIVERS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg", "/dev/accel")
"""What Linux has where there is a GPU: NVIDIA's, AMD's, WSL's, others'."""


def may_have_accelerator() -> bool:
    """Return False where torch certainly computes on the CPU; else only torch can say."""
    if platform.system() != "Linux":
        return True
    try:
        if version("torch").endswith("+cpu"):
            return False
    except PackageNotFoundError:
        return False
    return any(Path(path).exists() for path in _DRIVERS)


def threads() -> int | None:
    """Return how many threads a computation may have, None for the library's own choice."""
    given = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(given) if given.isdigit() and int(given) else None


def one_device(device: str | None) -> str | None:
    """Return the first of the devices that ``--device`` means, for what computes on one alone."""
    if device is not None and "," in device:
        return device.split(",")[0].strip()
    if device in (None, "cuda") and may_have_accelerator():
        import torch

        return "cuda:0" if torch.cuda.device_count() > 1 else device
    return device
