"""Copies of arrays to a device that do not make the processor wait."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch


def sent(values: npt.NDArray[Any], device: torch.device) -> torch.Tensor:
    """Return an array as a tensor on a device.

    The copy to a GPU is queued behind the GPU's work and comes from pinned memory, which torch
    keeps until the copy has ended.
    """
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
