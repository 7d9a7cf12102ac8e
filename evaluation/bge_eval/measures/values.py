"""The values of one measure on one run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Values:
    """The values of one measure on one run."""

    mean: float
    """The mean over the judged queries, as the tool that computes the measure averages them."""
    per_query: dict[str, float]
    """Query id → value, for every judged query."""
