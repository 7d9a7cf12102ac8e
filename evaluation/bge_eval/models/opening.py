"""Open a model by its name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bge_eval.encode.protocol import ProtocolName
from bge_eval.encode.settings import Backend, Dtype, Overrides
from bge_eval.errors import UsageError
from bge_eval.progress import Progress
from bge_eval.remote.apis import Api
from bge_eval.remote.client import Limits, is_address
from bge_eval.runtime.devices import first_device

if TYPE_CHECKING:
    from bge_eval.models.base import Model

_OF_SERVED = [
    "revision",
    "similarity",
    "normalize",
    "truncate_dim",
    "query_prompt",
    "document_prompt",
    "prompts",
    "api",
    "api_model",
]
"""Options that a served model supports."""
_FAMILY_OPTIONS = ("api", "api_model", "m3_mode", "m3_weights", "examples", "adapter", "loader")
"""Options that only some kinds of models support."""

_DEFAULTS = {"dtype": Dtype.FLOAT32, "protocol": ProtocolName.LEADERBOARD}
"""Defaults of the command line, which count as unset."""
_RUN = "run:"
"""Prefix of saved runs in ``--model``."""


_OBJECT = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_WITH_EXAMPLES = "BAAI/bge-en-icl"
"""The model whose queries have the form of examples even without any."""


class Loader(StrEnum):
    """The library that loads a model."""

    MTEB = "mteb"
    """mteb, by its registry."""


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
    shared: bool = False
    """Options are for several models: options that a kind does not support are ignored."""


def open_model(name: str, options: ModelOptions, progress: Progress | None = None) -> Model:
    """Return the model of a name.

    Args:
        name: hub id, local folder, ``builtin:all-MiniLM-L6-v2``, ``bm25``, ``run:PATH``, or
            the address of a server.
        options: device, settings, store, server.
        progress: receives long steps.

    Raises:
        UsageError: an option does not fit this kind of model.
        MissingError: the model, or a package that it needs, cannot be found.
        DamagedError: its files cannot be used.
    """
    from bge_eval.models.bm25 import NAME, BM25Model

    if name == NAME:
        refuse(NAME, options)
        return BM25Model(progress=progress)
    if name.startswith(_RUN):
        from bge_eval.models.saved_runs import open_runs

        refuse(name, options)
        return open_runs(Path(name.removeprefix(_RUN)).expanduser(), progress)
    if is_address(name):
        return _served(name, options, progress)
    if options.api is not None and not options.shared:
        raise UsageError(f"--api is for a server's address, such as http://host:port, not {name}.")
    if _OBJECT.fullmatch(name) and not name.startswith("builtin:"):
        from bge_eval.models.foreign import object_model

        refuse(name, options)
        return object_model(name, progress)
    if options.loader is Loader.MTEB:
        from bge_eval.models.foreign import mteb_model

        refuse(f"{name} --loader mteb", options, allowed=("revision", "loader"))
        return mteb_model(name, options.revision, options.device, progress)
    from bge_eval.models.foreign import static_files, static_model

    if (files := static_files(name, options.revision, options.offline)) is not None:
        refuse(name, options, allowed=("revision",))
        return static_model(files, progress)
    return _transformer(name, options, progress)


def _transformer(name: str, options: ModelOptions, progress: Progress | None) -> Model:
    """Return an encoder, a decoder with examples or an adapter, or BGE-M3, by the options."""
    from bge_eval.encode.locate import name_of
    from bge_eval.models.decoder import DecoderModel, read_examples
    from bge_eval.models.m3 import M3Model, parse_modes
    from bge_eval.models.transformer import EncoderModel

    common: dict[str, Any] = {
        "device": options.device,
        "overrides": options.overrides,
        "batch_tokens": options.batch_tokens,
        "backend": options.backend,
        "store": options.store,
        "trust_remote_code": options.trust_remote_code,
        "offline": options.offline,
        "progress": progress,
    }
    if options.m3_mode is not None and options.backend is Backend.AUTO:
        common["backend"] = Backend.TORCH  # the heads need the hidden states
    if options.m3_mode is not None or options.adapter is not None:
        common["device"] = first_device(options.device)
    encoder: EncoderModel
    in_form = name_of(name) == _WITH_EXAMPLES
    if options.examples or options.adapter or in_form:
        shown = read_examples(options.examples) if options.examples else None
        if shown is None and in_form:
            shown = {}
        encoder = DecoderModel(
            name, options.revision, examples=shown, adapter=options.adapter, **common
        )
    else:
        encoder = EncoderModel(name, options.revision, **common)
    if options.m3_mode is not None:
        return M3Model(encoder, parse_modes(options.m3_mode, options.m3_weights))
    if options.m3_weights is not None:
        raise UsageError("--m3-weights needs --m3-mode, such as dense,sparse,colbert.")
    return encoder


def _served(url: str, options: ModelOptions, progress: Progress | None) -> Model:
    from bge_eval.models.served import ServedModel

    if options.api not in list(Api):
        raise UsageError(f"--model {url} is a server: say what it speaks, --api {', '.join(Api)}.")
    refuse(url, options, _OF_SERVED)
    return ServedModel(
        url,
        Api(options.api),
        model=options.api_model,
        version=options.revision,
        overrides=options.overrides,
        limits=options.limits,
        batch_tokens=options.batch_tokens,
        offline=options.offline,
        progress=progress,
    )


def refuse(what: str, options: ModelOptions, allowed: Sequence[str] = ()) -> None:
    """Refuse options that a kind of model does not support.

    Args:
        what: the model as the user named it.
        options: the user's options.
        allowed: names of the options that this kind supports.

    Raises:
        UsageError: an option is set that this kind does not support.
    """
    if options.shared:
        return
    given = {item.name: getattr(options.overrides, item.name) for item in fields(Overrides)}
    given |= {name: getattr(options, name) for name in ("revision", *_FAMILY_OPTIONS)}
    for name, default in _DEFAULTS.items():
        if given[name] == default:
            given[name] = None
    wrong = [name for name, value in given.items() if value is not None and name not in allowed]
    if wrong:
        names = ", ".join("--" + name.replace("_", "-") for name in wrong)
        raise UsageError(f"{names} cannot be used with --model {what}. Leave it out.")
