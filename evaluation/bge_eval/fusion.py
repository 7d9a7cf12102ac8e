"""Saved runs as a model, and several of them fused into one.

A fusion reads the runs of its parts, so that another method or other weights cost no new
retrieval. The formulas are mteb's own (``mteb.models.hybrid_wrappers``): reciprocal rank fusion
with k = 60 (Cormack, Clarke and Büttcher, SIGIR 2009, doi:10.1145/1571941.1572114), sums of
scores scaled to [0, 1] for each query (min-max), and distribution-based scores
(arXiv:2410.20878).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bge_eval.errors import DamagedError, MissingError, UsageError
from bge_eval.progress import Progress
from bge_eval.records import Run
from bge_eval.results.store import read_record
from bge_eval.results.trec import read_run

if TYPE_CHECKING:
    from datasets import Dataset
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.models import ModelMeta

    from bge_eval.protocols import Model

PREFIX = "run:"
"""What ``--model`` begins with when saved runs are meant."""
RRF_K = 60
"""The constant of reciprocal rank fusion; the paper's."""

_ENDINGS = (".run.tsv.gz", ".run.tsv", ".tsv.gz", ".tsv", ".trec.gz", ".trec", ".run", ".txt")


class Fusion(StrEnum):
    """How the scores of several runs become one."""

    RRF = "rrf"
    MINMAX = "minmax"
    DBSF = "dbsf"


class SavedRuns:
    """Runs in files, behind mteb's SearchProtocol: nothing is searched, what is there is read."""

    def __init__(self, path: Path, *, progress: Progress | None = None) -> None:
        """Find the runs.

        Args:
            path: a TREC run file (six columns, plain or ``.gz``); a folder of them, each named
                by its task (``SciFact.run.tsv.gz``, ``SciFact.tsv``); or a model's folder of
                results as bge-eval writes it.
            progress: told of reading.

        Raises:
            MissingError: there is no such file or folder, or no run in it.
        """
        self.path = path
        self.progress = progress or Progress()
        self.task_prompts: dict[str, Mapping[str, str]] = {}
        self._files = _run_files(path)
        self._corpus: Dataset | None = None
        self._name, self._revision = _origin(path, self._files)

    def __str__(self) -> str:
        """Say where the runs are, for people."""
        return f"runs of {self._name} from {self.path}"

    @property
    def mteb_model_meta(self) -> ModelMeta:
        """Return mteb's record, under the name of the model whose runs these are if it is known."""
        return _meta("runs", self._name, self._revision)

    def identity(self, task: TaskMetadata) -> dict[str, Any]:
        """Return what the runs of one task come from: a digest, of a result's identity if known.

        Raises:
            MissingError: there is no run of the task.
        """
        record = read_record(self.path / f"{task.name}.json") if self.path.is_dir() else None
        if record is not None:
            model = record["identity"]["model"]
            name, revision = str(model["name"]), str(model["revision"])
            digest = str(record["identity_digest"])
        else:
            name, revision = self._name, self._revision
            digest = _digest(path.read_bytes() for path in self._of_task(task.name))[:16]
        return {"name": name, "revision": revision, "run": digest}

    def machine_settings(self) -> dict[str, Any]:
        """Return nothing: no model runs."""
        return {}

    def index(self, corpus: Dataset, **kwargs: Any) -> None:
        """Take the corpus, against which the runs are checked."""
        self._corpus = corpus

    def search(
        self,
        queries: Dataset,
        *,
        task_metadata: TaskMetadata,
        hf_split: str,
        hf_subset: str,
        top_k: int,
        top_ranked: Mapping[str, Sequence[str]] | None = None,
        **kwargs: Any,
    ) -> Run:
        """Return what the run file says of these queries.

        A query that the run lacks retrieved nothing.

        Raises:
            MissingError: there is no run of the task, split and subset.
            DamagedError: the run is of other queries or of another corpus.
        """
        path = self._of_part(task_metadata.name, hf_subset, hf_split)
        with self.progress.step("read runs"):
            run = read_run(path)
        wanted = list(queries["id"])
        found = [query for query in wanted if query in run]
        if not found:
            raise DamagedError(
                f"{path} has none of the {len(wanted)} queries of {task_metadata.name}"
                f" ({hf_split}); its first is '{next(iter(run), '')}', the task's '{wanted[0]}'."
            )
        documents = set(self._corpus["id"]) if self._corpus is not None else None
        self._corpus = None
        for query in found:
            foreign = set() if documents is None else run[query].keys() - documents
            if foreign:
                raise DamagedError(
                    f"{path}: query {query} has document '{min(foreign)}', which the corpus of"
                    f" {task_metadata.name} lacks. Is it a run of other data?"
                )
        return {query: best(run.get(query, {}), top_k) for query in wanted}

    def _of_task(self, task: str) -> list[Path]:
        if self.path.is_file():
            return [self.path]
        found = [path for path in self._files if path.name.startswith(f"{task}.")]
        if not found:
            raise MissingError(
                f"{self.path} holds no run of {task}: expected a file such as {task}.run.tsv.gz."
            )
        return found

    def _of_part(self, task: str, subset: str, split: str) -> Path:
        found = self._of_task(task)
        if len(found) == 1:
            return found[0]
        stems = (f"{task}.{subset}.{split}", task)
        for stem in stems:
            for path in found:
                if any(path.name == stem + ending for ending in _ENDINGS):
                    return path
        raise MissingError(
            f"{self.path} holds no run of {task}, subset {subset}, split {split}: expected"
            f" {stems[0]}.run.tsv.gz."
        )


class FusedModel:
    """Several models as one: their rankings are fused for every query."""

    def __init__(
        self,
        parts: Sequence[Model],
        method: Fusion,
        weights: Sequence[float] | None = None,
        *,
        progress: Progress | None = None,
    ) -> None:
        """Put models together.

        Args:
            parts: models or saved runs, two or more.
            method: how scores are fused.
            weights: one for each part; all count the same if None.
            progress: told of the fusion.

        Raises:
            UsageError: there is one part only, or the weights do not fit.
        """
        check_parts(len(parts), weights)
        self.progress = progress or Progress()
        self.task_prompts: dict[str, Mapping[str, str]] = {}
        self._parts = list(parts)
        self._method = method
        self._weights = [1.0] * len(parts) if weights is None else [float(w) for w in weights]
        self._meta = self._make_meta()

    def __str__(self) -> str:
        """Say what is fused and how, for people."""
        metas = [part.mteb_model_meta for part in self._parts]
        names = (
            f"{meta.name} × {weight:g}" for meta, weight in zip(metas, self._weights, strict=True)
        )
        return f"Fusion by {self._method}: {', '.join(names)}"

    @property
    def mteb_model_meta(self) -> ModelMeta:
        """Return mteb's record; its revision stands for the parts, the method and the weights."""
        return self._meta

    def identity(self, task: TaskMetadata) -> dict[str, Any]:
        """Return the method, the weights and the identity of every part."""
        constants = {"k": RRF_K} if self._method is Fusion.RRF else {}
        return {
            "name": self._meta.name,
            "revision": self._meta.revision,
            "fusion": str(self._method),
            **constants,
            "parts": [
                {**part.identity(task), "weight": weight}
                for part, weight in zip(self._parts, self._weights, strict=True)
            ],
        }

    def machine_settings(self) -> dict[str, Any]:
        """Return nothing: the parts ran before."""
        return {}

    def index(self, corpus: Dataset, **kwargs: Any) -> None:
        """Give the corpus to every part."""
        for part in self._parts:
            part.index(corpus, **kwargs)

    def search(
        self,
        queries: Dataset,
        *,
        task_metadata: TaskMetadata,
        hf_split: str,
        hf_subset: str,
        top_k: int,
        top_ranked: Mapping[str, Sequence[str]] | None = None,
        **kwargs: Any,
    ) -> Run:
        """Let every part search, and fuse what they found for each query.

        A document that a part did not retrieve gets nothing from it.
        """
        runs = [
            part.search(
                queries,
                task_metadata=task_metadata,
                hf_split=hf_split,
                hf_subset=hf_subset,
                top_k=top_k,
                top_ranked=top_ranked,
                **kwargs,
            )
            for part in self._parts
        ]
        fuse = _fuser(self._method)
        fused: Run = {}
        with self.progress.step("fuse", len(queries), "queries") as step:
            for query in queries["id"]:
                scores = fuse([run.get(query, {}) for run in runs], self._weights)
                fused[query] = best(scores, top_k)
                step.advance(1)
        return fused

    def _make_meta(self) -> ModelMeta:
        metas = [part.mteb_model_meta for part in self._parts]
        names = "+".join(str(meta.name).rsplit("/", 1)[-1] for meta in metas)
        parts = [
            [meta.name, meta.revision, meta.experiment_kwargs, weight]
            for meta, weight in zip(metas, self._weights, strict=True)
        ]
        content = json.dumps([self._method, RRF_K, parts], sort_keys=True, default=str)
        meta = _meta("fusion", f"{self._method}-{names}", _digest([content.encode()])[:40])
        if len(set(self._weights)) == 1:
            return meta
        weights = ",".join(f"{weight:g}" for weight in self._weights)
        return meta.model_copy(update={"experiment_kwargs": {"weights": weights}})


def check_parts(count: int, weights: Sequence[float] | None) -> None:
    """Check that there is something to fuse, and a weight for each part.

    Raises:
        UsageError: there is one part only, or the weights do not fit.
    """
    if count < 2:
        raise UsageError(
            "--fuse needs two models or more. Give --model several times, such as"
            " --fuse rrf --model bm25 --model BAAI/bge-base-en-v1.5."
        )
    if weights is not None and len(weights) != count:
        raise UsageError(
            f"--weights has {len(weights)} numbers for {count} models; it takes one for"
            " each, in the order of --model."
        )
    if weights is not None and (min(weights) < 0 or max(weights) <= 0):
        raise UsageError("--weights must not be negative, and not all be 0.")


def parse_weights(text: str) -> list[float]:
    """Read ``"1,0.5"``.

    Raises:
        UsageError: there is something else than numbers between commas.
    """
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise UsageError(
            f"--weights takes numbers with commas, such as 1,0.5, not '{text}'."
        ) from error


def best(scores: Mapping[str, float], k: int) -> dict[str, float]:
    """Keep the first k documents: by score, equal scores by descending id, as pytrec_eval."""
    ranked = sorted(scores, key=lambda doc: (scores[doc], doc), reverse=True)
    return {doc: scores[doc] for doc in ranked[:k]}


def _fuser(
    method: Fusion,
) -> Callable[[Sequence[Mapping[str, float]], Sequence[float]], Mapping[str, float]]:
    from mteb.models import hybrid_wrappers

    if method is Fusion.MINMAX:
        return hybrid_wrappers.fuse_relative_score_fusion
    if method is Fusion.DBSF:
        return hybrid_wrappers.fuse_dbsf
    return lambda scores, weights: hybrid_wrappers.fuse_rrf(scores, weights, rrf_k=RRF_K)


def _meta(organisation: str, name: str, revision: str) -> ModelMeta:
    from mteb.models import ModelMeta

    short = re.sub(r"[^\w.+-]", "_", name.rsplit("/", 1)[-1])
    return ModelMeta.create_empty(
        overwrites={
            "name": f"{organisation}/{short}",
            "revision": revision,
            "model_type": ["hybrid"],
            "use_instructions": False,
        }
    )


def _run_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise MissingError(
            f"There is no run at {path}. {PREFIX} takes a TREC run file, a folder of them named by"
            " task, or a model's folder below results/runs/results."
        )
    inside = sorted(
        each for each in path.iterdir() if each.name.endswith(_ENDINGS) and each.is_file()
    )
    found = [each for each in inside if ".queries." not in each.name and ".qrels." not in each.name]
    if not found:
        raise MissingError(
            f"{path} holds no runs: expected files such as SciFact.run.tsv.gz. A model's folder of"
            " results ends in its revision (results/runs/results/<model>/<revision>)."
        )
    return found


def _origin(path: Path, files: Sequence[Path]) -> tuple[str, str]:
    """Return the name and the revision of the model whose runs these are, as far as is known."""
    try:
        meta = json.loads((path / "model_meta.json").read_text(encoding="utf-8"))
        return str(meta["name"]), str(meta["revision"])
    except (OSError, ValueError, KeyError, TypeError):
        name = path.name
        for ending in _ENDINGS:
            name = name.removesuffix(ending)
        return name, _digest(file.read_bytes() for file in files)[:40]


def _digest(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()
