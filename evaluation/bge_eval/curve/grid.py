"""The grid of a curve: dimension × representation × index × rescoring."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from bge_eval.errors import UsageError
from bge_eval.search.engines import EXACT
from bge_eval.search.faiss_index import check_factory
from bge_eval.search.index import IndexOptions, Precision

DIMENSIONS = (None, 256, 128)
"""Dimensions that are tried by default; None is the model's own."""
_DEEPEST = 100_000
"""Most documents of a query that are rescored, as of ``bge-eval run --rescore-top``."""
_WHOLE = re.compile(r"HNSW\d+(,Flat)?|IVF\d+(_HNSW\d+)?,Flat|Flat")
"""Factory strings of indexes that hold vectors whole, so that their scores are exact."""


@dataclass(frozen=True, slots=True)
class Axes:
    """The values that a curve tries on each of its axes."""

    dimensions: tuple[int | None, ...] = DIMENSIONS
    """First dimensions that are kept; None for all."""
    precisions: tuple[Precision, ...] = (Precision.FLOAT32, Precision.INT8, Precision.BINARY)
    """Representations of the vectors."""
    indexes: tuple[tuple[str, Mapping[str, float]], ...] = (
        ("flat", {}),
        ("HNSW32", {"efSearch": 64}),
    )
    """Factory strings of faiss with their parameters; ``flat`` compares every document."""
    rescoring: tuple[int | None, ...] = (None, 100)
    """How many of each query's first documents are scored again with the full vectors."""
    depth: int = 100
    """Documents of each query that an index is asked for."""

    def grid(self) -> list[IndexOptions]:
        """Return the settings of one dimension, the exact search first.

        Rescoring is left out where scores are exact already, as in HNSW over float32 vectors, and
        a representation where an index has another of its own or faiss has no such index.

        Raises:
            UsageError: faiss knows no such index or parameter.
            MissingError: faiss is not installed.
        """
        options = [EXACT]
        for name, params in self.indexes:
            for precision in self.precisions:
                for rescore in self.rescoring:
                    one = self._one(name, params, precision, rescore)
                    if one is not None and one not in options:
                        options.append(one)
        return options

    def _one(
        self, name: str, params: Mapping[str, float], precision: Precision, rescore: int | None
    ) -> IndexOptions | None:
        """Return one setting; None for one that says nothing new."""
        flat = name.casefold() == "flat"
        exact = precision is Precision.FLOAT32 and (flat or _WHOLE.fullmatch(name) is not None)
        if rescore is not None and exact:
            return None
        if name.startswith("B") and not flat:
            if precision is not Precision.BINARY and Precision.BINARY in self.precisions:
                return None
            precision = Precision.BINARY
        depth = None if flat else self.depth
        options = IndexOptions.checked(name, params, precision, rescore, depth)
        served = replace(options, name="Flat") if flat else options
        if len(self.precisions) > 1 and _only_of_numbers(served):
            return None
        for dimension in self.dimensions:
            try:
                check_factory(served, dimension)
            except UsageError as error:
                if dimension is None:
                    raise
                raise UsageError(f"--grid-dim {dimension}: {error}") from error
        return options


def _only_of_numbers(options: IndexOptions) -> bool:
    """Return whether faiss has no binary index of this name, and one of numbers."""
    if options.precision is not Precision.BINARY:
        return False
    try:
        check_factory(options)
    except UsageError:
        check_factory(replace(options, precision=Precision.FLOAT32))
        return True
    return False


def setting_name(options: IndexOptions) -> str:
    """Return an index with its parameters for people, e.g. ``HNSW32 efSearch=64``."""
    return " ".join([options.name, *(f"{name}={value:g}" for name, value in options.params)])


def parse_index(text: str) -> tuple[str, list[str]]:
    """Return the factory string and the parameters in a text such as ``HNSW32 efSearch=64``.

    Raises:
        UsageError: the text is empty.
    """
    words = text.split()
    if not words:
        raise UsageError("--grid-index is empty: name an index, such as 'HNSW32 efSearch=64'.")
    return words[0], words[1:]


def parse_dimensions(texts: list[str]) -> tuple[int | None, ...]:
    """Return dimensions in their order, each once; ``full`` is None.

    Raises:
        UsageError: a text is neither ``full`` nor a positive whole number.
    """
    dimensions: list[int | None] = []
    for text in texts:
        if text.casefold() == "full":
            dimensions.append(None)
        elif text.isdecimal() and int(text):
            dimensions.append(int(text))
        else:
            raise UsageError(
                f"--grid-dim takes whole numbers and 'full', such as full,256: {text}."
            )
    return tuple(dict.fromkeys(dimensions))


def parse_rescoring(texts: list[str]) -> tuple[int | None, ...]:
    """Return depths of rescoring in their order, each once; ``none`` is None.

    Raises:
        UsageError: a text is neither ``none`` nor a whole number, or it is too large.
    """
    depths: list[int | None] = []
    for text in texts:
        if text.casefold() == "none":
            depths.append(None)
        elif text.isdecimal() and int(text) <= _DEEPEST:
            depths.append(int(text) or None)
        else:
            raise UsageError(
                f"--grid-rescore takes whole numbers up to {_DEEPEST:,} and 'none', such as"
                f" none,100: {text}."
            )
    return tuple(dict.fromkeys(depths))
