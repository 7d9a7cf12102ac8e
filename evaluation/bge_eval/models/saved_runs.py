"""Runs that were made before, by bge-eval or any other tool, in the place of a retriever.

::

    results/runs/results/BAAI__bge-base-en-v1.5/<revision>/    a model's saved runs
    runs/bm25/SciFact.run, NFCorpus.trec.gz …                  TREC runs named by task
    runs/bm25-scifact.txt                                      one TREC run

A saved run keeps its model's name, revision, settings and prompts, so what is made of it is
filed beside it. A foreign run is filed as ``runs/<name>``, its revision made from its content.
"""

from __future__ import annotations

import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bge_eval.errors import DamagedError, MissingError, UsageError
from bge_eval.progress import Progress
from bge_eval.records import Run, SplitKey
from bge_eval.results.identity import packages
from bge_eval.results.store import read_record
from bge_eval.results.trec import read_run
from bge_eval.search.ranking import best

if TYPE_CHECKING:
    from datasets import Dataset
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.models import ModelMeta

_RUN_NAME = re.compile(r"(?P<stem>.+?)\.(run\.tsv|run\.txt|run|trec|txt|tsv)(\.gz)?")


def given_runs(place: Path, progress: Progress | None = None) -> GivenRuns:
    """Look at what lies in a file or folder; runs are read when their task is evaluated.

    Args:
        place: a run file or a folder of run files.
        progress: told of queries that a run lacks.

    Raises:
        MissingError: there is no such file or folder, or it holds no run.
    """
    if not place.exists():
        raise MissingError(f"--first-stage {place}: there is no such file or folder.")
    place = place.resolve()
    folder = place if place.is_dir() else place.parent
    if not _run_files(folder) and place.is_dir():
        raise MissingError(
            f"--first-stage {place}: the folder holds no run. A run is a TREC file named by its"
            " task, such as SciFact.run or SciFact.run.tsv.gz."
        )
    meta_file = folder / "model_meta.json"
    meta = json.loads(meta_file.read_text(encoding="utf-8")) if meta_file.is_file() else {}
    # What a reranker has made is a first stage like any foreign run.
    plain = bool(meta) and "reranker" not in (meta.get("experiment_kwargs") or {})
    saved = place.is_dir() or read_record(folder / f"{_label(place)}.json") is not None
    if plain and saved:
        return SavedRuns(folder, meta, progress)
    return ForeignRuns(place, progress)


class GivenRuns(ABC):
    """mteb's SearchProtocol over run files."""

    packages: tuple[str, ...] = ()

    def __init__(self, progress: Progress | None) -> None:
        self.progress = progress or Progress()
        self.task_prompts: dict[str, Mapping[str, str]] = {}
        self._corpus: Dataset | None = None

    @property
    @abstractmethod
    def mteb_model_meta(self) -> ModelMeta:
        """Return the record under which results are filed."""

    @abstractmethod
    def identity(self, task: TaskMetadata) -> dict[str, Any]:
        """Return what made the run of a task.

        Raises:
            MissingError: there is no run of this task.
        """

    @abstractmethod
    def check_data(self, task: str, data: Mapping[str, Any]) -> None:
        """Refuse a run that is known to be of other data than those at hand."""

    @abstractmethod
    def _file(self, task: str, key: SplitKey) -> Path:
        """Return the file that holds a run."""

    def machine_settings(self) -> dict[str, Any]:
        """Return nothing: no model runs."""
        return {}

    def index(self, corpus: Dataset, **kwargs: Any) -> None:
        """Take the corpus, to check the run's documents against it."""
        self._corpus = corpus

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
        """Return the run as it was read, cut at ``top_k``: by score, as trec_eval orders.

        Raises:
            MissingError: there is no run of this task.
            DamagedError: the run is of other queries or documents.
        """
        assert self._corpus is not None, "mteb calls index() before search()"
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
        strange = {document for query in wanted for document in run.get(query, {})}
        for batch in self._corpus.select_columns(["id"]).iter(10_000):
            strange.difference_update(batch["id"])
        self._corpus = None
        if strange:
            raise DamagedError(
                f"{path} holds the document '{min(strange)}', which the corpus of {task} lacks."
            )
        return {query: best(run.get(query, {}), top_k) for query in wanted}


class SavedRuns(GivenRuns):
    """Runs that bge-eval saved, beside their results."""

    def __init__(self, folder: Path, meta: Mapping[str, Any], progress: Progress | None) -> None:
        """Take a model's folder.

        Args:
            folder: where ``model_meta.json``, results and runs lie.
            meta: the content of ``model_meta.json``.
            progress: told of queries that a run lacks.
        """
        super().__init__(progress)
        self._folder = folder
        records = [read_record(path) for path in sorted(folder.glob("*.json"))]
        made = [record["identity"].get("packages", {}) for record in records if record]
        self.packages = tuple(sorted({name for each in made for name in each} - {*packages()}))
        self._own = {name: meta.get(name) for name in ("name", "revision", "experiment_kwargs")}

    @property
    def mteb_model_meta(self) -> ModelMeta:
        """Return the record of the model that made the runs."""
        from mteb.models import ModelMeta
        from mteb.models.model_implementations import MODEL_REGISTRY

        registered = MODEL_REGISTRY.get(str(self._own["name"]))
        if registered is not None:
            return registered.model_copy(update=self._own, deep=True)
        return ModelMeta.create_empty(overwrites={**self._own, "framework": ["PyTorch"]})

    def identity(self, task: TaskMetadata) -> dict[str, Any]:
        """Return the identity of the model that made the run."""
        made = self._record(task.name)["identity"]
        model = dict(made["model"])
        # Other versions of torch or faiss may retrieve otherwise: then it is another first stage.
        if any(made["packages"].get(n) != found for n, found in packages(*self.packages).items()):
            model["retrieved_with"] = made["packages"]
        return model

    def check_data(self, task: str, data: Mapping[str, Any]) -> None:
        """Refuse a run of other data than those at hand.

        Raises:
            UsageError: it was made on other data.
        """
        theirs = self._record(task)["identity"]["data"]
        if theirs.get("fingerprint") != data.get("fingerprint"):
            raise UsageError(
                f"The run of {task} in {self._folder} was made on other data (fingerprint"
                f" {theirs.get('fingerprint')}) than those at hand ({data.get('fingerprint')})."
                " Give the data it was made on, or retrieve again with --model."
            )

    def _file(self, task: str, key: SplitKey) -> Path:
        for item in self._record(task)["files"]:
            if (item["subset"], item["split"]) == key:
                return self._folder / str(item["run"])
        raise MissingError(f"--first-stage {self._folder} holds no run of {task}, {key[1]}.")

    def _record(self, task: str) -> dict[str, Any]:
        record = read_record(self._folder / f"{task}.json")
        if record is None or not (record["files"] or record["aggregate_of"]):
            raise _no_run(self._folder, task)
        return record


class ForeignRuns(GivenRuns):
    """TREC runs of any tool: one file, or a folder of files named by task."""

    def __init__(self, place: Path, progress: Progress | None) -> None:
        """Take a file or a folder.

        Args:
            place: a run, or a folder of runs.
            progress: told of queries that a run lacks.
        """
        super().__init__(progress)
        self._files = [place] if place.is_file() else _run_files(place)
        self._place = place
        self._used: dict[Path, tuple[str, SplitKey]] = {}

    @property
    def mteb_model_meta(self) -> ModelMeta:
        """Return a record with a name and a revision made from the files."""
        from mteb.models import ModelMeta

        return ModelMeta.create_empty(overwrites=self._name())

    def identity(self, task: TaskMetadata) -> dict[str, Any]:
        """Return the content hashes of the files of a task (for an aggregate, only the name)."""
        if hasattr(task, "tasks"):
            return self._name()
        files = self._of(task.name)
        if not files:
            raise _no_run(self._place, task.name)
        return {**self._name(), "runs": {path.name: _digest([path])[:16] for path in files}}

    def check_data(self, task: str, data: Mapping[str, Any]) -> None:
        """Accept any: a foreign run does not say what it was made on."""

    def _file(self, task: str, key: SplitKey) -> Path:
        subset, split = key
        files = self._of(task)
        # X.v2.run is no run of X: other words behind a task's name may be another task's.
        stems = (f"{task}.{subset}.{split}", f"{task}.{split}", task)
        found = files if files == [self._place] else []
        for stem in stems if not found else ():
            found = found or [path for path in files if _stem(path) == stem.casefold()]
        if len(found) > 1:
            names = ", ".join(path.name for path in found)
            raise UsageError(f"{self._place} holds several runs of {task}: {names}. Give one.")
        if not found:
            raise MissingError(
                f"{self._place} holds no run of {task}, {subset}, {split}: expected"
                f" {' or '.join(f'{stem}.run' for stem in stems)}."
            )
        path = found[0]
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


def _run_files(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if path.is_file()
        and _RUN_NAME.fullmatch(path.name)
        and not {".queries", ".qrels"} & set(path.suffixes)
    )


def _label(path: Path) -> str:
    """Return what a run is named by: ``SciFact.run.tsv.gz`` → ``SciFact``."""
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
