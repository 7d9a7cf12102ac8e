"""Open a model by its name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bge_eval.encode.locate import refuse_nameless
from bge_eval.errors import UsageError
from bge_eval.models import (
    bm25,
    by_library,
    decoder,
    foreign,
    llara,
    m3,
    saved_runs,
    served,
    transformer,
)
from bge_eval.models.kinds import SERVER_OPTIONS, Kind, ModelOptions, flags, refuse, set_options
from bge_eval.progress import Progress
from bge_eval.remote.client import is_address
from bge_eval.runtime.devices import pick_devices

if TYPE_CHECKING:
    from bge_eval.models.base import Model

_NAMED = (bm25.KIND, saved_runs.KIND, served.KIND, foreign.OBJECT, foreign.MTEB)
"""The kinds that need no files to recognise a name."""
_OTHERS = (
    f"{bm25.NAME}, run:PATH of a saved run, a server's address such as http://host:port, or"
    " package.module:function"
)
"""Names of models that are neither a folder nor a hub id, in messages."""
KINDS = (
    *_NAMED,
    foreign.STATIC,
    by_library.KIND,
    llara.KIND,
    m3.KIND,
    decoder.KIND,
    transformer.KIND,
)
"""The kinds of models, in the order in which they are asked; the last takes every name."""


def open_model(name: str, options: ModelOptions, progress: Progress | None = None) -> Model:
    """Return the model of a name.

    Args:
        name: hub id, local folder, ``builtin:all-MiniLM-L6-v2``, ``bm25``, ``run:PATH``, or
            the address of a server.
        options: device, settings, store, server.
        progress: receives long steps.

    Raises:
        UsageError: the name is none, or an option does not fit its kind.
        MissingError: the model, or a package that it needs, cannot be found.
        DamagedError: its files cannot be used.
    """
    _refuse_empty(name)
    if options.device is not None:
        pick_devices(options.device)  # even if everything is done already, and none is used
    if not is_address(name) and not options.shared:
        _refuse_server_options(name, options)
    kind = _named(name, options) or next(
        kind for kind in KINDS if kind not in _NAMED and kind.recognises(name, options)
    )
    refuse(name, kind, options)
    return kind.open(name, options, progress)


def check_name(name: str, options: ModelOptions) -> None:
    """Refuse what no kind of model can open, without opening a file or importing torch.

    Args:
        name: as `open_model` takes it.
        options: as `open_model` takes them.

    Raises:
        UsageError: the name is none, or an option does not fit its kind.
    """
    _refuse_empty(name)
    if (kind := _named(name, options)) is not None:
        refuse(name, kind, options)


def _refuse_empty(name: str) -> None:
    if not name.strip():
        raise UsageError(f"--model is empty. Name a hub id, a local folder, {_OTHERS}.")


def _named(name: str, options: ModelOptions) -> Kind | None:
    """Return the kind that a name alone tells; None for a folder's model or the hub's.

    Raises:
        UsageError: the name is none of any kind.
    """
    for kind in _NAMED:
        if kind.recognises(name, options):
            return kind
    refuse_nameless(name, (bm25.NAME,), _OTHERS)
    return None


def _refuse_server_options(name: str, options: ModelOptions) -> None:
    """Refuse the options of a server before any kind looks for the model's files."""
    wrong = [option for option in set_options(options) if option in SERVER_OPTIONS]
    if wrong:
        raise UsageError(
            f"{flags(wrong)} {'is' if len(wrong) == 1 else 'are'} for a server's address, such as"
            f" http://host:port, not {name}."
        )
