"""Tasks read from a copy of their dataset repository: checks, and loading through mteb's loader."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from bge_eval.data.candidates import CANDIDATE_COLUMNS, split_of_candidates
from bge_eval.data.files import Place
from bge_eval.data.integrity import check_split
from bge_eval.data.plausibility import is_published_gap
from bge_eval.data.qrels import note_contradictions
from bge_eval.data.retrieval_folder import RetrievalFolder
from bge_eval.data.rows import RowsFolder
from bge_eval.data.scratch import scratch_folder
from bge_eval.data.snapshot import Snapshot
from bge_eval.data.sources import (
    DataIdentity,
    attached,
    is_retrieval,
    split_names,
)
from bge_eval.errors import MissingError
from bge_eval.progress import Progress
from bge_eval.records import Qrels, SplitKey

if TYPE_CHECKING:
    from datasets import Dataset
    from mteb.abstasks import AbsTask
    from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData


@dataclass(frozen=True, slots=True)
class SnapshotSource:
    """A copy of the task's dataset repository."""

    snapshot: Snapshot
    """The repository's files."""
    revision: str = ""
    """The commit, if the copy is the pinned snapshot of the hub's cache; else ""."""
    dangling: bool = False
    """Accept judgements of documents that the corpus lacks."""

    @property
    def origin(self) -> str:
        """Return the folder."""
        return str(self.snapshot.folder)

    @property
    def is_copy(self) -> bool:
        """Return whether the commit is unknown."""
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
        """Raise MissingError if a configuration or split is absent."""
        _check(self.snapshot, task, retrieval=is_retrieval(task))

    @contextmanager
    def loaded(self, task: AbsTask, progress: Progress) -> Iterator[None]:
        """Read the configurations that the task needs, through mteb's own loader."""
        with scratch_folder() as scratch:
            with progress.step("load"):
                if is_retrieval(task):
                    dataset = self._load_retrieval(task, scratch, progress)
                else:
                    dataset = _load_rows(self.snapshot, task, split_names(task), scratch)
            with attached(task, dataset, transform=True):
                yield

    def _load_retrieval(self, task: AbsTask, scratch: Path, progress: Progress) -> dict[str, Any]:
        """Read a retrieval or reranking task's data through mteb's own loader.

        Raises:
            DamagedError: an id is used twice, or a judgement or candidate list names an unknown
                id.
            MissingError: a configuration, split or subset is absent, or the candidate lists of a
                reranking task.
        """
        snapshot = self.snapshot
        load = _retrieval_loader(snapshot, scratch, progress)
        data: dict[str, Any] = {}
        for subset in task.hf_subsets if task.metadata.is_multilingual else ["default"]:
            if (rows := _candidates_config(snapshot, task, subset)) is not None:
                data[subset] = {
                    split: _load_candidates(snapshot, rows, split, scratch)
                    for split in task.eval_splits
                }
                continue
            if subset == "default" and not {"default", "qrels"} & set(snapshot.configs):
                snapshot.require("default")
            data[subset] = {split: load(split, subset) for split in task.eval_splits}
            for split, loaded in data[subset].items():
                loaded["corpus"] = _without_none(loaded["corpus"])
                self._check_judgements(loaded, task, (subset, split), progress)
                if loaded["top_ranked"] is None:
                    self._refuse_no_candidates(task, split)
        return data

    def _check_judgements(
        self, loaded: RetrievalSplitData, task: AbsTask, key: SplitKey, progress: Progress
    ) -> None:
        """Refuse judgements of documents that the corpus lacks.

        They are accepted with ``dangling``, or if mteb counts as many documents, and as many of
        such judgements: then the data set is published with them.
        """
        subset, split = key
        where = f"subset '{subset}', split '{split}'" if subset != "default" else f"'{split}'"
        origin = f"{self.snapshot.folder}, {where}"
        lost = check_split(loaded, origin, dangling=True)
        if not lost:
            return
        published = is_published_gap(task, subset, split, len(loaded["corpus"]), lost)
        check_split(loaded, origin, dangling=self.dangling or published)
        known = ", as in the published copy (mteb counts as many)" if published else ""
        progress.note(
            f"{origin}: {lost} judged documents are not in the corpus{known}; they count as not"
            " retrieved."
        )

    def _refuse_no_candidates(self, task: AbsTask, split: str) -> None:
        """Refuse a reranking task without candidate lists, which would become retrieval."""
        if task.metadata.type == "Reranking":
            raise MissingError(
                f"{self.snapshot.folder} has no configuration 'top_ranked' for"
                f" {task.metadata.name} ({split}): a reranking task without its candidate lists"
                " would be retrieval over the whole corpus. There are:"
                f" {', '.join(self.snapshot.configs)}."
            )


def repository_source(task: AbsTask, root: Place, dangling: bool) -> SnapshotSource | None:
    """Return the source of a copy of a task's dataset repository."""
    if isinstance(root, Path) and (snapshot := _recognise(task, root)):
        return SnapshotSource(snapshot, dangling=dangling)
    return None


def repository_collection(folder: Path) -> tuple[str, list[str]] | None:
    """Return the task type and the splits of a user's dataset repository with a corpus.

    Raises:
        MissingError: it has no configuration with judgements.
    """
    plain = RetrievalFolder.recognise(folder)
    if not (folder / "README.md").is_file() or (plain and plain.splits()):
        return None
    snapshot = Snapshot.recognise(folder)
    if snapshot is None or "corpus" not in snapshot.configs:
        return None
    qrels = snapshot.configs.get("default") or snapshot.configs.get("qrels")
    if not qrels:
        raise MissingError(
            f"{folder} holds a corpus, and no judgements: its README names no configuration"
            " 'default' or 'qrels'."
        )
    return "Reranking" if "top_ranked" in snapshot.configs else "Retrieval", list(qrels)


def _recognise(task: AbsTask, root: Path) -> Snapshot | None:
    """Return the folder as a dataset repository, unless it is in one of the plain layouts."""
    if not (root / "README.md").is_file():
        plain = RetrievalFolder.recognise(root) or RowsFolder.recognise(root)
        by_subset = any((root / subset).is_dir() for subset in task.hf_subsets)
        if plain or by_subset:
            return None
    snapshot = Snapshot.recognise(root)
    if (
        snapshot
        and is_retrieval(task)
        and not any(config.endswith("corpus") for config in snapshot.configs)
        and not any(_candidates_config(snapshot, task, subset) for subset in task.hf_subsets)
    ):
        return None
    return snapshot


def _check(snapshot: Snapshot, task: AbsTask, *, retrieval: bool) -> None:
    """Check that a snapshot has every configuration and split that a task needs.

    Raises:
        MissingError: one is absent; the message lists those that exist.
    """
    subsets = list(task.hf_subsets) if task.metadata.is_multilingual else ["default"]
    for subset in subsets:
        if not retrieval:
            config = _rows_config(snapshot, task) if subset == "default" else subset
            snapshot.require(config)
            for split in task.eval_splits:
                snapshot.files(config, split)
            continue
        if (rows := _candidates_config(snapshot, task, subset)) is not None:
            for split in task.eval_splits:
                snapshot.files(rows, split)
            continue
        prefix = "" if subset == "default" else f"{subset}-"
        needed = [f"{prefix}corpus", f"{prefix}queries"]
        if task.metadata.type == "Reranking":
            needed.append(f"{prefix}top_ranked")
        for config in needed:
            snapshot.require(config)
        judged = "default" if "default" in snapshot.configs else "qrels"
        qrels = f"{prefix}qrels" if prefix else judged
        snapshot.require(qrels)
        for split in task.eval_splits:
            snapshot.split(qrels, split)


def _retrieval_loader(
    snapshot: Snapshot, scratch: Path, progress: Progress
) -> Callable[[str, str], RetrievalSplitData]:
    """Return what reads a split of a subset: mteb's loader, with local files in place of the hub.

    The class is made here, since its base is mteb's, which is imported as late as possible.
    """
    from mteb.abstasks.retrieval_dataset_loaders import RetrievalDatasetLoader

    class Loader(RetrievalDatasetLoader):
        def __init__(self, split: str, config: str) -> None:
            self.hf_repo, self.revision, self.trust_remote_code = str(snapshot.folder), "", False
            self.split = split
            self.config = config if config != "default" else None
            self.dataset_configs = list(snapshot.configs)

        def _get_split(self, config: str) -> str:
            snapshot.require(config)
            return snapshot.split(config, self.split)

        def _load_dataset_split(self, config: str, num_proc: int | None) -> Dataset:
            self._last = snapshot.load(config, self._get_split(config), scratch)
            return self._last

        def _load_qrels(self, num_proc: int | None) -> Qrels:
            qrels = cast("Qrels", super()._load_qrels(num_proc))
            note_contradictions(self._last, qrels, f"{snapshot.folder}, '{self.split}'", progress)
            return qrels

    return lambda split, subset: Loader(split, subset).load()


def _candidates_config(snapshot: Snapshot, task: AbsTask, subset: str) -> str | None:
    """Return the configuration with a subset's reranking rows; None if it has no such rows."""
    if task.metadata.type != "Reranking":
        return None
    names = [subset] if subset != "default" else list(snapshot.configs)
    return next(
        (
            config
            for config in names
            for split in snapshot.configs.get(config, {})
            if set(snapshot.columns(config, split)) >= CANDIDATE_COLUMNS
        ),
        None,
    )


def _load_candidates(snapshot: Snapshot, config: str, split: str, scratch: Path) -> dict[str, Any]:
    table = snapshot.load(config, split, scratch)
    origin = f"{snapshot.folder}, configuration '{config}', split '{split}'"
    rows = ((f"{origin}, row {number}", dict(row)) for number, row in enumerate(table, start=1))
    return split_of_candidates(rows, split, origin)


def _load_rows(
    snapshot: Snapshot, task: AbsTask, splits: tuple[str, ...], scratch: Path
) -> dict[str, Any]:
    """Read the data of a task that is no retrieval: subset → split → table, or split → table."""
    from datasets import DatasetDict

    def of(config: str) -> Any:
        snapshot.require(config)
        for split in task.eval_splits:
            snapshot.files(config, split)  # raises if it is absent
        present = [split for split in splits if split in snapshot.configs[config]]
        return DatasetDict({split: snapshot.load(config, split, scratch) for split in present})

    if task.metadata.is_multilingual:
        return {subset: of(subset) for subset in task.hf_subsets}
    whole: dict[str, Any] = of(_rows_config(snapshot, task))
    return whole


def _rows_config(snapshot: Snapshot, task: AbsTask) -> str:
    named = task.metadata.dataset.get("name")
    if named in snapshot.configs:
        return str(named)
    return "default" if "default" in snapshot.configs else next(iter(snapshot.configs))


def _without_none(corpus: Dataset) -> Dataset:
    """Replace missing titles by "": mteb joins title and text, and fails on None."""
    if "title" not in corpus.column_names:
        return corpus
    column = corpus.data.column("title")
    if not column.null_count:
        return corpus
    titles = column.fill_null("").to_pylist()
    return corpus.remove_columns(["title"]).add_column("title", titles)
