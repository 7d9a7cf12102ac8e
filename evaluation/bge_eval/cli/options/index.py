"""Options of ``bge-eval run`` about the index: which, its parameters, how vectors are stored."""

from __future__ import annotations

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

    @property
    def options(self) -> IndexOptions:
        """The record of the index.

        Raises:
            UsageError: a parameter is no ``name=value``, or options have no effect.
        """
        params: dict[str, float] = {}
        for text in self.index_param or []:
            name, equals, value = text.partition("=")
            try:
                params[name.strip()] = float(value)
            except ValueError:
                equals = ""
            if not equals or not name.strip():
                raise UsageError(f"--index-param takes NAME=VALUE, such as efSearch=64: '{text}'.")
        return IndexOptions.checked(self.index, params, self.vectors, self.rescore_top)
