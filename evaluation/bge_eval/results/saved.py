"""Saved results: search of folders, and files read on demand without mteb or torch."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from bge_eval.errors import DamagedError, MissingError
from bge_eval.records import Excerpts, Qrels, Run, SplitKey
from bge_eval.results.fields import Fields
from bge_eval.results.identity import Identity, stated
from bge_eval.results.label import read_label
from bge_eval.results.record import RunRecord, SideFiles, read_record, refuse_damaged
from bge_eval.results.trec import read_excerpts, read_heads, read_per_query, read_qrels, read_run

TOLERANCE = 1e-5
"""Largest difference between mteb's score of a task and the same score from our unrounded values.

mteb rounds retrieval measures to five decimals, an error of at most 5e-6, and an aggregate's score
is rounded again after the mean over its rounded parts: another 5e-6.
"""


@dataclass(frozen=True)
class SavedResult:
    """One task's result: mteb's JSON and the files beside it, read on first use.

    mteb's own results have no run.json; their `record` is empty and they have no runs.
    """

    path: Path
    """mteb's JSON, e.g. ``results/runs/results/org__model/<revision>/SciFact.json``."""

    @property
    def task(self) -> str:
        """Return mteb's task name."""
        return self.path.stem

    @cached_property
    def meta(self) -> dict[str, Any]:
        """Return mteb's record of the model (``model_meta.json``)."""
        return read_meta(self.path.parent)

    @cached_property
    def record(self) -> RunRecord:
        """Return the content of run.json; an empty record where there is none."""
        return read_record(self.path)

    @cached_property
    def scores(self) -> dict[str, list[dict[str, Any]]]:
        """Return mteb's scores: split → one dictionary for each subset."""
        return read_scores(self.path, self.record)

    def main_score(self) -> float:
        """Return the mean of the main scores of all splits and subsets, as mteb reports it."""
        values = [float(entry["main_score"]) for part in self.scores.values() for entry in part]
        return sum(values) / len(values)

    @property
    def identity(self) -> Identity | None:
        """Return the run's identity, or None if it is not recorded."""
        return self.record.identity

    @property
    def model(self) -> str:
        """Return ``org/model``."""
        return str(self.meta.get("name", ""))

    @property
    def experiment(self) -> dict[str, Any]:
        """Return the settings that are not the model's own, a reranker among them."""
        return dict(self.meta.get("experiment_kwargs") or {})

    @property
    def label(self) -> str:
        """Return the row's name for people, e.g. ``org/model [dtype=bfloat16] + reranker``.

        A label of the user's own (``run --label``) takes its place.
        """
        if own := read_label(self.path.parent):
            return own
        experiment = self.experiment
        reranker = experiment.pop("reranker", None)
        experiment.pop("rerank_top_k", None)
        settings = ", ".join(stated(name, experiment[name]) for name in sorted(experiment))
        label = f"{self.model} [{settings}]" if settings else self.model
        return f"{label} + {str(reranker).split('@')[0]}" if reranker else label

    @property
    def keys(self) -> list[SplitKey]:
        """Return (subset, split) of every saved run; none for tasks that search nothing."""
        return list(self._files)

    def parts(self) -> list[SavedResult]:
        """Return the results that an aggregate averages, existing or not; none for other tasks."""
        return [self.beside(task) for task in self.record.aggregate_of]

    def beside(self, task: str) -> SavedResult:
        """Return the same model's result on another task, existing or not."""
        return self if task == self.task else SavedResult(self.path.with_name(f"{task}.json"))

    def runs(self) -> list[SavedRun]:
        """Return the runs that the score averages, with weights; an aggregate's parts' runs.

        Raises:
            MissingError: the result of a part does not exist.
        """
        parts = self.parts()
        for part in parts:
            if not part.path.is_file():
                raise MissingError(
                    f"{self.task} is the mean over {len(parts)} tasks, and {part.path} does not"
                    " exist."
                )
        results = parts or [self]
        return [
            SavedRun(result, key, 1 / len(results) / len(result.keys))
            for result in results
            for key in result.keys
        ]

    def run(self, part: SplitKey) -> Run:
        """Return the run that was scored."""
        return read_run(self._file(part, "run"))

    def heads(
        self, part: SplitKey, depth: int, qrels: Qrels
    ) -> dict[str, tuple[list[str], dict[str, int]]]:
        """Return every query's first documents, and the ranks of its relevant ones."""
        return read_heads(self._file(part, "run"), depth, qrels)

    def qrels(self, part: SplitKey) -> Qrels:
        """Return the judgements that the run was scored with."""
        return read_qrels(self._file(part, "qrels"))

    def per_query(self, part: SplitKey) -> tuple[list[str], dict[str, list[float]]]:
        """Return the names of the per-query measures, and query id → their values."""
        return read_per_query(self._file(part, "queries"))

    def items(self) -> dict[SplitKey, tuple[list[str], dict[str, list[float]]]]:
        """Return the saved pairs or texts of every split and subset.

        Returns:
            (subset, split) → the columns' names, and item → its values; {} if none are saved.
        """
        files = {each.key: self.path.parent / each.name for each in self.record.items}
        if not all(path.is_file() for path in files.values()):
            return {}
        return {part: read_per_query(path) for part, path in files.items()}

    def texts(self, part: SplitKey) -> Excerpts:
        """Return the excerpts of queries and documents; empty if none are saved."""
        name = self._files[part].texts
        path = self.path.parent / name if name else None
        # The owner of a confidential collection may have deleted them.
        if path is None or not path.is_file():
            return Excerpts()
        refuse_damaged(self.path, name, self.record)
        return read_excerpts(path)

    @cached_property
    def _files(self) -> dict[SplitKey, SideFiles]:
        return {files.key: files for files in self.record.files}

    def _file(self, part: SplitKey, kind: str) -> Path:
        files = self._files.get(part)
        name: str = getattr(files, kind) if files else ""
        path = self.path.parent / name if name else None
        if path is None or not path.is_file():
            raise MissingError(
                f"{self.path} has no file of {kind} for {'/'.join(part)} beside it. Run the task"
                " again with --overwrite to save one."
            )
        refuse_damaged(self.path, name, self.record)
        return path


@dataclass(frozen=True, slots=True)
class SavedRun:
    """One saved run of a task, or of one of its splits and subsets."""

    result: SavedResult
    """The result that the run is saved with; of an aggregate, the result of one of its parts."""
    key: SplitKey
    """(subset, split)."""
    weight: float
    """Weight of the run's mean in the score; the weights of a result's runs sum to 1."""

    @property
    def name(self) -> str:
        """Return task, subset and split, e.g. "XQuADRetrieval/zh/validation"."""
        return "/".join((self.result.task, *self.key))


def find_results(folders: Iterable[Path]) -> list[Path]:
    """Return every result file in some output folders (or single results).

    Raises:
        MissingError: a folder does not exist, or holds no results.
    """
    results: list[Path] = []
    for folder in folders:
        if folder.is_file():
            results.append(folder)
            continue
        root = folder / "results" if (folder / "results").is_dir() else folder
        inside = [
            path
            for meta in sorted(root.rglob("model_meta.json"), key=lambda path: path.parent)
            if "replaced" not in meta.relative_to(root).parts
            for path in sorted(meta.parent.glob("*.json"))
            if path.name not in ("model_meta.json", "run.json")
        ]
        if not inside:
            problem = "holds no results" if folder.is_dir() else "does not exist"
            raise MissingError(
                f"{folder} {problem}. `bge-eval run --output {folder}` puts results there;"
                " without --output they are in results/runs."
            )
        results += inside
    return list(dict.fromkeys(results))


def read_scores(path: Path, record: RunRecord) -> dict[str, list[dict[str, Any]]]:
    """Return mteb's scores in a result file: split → one dictionary for each subset.

    Args:
        path: mteb's JSON.
        record: the run.json of the result, with the checksum.

    Raises:
        DamagedError: the file is not readable, its checksum does not match, or a main score is not
            a number.
    """
    refuse_damaged(path, path.name, record)
    scores: Any = read_json(path).get("scores")
    whole = isinstance(scores, dict) and all(isinstance(part, list) for part in scores.values())
    entries = [entry for part in scores.values() for entry in part] if whole else []
    if not entries or not all(isinstance(entry, dict) for entry in entries):
        raise DamagedError(
            f"{path} is no result of mteb's: expected scores of each split, a list of objects."
        )
    for entry in entries:
        main = entry.get("main_score")  # null and NaN stand for a missing score
        number = isinstance(main, int | float) and not isinstance(main, bool)
        if main is not None and (not number or math.isinf(main)):
            raise DamagedError(
                f"{path}: main_score is {json.dumps(main)[:40]}, expected a number. Run the task"
                " again with --overwrite."
            )
    checked: dict[str, list[dict[str, Any]]] = scores
    return checked


def read_meta(folder: Path) -> dict[str, Any]:
    """Return mteb's record of the model in a folder of results.

    Raises:
        DamagedError: the file is not readable, or its name, revision or settings are missing.
    """
    fields = Fields(folder / "model_meta.json", read_json(folder / "model_meta.json"))
    if not fields.text("name"):
        raise DamagedError(f"{fields.path}: the model's name is missing.")
    fields.text("revision")
    fields.mapping("experiment_kwargs")
    return fields.values


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        DamagedError: the file is not readable, or holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedError(f"{path} is no readable result ({error}).") from error
    if not isinstance(content, dict):
        raise DamagedError(f"{path} is no result file: expected a JSON object.")
    return content
