"""Where one task's data come from.

Resolution order: the user's data folders, each task under any of its names and in any known
layout; the Hugging Face cache; then, unless offline, the hub.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bge_eval.data.answers import AnswersSource
from bge_eval.data.files import Place
from bge_eval.data.hub import HubData, cached_snapshot, download
from bge_eval.data.retrieval_folder import RetrievalFolder
from bge_eval.data.rows import RowsFolder
from bge_eval.data.snapshot import Snapshot, candidates_config
from bge_eval.data.sources import (
    CandidatesSource,
    DataSource,
    RetrievalSource,
    RowsSource,
    SnapshotSource,
    is_retrieval,
)
from bge_eval.errors import DamagedError, MissingError, NoFolderError

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask


def find_source(
    task: AbsTask,
    data_dirs: Sequence[Path],
    names: Sequence[str],
    *,
    offline: bool = False,
    dangling: bool = False,
    repositories: Sequence[str] = (),
) -> DataSource:
    """Decide where a task's data come from.

    Args:
        task: mteb's task.
        data_dirs: the user's folders, searched in order.
        names: folder names under which the task may lie, beside its own and its repository's.
        offline: open no connection.
        dangling: accept judgements of documents that the corpus lacks.
        repositories: for a task that is none of mteb's, the public repositories of its data.

    Raises:
        MissingError: a data folder is not there; what lies under the task's name is in no known
            layout or lacks a subset; or the task is in no folder and may not be downloaded.
    """
    repository = str(task.metadata.dataset.get("path", ""))
    root = find_place(task, data_dirs, names)
    if root is not None:
        return recognise(task, root, dangling=dangling)
    revision = str(task.metadata.dataset.get("revision", ""))
    own = bool(repositories) or repository.startswith("local/")
    if own and not offline and len(repositories) == 1:
        return recognise(task, download(task, repositories[0]), dangling=dangling)
    if offline or own:
        cached = cached_snapshot(repository, revision)
        snapshot = Snapshot.recognise(cached) if cached else None
        if cached and snapshot:
            # Another commit than the pinned one is checked like any copy.
            known = cached.name if cached.name == revision else ""
            return SnapshotSource(snapshot, known, dangling)
        if data_dirs or own:
            present = ", ".join(_present(data_dirs)) or "nothing"
            looked = f"Looked in {', '.join(map(str, data_dirs))}; found there: {present}."
            if not data_dirs:
                looked = "No --data-dir was given to look in."
            if repositories:
                looked += f" `bge-eval data fetch --tasks {task.metadata.name}` brings them."
            raise NoFolderError(task.metadata.name, _wanted(task, names), looked)
    return HubData(repository, revision, offline)


def find_place(task: AbsTask, data_dirs: Sequence[Path], names: Sequence[str]) -> Place | None:
    """Return what lies under one of a task's names, whatever it is; arguments as `find_source`.

    Raises:
        MissingError: a data folder is not there.
        DamagedError: a zip of that name is none.
    """
    for data_dir in data_dirs:
        if not data_dir.is_dir():
            raise MissingError(f"The data folder {data_dir} does not exist.")
        for name in _wanted(task, names):
            root = _find(data_dir, name)
            if root is not None:
                return root
    return None


def _wanted(task: AbsTask, names: Sequence[str]) -> list[str]:
    """Return the names under which a task may lie."""
    repository = str(task.metadata.dataset.get("path", "")).rsplit("/", 1)[-1]
    return list(filter(None, dict.fromkeys([task.metadata.name, *names, repository])))


def recognise(task: AbsTask, root: Place, *, dangling: bool = False) -> DataSource:
    """Return the source of what lies in a place, in whichever layout it is.

    Raises:
        MissingError: it is in none that the task can be read from, or lacks a subset.
    """
    if hasattr(task, "answers"):
        return AnswersSource(root, tuple(task.hf_subsets))
    if isinstance(root, Path) and (snapshot := _repository(task, root)):
        return SnapshotSource(snapshot, dangling=dangling)
    name = task.metadata.name
    multilingual = bool(task.metadata.is_multilingual)
    subsets = list(task.hf_subsets) if multilingual else ["default"]
    places = {subset: root.joinpath(subset) if multilingual else root for subset in subsets}
    rows = {
        subset: RowsFolder.recognise(place, task.eval_splits) for subset, place in places.items()
    }
    plain = {subset: folder for subset, folder in rows.items() if folder}
    if not is_retrieval(task):
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
        and is_retrieval(task)
        and not any(config.endswith("corpus") for config in snapshot.configs)
        and not any(candidates_config(snapshot, task, subset) for subset in task.hf_subsets)
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
