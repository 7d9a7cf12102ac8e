"""What ``bge-eval run`` evaluates: the models and the reranker that its options name."""

from __future__ import annotations

from dataclasses import dataclass, replace

from bge_eval.cli.options.machine import MachineFlags
from bge_eval.cli.options.model import ModelFlags
from bge_eval.cli.options.reranker import RerankerFlags
from bge_eval.cli.options.served import ServerFlags
from bge_eval.cli.records import limits, model_options, reranker_options
from bge_eval.encode.locate import locate, refuse_nameless
from bge_eval.errors import UsageError
from bge_eval.models.base import Model
from bge_eval.models.fused import FusedModel, Fusion, check_parts, parse_weights
from bge_eval.models.kinds import beside
from bge_eval.models.opening import check_name, open_model
from bge_eval.models.reranker_alone import RerankerAlone
from bge_eval.models.saved_runs import open_runs
from bge_eval.progress import Progress
from bge_eval.remote.apis import Api
from bge_eval.remote.client import is_address, without_secrets
from bge_eval.rerank.families import load_reranker
from bge_eval.rerank.reranker import Reranker
from bge_eval.rerank.served import ServedReranker
from bge_eval.search.engines import engine


@dataclass(frozen=True, slots=True)
class Blend:
    """How the rankings of several models are fused."""

    fusion: Fusion
    """The method of ``--fuse``."""
    weights: list[float] | None
    """One weight for each model; None for equal weights."""

    def model(self, parts: list[Model], progress: Progress) -> FusedModel:
        """Return the parts as one model."""
        return FusedModel(parts, self.fusion, self.weights, progress=progress)


def blend(model: ModelFlags) -> Blend | None:
    """Read and check the options of a fusion, before any model is opened; None without one.

    Raises:
        UsageError: the weights are no numbers, or do not fit the number of models.
    """
    if model.fuse is None:
        if model.weights:
            raise UsageError("--weights belongs to --fuse; add --fuse rrf or --fuse minmax.")
        return None
    weights = parse_weights(model.weights) if model.weights is not None else None
    check_parts(len(model.names), weights)
    return Blend(model.fuse, weights)


@dataclass(frozen=True, slots=True)
class Opener:
    """Opens what the options name."""

    model: ModelFlags
    """``--model`` and the settings of models."""
    reranker: RerankerFlags
    """``--reranker``, ``--first-stage`` and how the reranker scores."""
    server: ServerFlags
    """Interfaces of servers."""
    machine: MachineFlags
    """Device, batches, library, store."""
    offline: bool
    """Open no connection."""
    progress: Progress
    """Told of long steps and of every model that is open."""

    def open(self) -> tuple[list[Model], Reranker | None]:
        """Return the models and the second stage, of options that `check` let pass.

        Raises:
            UsageError: options do not fit a model.
            MissingError: a model's or a reranker's files, or the first stage, are missing.
            DamagedError: files cannot be used.
        """
        return self.open_models(self.open_reranker())

    def check(self) -> None:
        """Refuse options of the reranker and of requests that apply to nothing, and no model.

        Raises:
            UsageError: there is such an option, or nothing to evaluate.
        """
        self.reranker.check()
        second, first_stage = self.reranker.reranker, self.reranker.first_stage
        self.server.check(self.model.names, second)
        if not self.model.names and second is None and first_stage is None:
            raise UsageError(
                "Nothing to evaluate: give --model, or --reranker for reranking tasks alone, or"
                " --first-stage with a run."
            )
        if self.model.names and first_stage is not None:
            raise UsageError(
                "--model and --first-stage both name the first stage: give one of them."
            )
        if self.server.reranker_api is not None and not is_address(second or ""):
            raise UsageError(
                "--reranker-api is for --reranker with a server's address, http://host."
            )

    def check_names(self) -> None:
        """Refuse names and an index that do not exist, in less time than torch's import takes.

        Raises:
            UsageError: a model's or the reranker's name is none, or faiss makes no such index.
            MissingError: faiss is not installed, and the index needs it.
        """
        options = model_options(self.model, self.server, self.machine, offline=self.offline)
        engine(options.index)
        # What the second stage honours is known when it is open.
        options = replace(options, shared=options.shared or self.reranker.reranker is not None)
        for name in self.model.names:
            check_name(name, options)
        second = self.reranker.reranker
        if second is not None and not is_address(second):
            refuse_nameless(second)

    def open_models(self, reranker: Reranker | None) -> tuple[list[Model], Reranker | None]:
        """Return the models; without any, the saved first stage, or the reranker alone."""
        options = model_options(self.model, self.server, self.machine, offline=self.offline)
        options = beside(reranker, options)
        if not self.model.names:
            return self._without_model(reranker)
        return [open_model(name, options, self.progress) for name in self.model.names], reranker

    def open_reranker(self) -> Reranker | None:
        """Return the second stage, without loading its weights; None if there is none."""
        name = self.reranker.reranker
        if name is not None and is_address(name):
            return self._served_reranker(name)
        return None if name is None else self._local_reranker(name)

    def _local_reranker(self, name: str) -> Reranker:
        """Load a reranker's files and print its settings."""
        options = reranker_options(self.reranker, self.model, self.machine)
        files = locate(name, offline=self.offline, onnx=options.backend == "onnx")
        reranker = load_reranker(files, options, self.progress)
        identity = reranker.identity()
        settings = [
            f"{key} {value}"
            for key, value in identity.items()
            if value is not None and key not in ("name", "revision", "dtype")
        ]
        self.progress.note(
            f"Reranker {files.name} at {files.revision[:12]}:"
            f" {', '.join([*settings, identity['dtype']])}"
        )
        return reranker

    def _served_reranker(self, url: str) -> Reranker:
        """Ask a server for its reranker and print what it answers."""
        if self.server.reranker_api is None:
            raise UsageError(
                f"--reranker {without_secrets(url)} is a server: name its interface, --reranker-api"
                f" {', '.join(kind for kind in Api if kind is not Api.OPENAI)}."
            )
        reranker = ServedReranker(
            url,
            self.server.reranker_api,
            model=self.server.reranker_api_model,
            limits=limits(self.server),
            batch_tokens=self.machine.batch_tokens,
            offline=self.offline,
            progress=self.progress,
        )
        self.progress.note(str(reranker))
        return reranker

    def _without_model(self, reranker: Reranker | None) -> tuple[list[Model], Reranker | None]:
        """Return the saved first stage, or the reranker alone."""
        first_stage = self.reranker.first_stage
        if first_stage is not None:
            return [open_runs(first_stage.expanduser(), self.progress)], reranker
        assert reranker is not None, "`check` refuses to evaluate nothing"
        return [RerankerAlone(reranker, self.progress)], None


def introduce(model: Model, progress: Progress) -> None:
    """Print the settings that the model runs with, since each of them decides the score."""
    for line in model.introduction():
        progress.note(line)
