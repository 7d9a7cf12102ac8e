"""Description of the machine that a run was made on, for its record."""

from __future__ import annotations

import os
import platform
import sys
from typing import Any

from bge_eval.results.identity import SCORING_PACKAGES, versions
from bge_eval.results.record import Environment, Memory
from bge_eval.runtime.devices import may_have_accelerator

_OTHER_PACKAGES = ("datasets", "faiss-cpu", "huggingface-hub", "sentence-transformers")
"""Packages whose version is recorded although it does not change a score."""


def environment() -> Environment:
    """Return the machine and the installed packages."""
    gpus: list[str] = []
    if may_have_accelerator():
        import torch

        gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return Environment(
        python=platform.python_version(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        processor=processor(),
        cores=os.cpu_count(),
        gpus=tuple(gpus),
        packages=versions((*SCORING_PACKAGES, *_OTHER_PACKAGES)),
    )


def peak_memory() -> Memory:
    """Return the most memory that this process has used since it started, in bytes.

    Resident memory is what the kernel counts (``getrusage``), None where there is no such call;
    GPU memory is what torch allocated on the fullest GPU, None without one.
    """
    try:
        import resource
    except ImportError:  # Windows
        peak = None
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        # macOS counts bytes, Linux kibibytes.
        peak = peak if sys.platform == "darwin" else peak * 1024
    torch: Any = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return Memory(peak)
    devices = range(torch.cuda.device_count())
    return Memory(peak, max(torch.cuda.max_memory_allocated(device) for device in devices))


def processor() -> str:
    """Return the processor's name."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123 (a kernel table)
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor()
