"""Data that mteb loads itself, and dataset repositories in the Hugging Face cache."""

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
    """Data that mteb loads itself, from the Hugging Face cache or the hub."""

    repository: str
    """The dataset's repository on the hub."""
    revision: str
    """The revision that mteb pins."""
    offline: bool
    """Whether to use only the cache."""

    @property
    def origin(self) -> str:
        """Return the repository."""
        return f"{self.repository} (Hugging Face)"

    @property
    def is_copy(self) -> bool:
        """Return False: mteb loads its pinned revision."""
        return False

    def identity(self, task: AbsTask) -> DataIdentity:
        """Return the repository and the revision that mteb pins."""
        fingerprint = f"{self.repository}@{self.revision}"
        return DataIdentity("hub", fingerprint, tuple(task.eval_splits), tuple(task.hf_subsets))

    def check(self, task: AbsTask) -> None:
        """Raise MissingError if it may not be downloaded and datasets has no table of it."""
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
            # mteb, datasets and the hub client raise a dozen unrelated types here; all of them
            # mean that the data are unavailable.
            raise self._missing(task, error) from error
        try:
            yield
        finally:
            task.unload_data()

    def _missing(self, task: AbsTask, error: Exception | None = None) -> MissingError:
        name = task.metadata.name
        cause = (
            "no connection may be opened (--offline) and the Hugging Face cache of this machine"
            " does not hold them"
        )
        if not self.offline:
            reason = one_line(error, 200) or type(error).__name__
            cause = f"they could not be loaded ({reason})"
        kind = NotCachedError if self.offline else MissingError
        return kind(
            f"The data of {name} ({self.repository}) are unavailable: {cause}. Fetch them with"
            f" `bge-eval data fetch --tasks {name} --data-dir ./datasets`, or put a copy under"
            f" <dir>/{name} (a BEIR folder, or the repository as `hf download --repo-type dataset"
            " --local-dir` leaves it), and add --data-dir."
        )


def download(task: AbsTask, repository: str) -> Path:
    """Download a dataset repository into the hub's cache; return its folder.

    Raises:
        MissingError: the download failed.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repository, repo_type="dataset"))
    except Exception as error:
        # The hub's client passes on errors of its HTTP library, which depends on its version.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise MissingError(
            f"The data of {task.metadata.name} ({repository}) could not be downloaded: {reason}"
            f" Put a copy under <dir>/{repository.rsplit('/', 1)[-1]} and add --data-dir <dir>."
        ) from error


def _prepared(repository: str) -> bool:
    """Tell whether the cache of datasets holds a table of this repository."""
    from datasets.config import HF_DATASETS_CACHE

    return bool(repository) and (Path(HF_DATASETS_CACHE) / repository.replace("/", "___")).is_dir()


def cached_snapshot(repository: str, revision: str) -> Path | None:
    """Return a repository's snapshot in the hub's cache: the pinned revision, or the newest.

    The offline mode of datasets does not read it, and offers no configuration but ``default``.
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
    """Raise if a reranking task was loaded without its candidate lists.

    Offline, datasets hides the configuration that holds them. Without this check the task would
    silently become retrieval over the whole corpus.
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
