"""Suites and task names, resolved to mteb's tasks.

A suite is a TOML file in ``tasks/``::

    description = "the 15 sets of BEIR"
    benchmark = "BEIR"                   # mteb's benchmark: membership, splits and subsets are its

    [folders]                            # names under which BEIR's own copies lie on disk
    FiQA2018 = "fiqa"

or ``tasks = ["MSMARCO", …]`` where mteb has no benchmark of them; or, for a collection that
ships with the package (``shipped = false``: that the user brings)::

    description = "…"
    [[collection]]
    name = "BgeEvalDemo"
    folder = "demo"
    languages = ["eng-Latn", "zho-Hans"]
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bge_eval.data.collection import Collection, collection_task, read_collection
from bge_eval.data.files import Place
from bge_eval.data.finding import find_place, find_source
from bge_eval.data.layouts import recognise_source
from bge_eval.data.sources import DataSource
from bge_eval.data.task_class import TaskClassSource, loads_itself
from bge_eval.data.zips import PublishedZip
from bge_eval.errors import DamagedError, UsageError, did_you_mean
from bge_eval.resources import tasks_folder

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask


_SPLITS_FROM = ("beir", "mteb-en", "c-mteb")
"""Suites whose splits and subsets a single task is run on, before those of others."""


@dataclass(frozen=True, slots=True)
class Suite:
    """A named list of tasks, as its TOML file states it."""

    name: str
    """The file's stem, as given to ``--tasks``."""
    description: str
    """One sentence for people."""
    benchmark: str | None = None
    """mteb's benchmark of the same membership, if the suite is one."""
    public_only: bool = False
    """Whether the benchmark's tasks with private data are left out."""
    tasks: tuple[str, ...] = ()
    """mteb's task names, where mteb has no benchmark of them."""
    folders: dict[str, str] = field(default_factory=dict)
    """mteb's task name → the folder name that BEIR's own copies have."""
    collections: tuple[Collection, ...] = ()
    """Collections that ship with the package, or that the user brings."""
    zips: Mapping[str, PublishedZip] = field(default_factory=dict)
    """The first part of a folder name → the zip that holds the folder."""


@dataclass(frozen=True, slots=True)
class PlannedTask:
    """One task to run."""

    task: AbsTask
    """A fresh mteb task, never used before (clustering tasks consume random state)."""
    folder_names: tuple[str, ...] = ()
    """Other names under which its data may lie in a data folder."""
    shipped: Path | None = None
    """The folder of a collection that ships with the package."""
    prompts: Mapping[str, str] = field(default_factory=dict)
    """Prompts that the collection's task.toml gives, by role."""
    repositories: tuple[str, ...] = ()
    """Public repositories that a collection's folder is put together from."""
    code: str = ""
    """``package.module:Class`` of a task class of the user's own that loads its own data."""
    parts: tuple[PlannedTask, ...] = ()
    """For an aggregate (CQADupstack), the tasks whose scores it averages."""

    @property
    def name(self) -> str:
        """Return mteb's task name."""
        return str(self.task.metadata.name)

    def place(self, data_dirs: Sequence[Path]) -> Place | None:
        """Return what lies under one of the task's names in the data folders, whatever it is."""
        return self.shipped or find_place(self.task, data_dirs, self.folder_names)

    def published_zip(self) -> PublishedZip | None:
        """Return the zip in which the task's data are published in BEIR's layout, if any."""
        names = [folder.partition("/")[0] for folder in self.folder_names]
        found = (suite.zips.get(name) for suite in suites().values() for name in names)
        return next(filter(None, found), None)

    def source(
        self, data_dirs: Sequence[Path], *, offline: bool = False, dangling: bool = False
    ) -> DataSource:
        """Decide where the task's data come from; the arguments are those of `find_source`.

        Raises:
            MissingError: they are in no folder and may not be downloaded, or lack a part.
        """
        if self.code:
            return TaskClassSource(self.code)
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


@cache
def suites() -> dict[str, Suite]:
    """Read every suite file. Suite name → suite, in alphabetical order."""
    return {path.stem: _read_suite(path) for path in sorted(tasks_folder().glob("*.toml"))}


def task_names(suite: Suite) -> list[str]:
    """Return mteb's names of a suite's tasks, in the benchmark's order, then its collections."""
    members = [task.metadata.name for task in _members(suite)]
    return members + [collection.name for collection in suite.collections]


def plan(
    names: Sequence[str], subsets: Sequence[str] = (), languages: Sequence[str] = ()
) -> list[PlannedTask]:
    """Resolve suites and task names to fresh tasks, each once, in the order given.

    Args:
        names: suites (``beir``), mteb task names (``SciFact``), folders of the user's own
            (``./tickets``) and task classes of the user's own (``tickets:TicketSearch``), in any
            mix.
        subsets: run only these subsets (languages) of tasks that have several.
        languages: run only tasks and subsets of these languages, as mteb (``eng``,
            ``zho-Hans``) or people (``en``) write them.

    Raises:
        UsageError: a name is neither, or a task has none of the subsets.
    """
    planned: dict[str, PlannedTask] = {}
    for name in names:
        suite = suites().get(name) or suites().get(name.lower())
        said_folder = name.startswith((".", "/", "~"))
        # A folder of data in the current one must not take the place of mteb's task.
        if suite is None and (said_folder or (Path(name).is_dir() and not _is_task(name))):
            own = _folder(Path(name).expanduser())
            _add(planned, own)
            continue
        if ":" in name:
            _add(planned, _coded(name))
            continue
        for task in _suite_tasks(suite) if suite else [_single(name)]:
            _add(planned, task)
    for task in planned.values():
        _choose_subsets(task.task, subsets)
    if not languages:
        return list(planned.values())
    spoken = [task for task in planned.values() if _speaks(task, languages)]
    if not spoken:
        raise UsageError(f"None of the tasks is in {' or '.join(languages)}.")
    return spoken


def _add(planned: dict[str, PlannedTask], task: PlannedTask) -> None:
    """Plan a task once; another one of the same name cannot be filed beside it."""
    known = planned.setdefault(task.name, task)
    origins = [str(one.shipped or one.code or "mteb's") for one in (known, task)]
    if origins[0] != origins[1]:
        raise UsageError(
            f"Two tasks are called {task.name}: {origins[0]} and {origins[1]}. Give one of them"
            ' another name, a folder in its task.toml (name = "…").'
        )


def _members(suite: Suite) -> list[AbsTask]:
    """Return mteb's own task objects of a suite: shared, so not to be evaluated."""
    if suite.benchmark is None and not suite.tasks:
        return []
    import mteb

    if suite.benchmark is None:
        return [mteb.get_task(name) for name in suite.tasks]
    tasks = list(mteb.get_benchmark(suite.benchmark).tasks)
    return [task for task in tasks if task.metadata.is_public or not suite.public_only]


def _suite_tasks(suite: Suite) -> list[PlannedTask]:
    # Benchmarks share their task objects between calls; a copy from the same metadata with the
    # benchmark's own splits and subsets is fresh.
    return [_fresh(task) for task in _members(suite)] + [
        _own(collection) for collection in suite.collections
    ]


def _is_task(name: str) -> bool:
    import mteb

    try:
        mteb.get_task(name)
    except KeyError:
        return any(c.name == name for suite in suites().values() for c in suite.collections)
    return True


def _folder(folder: Path) -> PlannedTask:
    if not folder.is_dir():
        raise UsageError(f"--tasks {folder}: there is no such folder.")
    return _own(read_collection(folder))


def _coded(name: str) -> PlannedTask:
    """Return a task of the user's own class, named ``package.module:Class``."""
    import importlib
    import sys

    from mteb.abstasks import AbsTask

    module_name, _, class_name = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:  # an installed command does not look where it was called
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise UsageError(
            f"--tasks {name}: the module {module_name} cannot be imported ({error}). Expected"
            " package.module:Class, the module in this folder or installed."
        ) from error
    found = getattr(module, class_name, None)
    if not (isinstance(found, type) and issubclass(found, AbsTask)):
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
    task: Any = found()
    planned = _fresh(task)
    return replace(planned, code=name) if loads_itself(task) else planned


def _own(collection: Collection) -> PlannedTask:
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
    fresh._eval_splits = list(task.eval_splits)
    return PlannedTask(fresh, folder_names=_folder_names(task.metadata.name))


def _single(name: str) -> PlannedTask:
    import mteb

    for suite in suites().values():
        for collection in suite.collections:
            if collection.name == name:
                return _own(collection)
    # A task that belongs to a suite is run on the suite's splits (MSMARCO: dev), not on all.
    for suite in sorted(suites().values(), key=lambda suite: suite.name not in _SPLITS_FROM):
        if suite.benchmark is not None:
            for task in _members(suite):
                if task.metadata.name == name:
                    return _fresh(task)
    try:
        return _fresh(mteb.get_task(name))
    except KeyError as error:
        known = [*suites(), *(task.metadata.name for task in mteb.get_tasks())]
        raise UsageError(
            f"No suite or task is called '{name}'.{did_you_mean(name, known)}"
            f" Suites: {', '.join(suites())}; `bge-eval tasks` lists them."
        ) from error


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


_SHORT = (
    "af:afr am:amh ar:ara,arb as:asm az:aze,azj be:bel bg:bul bn:ben bo:bod bs:bos ca:cat cs:ces"
    " cy:cym da:dan de:deu el:ell en:eng eo:epo es:spa et:est,ekk eu:eus fa:fas,pes fi:fin fo:fao"
    " fr:fra ga:gle gd:gla gl:glg gu:guj ha:hau he:heb hi:hin hr:hrv hu:hun hy:hye id:ind ig:ibo"
    " is:isl it:ita ja:jpn jv:jav ka:kat kk:kaz km:khm kn:kan ko:kor ku:kur,kmr ky:kir la:lat"
    " lb:ltz lo:lao lt:lit lv:lav,lvs mg:mlg,plt mi:mri mk:mkd ml:mal mn:mon,khk mr:mar"
    " ms:msa,zsm mt:mlt my:mya nb:nob ne:nep,npi nl:nld nn:nno no:nor,nob,nno ny:nya or:ori,ory"
    " pa:pan pl:pol ps:pus,pbt pt:por ro:ron ru:rus sa:san sd:snd si:sin sk:slk sl:slv sm:smo"
    " sn:sna so:som sq:sqi,als sr:srp st:sot su:sun sv:swe sw:swa,swh ta:tam te:tel tg:tgk"
    " th:tha tk:tuk tl:tgl tr:tur tt:tat ug:uig uk:ukr ur:urd uz:uzb,uzn vi:vie wo:wol xh:xho"
    " yi:yid,ydd yo:yor zh:zho,cmn zu:zul zho:zho,cmn cmn:zho,cmn"
)
"""ISO 639-1 codes with those of 639-3 that mteb writes for them; Chinese has two there."""
_LANGUAGES = {
    short: tuple(codes.split(",")) for short, _, codes in (e.partition(":") for e in _SHORT.split())
}


def _speaks(planned: PlannedTask, languages: Sequence[str]) -> bool:
    """Reduce a task to its subsets in some languages; return whether any is left."""
    wanted: set[str] = set()
    for language in languages:
        code, script, name = language.partition("-")
        wanted |= {language, *(f"{one}{script}{name}" for one in _LANGUAGES.get(code, ()))}
    if planned.parts:
        return all(_speaks(part, languages) for part in planned.parts)
    task = planned.task
    subsets = task.metadata.hf_subsets_to_langscripts
    kept = [
        subset
        for subset in task.hf_subsets
        if subset in wanted
        or any(code in wanted or code.split("-")[0] in wanted for code in subsets[subset])
    ]
    if kept and task.metadata.is_multilingual:
        task.hf_subsets = kept
    return bool(kept)


def _folder_names(task: str) -> tuple[str, ...]:
    return tuple(suite.folders[task] for suite in suites().values() if task in suite.folders)


def _read_suite(path: Path) -> Suite:
    known = {"description", "benchmark", "public_only", "tasks", "folders", "collection", "zips"}
    try:
        content: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise DamagedError(f"{path} is not TOML ({error}).") from error
    if unknown := set(content) - known:
        raise DamagedError(f"{path} has keys that mean nothing: {', '.join(sorted(unknown))}.")
    return Suite(
        name=path.stem,
        description=content["description"],
        benchmark=content.get("benchmark"),
        public_only=content.get("public_only", False),
        tasks=tuple(content.get("tasks", ())),
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
        raise DamagedError(f"{path} has keys that mean nothing: {', '.join(sorted(unknown))}.")
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
