"""A task's data on this machine, in each layout, and how they get into mteb's task object."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from bge_eval.data.candidates import load_candidates
from bge_eval.data.files import Place
from bge_eval.data.identity import DataIdentity
from bge_eval.data.retrieval_folder import RetrievalFolder
from bge_eval.data.rows import RowsFolder, columns_of, split_names
from bge_eval.data.snapshot import Snapshot, check_snapshot, load_retrieval, load_rows
from bge_eval.errors import DamagedError
from bge_eval.progress import Progress

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask


class DataSource(Protocol):
    """Data of one task that can be put into mteb's task object."""

    @property
    def origin(self) -> str:
        """Return where the data are, for people: a folder or a repository."""

    @property
    def is_copy(self) -> bool:
        """Tell whether they are a local copy that nothing proves to be mteb's own revision."""

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

    @property
    def is_copy(self) -> bool:
        """A folder of the user's."""
        return True

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
            with holding(task, dataset):
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

    @property
    def is_copy(self) -> bool:
        """A folder of the user's."""
        return True

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
        with holding(task, dataset, transform=True):
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

    @property
    def is_copy(self) -> bool:
        """A folder of the user's."""
        return True

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
        with holding(task, dataset):
            yield


@dataclass(frozen=True, slots=True)
class SnapshotSource:
    """A copy of the task's dataset repository."""

    snapshot: Snapshot
    """The repository's files."""
    revision: str = ""
    """The commit, where the copy tells it (a snapshot in the hub's cache)."""
    dangling: bool = False
    """Accept judgements of documents that the corpus lacks."""

    @property
    def origin(self) -> str:
        """Return the folder."""
        return str(self.snapshot.folder)

    @property
    def is_copy(self) -> bool:
        """A copy, unless it is a snapshot of a known commit in the hub's cache."""
        return not self.revision

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
        check_snapshot(self.snapshot, task, retrieval=is_retrieval(task))

    @contextmanager
    def loaded(self, task: AbsTask, progress: Progress) -> Iterator[None]:
        """Read the configurations that the task needs, through mteb's own loader."""
        with _scratch() as scratch:
            with progress.step("load"):
                if is_retrieval(task):
                    dataset = load_retrieval(
                        self.snapshot, task, scratch, progress, dangling=self.dangling
                    )
                else:
                    dataset = load_rows(self.snapshot, task, split_names(task), scratch)
            with holding(task, dataset, transform=True):
                yield


def is_retrieval(task: AbsTask) -> bool:
    """Tell whether a task searches or ranks documents."""
    from mteb.abstasks.retrieval import AbsTaskRetrieval

    return isinstance(task, AbsTaskRetrieval)


@contextmanager
def _scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="bge-eval-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@contextmanager
def holding(task: AbsTask, dataset: Any, *, transform: bool = False) -> Iterator[None]:
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
