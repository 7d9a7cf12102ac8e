"""Data by mteb's own loading, and what the Hugging Face cache of this machine holds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bge_eval.data.sources import DataIdentity
from bge_eval.errors import BgeEvalError, MissingError, NotCachedError, one_line
from bge_eval.progress import Progress

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask


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

    @property
    def is_copy(self) -> bool:
        """The data are those that mteb loads itself."""
        return False

    def identity(self, task: AbsTask) -> DataIdentity:
        """Name the repository and the revision that mteb pins."""
        fingerprint = f"{self.repository}@{self.revision}"
        return DataIdentity("hub", fingerprint, tuple(task.eval_splits), tuple(task.hf_subsets))

    def check(self, task: AbsTask) -> None:
        """See that it may be downloaded, or that datasets' own cache has a table of it."""
        if self.offline and not _prepared(self.repository):
            raise self._missing(task)

    @contextmanager
    def loaded(self, task: AbsTask, progress: Progress) -> Iterator[None]:
        """Let mteb load the task."""
        try:
            with progress.step("load"):
                task.load_data()
            _refuse_lost_candidates(task)
        except BgeEvalError:
            raise
        except Exception as error:
            # mteb, datasets and the hub client raise a dozen unrelated types here; for the
            # person they all mean that the data could not be had.
            raise self._missing(task, error) from error
        try:
            yield
        finally:
            task.unload_data()

    def _missing(self, task: AbsTask, error: Exception | None = None) -> MissingError:
        name = task.metadata.name
        how = (
            "no connection may be opened (--offline) and the Hugging Face cache of this machine"
            " does not hold them"
        )
        if not self.offline:
            reason = one_line(error, 200) or type(error).__name__
            how = f"they could not be loaded ({reason})"
        kind = NotCachedError if self.offline else MissingError
        return kind(
            f"The data of {name} ({self.repository}) are not to be had: {how}. Put a copy"
            f" under <dir>/{name} (a BEIR folder, or the repository as `hf download"
            " --repo-type dataset --local-dir` leaves it) and say --data-dir <dir>."
        )


def download(task: AbsTask, repository: str) -> Path:
    """Bring a dataset repository into the hub's cache; return its files.

    Raises:
        MissingError: it cannot be had.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repository, repo_type="dataset"))
    except Exception as error:
        # The hub's client lets errors of its HTTP library through, whichever that is by version.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise MissingError(
            f"The data of {task.metadata.name} ({repository}) could not be downloaded: {reason}"
            f" Put a copy under <dir>/{repository.rsplit('/', 1)[-1]} and say --data-dir <dir>."
        ) from error


def _prepared(repository: str) -> bool:
    """Tell whether datasets' own cache holds a table made of this repository."""
    from datasets.config import HF_DATASETS_CACHE

    return bool(repository) and (Path(HF_DATASETS_CACHE) / repository.replace("/", "___")).is_dir()


def cached_snapshot(repository: str, revision: str) -> Path | None:
    """Return a dataset repository's files in the hub's cache: the pinned revision, or the newest.

    datasets' own offline mode does not look there, and shows no configuration but ``default``.
    """
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = Path(HF_HUB_CACHE) / f"datasets--{repository.replace('/', '--')}" / "snapshots"
    if not repository or not folder.is_dir():
        return None
    pinned = folder / revision
    if revision and pinned.is_dir():
        return pinned
    others = sorted(
        (path for path in folder.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime
    )
    return others[-1] if others else None


def _refuse_lost_candidates(task: AbsTask) -> None:
    """Raise if a reranking task came without its candidate lists.

    Offline, datasets hides the configuration that holds them; the task would then silently be
    retrieval over the whole corpus.
    """
    if task.metadata.type != "Reranking":
        return
    dataset: Any = task.dataset
    for subset, splits in (dataset or {}).items():
        for split, data in splits.items():
            if isinstance(data, dict) and data.get("top_ranked", ...) is None:
                raise MissingError(
                    f"{task.metadata.name} ({subset}, {split}) is a reranking task, and its"
                    " candidate lists (configuration 'top_ranked') are not in the cache: scores"
                    " would be those of retrieval over the whole corpus. Give a copy of the"
                    " dataset repository with --data-dir."
                )
