"""The most memory that this process has used."""

from __future__ import annotations

import sys
from typing import Any


def peak_memory() -> dict[str, int]:
    """Return the process's peaks since it started: ``peak_bytes``, and ``gpu_peak_bytes``.

    The first is resident memory as the kernel counts it (``getrusage``), missing where there is
    no such call; the second is what torch allocated on the fullest GPU, missing without one.
    """
    peaks = {}
    try:
        import resource
    except ImportError:  # Windows
        pass
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        # macOS counts bytes, Linux kibibytes.
        peaks["peak_bytes"] = peak if sys.platform == "darwin" else peak * 1024
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        devices = range(torch.cuda.device_count())
        peaks["gpu_peak_bytes"] = max(torch.cuda.max_memory_allocated(i) for i in devices)
    return peaks
