"""Options of ``bge-eval run`` about the index: which, its parameters, how vectors are stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import typer

from bge_eval.errors import UsageError
from bge_eval.search.index import IndexOptions, Precision

_PANEL = "Search"


@dataclass(frozen=True, slots=True)
class IndexFlags:
    """The index that searches, and over which representation of the vectors."""

    index: Annotated[
        str,
        typer.Option(
            help="flat (exact), or a factory string of faiss: HNSW32, IVF1024,Flat,"
            " IVF1024,PQ48x4fs, SQ8 …, BHNSW32 for binary vectors.",
            rich_help_panel=_PANEL,
        ),
    ] = "flat"
    index_param: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="A parameter of the index, such as efSearch=64 or nprobe=16; repeat.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    vectors: Annotated[
        Precision,
        typer.Option(
            help="How vectors are stored: int8 in 255 steps of each dimension's range, binary by"
            " their signs.",
            rich_help_panel=_PANEL,
        ),
    ] = Precision.FLOAT32
    rescore_top: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=100_000,
            metavar="N",
            help="Score each query's first N documents again with the full vectors.",
            rich_help_panel=_PANEL,
        ),
    ] = None

    index_depth: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=100_000,
            metavar="N",
            help="Ask faiss's index for N documents of each query, as your system does. Default:"
            " 1000, mteb's deepest cutoff.",
            rich_help_panel=_PANEL,
        ),
    ] = None

    @property
    def options(self) -> IndexOptions:
        """The record of the index.

        Raises:
            UsageError: a parameter is no ``name=value``, or options have no effect.
        """
        return IndexOptions.checked(
            self.index,
            parse_params(self.index_param or [], "--index-param"),
            self.vectors,
            self.rescore_top,
            self.index_depth,
        )


def parse_params(texts: Sequence[str], option: str) -> dict[str, float]:
    """Return the parameters of an index from texts such as ``efSearch=64``.

    Args:
        texts: each one parameter.
        option: the option that they were given with, for the message.

    Raises:
        UsageError: a text is no ``name=value``, or a parameter is given twice.
    """
    params: dict[str, float] = {}
    for text in texts:
        name, _, value = text.partition("=")
        name = name.strip()
        if name in params:
            raise UsageError(f"{option} {name} is given twice, '{text}' too: leave one out.")
        try:
            number = float(value)
        except ValueError:
            number = None
        if not name or number is None:
            raise UsageError(f"{option} takes NAME=VALUE, such as efSearch=64: '{text}'.")
        params[name] = number
    return params
