"""A worker of a cluster: one process with one model, which encodes and scores what it is sent.

Nothing here needs Ray: `bge_eval.scale.crew` makes an actor of `Worker`.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bge_eval import errors
from bge_eval.errors import BgeEvalError, UsageError, as_failure

if TYPE_CHECKING:
    from bge_eval.encode.files import ModelFiles
    from bge_eval.models.form import Form
    from bge_eval.models.kinds import ModelOptions
    from bge_eval.models.spread import Elsewhere, Encoded
    from bge_eval.models.transformer import EncoderModel
    from bge_eval.rerank.families import RerankerOptions
    from bge_eval.rerank.reranker import Reranker


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """The encoder that a worker opens."""

    name: str
    """Hub id, absolute folder, or ``builtin:…``."""
    options: ModelOptions
    """Its options; without a store."""
    facts: Mapping[str, Any]
    """What its vectors depend on, as the process states it that keeps them."""


@dataclass(frozen=True, slots=True)
class RerankerSpec:
    """The reranker that a worker opens."""

    name: str
    """Hub id, absolute folder, or ``builtin:…``."""
    options: RerankerOptions
    """Its options."""
    identity: Mapping[str, Any]
    """What its scores depend on, as the process states it that keeps them."""
    packages: Mapping[str, str]
    """Packages that may change a score, with their versions."""


@dataclass(frozen=True, slots=True)
class Here:
    """Where a worker runs."""

    node: str
    """The host's name."""
    machine: str
    """Its GPUs, or its processor and cores."""
    process: int
    """The process."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An error of a worker, as plain values: not every exception can be sent."""

    kind: str
    """The name of the class in `bge_eval.errors`."""
    message: str
    """Its message."""

    def error(self) -> BgeEvalError:
        """Return the error again."""
        kind = getattr(errors, self.kind, BgeEvalError)
        error: BgeEvalError = kind.__new__(kind)
        error.args = (self.message,)
        return error


@dataclass(frozen=True, slots=True, eq=False)
class Rated:
    """The lengths of pairs, and the budget that batches them."""

    lengths: npt.NDArray[np.int64]
    """``(n_pairs,)``: tokens."""
    batch_tokens: int
    """Tokens of a batch, padding included."""


@dataclass(slots=True)
class Worker:
    """One process that holds an encoder, a reranker, or both; they are loaded when first used."""

    threads: int
    """Threads that it computes with on a CPU."""
    offline: bool
    """Open no connection."""
    _encoder: tuple[EncoderSpec, EncoderModel] | None = field(default=None, init=False)
    _reranker: tuple[RerankerSpec, Reranker] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        """Set what the libraries read when they are imported."""
        os.environ["OMP_NUM_THREADS"] = str(self.threads)
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
        if self.offline:
            for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
                os.environ[name] = "1"

    def here(self) -> Here:
        """Return where this worker runs."""
        from bge_eval.results.environment import environment

        return Here(socket.gethostname(), environment().machine, os.getpid())

    def call(self, name: str, *arguments: Any) -> Any:
        """Call one of the methods below; an error is returned as a `Failure`."""
        try:
            return getattr(self, name)(*arguments)
        except Exception as error:
            failure = as_failure(error, socket.gethostname())
            return Failure(type(failure).__name__, str(failure))

    def open_encoder(self, spec: EncoderSpec) -> Elsewhere:
        """Load an encoder and return what the caller must know of it.

        Raises:
            UsageError: the vectors would not be those that the caller states.
            MissingError: the model is not on this node.
        """
        from bge_eval.encode.settings import Backend
        from bge_eval.models.spread import Elsewhere

        model = self._opened_encoder(spec)
        encoder, forward = model.encoder, model.encoder.forward
        # All further work names both, so that every worker makes the same batches.
        batched = replace(
            spec.options, backend=Backend(forward.backend), batch_tokens=encoder.batch_tokens
        )
        self._encoder = replace(spec, options=batched), model
        return Elsewhere(
            forward.backend,
            forward.device,
            forward.dimension,
            forward.parameters,
            encoder.batch_tokens,
        )

    def encode(
        self,
        spec: EncoderSpec,
        texts: Sequence[str],
        form: Form,
        prompt: str,
        wanted: npt.NDArray[np.bool_],
        part: tuple[int, int],
    ) -> Encoded:
        """Encode one piece of a window.

        Args:
            spec: the encoder.
            texts: the window's texts.
            form: what is put around each.
            prompt: what the encoder puts before each.
            wanted: ``(n_texts,)``: the texts to encode.
            part: the number of the piece, from 1, and the number of pieces.
        """
        from bge_eval.encode.part import Part, Share
        from bge_eval.models.spread import Encoded

        model, counter = self._opened_encoder(spec), _Counter()
        rows, vectors = [np.empty(0, np.int64)], []
        for of_batch, pooled in model.encoder_of(form).parts(
            texts, prompt, counter, wanted=wanted, share=Share(Part(*part), 1)
        ):
            rows.append(of_batch)
            vectors.append(np.array(pooled, np.float32))
        empty = np.empty((0, model.encoder.forward.dimension), np.float32)
        return Encoded(
            np.concatenate(rows), np.concatenate(vectors) if vectors else empty, counter.tokens
        )

    def rate(self, spec: RerankerSpec, pairs: Sequence[tuple[str, str]]) -> Rated | None:
        """Return the lengths of pairs; None where the reranker batches them in its own way."""
        reranker = self._opened_reranker(spec)
        if not hasattr(reranker, "pair_rule"):
            return None
        rule = reranker.pair_rule()
        return Rated(rule.lengths(pairs), rule.batch_tokens)

    def score(
        self, spec: RerankerSpec, pairs: Sequence[tuple[str, str]]
    ) -> npt.NDArray[np.float64]:
        """Return one score a pair, ``(n_pairs,)`` float64."""
        return np.asarray(self._opened_reranker(spec).score(pairs), np.float64)

    def _opened_encoder(self, spec: EncoderSpec) -> EncoderModel:
        if self._encoder is not None and self._encoder[0] == spec:
            return self._encoder[1]
        from bge_eval.models.form import Form
        from bge_eval.models.opening import open_model
        from bge_eval.models.transformer import EncoderModel

        self._encoder = None  # the memory of the one before it
        model = open_model(spec.name, spec.options)
        assert isinstance(model, EncoderModel)
        _refuse_other(spec.name, spec.facts, model.facts(Form(), ""))
        self._encoder = spec, model
        return model

    def _opened_reranker(self, spec: RerankerSpec) -> Reranker:
        if self._reranker is not None and self._reranker[0] == spec:
            return self._reranker[1]
        from bge_eval.encode.locate import locate
        from bge_eval.rerank.families import load_reranker
        from bge_eval.results.identity import versions

        self._reranker = None
        files: ModelFiles = locate(
            spec.name, offline=self.offline, onnx=spec.options.backend == "onnx"
        )
        reranker = load_reranker(files, spec.options)
        stated = {**spec.identity, "packages": dict(spec.packages)}
        own = {**reranker.identity(), "packages": versions(list(spec.packages))}
        _refuse_other(spec.name, stated, own)
        self._reranker = spec, reranker
        return reranker


class _Counter:
    def __init__(self) -> None:
        self.tokens = 0

    def advance(self, count: int, tokens: int = 0) -> None:
        self.tokens += tokens


def _refuse_other(name: str, stated: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Refuse to compute with a model, settings or packages that differ from those stated.

    Raises:
        UsageError: they differ; the message names what.
    """
    differing = [
        f"{key} {own.get(key)!r} in place of {stated.get(key)!r}"
        for key in sorted({*stated, *own})
        if stated.get(key) != own.get(key)
    ]
    if differing:
        raise UsageError(
            f"The node {socket.gethostname()} would compute {name} with {'; '.join(differing)}."
            " Results do not say where they were computed, so every node needs the same files of"
            " the model and the same versions; where only the backend differs, name one with"
            " --backend or --device."
        )
