"""The energy of the processors, from the counters that Linux shows (RAPL, in powercap's files)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")
"""The kernel's folder of counters; only root may read them on most systems."""
_ZONE = re.compile(r"intel-rapl:\d+")
"""A socket, or the whole platform; parts of a socket have a second number."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The counter of one zone."""

    microjoules: int
    """Energy since some time before."""
    limit: int
    """The number after which the counter begins at 0 again."""


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


def joules_between(
    before: Mapping[str, Reading] | None, after: Mapping[str, Reading] | None
) -> float | None:
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
