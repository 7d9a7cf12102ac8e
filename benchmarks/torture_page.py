"""What the torture counts, and the page RELIABILITY.md that it writes."""

from __future__ import annotations

import json
import os
import platform
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

_NOTES = (
    "Half of the kills come at a random time, the others at the beginning of a random phase. Two of"
    " the runs were not killed: in one the clock went a minute back at every look, the other was"
    " stopped half of the time. Compared are all files of the results, byte for byte, except the"
    " fields of JSON files that are time, memory or counts of new vectors.",
    "",
    "The faults are those of `test_faults.py`, `test_hostile.py`, `test_store.py` and"
    " `test_unfinished.py` in `tests`: no permission, no folder, a limit on the size of files,"
    " damaged results, shards and journals, two processes at once, encoders, rerankers, indexes"
    " and servers that return nonsense, runs killed within the work of servers and rerankers,"
    " archives and files that are larger than they seem.",
    "",
    "Endurance: 100 calls of `bge_eval.evaluate` in one process, each with a collection of its own"
    " (40 documents, 5 queries) and a model and a reranker that are opened anew"
    " (`python benchmarks/endurance.py`). The million documents are short texts, encoded by one"
    " narrow layer, stored and searched (`python benchmarks/million.py`).",
)
LEFT = "left behind: "
"""What stands before the name of a file that should be gone."""


@dataclass
class Outcome:
    """What the kills did."""

    kills: Counter[str] = field(default_factory=Counter)
    """Signal → kills."""
    phases: Counter[str] = field(default_factory=Counter)
    """Phase at the moment of the kill → kills."""
    runs: int = 0
    """Runs that came to their end, and were compared."""
    different: list[str] = field(default_factory=list)
    """Files that differ from the undisturbed run's."""
    lost: float = 0.0
    """Longest time from the last stored batch, or from the beginning of the phase, to a kill within
    the encoding or the reranking; seconds."""
    hardships: bool = False
    """Whether the runs with a wrong clock and with half of the processor are among them."""
    faults: tuple[int, int] | None = None
    """Tests of faults that passed, and all of them."""
    endured: list[str] = field(default_factory=list)
    """Rows of the page about endurance and the million documents."""
    measured: list[str] = field(default_factory=list)
    """Scripts that printed those rows."""
    loads: list[float] = field(default_factory=list)
    """Load averages of the machine, at the beginning and the end of each part."""
    path: Path | None = None
    """Where the figures are kept while the program runs, so that it can go on if it is stopped."""

    def plus(self, other: Outcome) -> Outcome:
        """Return these figures with those of another run of this program."""
        return Outcome(
            self.kills + other.kills,
            self.phases + other.phases,
            self.runs + other.runs,
            self.different + other.different,
            max(self.lost, other.lost),
            self.hardships or other.hardships,
            self.faults or other.faults,
            self.endured + other.endured,
            self.measured + other.measured,
            self.loads + other.loads,
            self.path,
        )

    def keep(self) -> None:
        """Write the figures so far, and the machine's load."""
        if hasattr(os, "getloadavg"):
            self.loads.append(round(os.getloadavg()[0], 1))
        if self.path is not None:
            figures = {name: value for name, value in vars(self).items() if name != "path"}
            staged = self.path.with_suffix(".part")
            staged.write_text(json.dumps(figures))
            staged.replace(self.path)


def outcome_of(path: Path | None) -> Outcome:
    """Return the figures that a stopped run of this program has kept; none without a file."""
    if path is None or not path.exists():
        return Outcome(path=path)
    kept = json.loads(path.read_text())
    kills, where = Counter(kept.pop("kills")), Counter(kept.pop("phases"))
    names = {each.name for each in fields(Outcome)}
    known = {name: value for name, value in kept.items() if name in names}
    return Outcome(kills, where, path=path, **known)


def machine() -> str:
    """Return the processor's name, and how many cores this process may use."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {cores} cores, {platform.system()}, Python {platform.python_version()}"


def page(outcome: Outcome) -> str:
    """Return the text of RELIABILITY.md."""
    kills = ", ".join(f"{name} {count}" for name, count in sorted(outcome.kills.items()))
    where = ", ".join(f"{name} {count}" for name, count in outcome.phases.most_common())
    differing = sum(not name.startswith(LEFT) for name in outcome.different)
    lines = [
        "# Reliability",
        "",
        f"Made by `make torture` on {machine()}{_busy(outcome.loads)}. Every run is the real"
        " command: an encoder and a reranker of random weights on 500 documents and 10 queries.",
        "",
        "| | |",
        "| --- | ---: |",
        f"| runs killed | {sum(outcome.kills.values())} ({kills}) |",
        f"| runs continued to their end and compared | {outcome.runs} |",
        f"| files that differ from an undisturbed run, times aside | {differing} |",
        f"| files that should be gone and are not | {len(outcome.different) - differing} |",
        f"| longest time from the last stored batch to a kill | {outcome.lost:.2f} s |",
    ]
    if outcome.faults is not None:
        passed, total = outcome.faults
        lines.append(f"| tests that inject faults, passed | {passed} of {total} |")
    # What was not run is not described.
    notes = [
        note for note in _NOTES if outcome.faults is not None or "`test_faults.py`" not in note
    ]
    lines += [*outcome.endured, "", f"Kills by phase: {where}.", "", *notes, ""]
    return "\n".join(lines)


def _busy(loads: Sequence[float]) -> str:
    """Return what else the machine did, if it is known."""
    if not loads:
        return ""
    return f", load average {min(loads):g} to {max(loads):g} (this program's own is about 1)"
