"""Where one task's data come from, and how they get into mteb's task object."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from bge_eval.data.beir_folder import BeirFolder
from bge_eval.errors import BgeEvalError, MissingError
from bge_eval.progress import Progress

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask


@dataclass(frozen=True, slots=True)
class DataIdentity:
    """What data a score was made on; part of the run's identity."""

    layout: str
    """"beir" for a local folder, "hub" for mteb's own loading."""
    fingerprint: str
    """Made from the files' content, or the dataset's repository and revision."""
    splits: tuple[str, ...]
    """The splits that are scored."""
    subsets: tuple[str, ...]
    """The subsets (languages) that are scored; ("default",) where a task has none."""


class DataSource(Protocol):
    """Data of one task that can be put into mteb's task object."""

    @property
    def origin(self) -> str:
        """Return where the data are, for people: a folder or a repository."""

    def identity(self, task: AbsTask) -> DataIdentity:
        """Return what the task will be scored on, without loading it."""

    def loaded(self, task: AbsTask, progress: Progress) -> Any:
        """Return a context manager inside which the task holds its data."""


@dataclass(frozen=True, slots=True)
class LocalFolders:
    """BEIR folders on this machine, one for each subset of the task."""

    folders: Mapping[str, BeirFolder]
    """Subset name → its folder."""
    root: Path
    """The folder that was found under the task's name."""
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
        return DataIdentity("beir", "+".join(prints), splits, tuple(self.folders))

    @contextmanager
    def loaded(self, task: AbsTask, progress: Progress) -> Iterator[None]:
        """Read the folders into the task; the memory-mapped tables go when the context ends."""
        with tempfile.TemporaryDirectory(prefix="bge-eval-", ignore_cleanup_errors=True) as scratch:
            dataset: dict[str, dict[str, Any]] = {}
            for subset, folder in self.folders.items():
                place = Path(scratch) / subset
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
            task.dataset = dataset
            task.data_loaded = True
            try:
                yield
            finally:
                task.dataset = None
                task.data_loaded = False


@dataclass(frozen=True, slots=True)
class HubData:
    """mteb's own loading, from the Hugging Face cache or the hub."""

    repository: str
    """The dataset's repository on the hub."""
    revision: str
    """The revision that mteb pins."""
    offline: bool
    """Whether only the cache may be used."""

    @property
    def origin(self) -> str:
        """Return the repository."""
        return f"{self.repository} (Hugging Face)"

    def identity(self, task: AbsTask) -> DataIdentity:
        """Name the repository and the revision that mteb pins."""
        fingerprint = f"{self.repository}@{self.revision}"
        return DataIdentity("hub", fingerprint, tuple(task.eval_splits), tuple(task.hf_subsets))

    @contextmanager
    def loaded(self, task: AbsTask, progress: Progress) -> Iterator[None]:
        """Let mteb load the task."""
        name = task.metadata.name
        try:
            with progress.step("load", None, "documents"):
                task.load_data()
        except BgeEvalError:
            raise
        except Exception as error:
            # mteb, datasets and the hub client raise a dozen unrelated types here; for the
            # person they all mean that the data could not be had.
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            how = (
                "no connection may be opened (--offline) and the Hugging Face cache of this"
                " machine does not hold it"
                if self.offline
                else f"it could not be loaded ({reason})"
            )
            raise MissingError(
                f"The data of {name} ({self.repository}) are not to be had: {how}. Put a copy in"
                f" the BEIR layout under <dir>/{name} and say --data-dir <dir>."
            ) from error
        try:
            yield
        finally:
            task.unload_data()


def find_source(
    task: AbsTask,
    data_dirs: Sequence[Path],
    names: Sequence[str],
    *,
    offline: bool = False,
    dangling: bool = False,
) -> DataSource:
    """Decide where a task's data come from: the first data folder that has it, else the hub.

    Args:
        task: mteb's task.
        data_dirs: the user's folders, searched in order.
        names: folder names under which the task may lie, beside its own.
        offline: open no connection.
        dangling: accept judgements of documents that the corpus lacks.

    Raises:
        MissingError: a data folder or a subset in it is not there, or the task is in none of
            the folders and offline was asked for without a cached copy.
    """
    metadata = task.metadata
    repository = str(metadata.dataset.get("path", ""))
    wanted = [metadata.name, *names, repository.rsplit("/", 1)[-1]]
    for data_dir in data_dirs:
        if not data_dir.is_dir():
            raise MissingError(f"The data folder {data_dir} does not exist.")
        for name in wanted:
            root = _find_folder(data_dir, name)
            if root is not None:
                return LocalFolders(_subset_folders(task, root), root, dangling)
    if data_dirs and offline:
        looked = ", ".join(dict.fromkeys(wanted))
        present = ", ".join(_datasets_in(data_dirs)) or "none"
        raise MissingError(
            f"The data of {metadata.name} are in none of the data folders"
            f" ({', '.join(map(str, data_dirs))}): looked for a folder named {looked}, with"
            f" corpus.jsonl inside. Found there: {present}."
        )
    return HubData(repository, str(metadata.dataset.get("revision", "")), offline)


def _find_folder(data_dir: Path, name: str) -> Path | None:
    """Find a dataset folder by name, letter case aside; ``cqadupstack/android`` goes two deep."""
    place = data_dir
    for part in name.split("/"):
        if not part:
            return None
        match = next(
            (
                entry
                for entry in sorted(place.iterdir())
                if entry.is_dir() and entry.name.casefold() == part.casefold()
            ),
            None,
        )
        if match is None:
            same = data_dir.resolve().name.casefold() == name.casefold()
            return data_dir if same and BeirFolder.recognise(data_dir) else None
        place = match
    return place


def _subset_folders(task: AbsTask, root: Path) -> dict[str, BeirFolder]:
    name = task.metadata.name
    if not task.metadata.is_multilingual:
        folder = BeirFolder.recognise(root)
        if folder is None:
            raise MissingError(
                f"{root} has the name of {name}, but no corpus.jsonl (or corpus.jsonl.gz) in it."
            )
        return {"default": folder}
    found: dict[str, BeirFolder] = {}
    for subset in task.hf_subsets:
        folder = BeirFolder.recognise(root / subset)
        if folder is None:
            present = [path.name for path in sorted(root.iterdir()) if path.is_dir()]
            raise MissingError(
                f"{name} has language subsets, and {root} has no folder '{subset}' with a"
                f" corpus.jsonl; there are: {', '.join(present) or 'none'}. To run only some,"
                f" say --subset {present[0] if present else subset}."
            )
        found[subset] = folder
    return found


def _datasets_in(data_dirs: Sequence[Path]) -> list[str]:
    return [
        entry.name
        for data_dir in data_dirs
        for entry in sorted(data_dir.iterdir())
        if entry.is_dir()
    ]
