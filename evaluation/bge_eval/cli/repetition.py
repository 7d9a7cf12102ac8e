"""``bge-eval run`` typed again: where nothing has changed, nothing is loaded to know it.

Only commands whose whole input can be looked at take part: local models and data folders. What is
fetched, served, searched on a cluster or loaded by the user's Python code runs the usual way, which
computes the identity of every result.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bge_eval.cli.options.data import RunDataFlags
from bge_eval.cli.options.machine import RunMachineFlags
from bge_eval.cli.options.model import ModelFlags
from bge_eval.cli.options.reranker import RerankerFlags
from bge_eval.cli.options.served import ServerFlags
from bge_eval.cli.options.tasks import TaskFlags
from bge_eval.resources import published_folder, tasks_folder
from bge_eval.results.environment import processor
from bge_eval.results.finished import (
    Receipt,
    Report,
    find_receipt,
    names_in,
    saved_files,
    states,
    write_receipt,
)
from bge_eval.results.identity import packages

if TYPE_CHECKING:
    from bge_eval.models.base import Model
    from bge_eval.rerank.reranker import Reranker
    from bge_eval.suites.catalogue import PlannedTask

_BUILTIN = "builtin:"
_VARIABLES = ("BGE_EVAL_", "HF_", "TRANSFORMERS_", "MTEB_", "CUDA_", "OMP_", "XDG_", "HOME")
"""Beginnings of environment variables that results may depend on."""
_PACKAGE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Command:
    """The options of ``bge-eval run`` that results depend on."""

    tasks: TaskFlags
    """Which tasks."""
    model: ModelFlags
    """Which models, and their settings."""
    reranker: RerankerFlags
    """Which second stage."""
    server: ServerFlags
    """Servers."""
    data: RunDataFlags
    """Where data are, and where results go."""
    machine: RunMachineFlags
    """Device, library, store."""

    @property
    def repeatable(self) -> bool:
        """Return whether all that the results depend on can be looked at."""
        model, data = self.model, self.data
        names = [*model.names, *filter(None, [self.reranker.reranker])]
        return (
            bool(model.names)
            and all(map(_is_local, names))
            and not any(":" in name for name in self.tasks.names)
            and not (data.overwrite or data.dry_run or data.estimate or data.available)
            and data.label is None
            and data.cut == type(data.cut)()
            and data.tracking == type(data.tracking)()
            and self.machine.scale == type(self.machine.scale)()
            and model.fuse is None
            and model.family.loader is None
            and self.reranker.first_stage is None
        )

    def __str__(self) -> str:
        """Return the command, the packages and the machine as one text."""
        variables = {
            name: value for name, value in os.environ.items() if name.startswith(_VARIABLES)
        }
        installed = [path for path in sys.path if path.endswith("-packages")]
        times = {path: Path(path).stat().st_mtime_ns for path in installed if Path(path).is_dir()}
        machine = (platform.python_version(), platform.machine(), processor(), os.cpu_count())
        flags = [repr(getattr(self, item.name)) for item in fields(self)]
        return repr([flags, str(Path.cwd()), sorted(variables.items()), times, packages(), machine])

    def inputs(self, tasks: Sequence[PlannedTask], folders: Sequence[Path]) -> list[Path] | None:
        """Return the files and folders that the results depend on; None if some are elsewhere.

        Args:
            tasks: the tasks that were run.
            folders: the folders of models and reranker.
        """
        data = tuple(self.data.data_dir or ())
        places = []
        for planned in tasks:
            for single in planned.parts or (planned,):
                place = single.place(data)
                if place is None:
                    return None
                places.append(_on_disk(Path(str(place))))
        own = {*data, self.data.output, *filter(None, [self.machine.store])}
        named = [path for path in _paths(self) if path not in own]
        return [_PACKAGE, tasks_folder(), published_folder(), *places, *folders, *named]

    def finished(self) -> Receipt | None:
        """Return what this command has left, if it was run before and nothing has changed."""
        return find_receipt(self.data.output, str(self)) if self.repeatable else None

    def remember(
        self,
        reports: Sequence[Report],
        tasks: Sequence[PlannedTask],
        models: Sequence[Model],
        reranker: Reranker | None,
    ) -> None:
        """Write a receipt, if every task is done and all inputs can be looked at.

        Args:
            reports: the results, model by model.
            tasks: the tasks that were run.
            models: the models.
            reranker: the second stage, if there is one.
        """
        whole = all(set(report.done) == {task.name for task in tasks} for report in reports)
        if not (self.repeatable and whole and reports):
            return
        opened = [*models, *([] if reranker is None else [reranker])]
        files: list[Any] = [getattr(each, "files", None) for each in opened]
        if any(one is None for one in files):
            return
        folders = [Path(getattr(one, name)) for one in files for name in ("folder", "weights")]
        folders += [one.base.folder for one in files if one is not None and one.base is not None]
        inputs = self.inputs(tasks, folders)
        if inputs is None:
            return
        done = [report.done for report in reports]
        try:
            state = states([*inputs, *saved_files(done)])
        except OverflowError:
            return
        receipt = Receipt(
            tasks=[task.name for task in tasks],
            notes=[line for model in models for line in model.introduction()],
            results=[{task: list(map(str, paths)) for task, paths in one.items()} for one in done],
            state=state,
            listed=names_in(self.data.data_dir or ()),
        )
        write_receipt(self.data.output, str(self), receipt)


def _is_local(name: str) -> bool:
    return name.startswith(_BUILTIN) or Path(name).expanduser().is_dir()


def _on_disk(path: Path) -> Path:
    """Return a place, or the archive that it lies in."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def _paths(options: Any) -> Iterator[Path]:
    """Yield the paths of files and folders among options."""
    if isinstance(options, Path):
        yield options.expanduser()
    elif is_dataclass(options) and not isinstance(options, type):
        for item in fields(options):
            yield from _paths(getattr(options, item.name))
    elif isinstance(options, list | tuple):
        for each in options:
            yield from _paths(each)
