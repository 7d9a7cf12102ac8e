"""What data a score was made on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DataIdentity:
    """What data a score was made on; part of the run's identity."""

    layout: str
    """"beir", "flagembedding", "rows" or "snapshot" for local files, "hub" for mteb's loading."""
    fingerprint: str
    """Made from the files' content, or the dataset's repository and revision."""
    splits: tuple[str, ...]
    """The splits that are scored."""
    subsets: tuple[str, ...]
    """The subsets (languages) that are scored; ("default",) where a task has none."""
