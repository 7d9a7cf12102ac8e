"""The registry of search engines.

A new engine is one file with a class that follows `bge_eval.search.index.Index`, and one line here.
"""

from __future__ import annotations

from bge_eval.errors import UsageError, did_you_mean
from bge_eval.search.exact import ExactSearch
from bge_eval.search.index import Index

DEFAULT = ExactSearch.name
"""The engine that a model gets unless its options name another."""

_ENGINES: dict[str, type[Index]] = {kind.name: kind for kind in (ExactSearch,)}


def engine(name: str) -> type[Index]:
    """Return an engine by its name.

    Raises:
        UsageError: there is no such engine.
    """
    if name not in _ENGINES:
        raise UsageError(
            f"There is no index '{name}'.{did_you_mean(name, _ENGINES)} Indexes:"
            f" {', '.join(_ENGINES)}."
        )
    return _ENGINES[name]
