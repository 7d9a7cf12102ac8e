"""Names on the command line, resolved to tasks that can be run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Collection as Documents
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bge_eval.data.collection import Collection, collection_task, read_collection
from bge_eval.data.cutting import cut_data
from bge_eval.data.files import Place
from bge_eval.data.finding import find_place, find_source
from bge_eval.data.ir_collections import PREFIX, IrSource, ir_task
from bge_eval.data.layouts import recognise_source
from bge_eval.data.plausibility import expected_counts
from bge_eval.data.sources import DataSource
from bge_eval.data.task_class import TaskClassSource, loads_itself
from bge_eval.data.zips import PublishedZip
from bge_eval.errors import UsageError, did_you_mean
from bge_eval.records import SplitKey
from bge_eval.resources import tasks_folder
from bge_eval.results.cut import WHOLE, Cut, split_name
from bge_eval.suites.languages import language_codes
from bge_eval.suites.remembered import remembered
from bge_eval.suites.suite_files import Suite, suite_members, suites

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask


_SPLITS_FROM = ("beir", "mteb-en", "c-mteb")
"""Suites whose splits and subsets a task named alone takes, before those of other suites."""
_UNCOUNTED = 1000
"""Texts that a task of the user's own is taken to have."""


@dataclass(frozen=True, slots=True)
class PlannedTask:
    """One task to run."""

    task: AbsTask
    """A fresh mteb task; clustering tasks consume random state, so none is used twice."""
    folder_names: tuple[str, ...] = ()
    """Other names that its folder may have in a data folder."""
    shipped: Path | None = None
    """The folder of a collection that ships with the package."""
    prompts: Mapping[str, str] = field(default_factory=dict)
    """Prompts that the collection's task.toml gives, by role."""
    repositories: tuple[str, ...] = ()
    """Public repositories that together make up a collection's folder."""
    code: str = ""
    """``package.module:Class`` of a user's task class that loads its own data."""
    ir: str = ""
    """``ir:<id>`` of a collection that ir_datasets reads."""
    parts: tuple[PlannedTask, ...] = ()
    """For an aggregate (CQADupstack), the tasks whose scores it averages."""
    cut: Cut = WHOLE
    """What of the task is scored; an empty cut for all of it."""
    kept: Mapping[SplitKey, Documents[str]] = field(default_factory=dict)
    """(subset, split) → documents of given runs that a cut keeps."""

    @property
    def name(self) -> str:
        """Return the name under which results are filed: mteb's, and the cut."""
        return self.cut.named(self.task_name)

    @property
    def task_name(self) -> str:
        """Return mteb's task name, by which data, prompts and metadata are looked up."""
        return str(self.task.metadata.name)

    @property
    def texts(self) -> int:
        """Return the number of texts by mteb's count, to estimate how long the task takes."""
        singles = self.parts or (self,)
        counts = (sum(expected_counts(single.task).values()) for single in singles)
        return sum(count or _UNCOUNTED for count in counts)

    def data_identity(self, source: DataSource) -> dict[str, Any]:
        """Return the identity of the data that are scored: of the source, and the cut."""
        identity = asdict(source.identity(self.task))
        return {**identity, "cut": str(self.cut)} if self.cut else identity

    def cut_loaded(self, note: Callable[[str], None] = lambda text: None) -> None:
        """Cut the data that the task holds, if a part of them is scored.

        Args:
            note: receives a sentence about every corpus that was cut.

        Raises:
            UsageError: the cut has no meaning for the task, or names runs that are not at hand.
        """
        if not self.cut:
            return
        if self.cut.runs and not self.kept:
            raise UsageError(
                f"{self.name} keeps documents of runs. Name the runs: --tasks {self.task_name}"
                f" --lite --lite-runs FOLDER."
            )
        cut_data(self.task, self.cut, self.kept, note)

    def place(self, data_dirs: Sequence[Path]) -> Place | None:
        """Return the task's folder or zip in the data folders, in whichever layout."""
        return self.shipped or find_place(self.task, data_dirs, self.folder_names)

    def published_zip(self) -> PublishedZip | None:
        """Return the zip in which the task's data are published in BEIR's layout, if any."""
        names = [folder.partition("/")[0] for folder in self.folder_names]
        zips = (suite.zips.get(name) for suite in suites().values() for name in names)
        return next(filter(None, zips), None)

    def source(
        self, data_dirs: Sequence[Path], *, offline: bool = False, dangling: bool = False
    ) -> DataSource:
        """Return the source of the task's data; the arguments are those of `find_source`.

        Raises:
            MissingError: no folder holds them and they may not be downloaded, or a part is absent.
        """
        if self.code:
            return TaskClassSource(self.code)
        if self.ir:
            return IrSource(self.ir, offline, dangling)
        if self.shipped:
            return recognise_source(self.task, self.shipped, dangling=dangling)
        return find_source(
            self.task,
            data_dirs,
            self.folder_names,
            offline=offline,
            dangling=dangling,
            repositories=self.repositories,
        )


def plan(
    names: Sequence[str], subsets: Sequence[str] = (), languages: Sequence[str] = ()
) -> list[PlannedTask]:
    """Resolve suites and task names to fresh tasks, each once, in the order given.

    Args:
        names: suites (``beir``), mteb task names (``SciFact``), folders of the user's
            (``./tickets``), collections of ir_datasets (``ir:vaswani``) and task classes of the
            user's (``tickets:TicketSearch``), in any mix, each perhaps with a cut
            (``SciFact@limit=50``).
        subsets: run only these subsets (languages) of tasks that have several.
        languages: run only tasks and subsets of these languages: mteb's codes (``eng``,
            ``zho-Hans``) or two-letter codes (``en``).

    Raises:
        UsageError: a name is unknown, or a task has none of the subsets.
    """
    planned: dict[str, PlannedTask] = {}
    for name in names:
        own, cut = (name, WHOLE) if Path(name).expanduser().is_dir() else split_name(name)
        for task in _tasks_of(own):
            _add(planned, with_cut(task, cut) if cut else task)
    for task in planned.values():
        _choose_subsets(task.task, subsets)
    if not languages:
        return list(planned.values())
    spoken = [task for task in planned.values() if _speaks(task, languages)]
    if not spoken:
        raise UsageError(f"None of the tasks is in {' or '.join(languages)}.")
    return spoken


def with_cut(planned: PlannedTask, cut: Cut) -> PlannedTask:
    """Return a task, with its parts, of which a part is scored."""
    parts = tuple(with_cut(part, cut) for part in planned.parts)
    return replace(planned, cut=cut, parts=parts)


def _tasks_of(name: str) -> list[PlannedTask]:
    """Return the tasks of one suite, task, folder, collection or class."""
    suite = suites().get(name) or suites().get(name.lower())
    is_path = name.startswith((".", "/", "~"))
    # A task's name means mteb's task even where the current folder holds its data.
    if suite is None and (is_path or (Path(name).is_dir() and not _is_task(name))):
        return [_folder_task(Path(name).expanduser())]
    if ":" in name and not name.startswith(PREFIX):
        return [_class_task(name)]
    return _suite_tasks(suite) if suite else [_named_task(name)]


def _add(planned: dict[str, PlannedTask], task: PlannedTask) -> None:
    """Plan a task once; refuse another task of the same name, whose results would clash."""
    first = planned.setdefault(task.name, task)
    origins = [str(one.shipped or one.code or one.ir or "mteb's") for one in (first, task)]
    if origins[0] != origins[1]:
        raise UsageError(
            f"Two tasks are called {task.name}: {origins[0]} and {origins[1]}. Give one of them"
            ' another name, a folder in its task.toml (name = "…").'
        )


def _suite_tasks(suite: Suite) -> list[PlannedTask]:
    # mteb shares the task objects of a benchmark between calls, so copies are made.
    return [
        *(_fresh(task) for task in suite_members(suite)),
        *(_named_task(name) for name in suite.ir),
        *(_collection_task(collection) for collection in suite.collections),
    ]


def _is_task(name: str) -> bool:
    import mteb

    try:
        mteb.get_task(name)
    except KeyError:
        return any(c.name == name for suite in suites().values() for c in suite.collections)
    return True


def _folder_task(folder: Path) -> PlannedTask:
    if not folder.is_dir():
        raise UsageError(f"--tasks {folder}: there is no such folder.")
    collection = read_collection(folder)
    if _is_task(collection.name):
        raise UsageError(
            f"--tasks {folder}: mteb has a task {collection.name}, or a suite has, and a result of"
            " this name would be ranked and exported as its own. Give this collection another name"
            f' in {folder / "task.toml"}, such as name = "My{collection.name}". If the folder holds'
            f" {collection.name} itself: --tasks {collection.name} --data-dir {folder.parent}."
        )
    return _collection_task(collection)


def _class_task(name: str) -> PlannedTask:
    """Return a task of the user's own class, named ``package.module:Class``."""
    import importlib
    import sys

    from mteb.abstasks import AbsTask

    module_name, _, class_name = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:  # an installed command does not search the current folder
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise UsageError(
            f"--tasks {name}: the module {module_name} cannot be imported ({error}). Expected"
            " package.module:Class, the module in this folder or installed."
        ) from error
    task_class = getattr(module, class_name, None)
    if not (isinstance(task_class, type) and issubclass(task_class, AbsTask)):
        classes = [
            other
            for other, value in vars(module).items()
            if isinstance(value, type) and issubclass(value, AbsTask) and hasattr(value, "metadata")
        ]
        raise UsageError(
            f"--tasks {name}: {module_name} has no task class '{class_name}'."
            f"{did_you_mean(class_name, classes)} A task class is a subclass of one of mteb's"
            " (AbsTaskRetrieval …) with its metadata."
        )
    task: Any = task_class()
    planned = _fresh(task)
    return replace(planned, code=name) if loads_itself(task) else planned


def _collection_task(collection: Collection) -> PlannedTask:
    task = collection_task(collection)
    if collection.shipped:
        return PlannedTask(task, shipped=collection.folder, prompts=collection.prompts)
    folder = collection.folder.relative_to(tasks_folder()).as_posix()
    return PlannedTask(task, folder_names=(folder,), repositories=collection.repositories)


def _fresh(task: AbsTask) -> PlannedTask:
    from mteb.abstasks.aggregated_task import AbsTaskAggregate

    if isinstance(task, AbsTaskAggregate):
        parts = tuple(_fresh(part) for part in task.metadata.tasks)
        return PlannedTask(task, parts=parts)
    fresh = type(task)()
    if task.metadata.is_multilingual:
        fresh.hf_subsets = list(task.hf_subsets)
    fresh.filter_eval_splits(list(task.eval_splits))
    return PlannedTask(fresh, folder_names=_folder_names(task.metadata.name))


def _named_task(name: str) -> PlannedTask:
    import mteb

    if name.startswith(PREFIX):
        return PlannedTask(ir_task(name), ir=name)
    for suite in suites().values():
        for collection in suite.collections:
            if collection.name == name:
                return _collection_task(collection)
    # mteb's benchmarks take half a second to import, which names alone do not need.
    shares = remembered("splits and subsets of the suites' tasks", _shares)
    try:
        task = mteb.get_task(name)
        if share := shares.get(name):
            task.hf_subsets = share["subsets"]
            task.filter_eval_splits(share["splits"])
        return _fresh(task)
    except KeyError as error:
        from mteb.filter_tasks import filter_tasks
        from mteb.get_tasks import TASK_LIST

        # Classes are enough: to make a task of each takes seconds.
        listed = filter_tasks(
            TASK_LIST, exclude_superseded=True, exclude_private=True, exclude_beta=True
        )
        known = [*suites(), *(task.metadata.name for task in listed)]
        raise UsageError(
            f"No suite or task is called '{name}'.{did_you_mean(name, known)}"
            f" Suites: {', '.join(suites())}; `bge-eval tasks` lists them."
        ) from error


def _shares() -> dict[str, dict[str, list[str]]]:
    """Return task → the splits and subsets that it runs alone: those of the first suite with it.

    So MSMARCO runs on ``dev``, as in BEIR, not on all its splits.
    """
    from mteb.abstasks.aggregated_task import AbsTaskAggregate

    shares: dict[str, dict[str, list[str]]] = {}
    for suite in sorted(suites().values(), key=lambda suite: suite.name not in _SPLITS_FROM):
        if suite.benchmark is not None:
            for task in suite_members(suite):
                if not isinstance(task, AbsTaskAggregate):
                    share = {"splits": [*task.eval_splits], "subsets": [*task.hf_subsets]}
                    shares.setdefault(task.metadata.name, share)
    return shares


def _choose_subsets(task: AbsTask, subsets: Sequence[str]) -> None:
    if not subsets or not task.metadata.is_multilingual:
        return
    present = [subset for subset in task.hf_subsets if subset in subsets]
    if not present:
        raise UsageError(
            f"{task.metadata.name} has none of the subsets {', '.join(subsets)}; it has"
            f" {', '.join(task.hf_subsets)}."
        )
    task.hf_subsets = present


def _speaks(planned: PlannedTask, languages: Sequence[str]) -> bool:
    """Restrict a task to its subsets in some languages; return whether any is left."""
    codes = language_codes(languages)
    if planned.parts:
        return all(_speaks(part, languages) for part in planned.parts)
    task = planned.task
    langscripts = task.metadata.hf_subsets_to_langscripts
    selected = [
        subset
        for subset in task.hf_subsets
        if subset in codes
        or any(code in codes or code.split("-")[0] in codes for code in langscripts[subset])
    ]
    if selected and task.metadata.is_multilingual:
        task.hf_subsets = selected
    return bool(selected)


def _folder_names(task: str) -> tuple[str, ...]:
    return tuple(suite.folders[task] for suite in suites().values() if task in suite.folders)
