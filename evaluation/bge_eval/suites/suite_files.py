"""The suites of the package, read from their TOML files.

A suite is a TOML file in ``tasks/``::

    description = "the 15 sets of BEIR"
    benchmark = "BEIR"                   # mteb's benchmark gives tasks, splits and subsets

    [folders]                            # folder names of BEIR's own copies
    FiQA2018 = "fiqa"

Without a benchmark of mteb's, ``tasks = ["MSMARCO", "ir:vaswani", …]`` lists the tasks, those of
ir_datasets by their names here. Data sets that mteb has
no task for are collections. They ship with the package, or the user brings them
(``shipped = false``)::

    description = "…"
    [[collection]]
    name = "BgeEvalDemo"
    folder = "demo"
    languages = ["eng-Latn", "zho-Hans"]
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bge_eval.data.collection import Collection
from bge_eval.data.ir_collections import PREFIX, task_name
from bge_eval.data.zips import PublishedZip
from bge_eval.errors import DamagedError
from bge_eval.resources import tasks_folder

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask


@dataclass(frozen=True, slots=True)
class Suite:
    """A named list of tasks, as its TOML file states it."""

    name: str
    """The file's stem, which ``--tasks`` takes."""
    description: str
    """One sentence that describes it."""
    benchmark: str | None = None
    """mteb's benchmark with the same tasks, if there is one."""
    public_only: bool = False
    """Whether to leave out the benchmark's tasks with private data."""
    tasks: tuple[str, ...] = ()
    """mteb's task names, if mteb has no such benchmark."""
    ir: tuple[str, ...] = ()
    """Names of collections that ir_datasets reads, ``ir:<id>``."""
    folders: dict[str, str] = field(default_factory=dict)
    """mteb's task name → the folder name of BEIR's own copy."""
    collections: tuple[Collection, ...] = ()
    """Data sets that mteb has no task for."""
    zips: Mapping[str, PublishedZip] = field(default_factory=dict)
    """First part of a folder name → the published zip with that folder."""


@cache
def suites() -> dict[str, Suite]:
    """Read every suite file. Suite name → suite, in alphabetical order."""
    return {path.stem: read_suite(path) for path in sorted(tasks_folder().glob("*.toml"))}


def task_names(suite: Suite) -> list[str]:
    """Return the names of a suite's tasks in the benchmark's order, then of its collections."""
    members = [task.metadata.name for task in suite_members(suite)]
    own = [collection.name for collection in suite.collections]
    return [*members, *map(task_name, suite.ir), *own]


def suite_members(suite: Suite) -> list[AbsTask]:
    """Return mteb's task objects of a suite; they are shared, so copy them before evaluating."""
    if suite.benchmark is None and not suite.tasks:
        return []
    import mteb

    if suite.benchmark is None:
        return [mteb.get_task(name) for name in suite.tasks]
    tasks = list(mteb.get_benchmark(suite.benchmark).tasks)
    return [task for task in tasks if task.metadata.is_public or not suite.public_only]


def read_suite(path: Path) -> Suite:
    """Read one suite file.

    Raises:
        DamagedError: it is not TOML, or has an unknown key.
    """
    keys = {"description", "benchmark", "public_only", "tasks", "folders", "collection", "zips"}
    try:
        content: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise DamagedError(f"{path} is not TOML ({error}).") from error
    if unknown := set(content) - keys:
        raise DamagedError(f"{path} has unknown keys: {', '.join(sorted(unknown))}.")
    listed: list[str] = content.get("tasks", [])
    return Suite(
        name=path.stem,
        description=content["description"],
        benchmark=content.get("benchmark"),
        public_only=content.get("public_only", False),
        tasks=tuple(name for name in listed if not name.startswith(PREFIX)),
        ir=tuple(name for name in listed if name.startswith(PREFIX)),
        folders=content.get("folders", {}),
        zips={
            name: PublishedZip(name, content["zips"]["url"].format(name=name), md5)
            for name, md5 in content.get("zips", {}).get("md5", {}).items()
        },
        collections=tuple(_read_collection(path, item) for item in content.get("collection", [])),
    )


_COLLECTION_KEYS = {"name", "folder", "description", "languages", "split", "shipped", "type"}
_COLLECTION_KEYS |= {"main_measure", "repositories", "subsets", "answers"}


def _read_collection(path: Path, item: Mapping[str, Any]) -> Collection:
    if unknown := set(item) - _COLLECTION_KEYS:
        raise DamagedError(f"{path} has unknown keys: {', '.join(sorted(unknown))}.")
    return Collection(
        name=item["name"],
        folder=path.parent / item["folder"],
        description=item["description"],
        languages=tuple(item.get("languages", ())),
        split=item.get("split", "test"),
        shipped=item.get("shipped", True),
        type=item.get("type", "Retrieval"),
        main_measure=item.get("main_measure"),
        repositories=tuple(item.get("repositories", ())),
        subsets=item.get("subsets", {}),
        answers=item.get("answers", False),
    )
