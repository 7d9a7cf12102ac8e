"""Saved runs of bge-eval or any other tool as a first stage.

::

    results/runs/results/BAAI__bge-base-en-v1.5/<revision>/    a model's saved runs
    runs/bm25/SciFact.run, NFCorpus.trec.gz …                  TREC runs named by task
    runs/bm25-scifact.txt                                      one TREC run

A run that bge-eval saved has its model's name, revision, settings and prompts, so its results
are filed under that model. Another run is filed as ``runs/<name>``; its revision is a hash of its
content.
"""

from __future__ import annotations

import hashlib
import re
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from bge_eval.errors import DamagedError, MissingError, UsageError
from bge_eval.models.base import Model, model_meta
from bge_eval.models.kinds import Kind
from bge_eval.progress import Progress
from bge_eval.records import Run, SplitKey
from bge_eval.results.identity import Identity, packages
from bge_eval.results.record import RunRecord, find_record
from bge_eval.results.saved import read_meta
from bge_eval.results.trec import read_run
from bge_eval.search.engines import EXACT
from bge_eval.search.ranking import best

if TYPE_CHECKING:
    from datasets import Dataset
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.models import ModelMeta

_PREFIX = "run:"
"""Prefix of saved runs in ``--model``."""
_RUN_NAME = re.compile(r"(?P<stem>.+?)\.(run\.tsv|run\.txt|run|trec|txt|tsv)(\.gz)?")


def open_runs(
    place: Path, progress: Progress | None = None, option: str = "--first-stage"
) -> SavedRuns:
    """Return the runs of a file or folder, which are read when their task is evaluated.

    Args:
        place: a run file or a folder of run files.
        progress: receives a note of queries that a run lacks.
        option: what names the place, for messages.

    Raises:
        MissingError: there is no such file or folder, or it holds no run.
    """
    if not place.exists():
        raise MissingError(f"{option} {place}: there is no such file or folder.")
    place = place.resolve()
    folder = place if place.is_dir() else place.parent
    if not _run_files(folder) and place.is_dir():
        raise MissingError(
            f"{option} {place}: the folder holds no run. A run is a TREC file named by its"
            " task, such as SciFact.run or SciFact.run.tsv.gz."
        )
    meta_file = folder / "model_meta.json"
    meta = read_meta(folder) if meta_file.is_file() else {}
    # A reranked run is treated like one of another tool: it is no longer the model's own.
    retrieved = bool(meta) and "reranker" not in (meta.get("experiment_kwargs") or {})
    recorded = place.is_dir() or find_record(folder / f"{_label(place)}.json") is not None
    if retrieved and recorded:
        return RecordedRuns(folder, meta, progress)
    return TrecRuns(place, progress)


_OF_TASK = ("top_k", "drop_identical_ids")
"""Keys of an identity's ``search`` that the task decides, not the index."""


class SavedRuns(Model):
    """mteb's SearchProtocol over run files."""

    is_saved: ClassVar[bool] = True

    @abstractmethod
    def _file(self, task: str, key: SplitKey) -> Path:
        """Return the file that holds a run.

        Raises:
            MissingError: there is no run of this task.
        """

    def search(
        self,
        queries: Dataset,
        *,
        task_metadata: TaskMetadata,
        hf_split: str,
        hf_subset: str,
        top_k: int,
        **kwargs: Any,
    ) -> Run:
        """Return the saved run, ordered as trec_eval orders it and cut at ``top_k``.

        Raises:
            MissingError: there is no run of this task.
            DamagedError: the run is of other queries or documents.
        """
        corpus = self._take_corpus()
        task, path = task_metadata.name, self._file(task_metadata.name, (hf_subset, hf_split))
        run, wanted = read_run(path), list(queries["id"])
        absent = [query for query in wanted if query not in run]
        if len(absent) == len(wanted):
            raise DamagedError(
                f"{path} holds none of the {len(wanted)} queries of {task}: the task has"
                f" '{wanted[0]}', the run '{next(iter(run), '')}'."
            )
        if absent:
            self.progress.note(
                f"{task}: the run has no documents for {len(absent)} of {len(wanted)} queries;"
                " they score 0"
            )
        unknown = {document for query in wanted for document in run.get(query, {})}
        for batch in corpus.select_columns(["id"]).iter(10_000):
            unknown.difference_update(batch["id"])
        if unknown:
            raise DamagedError(
                f"{path} holds the document '{min(unknown)}', which the corpus of {task} lacks."
            )
        return {query: best(run.get(query, {}), top_k) for query in wanted}


class RecordedRuns(SavedRuns):
    """Runs that bge-eval saved, with a record of what made them."""

    def __init__(self, folder: Path, meta: Mapping[str, Any], progress: Progress | None) -> None:
        """Take a model's folder.

        Args:
            folder: the folder with ``model_meta.json``, results and runs.
            meta: the content of ``model_meta.json``.
            progress: receives a note of queries that a run lacks.
        """
        super().__init__(progress)
        self._folder = folder
        records = [find_record(path) for path in sorted(folder.glob("*.json"))]
        searches = [
            dict(record.identity.search) for record in records if record and record.identity
        ]
        kept = next(filter(None, searches), EXACT.identity())
        self._searched = {name: kept[name] for name in kept if name not in _OF_TASK}
        versions = [record.identity.packages for record in records if record and record.identity]
        self._packages = tuple(sorted({name for each in versions for name in each} - {*packages()}))
        self._own = {name: meta.get(name) for name in ("name", "revision", "experiment_kwargs")}

    @property
    def packages(self) -> tuple[str, ...]:
        """Return the packages that the model of the runs needs beside those of every run."""
        return self._packages

    @property
    def mteb_model_meta(self) -> ModelMeta:
        """Return the record of the model that made the runs."""
        return model_meta(self._own, framework=["PyTorch"])

    def identity(self, task: TaskMetadata) -> dict[str, Any]:
        """Return the identity of the model that made the run."""
        saved = self._identity(task.name)
        model = dict(saved.model)
        # Other versions of torch or faiss can retrieve other documents: another first stage.
        installed = packages(*self.packages).items()
        if any(saved.packages.get(name) != version for name, version in installed):
            model["retrieved_with"] = saved.packages
        return model

    @property
    def index_facts(self) -> Mapping[str, Any]:
        """Return the index that made the runs."""
        return self._searched

    def check_data(self, task: str, data: Mapping[str, Any]) -> None:
        """Compare the fingerprints of the run's data and the task's; see `Model.check_data`."""
        stored = self._identity(task).fingerprint
        if stored != str(data.get("fingerprint") or ""):
            raise UsageError(
                f"The run of {task} in {self._folder} was made on other data (fingerprint"
                f" {stored}) than those at hand ({data.get('fingerprint')})."
                " Give the data it was made on, or retrieve again with --model."
            )

    def _file(self, task: str, key: SplitKey) -> Path:
        for files in self._record(task).files:
            if files.key == key:
                return self._folder / files.run
        raise MissingError(f"--first-stage {self._folder} holds no run of {task}, {key[1]}.")

    def _identity(self, task: str) -> Identity:
        identity = self._record(task).identity
        if identity is None:
            raise _no_run(self._folder, task)
        return identity

    def _record(self, task: str) -> RunRecord:
        name = self.filed.get(task, task)
        record = find_record(self._folder / f"{name}.json")
        if record is None or not (record.files or record.aggregate_of):
            raise _no_run(self._folder, name)
        return record


class TrecRuns(SavedRuns):
    """TREC runs of any tool: one file, or a folder of files named by task."""

    def __init__(self, place: Path, progress: Progress | None) -> None:
        """Take a file or a folder.

        Args:
            place: a run, or a folder of runs.
            progress: receives a note of queries that a run lacks.
        """
        super().__init__(progress)
        self._files = [place] if place.is_file() else _run_files(place)
        self._place = place
        self._used: dict[Path, tuple[str, SplitKey]] = {}

    @property
    def mteb_model_meta(self) -> ModelMeta:
        """Return a record whose name and revision come from the files."""
        return model_meta(self._name())

    def identity(self, task: TaskMetadata) -> dict[str, Any]:
        """Return the content hashes of the files of a task (for an aggregate, only the name)."""
        if hasattr(task, "tasks"):
            return self._name()
        files = self._of(task.name)
        if not files:
            raise _no_run(self._place, task.name)
        return {**self._name(), "runs": {path.name: _digest([path])[:16] for path in files}}

    def _file(self, task: str, key: SplitKey) -> Path:
        subset, split = key
        files = self._of(task)
        # X.v2.run is no run of X: a longer name can be another task's.
        stems = (f"{task}.{subset}.{split}", f"{task}.{split}", task)
        matching = files if files == [self._place] else []
        for stem in stems if not matching else ():
            matching = matching or [path for path in files if _stem(path) == stem.casefold()]
        if len(matching) > 1:
            names = ", ".join(path.name for path in matching)
            raise UsageError(f"{self._place} holds several runs of {task}: {names}. Give one.")
        if not matching:
            raise MissingError(
                f"{self._place} holds no run of {task}, {subset}, {split}: expected"
                f" {' or '.join(f'{stem}.run' for stem in stems)}."
            )
        path = matching[0]
        if self._used.setdefault(path, (task, key)) != (task, key):
            raise UsageError(
                f"{path} would stand for two runs, {self._used[path]} and {(task, key)}. Give a"
                f" folder with {task}.<subset>.<split>.run for each."
            )
        return path

    def _of(self, task: str) -> list[Path]:
        if self._files == [self._place]:
            return self._files
        wanted = task.casefold()
        return [
            path
            for path in self._files
            if _stem(path) == wanted or _stem(path).startswith(f"{wanted}.")
        ]

    def _name(self) -> dict[str, Any]:
        name = self._place.name if self._place.is_dir() else _label(self._place)
        label = re.sub(r"[^\w.-]", "_", name)
        return {"name": f"runs/{label}", "revision": _digest(self._files)[:40]}


def run_file(folder: Path, task: str, key: SplitKey) -> Path | None:
    """Return the TREC run of a task in a folder, by its name; None if there is none.

    Args:
        folder: a folder of run files.
        task: mteb's task name.
        key: (subset, split).
    """
    subset, split = key
    files = _run_files(folder)
    for stem in (f"{task}.{subset}.{split}", f"{task}.{split}", task):
        for path in files:
            if _stem(path) == stem.casefold():
                return path
    return None


def _run_files(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if path.is_file()
        and _RUN_NAME.fullmatch(path.name)
        and not {".queries", ".qrels"} & set(path.suffixes)
    )


def _label(path: Path) -> str:
    """Return a run's name: ``SciFact.run.tsv.gz`` → ``SciFact``."""
    match = _RUN_NAME.fullmatch(path.name)
    return match["stem"] if match else path.name


def _stem(path: Path) -> str:
    return _label(path).casefold()


def _digest(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _no_run(place: Path, task: str) -> MissingError:
    folder = place if place.is_dir() else place.parent
    present = ", ".join(path.name for path in _run_files(folder)[:8]) or "nothing"
    return MissingError(
        f"--first-stage {place} holds no run of {task}. A run is named by its task, such as"
        f" {task}.run or {task}.run.tsv.gz; there is {present}."
    )


KIND = Kind(
    "saved runs",
    recognises=lambda name, options: name.startswith(_PREFIX),
    open=lambda name, options, progress: open_runs(
        Path(name.removeprefix(_PREFIX)).expanduser(), progress, "Saved run"
    ),
)
