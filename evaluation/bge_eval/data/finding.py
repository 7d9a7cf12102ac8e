"""Find a task's data: in the user's folders, then in the Hugging Face cache, then on the hub.

In the user's folders a task may have any of its names and any layout of `bge_eval.data.layouts`.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bge_eval.data.files import Place
from bge_eval.data.hub import HubData, cached_snapshot, download
from bge_eval.data.layouts import recognise_source
from bge_eval.data.repository import SnapshotSource
from bge_eval.data.snapshot import Snapshot
from bge_eval.data.sources import DataSource
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
    """Return the source of a task's data.

    Args:
        task: mteb's task.
        data_dirs: the user's folders, searched in order.
        names: folder names that the task may have beside its own and its repository's.
        offline: open no connection.
        dangling: accept judgements of documents that the corpus lacks.
        repositories: the public repositories of a task that mteb does not have.

    Raises:
        MissingError: a data folder does not exist; the task's folder is in no known layout or
            lacks a subset; or no folder holds the task and it may not be downloaded.
    """
    root = find_place(task, data_dirs, names)
    if root is not None:
        return recognise_source(task, root, dangling=dangling)
    repository = str(task.metadata.dataset.get("path", ""))
    revision = str(task.metadata.dataset.get("revision", ""))
    own = bool(repositories) or repository.startswith("local/")
    if own and not offline and len(repositories) == 1:
        return recognise_source(task, download(task, repositories[0]), dangling=dangling)
    if offline or own:
        cached = cached_snapshot(repository, revision)
        snapshot = Snapshot.recognise(cached) if cached else None
        if cached and snapshot:
            # A commit other than the pinned one is checked like any copy.
            commit = cached.name if cached.name == revision else ""
            return SnapshotSource(snapshot, commit, dangling)
        if data_dirs or own:
            raise _no_folder(task, data_dirs, names, downloadable=bool(repositories))
    return HubData(repository, revision, offline)


def find_place(task: AbsTask, data_dirs: Sequence[Path], names: Sequence[str]) -> Place | None:
    """Return the folder or zip that has one of a task's names; the arguments are `find_source`'s.

    Raises:
        MissingError: a data folder does not exist.
        DamagedError: a zip with such a name is damaged.
    """
    for data_dir in data_dirs:
        if not data_dir.is_dir():
            raise MissingError(f"The data folder {data_dir} does not exist.")
        for name in _folder_names(task, names):
            place = _find(data_dir, name)
            if place is not None:
                return place
    return None


def _no_folder(
    task: AbsTask, data_dirs: Sequence[Path], names: Sequence[str], *, downloadable: bool
) -> NoFolderError:
    """Return the error for a task that no data folder holds."""
    present = ", ".join(_datasets(data_dirs)) or "nothing"
    searched = f"Searched {', '.join(map(str, data_dirs))}, which holds: {present}."
    if not data_dirs:
        searched = "No --data-dir was given."
    if downloadable:
        searched += f" `bge-eval data fetch --tasks {task.metadata.name}` downloads them."
    return NoFolderError(task.metadata.name, _folder_names(task, names), searched)


def _folder_names(task: AbsTask, names: Sequence[str]) -> list[str]:
    """Return the folder names that a task may have."""
    repository = str(task.metadata.dataset.get("path", "")).rsplit("/", 1)[-1]
    return list(filter(None, dict.fromkeys([task.metadata.name, *names, repository])))


def _find(data_dir: Path, name: str) -> Place | None:
    """Find a dataset by name, ignoring case; ``cqadupstack/android`` descends two levels.

    The data folder itself counts if it has the name.
    """
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
            return _zip_root(entry)
    return None


def _zip_root(path: Path) -> Place:
    """Return a zip's root, or its only folder, in which BEIR's zips hold everything."""
    try:
        root = zipfile.Path(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise DamagedError(f"{path} is no zip, or cut off ({error}); download it again.") from error
    entries = [entry for entry in root.iterdir() if not entry.name.startswith("__MACOSX")]
    return entries[0] if len(entries) == 1 and entries[0].is_dir() else root


def _datasets(data_dirs: Sequence[Path]) -> list[str]:
    return [
        entry.name
        for data_dir in data_dirs
        for entry in sorted(data_dir.iterdir())
        if entry.is_dir() or entry.suffix == ".zip"
    ]
