"""Download data sets for offline use, and verify local copies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from bge_eval.data.layouts import recognise_source
from bge_eval.data.manifest import Fetched, write_manifest
from bge_eval.data.plausibility import counts, other_counts, other_script
from bge_eval.data.sources import DataSource
from bge_eval.errors import BgeEvalError, DamagedError, MissingError, quoted
from bge_eval.progress import Progress

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask


@dataclass(frozen=True, slots=True)
class Verification:
    """The result of reading a task's data and comparing them with mteb's counts."""

    counted: Mapping[str, int]
    """The counts, e.g. ``{"test documents": 5183, "test queries": 300}``."""
    problems: tuple[str, ...]
    """One sentence for each problem; empty if the data agree with mteb's counts."""


def fetch_dataset(
    task: AbsTask, data_dir: Path, *, folder: str = "", repositories: Sequence[str] = ()
) -> Path:
    """Download a task's dataset repository at the revision that mteb pins, and verify it.

    Interrupted downloads are resumed, and existing files are not downloaded again. Every file is
    compared with the hub's checksum and recorded in a manifest.

    Args:
        task: mteb's task.
        data_dir: the data folder; the copy gets a folder with the task's name below it, as
            ``hf download --local-dir`` would write it.
        folder: for one of our collections, its folder below ``data_dir``. The first part is the
            repository; only files below the rest are downloaded.
        repositories: for one of our collections, the repositories that make up the folder.

    Returns:
        The folder.

    Raises:
        MissingError: the task names no repository, or the download failed.
        DamagedError: a file differs from the hub's checksum.
    """
    name = task.metadata.name
    repository = str(task.metadata.dataset.get("path", ""))
    revision = str(task.metadata.dataset.get("revision", "")) or None
    if not repositories and ("/" not in repository or repository.startswith("local/")):
        raise MissingError(f"{name} names no public repository; bring your own copy.")
    top, _, below = (folder or name).partition("/")
    target = data_dir / top
    commits: dict[str, str] = {}
    files: list[Fetched] = []
    for source in repositories or (repository,):
        pinned = None if repositories else revision
        try:
            commits[source], listed = _listed(source, pinned, below)
            _download(source, commits[source], target, listed)
        except BgeEvalError:
            raise
        except Exception as error:
            # The hub's client passes on errors of its HTTP library, which depends on its version.
            reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
            raise MissingError(
                f"{name} ({source} at {(pinned or 'main')[:12]}) could not be downloaded:"
                f" {reason}. What arrived is kept; the same command resumes the download."
            ) from error
        files += listed
    write_manifest(target, commits, files)
    recognise_source(task, target / below).check(task)
    return target


def _listed(repository: str, revision: str | None, below: str) -> tuple[str, list[Fetched]]:
    """Return a repository's commit and its files as the hub describes them."""
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    api = HfApi()
    commit = api.dataset_info(repository, revision=revision).sha
    assert commit is not None, "the hub names the commit of everything it describes"
    tree = list(
        api.list_repo_tree(repository, recursive=True, revision=commit, repo_type="dataset")
    )
    for item in tree:
        parts = PurePosixPath(item.path.replace("\\", "/")).parts
        if ".." in parts or item.path.startswith(("/", "\\")) or ":" in parts[0]:
            raise DamagedError(
                f"{repository} lists the file {quoted(item.path)}, which is outside its folder:"
                " nothing is downloaded. The server, or a mirror before it, is not to be trusted."
            )
    return commit, [
        Fetched(item.path, item.size, item.lfs.sha256 if item.lfs else None, item.blob_id)
        for item in tree
        if isinstance(item, RepoFile) and item.path.startswith(f"{below}/" if below else "")
    ]


def _download(repository: str, commit: str, target: Path, files: Sequence[Fetched]) -> None:
    """Download files and verify their checksums; download those that differ a second time."""
    from huggingface_hub import snapshot_download

    names = [file.path for file in files]
    for attempt in (1, 2):
        snapshot_download(
            repository,
            repo_type="dataset",
            revision=commit,
            local_dir=target,
            allow_patterns=[name.replace("[", "[[]") for name in names],
        )
        wrong = [
            file
            for file in files
            if not (target / file.path).is_file() or not file.fits(target / file.path)
        ]
        if not wrong:
            return
        if attempt == 1:
            for file in wrong:
                (target / file.path).unlink(missing_ok=True)
    raise DamagedError(
        f"{target / wrong[0].path} differs from the hub's checksum ({len(wrong)} such files), twice"
        " in a row. The server, or a proxy before it, sends other content."
    )


def verify(task: AbsTask, source: DataSource, progress: Progress) -> Verification:
    """Read all data of a task and compare them with mteb's counts.

    Reading checks every line, and that the query and document of every judgement exist.

    Args:
        task: mteb's task.
        source: the source of its data.
        progress: receives the number of documents read.
    """
    try:
        with source.loaded(task, progress):
            return Verification(counts(task), (*other_counts(task), *other_script(task)))
    except BgeEvalError as error:
        return Verification({}, (str(error),))
