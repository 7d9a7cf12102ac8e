"""``bge-eval``, which also writes every phase that it enters to the file TORTURE_PHASES."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bge_eval.cli.app import main
from bge_eval.progress import Progress

_step = Progress.step


@contextmanager
def _noted(self: Progress, phase: str, *args: Any, **options: Any) -> Iterator[Any]:
    if phase not in ("store", "tokenise"):  # entered with every batch
        with Path(os.environ["TORTURE_PHASES"]).open("a") as file:
            file.write(f"{phase}\n")
    with _step(self, phase, *args, **options) as step:
        yield step


if __name__ == "__main__":
    Progress.step = _noted  # type: ignore[method-assign]
    main()
