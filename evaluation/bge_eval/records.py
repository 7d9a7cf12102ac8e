"""The small records and types that several modules share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Vectors: TypeAlias = "npt.NDArray[np.float32]"
"""``(n, dim)`` float32."""

Run: TypeAlias = dict[str, dict[str, float]]
"""Query id → document id → score, e.g. ``{"q1": {"d7": 0.83}}``."""

Qrels: TypeAlias = dict[str, dict[str, int]]
"""Query id → document id → relevance grade, e.g. ``{"q1": {"d7": 2}}``."""

SplitKey: TypeAlias = tuple[str, str]
"""(subset, split), e.g. ``("default", "test")``."""


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model on this machine."""

    name: str
    """``org/model``, as results are filed."""
    revision: str
    """The hub's commit, or 40 hexadecimal digits made from the content of a local folder."""
    folder: Path
    """Where the files lie."""
    from_hub: bool
    """Whether name and revision are the hub's own."""


@dataclass(frozen=True, slots=True)
class Excerpt:
    """A document's title and the beginning of its text, for people to recognise it."""

    title: str
    """The title; "" where the corpus has none."""
    text: str
    """The first few hundred characters."""


@dataclass(frozen=True, slots=True)
class Excerpts:
    """What a person reads of a run: its queries, their gold and their best documents."""

    queries: Mapping[str, str] = field(default_factory=dict)
    """Query id → the query, cut likewise."""
    documents: Mapping[str, Excerpt] = field(default_factory=dict)
    """Document id → its excerpt."""
