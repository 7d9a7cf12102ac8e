"""Evaluate many tasks in one process and watch its memory, its open files and its threads.

``python benchmarks/endurance.py`` makes small collections of random words. Every task is a call of
`bge_eval.evaluate` that opens the encoder and the reranker anew. Needs Linux's ``/proc``.
"""

from __future__ import annotations

import argparse
import gc
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torture import make_data, make_models

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # the models are made by a library that reads it


@dataclass(frozen=True)
class Use:
    """What the process holds after a task."""

    memory: float
    """Resident memory in MiB."""
    files: int
    """Open file descriptors."""
    threads: int
    """Threads."""
    seconds: float
    """CPU seconds of the process so far."""


def use() -> Use:
    """Return what this process holds."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Use(
        pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
        len(list(Path("/proc/self/fd").iterdir())),
        len(list(Path("/proc/self/task").iterdir())),
        time.process_time(),
    )


def endure(tasks: int) -> Iterator[Use]:
    """Evaluate so many tasks; yield what the process holds after each.

    Raises:
        RuntimeError: a task fails.
    """
    import bge_eval

    with tempfile.TemporaryDirectory(prefix="bge-eval-endurance-") as name:
        home = Path(name)
        encoder, reranker = make_models(home)
        for number in range(tasks):
            folder = home / f"Endurance{number}"
            make_data(folder, 40, 5, seed=number)
            done = bge_eval.evaluate(
                str(encoder),
                folder,
                reranker=str(reranker),
                rerank_top_k=5,
                output=home / "output",
                store=home / "store",
                backend="torch",
                pooling="cls",
                offline=True,
            )
            if done.failures:
                raise RuntimeError(str(done.failures))
            yield use()


def growth(uses: Sequence[Use]) -> list[str]:
    """Return rows of a table: what the process held after a fifth of the tasks, and at the end."""
    early, late = uses[len(uses) // 5 - 1], uses[-1]
    middle = uses[len(uses) * 3 // 5 - 1]
    after = f"after {len(uses) // 5}, {len(uses) * 3 // 5} and {len(uses)} tasks"
    memory = ", ".join(f"{each.memory:.0f}" for each in (early, middle, late))
    files = ", ".join(str(each.files) for each in (early, middle, late))
    threads = ", ".join(str(each.threads) for each in (early, middle, late))
    return [
        f"| resident memory {after} | {memory} MiB |",
        f"| open files {after} | {files} |",
        f"| threads {after} | {threads} |",
    ]


def grew(uses: Sequence[Use]) -> bool:
    """Return whether the last two fifths of the tasks left anything behind."""
    middle, late = uses[len(uses) * 3 // 5 - 1], uses[-1]
    more_memory = late.memory - middle.memory > 0.02 * middle.memory
    return more_memory or late.files > middle.files or late.threads > middle.threads


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the figures; exit 1 if anything grew."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=100)
    options = parser.parse_args(arguments)
    uses: list[Use] = []
    for held in endure(options.tasks):
        uses.append(held)
        if len(uses) % 10 == 0:
            print(len(uses), held, flush=True)
    print("\n".join(growth(uses)))
    return int(grew(uses))


if __name__ == "__main__":
    raise SystemExit(main())
