"""Parameters of faiss's indexes: their names, their values, and how they are set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bge_eval.errors import UsageError
from bge_eval.search.factory import is_binary, parts_of
from bge_eval.search.index import IndexOptions


@dataclass(frozen=True, slots=True)
class _Parameter:
    """What a parameter may be."""

    least: int
    """The smallest value."""
    most: int = 2**31 - 1
    """The greatest value."""
    whole: bool = True
    """Whether it is a whole number."""
    builds: bool = False
    """Whether it shapes an index while it is built; all others are for the search."""
    holder: str | None = None
    """Attribute of an index that holds it, "" for the index itself; None if faiss finds it."""


_PARAMETERS = {
    "efSearch": _Parameter(1),
    "efConstruction": _Parameter(1, builds=True),
    "nprobe": _Parameter(1),
    "max_codes": _Parameter(0),
    "k_factor_rf": _Parameter(1, whole=False),
    "quantizer_efSearch": _Parameter(1),
    "quantizer_efConstruction": _Parameter(1, builds=True),
    "quantizer_nprobe": _Parameter(1),
    "search_L": _Parameter(1, holder="nsg"),
    "qb": _Parameter(0, 8, holder=""),
}
"""Parameters of indexes over inner products."""
_OF_BINARY = {
    "efSearch": _Parameter(1, holder="hnsw"),
    "efConstruction": _Parameter(1, builds=True, holder="hnsw"),
    "nprobe": _Parameter(1, holder=""),
    "max_codes": _Parameter(0, holder=""),
    "nflip": _Parameter(0, 16, holder=""),
}
"""Parameters of indexes over binary vectors."""
_BUILD = {name for name, parameter in _PARAMETERS.items() if parameter.builds}


def is_of_build(name: str) -> bool:
    """Return whether a parameter shapes an index while it is built."""
    return name in _BUILD


def set_parameter(index: Any, options: IndexOptions, name: str, value: float) -> None:
    """Set a parameter of an index.

    Args:
        index: faiss's index.
        options: the options that it was made of, for the message.
        name: the parameter.
        value: its value.

    Raises:
        UsageError: the index has no such parameter, or the value is none that it can take.
    """
    known = _OF_BINARY if is_binary(options) else _PARAMETERS
    parameter = known.get(name)
    if parameter is None or not _has(index, options, name, parameter):
        has = [each for each, one in known.items() if _has(index, options, each, one)]
        raise UsageError(
            f"--index-param {name}: {options.name} has no such parameter. It has"
            f" {', '.join(has) or 'none'}."
        )
    if (
        not isinstance(value, int | float)
        or not parameter.least <= value <= parameter.most
        or (parameter.whole and value != int(value))
    ):
        shown = f"{value:g}" if isinstance(value, int | float) else repr(value)
        kind = "a whole number" if parameter.whole else "a number"
        most = f" to {parameter.most}" if parameter.most < 2**31 - 1 else " or more"
        raise UsageError(f"--index-param {name}={shown}: expected {kind}, {parameter.least}{most}.")
    _put(index, options, name, parameter, value)


def _has(index: Any, options: IndexOptions, name: str, parameter: _Parameter) -> bool:
    try:
        _put(index, options, name, parameter, parameter.least)
    except (RuntimeError, LookupError):
        return False
    return True


def _put(index: Any, options: IndexOptions, name: str, parameter: _Parameter, value: float) -> None:
    """Set a parameter.

    Raises:
        RuntimeError: faiss does not know it.
        LookupError: no part of the index holds it.
    """
    import faiss

    if parameter.holder is None:
        faiss.ParameterSpace().set_index_parameter(index, name, value)
        return
    parts = [index] if is_binary(options) else parts_of(index)
    holders = [
        getattr(part, parameter.holder, None) if parameter.holder else part for part in parts
    ]
    having = [holder for holder in holders if hasattr(holder, name)]
    if not having:
        raise LookupError(name)
    for holder in having:
        setattr(holder, name, int(value))
