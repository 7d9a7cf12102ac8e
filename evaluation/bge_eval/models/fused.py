"""Several models fused into one.

A fusion reads the runs of its parts: another method or other weights need no new retrieval. The
formulas are mteb's own (``mteb.models.hybrid_wrappers``): reciprocal rank fusion with k = 60
(Cormack, Clarke and Büttcher, SIGIR 2009, doi:10.1145/1571941.1572114), sums of scores scaled to
[0, 1] for each query (min-max), and distribution-based scores (arXiv:2410.20878).
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from bge_eval.errors import UsageError
from bge_eval.models.base import Model, model_meta
from bge_eval.progress import Progress
from bge_eval.records import Run
from bge_eval.results.identity import index_name, packages
from bge_eval.search.engines import EXACT
from bge_eval.search.ranking import best

if TYPE_CHECKING:
    from datasets import Dataset
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.models import ModelMeta

RRF_K = 60
"""The constant of reciprocal rank fusion; the paper's."""


class Fusion(StrEnum):
    """How the scores of several runs are combined."""

    RRF = "rrf"
    MINMAX = "minmax"
    DBSF = "dbsf"


class FusedModel(Model):
    """Several models whose rankings are fused for every query."""

    def __init__(
        self,
        parts: Sequence[Model],
        method: Fusion,
        weights: Sequence[float] | None = None,
        *,
        progress: Progress | None = None,
    ) -> None:
        """Check the parts and their weights.

        Args:
            parts: models or saved runs, two or more.
            method: how scores are fused.
            weights: one for each part; None gives all the same weight.
            progress: receives the steps of the fusion.

        Raises:
            UsageError: there is one part only, or the weights do not fit.
        """
        check_parts(len(parts), weights)
        super().__init__(progress)
        self._parts = list(parts)
        self._method = method
        self._weights = [1.0] * len(parts) if weights is None else [float(w) for w in weights]
        self._meta = self._make_meta()

    def introduction(self) -> tuple[str, ...]:
        """Return the method, and the parts with their weights."""
        metas = [part.mteb_model_meta for part in self._parts]
        names = (
            f"{meta.name} × {weight:g}" for meta, weight in zip(metas, self._weights, strict=True)
        )
        return (f"Fusion by {self._method}: {', '.join(names)}",)

    @property
    def mteb_model_meta(self) -> ModelMeta:
        """Return mteb's record; its revision is a digest of parts, method and weights."""
        return self._meta

    def identity(self, task: TaskMetadata) -> dict[str, Any]:
        """Return the method, and every part with its weight and a digest of its identity."""
        constants = {"k": RRF_K} if self._method is Fusion.RRF else {}
        return {
            "name": self._meta.name,
            "revision": self._meta.revision,
            "fusion": str(self._method),
            **constants,
            "parts": [
                self._part(part.identity(task), part.packages, weight)
                for part, weight in zip(self._parts, self._weights, strict=True)
            ],
        }

    @property
    def index_facts(self) -> Mapping[str, Any]:
        """Return the exact search, or where a part's is another one the searches of all parts."""
        facts = [dict(part.index_facts) for part in self._parts]
        if all(each == EXACT.identity() for each in facts):
            return EXACT.identity()
        return {"index": "+".join(map(index_name, facts)), "parts": facts}

    def check_data(self, task: str, data: Mapping[str, Any]) -> None:
        """Check the data of every part; see `Model.check_data`."""
        for part in self._parts:
            part.check_data(task, data)

    def begin(self, task: str, prompts: Mapping[str, str], filed: str) -> None:
        """Let every part take what a task states of itself; see `Model.begin`."""
        super().begin(task, prompts, filed)
        for part in self._parts:
            part.begin(task, prompts, filed)

    @staticmethod
    def _part(identity: dict[str, Any], own: tuple[str, ...], weight: float) -> dict[str, Any]:
        whole = {**identity, "packages": packages(*own)} if own else identity
        content = json.dumps(whole, sort_keys=True, default=str)
        name, revision = identity["name"], identity["revision"]
        digest = _digest(content)[:16]
        return {"name": name, "revision": revision, "identity": digest, "weight": weight}

    def index(self, corpus: Dataset, **kwargs: Any) -> None:
        """Pass the corpus to every part."""
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
        """Let every part search, and fuse the rankings of each query.

        A document gets no score from a part that did not retrieve it.
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
        short = re.sub(r"[^\w.+-]", "_", f"{self._method}-{names}")
        meta = model_meta(
            {
                "name": f"fusion/{short}",
                "revision": _digest(content)[:40],
                "model_type": ["hybrid"],
                "use_instructions": False,
            }
        )
        experiment = {}
        if len(set(self._weights)) > 1:
            experiment["weights"] = ",".join(f"{weight:g}" for weight in self._weights)
        if self.index_facts != EXACT.identity():
            experiment["index"] = str(self.index_facts["index"])
        return meta.model_copy(update={"experiment_kwargs": experiment}) if experiment else meta


def check_parts(count: int, weights: Sequence[float] | None) -> None:
    """Check that there are two parts or more, and a weight for each.

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
        UsageError: the text is not numbers with commas.
    """
    try:
        weights = [float(part) for part in text.split(",")]
    except ValueError:
        weights = []
    if not weights or not all(map(math.isfinite, weights)):
        raise UsageError(f"--weights takes numbers with commas, such as 1,0.5, not '{text}'.")
    return weights


def _fuser(
    method: Fusion,
) -> Callable[[Sequence[Mapping[str, float]], Sequence[float]], Mapping[str, float]]:
    from mteb.models import hybrid_wrappers

    if method is Fusion.MINMAX:
        return hybrid_wrappers.fuse_relative_score_fusion
    if method is Fusion.DBSF:
        return hybrid_wrappers.fuse_dbsf
    return lambda scores, weights: hybrid_wrappers.fuse_rrf(scores, weights, rrf_k=RRF_K)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
