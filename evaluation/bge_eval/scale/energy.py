"""The energy of processors and GPUs, from their counters.

Linux shows the processors' (RAPL, in powercap's files), and NVIDIA's driver that of its GPUs (NVML,
through the package nvidia-ml-py; since Volta).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

POWERCAP = Path("/sys/class/powercap")
"""The kernel's folder of counters; only root may read them on most systems."""
_ZONE = re.compile(r"intel-rapl:\d+")
"""A socket, or the whole platform; parts of a socket have a second number."""
PROCESSOR, GPU = "processor", "GPU"
"""Kinds of devices."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The counter of one device."""

    microjoules: int
    """Energy since some time before."""
    limit: int
    """The number after which the counter begins at 0 again."""


Readings = Mapping[str, Reading]
"""Socket or GPU → its counter."""


@dataclass(frozen=True, slots=True)
class Meter:
    """Reads the counters of the devices that compute."""

    gpus: Sequence[str] = ()
    """The GPUs that compute, by the identifiers of NVIDIA's driver, ``GPU-1a2b…``."""
    powercap: Path = POWERCAP
    """The folder of the processors' counters."""

    def read(self) -> dict[str, Readings]:
        """Return kind of device → counters; a kind whose counters cannot be read is left out."""
        kinds = {PROCESSOR: read_counters(self.powercap), GPU: read_gpus(self.gpus)}
        return {kind: readings for kind, readings in kinds.items() if readings}

    def joules_since(self, before: Mapping[str, Readings]) -> dict[str, float] | None:
        """Return kind of device → energy since a reading; None where there is no counter."""
        after = self.read()
        spent = {kind: joules_between(before[kind], after.get(kind)) for kind in before}
        known = {kind: joules for kind, joules in spent.items() if joules is not None}
        return known or None


def read_counters(folder: Path = POWERCAP) -> dict[str, Reading] | None:
    """Return the counter of each socket, zone → reading; None where they cannot be read.

    Args:
        folder: powercap's folder.
    """
    readings = {}
    try:
        for zone in sorted(folder.iterdir()):
            if _ZONE.fullmatch(zone.name) and _text(zone / "name") != "psys":
                limit = int(_text(zone / "max_energy_range_uj"))
                readings[zone.name] = Reading(int(_text(zone / "energy_uj")), limit)
    except (OSError, ValueError):
        return None
    return readings or None


def read_gpus(identifiers: Sequence[str]) -> dict[str, Reading] | None:
    """Return the counter of each GPU, identifier → reading; None where one cannot be read.

    The driver counts millijoules since it was loaded, in 64 bits.

    Args:
        identifiers: the driver's identifiers of GPUs, ``GPU-1a2b…``.
    """
    if not identifiers:
        return None
    try:
        library: Any = import_module("pynvml")
    except ImportError:
        return None
    try:
        library.nvmlInit()
    except library.NVMLError:
        return None
    readings = {}
    try:
        for name in identifiers:
            handle = library.nvmlDeviceGetHandleByUUID(name)
            millijoules = int(library.nvmlDeviceGetTotalEnergyConsumption(handle))
            readings[name] = Reading(1000 * millijoules, 1000 * 2**64 - 1)
    except library.NVMLError:  # an older GPU, or a part of one, has no counter
        return None
    finally:
        library.nvmlShutdown()
    return readings


def gpu_identifiers(device: str) -> tuple[str, ...]:
    """Return NVIDIA's identifiers of the GPUs that a device names; () for other devices.

    Args:
        device: torch's name of a device, or several with commas: ``cuda``, ``cuda:0,cuda:1``.
    """
    if not device.startswith("cuda"):
        return ()
    import torch

    names = []
    for each in device.split(","):
        uuid = getattr(torch.cuda.get_device_properties(torch.device(each)), "uuid", None)
        if uuid is None:
            return ()
        names.append(str(uuid) if str(uuid).startswith("GPU-") else f"GPU-{uuid}")
    return tuple(names)


def joules_between(before: Readings | None, after: Readings | None) -> float | None:
    """Return the energy between two readings; None where a counter is missing.

    A counter that has begun at 0 again is corrected; one that did so twice cannot be.
    """
    if not before or not after or before.keys() != after.keys():
        return None
    spent = 0
    for zone, start in before.items():
        spent += (after[zone].microjoules - start.microjoules) % (start.limit + 1)
    return spent / 1e6


def _text(path: Path) -> str:
    return path.read_text(encoding="ascii").strip()
