"""Options of an evaluation beside its model and tasks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Options:
    """Where data come from and where results go."""

    output: Path
    """The folder of results."""
    data_dirs: tuple[Path, ...] = ()
    """The user's data folders, searched in order."""
    offline: bool = False
    """Open no connection."""
    overwrite: bool = False
    """Run tasks again whose result is saved."""
    dangling: bool = False
    """Accept judgements of documents that the corpus lacks."""
    other_data: bool = False
    """Accept local data whose size or script is not the one expected of the task."""
    available: bool = False
    """Leave out tasks whose data are not on this machine; without it they are an error, or are
    downloaded."""
    rerank_top_k: int = 100
    """Documents of each query that the reranker re-orders."""
    label: str = ""
    """The user's own name for the row of the last stage; "" for none."""
    fail_fast: bool = False
    """Stop at the first task that fails."""
