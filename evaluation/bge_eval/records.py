"""Types that every room uses: vectors, runs, qrels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
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
class Excerpt:
    """The title and the beginning of a document."""

    title: str
    """The title; "" where the corpus has none."""
    text: str
    """The first few hundred characters."""


@dataclass(frozen=True, slots=True)
class Excerpts:
    """Queries, relevant and best documents of a run, cut short for display."""

    queries: Mapping[str, str] = field(default_factory=dict)
    """Query id → the beginning of the query."""
    documents: Mapping[str, Excerpt] = field(default_factory=dict)
    """Document id → its excerpt."""
