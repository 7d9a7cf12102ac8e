"""The devices that compute, and the number of threads; torch is imported only when needed."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bge_eval.errors import UsageError, one_line

_DRIVERS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg", "/dev/accel")
"""Device files that exist on Linux when there is a GPU: NVIDIA's, AMD's, WSL's, others'."""


def pick_devices(device: str | None) -> list[str]:
    """Return the devices to compute on, by torch's names.

    Args:
        device: the user's ``--device``: one name, or several with commas; "cuda" stands for all
            CUDA devices. None takes CUDA if available, else MPS, else the CPU.

    Returns:
        At least one name; a single CUDA device is called "cuda".

    Raises:
        UsageError: torch cannot use a device that the user named.
    """
    if device == "cpu" or (device is None and not may_have_accelerator()):
        return ["cpu"]
    import torch

    if device is None:
        if torch.cuda.is_available():
            return _all_cuda()
        return ["mps" if torch.backends.mps.is_available() else "cpu"]
    names = [name.strip() for name in device.split(",") if name.strip()]
    if not names:
        raise UsageError(f"--device '{device}' names no device; expected cpu, cuda, cuda:1 or mps.")
    for name in dict.fromkeys(names):
        _check(name)
    return _all_cuda() if names == ["cuda"] else names


def first_device(device: str | None) -> str:
    """Return the first device of `pick_devices`, for models that compute on a single one.

    Raises:
        UsageError: torch cannot use a device that the user named.
    """
    return pick_devices(device)[0]


def may_have_accelerator() -> bool:
    """Return False where torch can only use the CPU; True where torch must be asked."""
    if platform.system() != "Linux":
        return True
    try:
        if version("torch").endswith("+cpu"):
            return False
    except PackageNotFoundError:
        return False
    return any(Path(path).exists() for path in _DRIVERS)


def threads() -> int | None:
    """Return the number of threads from ``OMP_NUM_THREADS``; None for the library's default."""
    value = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(value) if value.isdigit() and int(value) else None


def _all_cuda() -> list[str]:
    import torch

    count = torch.cuda.device_count()
    return [f"cuda:{index}" for index in range(count)] if count > 1 else ["cuda"]


def _check(name: str) -> None:
    """Raise a UsageError if torch cannot use a device."""
    import torch

    advice = "Use --device cpu, or leave the option out for the best device of this machine."
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(
            f"There is no device '{name}' on this machine: torch does not know the name. {advice}"
        ) from error
    reason = ""
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            reason = f"torch finds {count} CUDA devices" if count else "torch finds no CUDA device"
    elif device.type == "mps":
        reason = "" if torch.backends.mps.is_available() else "torch finds no MPS device"
    elif device.type != "cpu":
        try:
            torch.empty(1, device=device)
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            reason = one_line(error)
    if reason:
        raise UsageError(f"There is no device '{name}' on this machine: {reason}. {advice}")
