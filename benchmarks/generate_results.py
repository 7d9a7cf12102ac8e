"""Generate result folders at the size of a benchmark: invented systems, real tasks.

    python benchmarks/generate_results.py /tmp/board                 # 15 systems × mteb-en
    python benchmarks/generate_results.py /tmp/deep --systems 10 --tasks beir --queries 10000

The results are in the format of ``bge-eval run`` and are written by the same functions. Scores of
retrieval tasks are those of the generated runs; the other tasks' scores are drawn. Each system has
a strength of its own, each task and each query a difficulty that all systems share, so that
comparisons of the systems are as dependent as real ones. The same arguments give the same files,
times and versions aside.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bge_eval.measures.measure import parse_measures
from bge_eval.measures.mteb_keys import mteb_key
from bge_eval.measures.per_query import PER_QUERY, per_query
from bge_eval.progress import Profile
from bge_eval.records import Excerpt, Excerpts, Qrels, Run, SplitKey
from bge_eval.results.identity import Identity, packages
from bge_eval.results.store import ResultStore, TaskOutput
from bge_eval.suites.catalogue import PlannedTask, plan

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask
    from mteb.models import ModelMeta

_MEASURES = parse_measures(["nDCG@10 RR@10 R@10 R@100 R@1000 AP@100 AP@1000 P@10 Success@10"])
_WORDS = ("amber", "birch", "canal", "delta", "ember", "fjord", "grove", "haven", "inlet", "jetty")
_OTHER_KEYS = {
    "STS": ("cosine_spearman", "cosine_pearson"),
    "PairClassification": ("max_ap", "cosine_ap"),
    "Classification": ("accuracy", "f1"),
    "Clustering": ("v_measure",),
    "Summarization": ("cosine_spearman",),
}


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is generated."""

    systems: int = 15
    """Number of systems, the best first."""
    queries: int = 100
    """Judged queries of every subset of a retrieval task."""
    documents: int = 20
    """Documents of every query's list."""
    texts: bool = True
    """Whether excerpts of queries and documents are written."""


def generate_results(
    folder: Path,
    tasks: Sequence[str] = ("mteb-en",),
    sizes: Sizes | None = None,
    *,
    subsets: Sequence[str] = (),
    seed: int = 0,
    gap: float = 0.1,
    prefix: str = "generated/system",
) -> list[Path]:
    """Write the results of invented systems on real tasks.

    Args:
        folder: the output folder, as ``bge-eval run --output`` has it.
        tasks: suites and tasks, as ``bge-eval run --tasks`` takes them.
        sizes: numbers of systems, queries and documents.
        subsets: only these subsets of tasks that have several.
        seed: another seed gives other systems.
        gap: difference in strength of two neighbouring systems, in standard deviations of a
            document's score; 0 for systems that differ by chance alone.
        prefix: the systems' names, before their number.

    Returns:
        The result files, system by system.
    """
    sizes = sizes or Sizes()
    planned = plan(list(tasks), list(subsets))
    paths = []
    for system in range(sizes.systems):
        writer = _System(ResultStore(folder), system, sizes, seed, gap, prefix)
        paths += [writer.save(task) for task in planned]
    return paths


@dataclass(frozen=True, slots=True)
class _System:
    """One invented system."""

    store: ResultStore
    """The output folder."""
    number: int
    """Its number, 0 for the best."""
    sizes: Sizes
    """How much is generated."""
    seed: int
    """The seed of all systems."""
    gap: float
    """Difference in strength to its neighbours."""
    prefix: str
    """Its name, before the number."""

    @property
    def meta(self) -> ModelMeta:
        """mteb's record of the system."""
        from mteb.models import ModelMeta

        return ModelMeta.create_empty(
            {
                "name": f"{self.prefix}-{self.number + 1:02d}",
                "revision": f"{self.number + 1:08x}",
                "n_parameters": 22_000_000 * (1 + self.number % 5),
                "embed_dim": 384 * (1 + self.number % 3),
            }
        )

    def save(self, planned: PlannedTask) -> Path:
        """Draw and save the result of one task, of an aggregate after those of its parts."""
        from mteb.results import TaskResult

        from bge_eval.evaluation.judge import average, searches

        task = planned.task
        if planned.parts:
            paths = [self.save(part) for part in planned.parts]
            parts = tuple(part.name for part in planned.parts)
            output = self._output(task, aggregate_of=parts)
            return self.store.save(self.meta, average(task, paths), output)
        scores: dict[str, dict[str, Any]] = {split: {} for split in task.eval_splits}
        keys = [(subset, split) for split in task.eval_splits for subset in task.hf_subsets]
        drawn = {key: self._search(task, key) for key in keys} if searches(task) else {}
        for subset, split in keys:
            run, qrels = drawn.get((subset, split), ({}, {}))
            values = _mean_scores(run, qrels) if run else self._scores(task, subset)
            values["main_score"] = values.get(task.metadata.main_score, next(iter(values.values())))
            scores[split][subset] = values
        result = TaskResult.from_task_results(task, scores, evaluation_time=1.0)
        output = self._output(
            task,
            runs={key: run for key, (run, _) in drawn.items()},
            measures=tuple(map(str, PER_QUERY)),
            per_query={key: per_query(run, qrels) for key, (run, qrels) in drawn.items()},
            qrels={key: qrels for key, (_, qrels) in drawn.items()},
            texts={
                key: _texts(run, qrels) if self.sizes.texts else Excerpts()
                for key, (run, qrels) in drawn.items()
            },
            profile=self._profile(len(keys), searched=bool(drawn)),
        )
        return self.store.save(self.meta, result, output)

    def _output(self, task: AbsTask, **fields: Any) -> TaskOutput:
        identity = Identity(
            task=task.metadata.name,
            task_revision=str(task.metadata.dataset.get("revision", "")),
            model={"name": self.meta.name, "revision": self.meta.revision, "dtype": "float32"},
            data={"layout": "generated", "seed": self.seed, "queries": self.sizes.queries}
            | {"splits": list(task.eval_splits), "subsets": list(task.hf_subsets)},
            search={"index": "exact", "top_k": self.sizes.documents} if fields.get("runs") else {},
            packages=packages(),
        )
        return TaskOutput(
            identity,
            settings={"device": "cpu", "parameters": self.meta.n_parameters}
            | {"dimension": self.meta.embed_dim},
            task_type=task.metadata.type,
            main_measure=task.metadata.main_score,
            **fields,
        )

    def _search(self, task: AbsTask, key: SplitKey) -> tuple[Run, Qrels]:
        """Draw the run of one subset and split, and its judgements.

        A document's score is its own, the same for all systems, plus the system's noise; relevant
        documents have an advantage by the system's strength and the query's difficulty.
        """
        queries, documents = self.sizes.queries, self.sizes.documents
        shared = _generator(self.seed, task.metadata.name, *key)
        relevant = shared.integers(1, min(4, documents), queries, endpoint=True)
        easy = shared.normal(1.0 + shared.normal(0.0, 0.5), 1.0, queries)
        common = shared.normal(0.0, 1.0, (queries, documents))
        own = _generator(self.seed, task.metadata.name, *key, self.number)
        noise = own.normal(0.0, 0.7, (queries, documents))
        is_relevant = np.arange(documents) < relevant[:, None]
        strength = easy - self.gap * self.number
        values = common + noise + is_relevant * strength[:, None]
        ids = [[f"q{query}d{place}" for place in range(documents)] for query in range(queries)]
        run: Run = {
            f"q{query}": dict(zip(ids[query], row, strict=True))
            for query, row in enumerate(values.round(4).tolist())
        }
        qrels: Qrels = {
            f"q{query}": dict.fromkeys(ids[query][:count], 1)
            for query, count in enumerate(relevant.tolist())
        }
        return run, qrels

    def _scores(self, task: AbsTask, subset: str) -> dict[str, float]:
        """Draw the scores of a task that searches nothing."""
        shared = _generator(self.seed, task.metadata.name, subset)
        own = _generator(self.seed, task.metadata.name, subset, self.number)
        level = shared.uniform(0.4, 0.85) - 0.05 * self.gap * self.number
        keys = {task.metadata.main_score: None} | dict.fromkeys(
            _OTHER_KEYS.get(task.metadata.type, ())
        )
        return {key: round(float(level + own.normal(0.0, 0.01)), 6) for key in keys}

    def _profile(self, parts: int, *, searched: bool) -> Profile:
        """Return seconds and tokens that fit the system's size."""
        texts = self.sizes.queries * parts
        seconds = 0.002 * (1 + self.number % 5)
        if not searched:
            return Profile({"encode": seconds * texts}, {"encode": texts}, {"encode": 25 * texts})
        return Profile(
            seconds={"encode queries": seconds * texts, "encode corpus": 8 * seconds * texts},
            counts={"encode queries": texts, "encode corpus": 2 * texts},
            tokens={"encode queries": 16 * texts, "encode corpus": 2 * 180 * texts},
        )


def _generator(seed: int, *names: str | int) -> np.random.Generator:
    """Return the random numbers of one purpose, which no other purpose shares."""
    text = "/".join(map(str, names)).encode()
    return np.random.default_rng([seed, *text])


def _mean_scores(run: Run, qrels: Qrels) -> dict[str, float]:
    values: npt.NDArray[np.float64] = np.array(list(per_query(run, qrels, _MEASURES).values()))
    return {
        key: round(float(mean), 5)
        for measure, mean in zip(_MEASURES, values.mean(axis=0), strict=True)
        if (key := mteb_key(measure))
    }


def _texts(run: Run, qrels: Qrels) -> Excerpts:
    """Return invented texts of the queries, the relevant and the best documents."""
    queries = {query: f"Where does the {_words(query)} begin?" for query in qrels}
    documents = {}
    for query, scores in run.items():
        best = sorted(scores, key=scores.__getitem__, reverse=True)[:10]
        for document in dict.fromkeys([*qrels[query], *best]):
            text = f"The {_words(document)} lies behind the {_words(document[::-1])}. " * 3
            documents[document] = Excerpt(_words(document).title(), text)
    return Excerpts(queries, documents)


def _words(name: str) -> str:
    places = [ord(letter) % len(_WORDS) for letter in name[-3:]]
    return " ".join(_WORDS[place] for place in places)


def main(words: Sequence[str] | None = None) -> None:
    """Generate results as the command line asks."""
    sizes = Sizes()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path, help="the output folder")
    parser.add_argument("--tasks", nargs="+", default=["mteb-en"], help="suites and tasks")
    parser.add_argument("--subset", nargs="+", default=[], help="only these subsets")
    parser.add_argument("--systems", type=int, default=sizes.systems)
    parser.add_argument("--queries", type=int, default=sizes.queries)
    parser.add_argument("--documents", type=int, default=sizes.documents)
    parser.add_argument("--no-texts", action="store_true", help="write no excerpts of texts")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--prefix", default="generated/system", help="names of the systems")
    parser.add_argument("--gap", type=float, default=0.1, help="difference between neighbours")
    given = parser.parse_args(words)
    paths = generate_results(
        given.folder,
        given.tasks,
        Sizes(given.systems, given.queries, given.documents, not given.no_texts),
        subsets=given.subset,
        seed=given.seed,
        gap=given.gap,
        prefix=given.prefix,
    )
    sys.stdout.write(f"{len(paths)} results in {given.folder}\n")


if __name__ == "__main__":
    main()
