"""Where one task's data come from, and how they get into mteb's task object.

Resolution order: the user's data folders, each task under any of its names and in any known
layout; the Hugging Face cache; then, unless offline, the hub.
"""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from bge_eval.data.candidates import load_candidates
from bge_eval.data.files import Place
from bge_eval.data.hub import HubData, cached_snapshot
from bge_eval.data.identity import DataIdentity
from bge_eval.data.retrieval_folder import RetrievalFolder
from bge_eval.data.rows import RowsFolder, columns_of, split_names
from bge_eval.data.snapshot import Snapshot, check_snapshot, load_retrieval, load_rows
from bge_eval.errors import DamagedError, MissingError, NoFolderError
from bge_eval.progress import Progress

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask


class DataSource(Protocol):
    """Data of one task that can be put into mteb's task object."""

    @property
    def origin(self) -> str:
        """Return where the data are, for people: a folder or a repository."""

    def identity(self, task: AbsTask) -> DataIdentity:
        """Return what the task will be scored on, without loading it."""

    def check(self, task: AbsTask) -> None:
        """Raise MissingError if a file, configuration or split that the task needs is not there."""

    def loaded(self, task: AbsTask, progress: Progress) -> Any:
        """Return a context manager inside which the task holds its data."""


@dataclass(frozen=True, slots=True)
class RetrievalSource:
    """Folders of plain text files, one for each subset of a retrieval task."""

    folders: Mapping[str, RetrievalFolder]
    """Subset → its folder."""
    root: Place
    """What was found under the task's name."""
    dangling: bool = False
    """Accept judgements of documents that the corpus lacks."""

    @property
    def origin(self) -> str:
        """Return the folder."""
        return str(self.root)

    def identity(self, task: AbsTask) -> DataIdentity:
        """Fingerprint the files of the task's splits."""
        splits = tuple(task.eval_splits)
        prints = [folder.fingerprint(splits) for folder in self.folders.values()]
        layout = next(iter(self.folders.values())).dialect.name
        return DataIdentity(layout, "+".join(prints), splits, tuple(self.folders))

    def check(self, task: AbsTask) -> None:
        """See that every file is there."""
        for folder in self.folders.values():
            folder.files(task.eval_splits)

    @contextmanager
    def loaded(self, task: AbsTask, progress: Progress) -> Iterator[None]:
        """Read the folders into the task; the memory-mapped tables go when the context ends."""
        with _scratch() as scratch:
            dataset: dict[str, dict[str, Any]] = {}
            for number, (subset, folder) in enumerate(self.folders.items()):
                place = scratch / str(number)
                place.mkdir()
                splits = folder.load(task.eval_splits, place, progress, dangling=self.dangling)
                dataset[subset] = {
                    split: {
                        "corpus": data.corpus,
                        "queries": data.queries,
                        "relevant_docs": data.qrels,
                        "top_ranked": None,
                    }
                    for split, data in splits.items()
                }
            with _holding(task, dataset):
                yield


@dataclass(frozen=True, slots=True)
class RowsSource:
    """Plain files of rows, one folder for each subset."""

    folders: Mapping[str, RowsFolder]
    """Subset → its folder."""
    root: Place
    """What was found under the task's name."""

    @property
    def origin(self) -> str:
        """Return the folder."""
        return str(self.root)

    def identity(self, task: AbsTask) -> DataIdentity:
        """Fingerprint the splits that the task scores and trains on."""
        prints = [folder.fingerprint(split_names(task)) for folder in self.folders.values()]
        return DataIdentity("rows", "+".join(prints), tuple(task.eval_splits), tuple(self.folders))

    def check(self, task: AbsTask) -> None:
        """See that every split is there, the one the task trains on too."""
        for folder in self.folders.values():
            folder.files(split_names(task))

    @contextmanager
    def loaded(self, task: AbsTask, progress: Progress) -> Iterator[None]:
        """Read the files into the task and let it transform them as it does after loading."""
        from datasets import DatasetDict

        with progress.step("load"):
            splits = split_names(task)
            tables = {
                subset: DatasetDict(folder.load(task, splits))
                for subset, folder in self.folders.items()
            }
            dataset = tables if task.metadata.is_multilingual else tables["default"]
        with _holding(task, dataset, transform=True):
            yield


@dataclass(frozen=True, slots=True)
class CandidatesSource:
    """Plain files of reranking rows, one folder for each subset."""

    folders: Mapping[str, RowsFolder]
    """Subset → its folder."""
    root: Place
    """What was found under the task's name."""

    @property
    def origin(self) -> str:
        """Return the folder."""
        return str(self.root)

    def identity(self, task: AbsTask) -> DataIdentity:
        """Fingerprint the splits that the task scores."""
        splits = tuple(task.eval_splits)
        prints = [folder.fingerprint(splits) for folder in self.folders.values()]
        return DataIdentity("candidates", "+".join(prints), splits, tuple(self.folders))

    def check(self, task: AbsTask) -> None:
        """See that every split is there."""
        for folder in self.folders.values():
            folder.files(task.eval_splits)

    @contextmanager
    def loaded(self, task: AbsTask, progress: Progress) -> Iterator[None]:
        """Read the rows into corpus, queries, judgements and candidate lists."""
        with progress.step("load"):
            dataset = {
                subset: {
                    split: load_candidates(place, split)
                    for split, place in folder.files(task.eval_splits).items()
                }
                for subset, folder in self.folders.items()
            }
        with _holding(task, dataset):
            yield


@dataclass(frozen=True, slots=True)
class SnapshotSource:
    """A copy of the task's dataset repository."""

    snapshot: Snapshot
    """The repository's files."""
    revision: str = ""
    """The commit, where the copy tells it (a snapshot in the hub's cache)."""

    @property
    def origin(self) -> str:
        """Return the folder."""
        return str(self.snapshot.folder)

    def identity(self, task: AbsTask) -> DataIdentity:
        """Fingerprint every data file of the repository."""
        return DataIdentity(
            "snapshot",
            self.snapshot.fingerprint(),
            tuple(task.eval_splits),
            tuple(task.hf_subsets),
        )

    def check(self, task: AbsTask) -> None:
        """See that every configuration and split is there."""
        check_snapshot(self.snapshot, task, retrieval=_is_retrieval(task))

    @contextmanager
    def loaded(self, task: AbsTask, progress: Progress) -> Iterator[None]:
        """Read the configurations that the task needs, through mteb's own loader."""
        with _scratch() as scratch:
            with progress.step("load"):
                if _is_retrieval(task):
                    dataset = load_retrieval(self.snapshot, task, scratch)
                else:
                    dataset = load_rows(self.snapshot, task, split_names(task), scratch)
            with _holding(task, dataset, transform=True):
                yield


def find_source(
    task: AbsTask,
    data_dirs: Sequence[Path],
    names: Sequence[str],
    *,
    offline: bool = False,
    dangling: bool = False,
) -> DataSource:
    """Decide where a task's data come from.

    Args:
        task: mteb's task.
        data_dirs: the user's folders, searched in order.
        names: folder names under which the task may lie, beside its own and its repository's.
        offline: open no connection.
        dangling: accept judgements of documents that the corpus lacks.

    Raises:
        MissingError: a data folder is not there; what lies under the task's name is in no known
            layout or lacks a subset; or the task is in no folder and may not be downloaded.
    """
    repository = str(task.metadata.dataset.get("path", ""))
    wanted = list(dict.fromkeys([task.metadata.name, *names, repository.rsplit("/", 1)[-1]]))
    for data_dir in data_dirs:
        if not data_dir.is_dir():
            raise MissingError(f"The data folder {data_dir} does not exist.")
        for name in filter(None, wanted):
            root = _find(data_dir, name)
            if root is not None:
                return recognise(task, root, dangling=dangling)
    revision = str(task.metadata.dataset.get("revision", ""))
    if offline:
        cached = cached_snapshot(repository, revision)
        snapshot = Snapshot.recognise(cached) if cached else None
        if cached and snapshot:
            return SnapshotSource(snapshot, cached.name)
        if data_dirs:
            present = ", ".join(_present(data_dirs)) or "nothing"
            looked = f"Looked in {', '.join(map(str, data_dirs))}; found there: {present}."
            raise NoFolderError(task.metadata.name, list(filter(None, wanted)), looked)
    return HubData(repository, revision, offline)


def recognise(task: AbsTask, root: Place, *, dangling: bool = False) -> DataSource:
    """Return the source of what lies in a place, in whichever layout it is.

    Raises:
        MissingError: it is in none that the task can be read from, or lacks a subset.
    """
    if isinstance(root, Path) and (snapshot := _repository(task, root)):
        return SnapshotSource(snapshot)
    name = task.metadata.name
    multilingual = bool(task.metadata.is_multilingual)
    subsets = list(task.hf_subsets) if multilingual else ["default"]
    places = {subset: root.joinpath(subset) if multilingual else root for subset in subsets}
    rows = {
        subset: RowsFolder.recognise(place, task.eval_splits) for subset, place in places.items()
    }
    plain = {subset: folder for subset, folder in rows.items() if folder}
    if not _is_retrieval(task):
        _need_all(name, root, subsets, list(plain), f"{task.eval_splits[0]}.jsonl")
        return RowsSource(plain, root)
    folders = {
        subset: RetrievalFolder.recognise(place)
        for subset, place in places.items()
        if place.is_dir()
    }
    found = {subset: folder for subset, folder in folders.items() if folder}
    if task.metadata.type != "Retrieval" and not found and plain:
        _need_all(name, root, subsets, list(plain), f"{task.eval_splits[0]}.jsonl")
        return CandidatesSource(plain, root)
    _need_all(name, root, subsets, list(found), "corpus.jsonl (or corpus.jsonl.gz)")
    if task.metadata.type != "Retrieval":
        raise MissingError(
            f"{root} holds a corpus, queries and qrels, but {name} is a task of type"
            f" {task.metadata.type}, which needs candidate lists or instructions too: give a copy"
            " of its dataset repository (hf download --repo-type dataset --local-dir …)."
        )
    return RetrievalSource(found, root, dangling)


def _repository(task: AbsTask, root: Path) -> Snapshot | None:
    """Return the folder as a dataset repository, unless it is one of the plain layouts."""
    if not (root / "README.md").is_file():
        plain = RetrievalFolder.recognise(root) or RowsFolder.recognise(root, task.eval_splits)
        by_subset = any((root / subset).is_dir() for subset in task.hf_subsets)
        if plain or by_subset:
            return None
    snapshot = Snapshot.recognise(root)
    if (
        snapshot
        and _is_retrieval(task)
        and not any(config.endswith("corpus") for config in snapshot.configs)
    ):
        return None
    return snapshot


def _need_all(
    name: str, root: Place, subsets: Sequence[str], found: Sequence[str], file: str
) -> None:
    """Raise unless every subset is there."""
    missing = [subset for subset in subsets if subset not in found]
    if not missing:
        return
    if subsets == ["default"]:
        inside = ", ".join(sorted(entry.name for entry in root.iterdir())[:8]) or "nothing"
        raise MissingError(
            f"{root} has the name of {name}, but no {file} and no dataset repository in it. It"
            f" holds: {inside}."
        )
    there = sorted(entry.name for entry in root.iterdir() if entry.is_dir())
    raise MissingError(
        f"{name} has language subsets, and {root} has no folder '{missing[0]}' with a"
        f" {file}; there are: {', '.join(there) or 'none'}. To run only some,"
        f" say --subset {there[0] if there else missing[0]}."
    )


def _find(data_dir: Path, name: str) -> Place | None:
    """Find a dataset by name, letter case aside; ``cqadupstack/android`` goes two deep."""
    place: Place = data_dir
    for part in name.split("/"):
        entry = _entry(place, part)
        if entry is None:
            same = data_dir.resolve().name.casefold() == name.casefold()
            return data_dir if same else None
        place = entry
    return place


def _entry(folder: Place, name: str) -> Place | None:
    """Return the folder of that name, or the inside of a zip of that name."""
    entries: list[Place] = list(folder.iterdir())
    entries.sort(key=lambda entry: entry.name)
    for entry in entries:
        if entry.is_dir() and entry.name.casefold() == name.casefold():
            return entry
    for entry in entries:
        if isinstance(entry, Path) and entry.name.casefold() == f"{name}.zip".casefold():
            return _inside(entry)
    return None


def _inside(path: Path) -> Place:
    """Return the root of a zip, or its single folder, as BEIR's own zips have it."""
    try:
        root = zipfile.Path(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise DamagedError(f"{path} is no zip, or cut off ({error}); get it again.") from error
    entries = [entry for entry in root.iterdir() if not entry.name.startswith("__MACOSX")]
    return entries[0] if len(entries) == 1 and entries[0].is_dir() else root


def _present(data_dirs: Sequence[Path]) -> list[str]:
    return [
        entry.name
        for data_dir in data_dirs
        for entry in sorted(data_dir.iterdir())
        if entry.is_dir() or entry.suffix == ".zip"
    ]


def _is_retrieval(task: AbsTask) -> bool:
    from mteb.abstasks.retrieval import AbsTaskRetrieval

    return isinstance(task, AbsTaskRetrieval)


@contextmanager
def _scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="bge-eval-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@contextmanager
def _holding(task: AbsTask, dataset: Any, *, transform: bool = False) -> Iterator[None]:
    """Let the task hold data as if it had loaded them."""
    task.dataset = dataset
    if transform:
        _transform(task)
    task.data_loaded = True
    try:
        yield
    finally:
        task.dataset = None
        task.data_loaded = False


def _transform(task: AbsTask) -> None:
    """Run the task's own transformation, which is written for the repository's columns.

    Plain files may hold what comes out of it already; then it has nothing to rename and fails,
    and the data stay as they are.
    """
    before = task.dataset
    try:
        task.dataset_transform(num_proc=None)
    except (ValueError, KeyError) as error:
        tables = [table for table in _tables(before) if hasattr(table, "column_names")]
        wanted = set(columns_of(task))
        if not tables or not all(wanted <= set(table.column_names) for table in tables):
            raise DamagedError(
                f"The data of {task.metadata.name} have not the columns that its task expects"
                f" ({', '.join(sorted(wanted))}): {error}"
            ) from error
        task.dataset = before


def _tables(dataset: Any) -> list[Any]:
    if isinstance(dataset, Mapping):
        return [table for value in dataset.values() for table in _tables(value)]
    return [dataset]
