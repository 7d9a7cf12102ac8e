"""``bge-eval``, which also writes every phase that it enters to a file.

The fork server of torture.py imports this module, and with it the libraries, once; every run is a
process of its own that is forked from there. ``python torture_child.py PHASES WORD…`` is the same
command in a process that starts from nothing.
"""

from __future__ import annotations

import atexit
import itertools
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mteb.abstasks  # noqa: F401  # what the command imports late
import transformers.models.bert.modeling_bert  # noqa: F401

import bge_eval.cli.run
import bge_eval.models.transformer
import bge_eval.rerank.cross_encoder
import bge_eval.runtime.torch_forward  # noqa: F401
from bge_eval.cli.app import main
from bge_eval.progress import Progress


def turn_clock_back() -> None:
    """Let the clock go a minute back at every look."""
    start, looks = time.time_ns(), itertools.count(1)

    def earlier() -> int:
        return start - next(looks) * 60 * 10**9

    time.time_ns = earlier
    time.time = lambda: earlier() / 1e9


def run(
    words: Sequence[str], phases: Path, log: Path | None = None, *, backwards: bool = False
) -> None:
    """Run the command.

    Args:
        words: the words after ``bge-eval``.
        phases: the file that receives the name of every phase as it begins.
        log: the file that takes stdout and stderr; None leaves them.
        backwards: the clock goes back while the command runs.
    """
    if backwards:
        turn_clock_back()
    if log is not None:
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
    step = Progress.step

    @contextmanager
    def noted(self: Progress, phase: str, *args: Any, **options: Any) -> Iterator[Any]:
        if phase not in ("store", "tokenise"):  # entered with every batch
            with phases.open("a") as file:
                file.write(f"{phase}\n")
        with step(self, phase, *args, **options) as inner:
            yield inner

    Progress.step = noted  # type: ignore[method-assign]
    sys.argv = ["bge-eval", *words]
    try:
        main()
    except KeyboardInterrupt:  # as Python itself ends then
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    finally:
        # A process of multiprocessing skips what a Python process does at its exit.
        atexit._run_exitfuncs()


if __name__ == "__main__":
    run(sys.argv[2:], Path(sys.argv[1]))
