"""The interface of rerankers, their options, and the record that registers a family."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from bge_eval.encode.config import module_kind, read_config, read_modules
from bge_eval.encode.files import ModelFiles
from bge_eval.encode.protocol import ProtocolName
from bge_eval.errors import DamagedError
from bge_eval.progress import Progress
from bge_eval.rerank.kinds import RerankerKind

if TYPE_CHECKING:
    from bge_eval.encode.store import EmbeddingStore


class Reranker(Protocol):
    """Scores pairs of texts; weights are loaded when the first pair is scored."""

    @property
    def name(self) -> str:
        """Return ``org/model``, as results are filed."""

    @property
    def packages(self) -> tuple[str, ...]:
        """Return the packages, beside those of every run, whose version can change a score."""

    def identity(self) -> dict[str, Any]:
        """Return everything the scores depend on; at least name, revision, dtype, max_length.

        What is not the reranker's own way (``None``, "float32") names the results' folder.
        """

    def score(self, pairs: Sequence[tuple[str, str]]) -> npt.NDArray[np.float64]:
        """Return one score a pair, ``(n_pairs,)`` float64, higher is more relevant."""


class Resumable:
    """A reranker whose scores outlive a killed run, batch by batch."""

    unfinished: EmbeddingStore | None = None
    """Keeps the scores of a task until its result is saved; see `bge_eval.encode.calls`."""


@dataclass(frozen=True, slots=True)
class RerankerOptions:
    """The user's options of a reranker; None keeps the model's own value."""

    kind: RerankerKind | None = None
    """``--reranker-kind``"""
    dtype: str = "float32"
    """``--dtype``"""
    calibration: Path | None = None
    """``--calibration``: the file of texts for int8; None takes the package's own"""
    max_length: int | None = None
    """``--reranker-max-length``"""
    layers: int | None = None
    """``--reranker-layers``: the number of layers to run."""
    compress_ratio: int | None = None
    """``--reranker-compress``: number of the passage's token vectors averaged into one."""
    compress_layers: tuple[int, ...] | None = None
    """``--reranker-compress-layers``: the layers before which they are averaged."""
    device: str | None = None
    """``--device``; of several, the first is used"""
    batch_tokens: int | None = None
    """``--batch-tokens``"""
    trust_remote_code: bool = False
    """``--trust-remote-code``"""
    backend: str = "auto"
    """``--backend``; for cross-encoders only"""
    protocol: ProtocolName = ProtocolName.LEADERBOARD
    """``--protocol``: ``model-card`` cuts pairs as ``FlagReranker`` does; cross-encoders only,
    since BGE's other rerankers cut so under every protocol"""


class LocalReranker(Resumable):
    """A reranker that runs a model's files; weights are loaded with the first pair."""

    def __init__(
        self,
        files: ModelFiles,
        options: RerankerOptions | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Store and check the options; nothing is loaded yet.

        Args:
            files: the model's files.
            options: the user's options; None for the defaults.
            progress: reports loading and scoring.

        Raises:
            UsageError: an option does not fit the family or the model.
        """
        self.files = files
        self.progress = progress or Progress()
        self._options = options or RerankerOptions()
        self._check_options()

    def _check_options(self) -> None:
        """Refuse options that do not fit; most families take all that `Family.options` allows."""

    @property
    def name(self) -> str:
        """Return ``org/model``."""
        return self.files.name

    def identity(self) -> dict[str, Any]:
        """Return everything that scores depend on."""
        return {
            "name": self.files.name,
            "revision": self.files.revision,
            "dtype": self._options.dtype,
            "max_length": self._options.max_length,
            **self._settings(),
            **remote_code(self._options),
        }

    @property
    def packages(self) -> tuple[str, ...]:
        """Return no package: torch and transformers are always recorded."""
        return ()

    def _settings(self) -> Mapping[str, Any]:
        """Return what the identity says of the family and its own settings."""
        return {}


@dataclass(frozen=True, slots=True)
class Family:
    """A family of rerankers: how its files are recognised, and how one is opened."""

    recognises: Callable[[ModelFiles], bool]
    """Whether the files are of this family; the first family in the table that says so wins."""
    open: Callable[[ModelFiles, RerankerOptions, Progress | None], Reranker]
    """Returns the reranker without loading its weights."""
    options: frozenset[str] = frozenset()
    """Names of the options that only some families support: layers, compress."""


def remote_code(options: RerankerOptions) -> dict[str, bool]:
    """Return the identity's word that code which comes with the model may run; {} if it may not."""
    return {"remote_code": True} if options.trust_remote_code else {}


def architecture(files: ModelFiles) -> str:
    """Return the architecture in ``config.json``, such as "BertModel", or ``""``.

    Models with a ``modules.json`` have none: sentence-transformers recorded how they score.
    """
    if read_modules(files.folder) is not None:
        return ""
    return str((read_config(files.folder).get("architectures") or [""])[0])


def has_module(files: ModelFiles, kind: str) -> bool:
    """Return whether sentence-transformers' ``modules.json`` lists a kind of module."""
    return any(kind in module_kind(module) for module in read_modules(files.folder) or [])


def checked(scores: npt.NDArray[np.float64], name: str, dtype: str) -> npt.NDArray[np.float64]:
    """Return scores that are finite.

    Raises:
        DamagedError: some are not; half precision can overflow.
    """
    if not np.isfinite(scores).all():
        raise DamagedError(
            f"{name} gave scores that are not finite in {dtype}. Use --dtype float32 or bfloat16."
        )
    return scores
