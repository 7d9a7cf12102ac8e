"""Run every measurement in a process of its own, so that its peak memory is its own.

``python benchmarks/measuring.py MODULE CONTENDER JSON`` runs ``MODULE.CONTENDERS[CONTENDER]`` with
the arguments in JSON and prints what it returns, with the peak resident memory, as JSON.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Contender = Callable[..., dict[str, Any]]
_MARK = "measured: "
_HERE = Path(__file__).resolve().parent
_OFFLINE = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true"}


@dataclass(slots=True)
class Measured:
    """The rounds of one contender."""

    rounds: list[dict[str, Any]]
    """The figures of every round: ``seconds``, ``peak_mib`` and others."""
    failure: str = ""
    """The reason why no round finished."""

    def median(self, key: str) -> float | None:
        """Return the median over the rounds, or None where nothing was measured."""
        values = [entry[key] for entry in self.rounds if entry.get(key) is not None]
        return statistics.median(values) if values else None


class Clock:
    """The deadline of the whole benchmark; a measurement beyond it is marked as not run."""

    def __init__(self, minutes: float | None) -> None:
        self._end = None if minutes is None else time.monotonic() + 60 * minutes

    def left(self) -> float | None:
        """Return the seconds left, None for no limit."""
        return None if self._end is None else self._end - time.monotonic()


def measure(
    module: str, contender: str, arguments: Mapping[str, Any], left: float | None
) -> dict[str, Any]:
    """Run one contender in a process of its own; returns ``{"failure": …}`` when it fails."""
    if left is not None and left < 1:
        return {"failure": "not run: no time left"}
    command = [sys.executable, __file__, module, contender, json.dumps(arguments)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=left, env=os.environ | _OFFLINE
        )
    except subprocess.TimeoutExpired:
        return {"failure": "not finished: no time left"}
    for line in done.stdout.splitlines():
        if line.startswith(_MARK):
            result: dict[str, Any] = json.loads(line.removeprefix(_MARK))
            return result
    said = [line for line in done.stderr.splitlines() if line.strip()]
    return {"failure": f"failed: {said[-1][:160] if said else f'exit {done.returncode}'}"}


def alternate(
    module: str, contenders: Sequence[str], arguments: Mapping[str, Any], rounds: int, clock: Clock
) -> dict[str, Measured]:
    """Run the contenders in turn, once per round, so that noise of the machine meets all."""
    found = {name: Measured([]) for name in contenders}
    for number in range(rounds):
        for name in contenders:
            if found[name].failure and not found[name].rounds:
                continue
            print(f"  {module}: {name}, round {number + 1}", file=sys.stderr, flush=True)
            result = measure(module, name, arguments, clock.left())
            if "failure" in result:
                found[name].failure = result["failure"]
            else:
                found[name].rounds.append(result)
    return found


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; all columns but the first are right-aligned."""
    rule = ["---"] + ["---:"] * (len(headings) - 1)
    return "\n".join(f"| {' | '.join(row)} |" for row in [headings, rule, *rows])


def figure(value: float | None, digits: int) -> str:
    """Return a number with thousands separators, or a dash for None."""
    return "–" if value is None else f"{value:,.{digits}f}"


def compared(
    found: Mapping[str, Measured], ours: str, columns: Mapping[str, tuple[str, int]]
) -> str:
    """Return the table of one comparison.

    Args:
        found: contender → its rounds.
        ours: the contender that ratios are of: how many times longer another one takes.
        columns: heading → (key, digits).
    """
    base = found[ours].median("seconds")
    rows = []
    for name, measured in found.items():
        seconds = measured.median("seconds")
        if seconds is None:
            rows.append([name, *["–"] * len(columns), measured.failure])
            continue
        cells = [figure(measured.median(key), digits) for key, digits in columns.values()]
        ratio = f"{seconds / base:.2f}" if base else "–"
        rows.append([f"{name} ({len(measured.rounds)}×)", *cells, ratio])
    return table(["", *columns, f"time ÷ {ours}"], rows)


def main() -> None:
    """Run one contender and print its figures."""
    module, contender, arguments = sys.argv[1:]
    sys.path.insert(0, str(_HERE))
    run: Contender = importlib.import_module(module).CONTENDERS[contender]
    result = run(**json.loads(arguments))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts in KiB, macOS in bytes.
    result.setdefault("peak_mib", peak / (2**20 if sys.platform == "darwin" else 2**10))
    print(_MARK + json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
