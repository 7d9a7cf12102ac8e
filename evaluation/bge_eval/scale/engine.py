"""Models and rerankers whose work a cluster does; everything else is as on one machine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from bge_eval.encode.calls import CallScores
from bge_eval.encode.settings import Backend
from bge_eval.errors import BgeEvalError, DamagedError, UsageError
from bge_eval.models.base import Model
from bge_eval.models.form import Form
from bge_eval.models.spread import Elsewhere, Encoded, Window
from bge_eval.models.transformer import EncoderModel
from bge_eval.progress import Progress
from bge_eval.rerank.families import RerankerOptions
from bge_eval.rerank.reranker import Reranker, Resumable
from bge_eval.results.identity import versions
from bge_eval.runtime.batches import batches_by_length
from bge_eval.scale.cluster import ClusterOptions, check, connected, sizes
from bge_eval.scale.crew import Crew, Job
from bge_eval.scale.worker import EncoderSpec, Rated, RerankerSpec

_RATED = 4096
"""Pairs whose lengths a worker counts at once."""
_SCORED = 512
"""Pairs that a worker scores at once, at most; whole batches."""
_UNITS = 4
"""Jobs that each worker should get of few pairs."""


class Engine:
    """The cluster of one run; it is connected when the first text must be computed."""

    def __init__(self, options: ClusterOptions, progress: Progress, *, offline: bool) -> None:
        """Check the options; nothing is started.

        Args:
            options: which cluster, and how many workers.
            progress: shows the workers, and records what they did.
            offline: workers open no connection beside the cluster's own.

        Raises:
            UsageError: the address is none that can be used.
            MissingError: Ray is not installed.
        """
        check(options)
        self.progress = progress
        self._options = options
        self._offline = offline
        self._open = ExitStack()
        self._crew: Crew | None = None
        self._failure: BgeEvalError | None = None

    def __enter__(self) -> Engine:
        """Return itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """End the workers, and a cluster that was opened here."""
        self._open.close()
        self._crew = None

    @property
    def crew(self) -> Crew:
        """Return the workers, starting them the first time."""
        if self._failure is not None:  # the next task would wait for it in vain, too
            raise self._failure
        if self._crew is None:
            try:
                ray = self._open.enter_context(connected(self._options, self.progress.note))
                room = sizes(ray, self._options)
            except BgeEvalError as error:
                self._failure = error
                raise
            where = self._options.address or "this machine"
            nodes = sum(node["Alive"] for node in ray.nodes())
            self.progress.note(f"Ray at {where}: {room}, {nodes} node{'s' if nodes != 1 else ''}")
            self._crew = Crew(ray, room, self.progress, offline=self._offline)
        return self._crew

    def use(self, crew: Crew) -> None:
        """Use workers that were started elsewhere, which are not ended here."""
        self._crew = crew

    def spread(self, model: EncoderModel, name: str) -> None:
        """Let a model's texts be encoded by the workers; the name is the user's."""
        model.workers = ClusterEncoding(self, name)

    def spread_all(self, models: Sequence[Model], names: Sequence[str], *, reranks: bool) -> None:
        """Let the encoders' texts be encoded by the workers; other models compute here.

        Args:
            models: the models of a run.
            names: their names as the user gave them; empty where the user named none.
            reranks: whether the workers score pairs.

        Raises:
            UsageError: nothing is left for the workers.
        """
        named = list(zip(models, names, strict=False))
        if named and not reranks and not any(isinstance(each, EncoderModel) for each, _ in named):
            raise UsageError(
                "--engine ray spreads the texts of encoders and the pairs of rerankers whose"
                f" weights bge-eval loads; {', '.join(names)} is none. Leave --engine out."
            )
        for model, name in named:
            if isinstance(model, EncoderModel):
                self.spread(model, name)
            else:
                self.progress.note(f"{name}: has no texts for workers; this machine computes it.")


class ClusterEncoding:
    """The workers of one encoder."""

    def __init__(self, engine: Engine, name: str) -> None:
        """Encode with the workers of a cluster.

        Args:
            engine: the cluster.
            name: the model as the user named it.
        """
        self._engine = engine
        self._name = name
        self._spec: EncoderSpec | None = None

    @property
    def count(self) -> int:
        """Return the number of workers."""
        return self._engine.crew.count

    def open(self, model: EncoderModel) -> Elsewhere:
        """Return what a worker says of its model; see `bge_eval.models.spread.Workers`."""
        options = replace(
            model.options,
            store=False,
            revision=model.options.revision and model.files.revision,
            adapter=_absolute(model.options.adapter),
            examples=_absolute(model.options.examples),
        )
        spec = EncoderSpec(_everywhere(self._name), options, model.facts(Form(), ""))
        facts = cast("Elsewhere", self._engine.crew.ask(Job("open_encoder", (spec,), 0)))
        # Batches, and so the pieces of a window, depend on both: all workers take those of one.
        batched = replace(options, backend=Backend(facts.backend), batch_tokens=facts.batch_tokens)
        self._spec = replace(spec, options=batched)
        return facts

    def encode(
        self, model: EncoderModel, windows: Iterable[Window]
    ) -> Iterator[tuple[Window, Encoded]]:
        """Yield the pieces of all windows; see `bge_eval.models.spread.Workers`."""
        assert self._spec is not None, "open() comes first"

        crew = self._engine.crew

        def jobs(spec: EncoderSpec) -> Iterator[Job]:
            for window in windows:
                texts, wanted = crew.put(list(window.texts)), crew.put(window.wanted)
                items = -(-int(window.wanted.sum()) // window.pieces)
                for piece in range(1, window.pieces + 1):
                    part = (piece, window.pieces)
                    arguments = (spec, texts, window.form, window.prompt, wanted, part)
                    yield Job("encode", arguments, items, tag=window)

        for job, encoded in crew.run(jobs(self._spec)):
            # A copy: a view would keep the object in Ray's shared memory.
            yield job.tag, replace(encoded, vectors=np.array(encoded.vectors))


class ClusterReranker(Resumable):
    """A reranker whose pairs the workers score, in the batches of one machine."""

    def __init__(
        self, reranker: Reranker, name: str, options: RerankerOptions, engine: Engine
    ) -> None:
        """Take a reranker, whose weights are not loaded here.

        Args:
            reranker: the reranker as this machine would run it.
            name: the reranker as the user named it.
            options: the options that it was opened with.
            engine: the cluster.
        """
        self._reranker = reranker
        self._engine = engine
        packages = ("tokenizers", "torch", "transformers", *reranker.packages)
        self._spec = RerankerSpec(
            _everywhere(name), options, reranker.identity(), versions(packages)
        )

    @property
    def name(self) -> str:
        """Return ``org/model``."""
        return self._reranker.name

    @property
    def packages(self) -> tuple[str, ...]:
        """Return the reranker's own packages."""
        return self._reranker.packages

    def identity(self) -> dict[str, Any]:
        """Return the reranker's own identity: where pairs are scored does not matter."""
        return self._reranker.identity()

    def score(self, pairs: Sequence[tuple[str, str]]) -> npt.NDArray[np.float64]:
        """Return one score a pair, ``(n_pairs,)`` float64; see `Reranker.score`.

        A family that batches pairs in its own way is scored by one worker, whole.
        """
        crew = self._engine.crew
        scores = CallScores(self.unfinished, pairs, self._engine.progress)
        with self._engine.progress.step("rerank", len(pairs), "pairs") as step:
            rated = self._rated(pairs, crew)

            def lacking() -> Iterator[Job]:
                for job in self._jobs(pairs, rated, crew.count):
                    if scores.lacks(job.tag):
                        yield job
                    else:
                        step.advance(len(job.tag))

            for job, part in crew.run(lacking()):
                rows: npt.NDArray[np.int64] = job.tag
                if np.shape(part) != (len(rows),):
                    raise DamagedError(
                        f"{self.name} gave scores of shape {np.shape(part)} for {len(rows)} pairs."
                    )
                scores.put(rows, part)
                step.advance(len(rows), 0 if rated is None else int(rated.lengths[rows].sum()))
        return scores.values

    def _rated(self, pairs: Sequence[tuple[str, str]], crew: Crew) -> Rated | None:
        """Return the lengths of all pairs, which workers count; None where they do not matter."""
        lengths, spec = np.zeros(len(pairs), np.int64), self._spec
        first = cast("Rated | None", crew.ask(Job("rate", (spec, list(pairs[:1])), 0)))
        if first is None:
            return None

        def jobs() -> Iterator[Job]:
            for start in range(0, len(pairs), _RATED):
                part = list(pairs[start : start + _RATED])
                yield Job("rate", (spec, part), 0, "pairs", start)

        for job, rated in crew.run(jobs()):
            lengths[job.tag : job.tag + len(rated.lengths)] = rated.lengths
        return Rated(lengths, first.batch_tokens)

    def _jobs(
        self, pairs: Sequence[tuple[str, str]], rated: Rated | None, workers: int
    ) -> Iterator[Job]:
        """Yield runs of consecutive batches, which a worker batches again in the same way."""
        spec = self._spec
        if rated is None:
            yield Job("score", (spec, list(pairs)), len(pairs), "pairs", np.arange(len(pairs)))
            return
        options = replace(spec.options, batch_tokens=rated.batch_tokens)
        spec = replace(spec, options=options)
        most = min(_SCORED, -(-len(pairs) // (_UNITS * workers)))
        together: list[npt.NDArray[np.int64]] = []
        for batch in batches_by_length(rated.lengths, rated.batch_tokens):
            together.append(batch)
            if sum(map(len, together)) >= most:
                yield _scoring(spec, pairs, together)
                together = []
        if together:
            yield _scoring(spec, pairs, together)


def _scoring(
    spec: RerankerSpec, pairs: Sequence[tuple[str, str]], batches: list[npt.NDArray[np.int64]]
) -> Job:
    rows = np.concatenate(batches)
    part = [pairs[row] for row in rows.tolist()]
    return Job("score", (spec, part), len(rows), "pairs", rows)


def _everywhere(name: str) -> str:
    """Return a model's name as every node understands it: a folder's whole path."""
    folder = Path(name).expanduser()
    return str(folder.resolve()) if folder.is_dir() else name


def _absolute(path: Path | None) -> Path | None:
    return None if path is None else path.expanduser().resolve()
