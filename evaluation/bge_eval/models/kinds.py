"""What a kind of model is, and the options that models are opened with.

A new kind of model is one file that exports a `Kind`, and one line in `bge_eval.models.opening`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from bge_eval.encode.protocol import ProtocolName
from bge_eval.encode.settings import Backend, Dtype, Overrides, take_choices
from bge_eval.errors import UsageError
from bge_eval.progress import Progress
from bge_eval.remote.apis import Api
from bge_eval.remote.client import Limits
from bge_eval.search.engines import EXACT
from bge_eval.search.index import IndexOptions

if TYPE_CHECKING:
    from bge_eval.models.base import Model
    from bge_eval.rerank.reranker import Reranker

_DEFAULTS = {"dtype": Dtype.FLOAT32, "protocol": ProtocolName.LEADERBOARD, "index": EXACT}
"""Defaults of the command line, which count as unset."""
SERVER_OPTIONS = frozenset({"api", "api_model"})
"""Options that only a server supports."""
ENCODER_OPTIONS = frozenset(item.name for item in fields(Overrides)) | {"revision"}
"""Options that every encoder supports whose weights bge-eval loads."""
_CHECKED = (
    *("revision", "api", "api_model", "m3_mode", "m3_weights", "examples", "adapter", "loader"),
    "index",
)
"""Fields of `ModelOptions` that not every kind supports; of `Overrides` all are checked."""


class Loader(StrEnum):
    """A library that loads a model in place of bge-eval."""

    MTEB = "mteb"
    """mteb, with the loader of its registry."""


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """The options of a model of any kind."""

    revision: str | None = None
    """Hub revision."""
    overrides: Overrides = field(default_factory=Overrides)
    """Settings in place of the model's own."""
    device: str | None = None
    """``cpu``, ``cuda:0`` …; None takes a GPU when there is one."""
    batch_tokens: int | None = None
    """Tokens of a batch, padding included; None chooses by device."""
    backend: Backend = Backend.AUTO
    """Which library computes."""
    store: Path | bool = True
    """Folder of the embedding store; True for the usual one, False for none."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model."""
    offline: bool = False
    """Open no connection."""
    api: Api | None = None
    """The interface of a server."""
    api_model: str | None = None
    """The model's name on the server; None takes the only one."""
    limits: Limits = field(default_factory=Limits)
    """Concurrency, time limit and tries of requests to a server."""
    m3_mode: str | None = None
    """BGE-M3's modes, ``dense,sparse,colbert``."""
    m3_weights: str | None = None
    """Their weights, ``1,0.3,1``."""
    examples: Path | None = None
    """JSON file of in-context examples."""
    adapter: Path | None = None
    """Folder of a PEFT adapter."""
    loader: Loader | None = None
    """The library that loads the model; None is bge-eval itself."""
    index: IndexOptions = EXACT
    """The index that searches, and over which representation of the vectors."""
    honoured: frozenset[str] = frozenset()
    """Options that the second stage honours; a kind that does not support them leaves them to
    it."""
    shared: bool = False
    """The options are for several models; each ignores those that its kind does not support."""

    def __post_init__(self) -> None:
        """Take the values of choices as text, too.

        Raises:
            UsageError: a value is none of its option's choices.
        """
        take_choices(self, {"backend": Backend, "api": Api, "loader": Loader})


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of model: which names it opens, and how."""

    name: str
    """The kind in messages."""
    recognises: Callable[[str, ModelOptions], bool]
    """Whether it opens the model of a name; asked after the kinds before it have declined."""
    open: Callable[[str, ModelOptions, Progress | None], Model]
    """Opens the model of a name."""
    supported: frozenset[str] = frozenset()
    """The options that it supports, of those that not every kind does."""


def set_options(options: ModelOptions) -> list[str]:
    """Return the names of the options that are set, of those that not every kind supports."""
    overrides = options.overrides
    values = {item.name: getattr(overrides, item.name) for item in fields(Overrides)}
    values |= {name: getattr(options, name) for name in _CHECKED}
    return [
        name for name, value in values.items() if value is not None and value != _DEFAULTS.get(name)
    ]


def beside(reranker: Reranker | None, options: ModelOptions) -> ModelOptions:
    """Return the options with those named that the second stage honours.

    Args:
        reranker: the second stage; its identity tells what it honours. None for none.
        options: the options of the model.
    """
    identity = reranker.identity() if reranker is not None else {}
    overrides = options.overrides
    asked = {"dtype": overrides.dtype, "protocol": overrides.protocol}
    honoured = {n for n, value in asked.items() if value is not None and identity.get(n) == value}
    return replace(options, honoured=frozenset(honoured))


def refuse(model: str, kind: Kind, options: ModelOptions) -> None:
    """Refuse options that a kind of model does not support.

    Args:
        model: the model as the user named it.
        kind: its kind.
        options: the user's options.

    Raises:
        UsageError: an option is set that this kind does not support.
    """
    allowed = kind.supported | options.honoured
    wrong = [name for name in set_options(options) if name not in allowed]
    if "index" in wrong and options.index.name == "flat":
        wrong[wrong.index("index")] = "vectors"  # what the exact search is given besides
    if wrong and not options.shared:
        raise UsageError(
            f"{flags(wrong)} cannot be used with --model {model} ({kind.name}). Leave it out."
        )


def flags(options: list[str]) -> str:
    """Return options as the command line spells them."""
    return ", ".join("--" + name.replace("_", "-") for name in options)
