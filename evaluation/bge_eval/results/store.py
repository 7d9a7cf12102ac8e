"""The output folder: a folder that mteb's ``ResultCache`` opens, with further records.

::

    <output>/results/<org__model>/<revision>/[experiments/<settings>/]
        model_meta.json          mteb's record of the model
        run_settings.jsonl       mteb's record of versions
        SciFact.json             mteb's result; written last, it marks a complete result
        SciFact.run.tsv.gz       the TREC run that was scored
        SciFact.queries.tsv.gz   nDCG@10, RR@10 and R@100 of every query
        SciFact.qrels.tsv.gz     the judgements it was scored with
        SciFact.texts.jsonl.gz   excerpts of the queries, and of relevant and top documents
        SciFact/run.json         identity, versions, hardware and seconds of every phase
        STS12.items.tsv.gz       gold score and similarity of every pair; label and predictions of
                                 every text in classification

mteb takes every ``*.json`` beside ``model_meta.json`` for a result, which is why ``run.json``
is one folder below. A task with several splits or subsets has one run file for each. A cut of a
task has its own name (`bge_eval.results.cut`).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bge_eval.errors import DamagedError, without_home
from bge_eval.progress import Profile
from bge_eval.records import Excerpts, Qrels, Run, SplitKey
from bge_eval.results.environment import environment, peak_memory
from bge_eval.results.identity import Identity, differences
from bge_eval.results.locks import storage
from bge_eval.results.record import (
    ItemFile,
    RunRecord,
    SideFiles,
    file_checksum,
    find_record,
    read_record,
    write_record,
)
from bge_eval.results.staging import staging_folder
from bge_eval.results.trec import (
    read_run,
    write_excerpts,
    write_per_query,
    write_qrels,
    write_run,
)

if TYPE_CHECKING:
    from mteb.models import ModelMeta
    from mteb.results import TaskResult

SIDE_FILES = {
    "run": ".run.tsv.gz",
    "queries": ".queries.tsv.gz",
    "qrels": ".qrels.tsv.gz",
    "texts": ".texts.jsonl.gz",
}
"""Kind of file beside a result → the ending of its name."""
ITEMS = ".items.tsv.gz"
"""The ending of a file of pairs or texts."""


@dataclass(frozen=True, slots=True)
class Items:
    """The items of one split and subset: pairs of texts, or texts to classify."""

    kind: str
    """"pairs" or "texts"."""
    columns: tuple[str, ...]
    """The gold value ("gold"), then the model's values of an item."""
    rows: Mapping[str, Sequence[float]]
    """The item's number in the data, from "0" → its values; labels are numbered."""


@dataclass(frozen=True, slots=True)
class TaskOutput:
    """Everything that the evaluation of one task produced besides mteb's scores."""

    identity: Identity
    """Everything that the scores depend on."""
    runs: Mapping[SplitKey, Run] = field(default_factory=dict)
    """The runs that were scored."""
    measures: tuple[str, ...] = ()
    """The per-query measures."""
    per_query: Mapping[SplitKey, Mapping[str, Sequence[float]]] = field(default_factory=dict)
    """Query id → values of those measures, for every run."""
    qrels: Mapping[SplitKey, Qrels] = field(default_factory=dict)
    """The judgements that every run was scored with."""
    texts: Mapping[SplitKey, Excerpts] = field(default_factory=dict)
    """Excerpts of every run's queries and documents."""
    items: Mapping[SplitKey, Items] = field(default_factory=dict)
    """The pairs or texts of a task that searches nothing."""
    origin: str = ""
    """Folder or repository of the data, for people."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Device and batch size: they change the time, not the score."""
    profile: Profile | None = None
    """Seconds, items and tokens of every phase; None for an aggregate."""
    aggregate_of: tuple[str, ...] = ()
    """For an aggregate, the tasks whose scores it averages."""
    task_type: str = ""
    """mteb's task type, e.g. "Retrieval"."""
    main_measure: str = ""
    """mteb's key of the task's main score, e.g. "ndcg_at_10"."""


class ResultStore:
    """Reads and writes one output folder."""

    def __init__(self, output: Path) -> None:
        """Use a folder, created when the first result is saved.

        Args:
            output: the folder given to ``--output``.
        """
        self.output = output

    def result_path(self, meta: ModelMeta, task: str) -> Path:
        """Return mteb's path of a model's result on a task, by the name it is filed under."""
        from mteb.cache import ResultCache

        with storage(self.output):  # mteb creates the folder
            return ResultCache(self.output).get_task_result_path(task_name=task, model_name=meta)

    def find(
        self,
        meta: ModelMeta,
        identity: Identity,
        note: Callable[[str], None] = lambda text: None,
    ) -> Path | None:
        """Return the complete, undamaged result of exactly this identity, or None.

        Args:
            meta: mteb's record of the model.
            identity: everything that the scores depend on.
            note: receives a message that names a damaged file.
        """
        if not self.output.is_dir():  # mteb's cache would create it
            return None
        for path in self._candidates(meta, identity):
            record = find_record(path, note)
            if record is not None and record.identity_digest == identity.digest:
                return path
        return None

    def _candidates(self, meta: ModelMeta, identity: Identity) -> Iterator[Path]:
        """Yield the possible paths of a result of this identity."""
        yield self.result_path(meta, identity.filed)
        experiment = dict(meta.experiment_kwargs or {})
        backend = identity.model.get("backend")
        if backend is not None and "backend" not in experiment:
            # Version 0.1.0 put a backend that it selected itself into the folder's name.
            older = meta.model_copy(
                update={"experiment_kwargs": {**experiment, "backend": backend}}
            )
            yield self.result_path(older, identity.filed)

    def changed_since(self, meta: ModelMeta, identity: Identity) -> list[str]:
        """Return the fields in which the stored result's identity differs; [] without one."""
        record = find_record(self.result_path(meta, identity.filed))
        stored = record.identity if record else None
        return differences(identity.as_dict(), stored.as_dict()) if stored else []

    def load_runs(self, path: Path) -> dict[SplitKey, Run]:
        """Read the runs beside a complete result."""
        record = find_record(path)
        assert record is not None, "find() returned this result"
        return {files.key: read_run(path.parent / files.run) for files in record.files}

    def save(self, meta: ModelMeta, result: TaskResult, output: TaskOutput) -> Path:
        """Save a result with its records; an earlier result is moved to ``<output>/replaced/``.

        All files are written to a staging folder first. Then the earlier result is moved away,
        the records are moved in, and mteb's JSON last: if it exists, the result is complete.

        Returns:
            The path of mteb's JSON.

        Raises:
            StorageError: the folder cannot be written; what it holds is as it was.
        """
        target = self.result_path(meta, output.identity.filed)
        with storage(self.output), staging_folder(self.output, target.parent) as staging:
            self._save(target, staging, meta, result, output)
        return target

    def _save(
        self,
        target: Path,
        staging: Path,
        meta: ModelMeta,
        result: TaskResult,
        output: TaskOutput,
    ) -> None:
        from mteb.cache import ResultCache

        task = output.identity.filed
        target.parent.mkdir(parents=True, exist_ok=True)
        staged_cache = ResultCache(staging)
        staged = staged_cache.get_task_result_path(task_name=task, model_name=meta)
        staged.parent.mkdir(parents=True, exist_ok=True)
        settings = target.parent / "run_settings.jsonl"
        if settings.is_file():
            shutil.copy2(settings, staged.parent)
        staged_cache.save_to_cache(result.model_copy(update={"task_name": task}), meta)
        _write_files(staged.parent, task, output)
        # A task's folder may have a dot in its name (STSBenchmark.v2): files only.
        files = [path for path in staged.parent.rglob("*") if path.is_file()]
        for path in files:
            _sync(path)
        self._set_aside(target)
        (target.parent / task).mkdir(exist_ok=True)
        names = [path.relative_to(staged.parent) for path in files]
        for name in sorted(names, key=lambda name: name == Path(staged.name)):
            (staged.parent / name).replace(target.parent / name)

    def _set_aside(self, target: Path) -> None:
        """Move an earlier result of another identity to ``<output>/replaced/``."""
        record = _readable_record(target)
        # Exact names: "STSBenchmark.*" would match STSBenchmark.v2 too.
        names = [target.name, target.stem]
        if record is None:  # damaged, or not complete
            names += [f"{target.stem}{end}" for end in SIDE_FILES.values()]
        for files in record.files if record else ():
            names += filter(None, (files.run, files.queries, files.qrels, files.texts))
        names += [each.name for each in record.items] if record else []
        old = [path for path in (target.parent / name for name in names) if path.exists()]
        if not old:
            return
        digest = (record.identity_digest if record else "") or "incomplete"
        place = target.parent.relative_to(self.output / "results") / f"{target.stem}-{digest}"
        aside = self.output / "replaced" / place
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        # The JSON first: without it the other files do not count as a result.
        for path in sorted(old, key=lambda path: path != target):
            shutil.move(path, aside / path.name)


def _readable_record(target: Path) -> RunRecord | None:
    """Return the record of an earlier result, or None without one that can be read."""
    try:
        return read_record(target) if target.is_file() else None
    except DamagedError:
        return None


def _write_files(folder: Path, task: str, output: TaskOutput) -> None:
    """Write the files of one task beside mteb's result."""
    files = []
    for (subset, split), run in output.runs.items():
        stem = task if len(output.runs) == 1 else f"{task}.{subset}.{split}"
        key = (subset, split)
        names = SideFiles(*key, **{kind: f"{stem}{end}" for kind, end in SIDE_FILES.items()})
        files.append(names)
        write_run(folder / names.run, run, output.identity.model["name"])
        write_per_query(folder / names.queries, output.measures, output.per_query[key])
        write_qrels(folder / names.qrels, output.qrels[key])
        write_excerpts(folder / names.texts, output.texts[key])
    item_files = []
    for (subset, split), items in output.items.items():
        stem = task if len(output.items) == 1 else f"{task}.{subset}.{split}"
        item_files.append(ItemFile(subset, split, items.kind, f"{stem}{ITEMS}"))
        write_per_query(folder / item_files[-1].name, items.columns, items.rows, head="item")
    record = RunRecord(
        identity=output.identity,
        identity_digest=output.identity.digest,
        task_type=output.task_type,
        main_measure=output.main_measure,
        aggregate_of=output.aggregate_of,
        data_origin=without_home(output.origin),
        settings=output.settings,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        environment=environment(),
        memory=peak_memory(),
        profile=output.profile,
        files=tuple(files),
        items=tuple(item_files),
        checksums={path.name: file_checksum(path) for path in sorted(folder.glob(f"{task}.*"))},
    )
    (folder / task).mkdir()
    write_record(folder / task, record)


def _sync(path: Path) -> None:
    """Wait until a file is on the disk: a crash of the machine must not leave it empty."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
