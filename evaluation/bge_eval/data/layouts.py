"""The table of file layouts: how each recognises a task's folder and a folder of the user's own.

A new layout is one module with its source, and one entry in `LAYOUTS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from bge_eval.data.answers import answers_source
from bge_eval.data.candidates import candidates_collection, candidates_marker, candidates_source
from bge_eval.data.files import Place
from bge_eval.data.repository import repository_collection, repository_source
from bge_eval.data.retrieval_folder import (
    retrieval_collection,
    retrieval_marker,
    retrieval_source,
)
from bge_eval.data.rows import rows_collection, rows_marker, rows_source
from bge_eval.data.sources import DataSource, require_subsets
from bge_eval.errors import MissingError

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask

Recogniser: TypeAlias = "Callable[[AbsTask, Place, bool], DataSource | None]"
"""(task, folder, whether to accept dangling qrels) → the source; None for another layout."""


@dataclass(frozen=True, slots=True)
class Layout:
    """One arrangement of a data set in files."""

    source: Recogniser
    """Returns the source of a task's folder; raises MissingError if a subset is absent."""
    marker: Callable[[AbsTask], str] = lambda task: ""
    """Names the file that marks a task's folder, for messages; "" if none can hold the task."""
    collection: Callable[[Path], tuple[str, list[str]] | None] = lambda folder: None
    """Returns task type and splits of a folder of the user's own; None for another layout."""


LAYOUTS = (
    Layout(answers_source),
    Layout(repository_source, collection=repository_collection),
    Layout(retrieval_source, retrieval_marker, retrieval_collection),
    Layout(candidates_source, candidates_marker, candidates_collection),
    Layout(rows_source, rows_marker, rows_collection),
)
"""Every layout, in the order in which they are tried."""


def recognise_source(task: AbsTask, root: Place, *, dangling: bool = False) -> DataSource:
    """Return the source of a task's folder, in whichever layout it is.

    Args:
        task: mteb's task.
        root: a folder, or the inside of a zip.
        dangling: accept judgements of documents that the corpus lacks.

    Raises:
        MissingError: no layout fits, or a subset is absent.
    """
    for layout in LAYOUTS:
        if (source := layout.source(task, root, dangling)) is not None:
            return source
    markers = dict.fromkeys(marker for layout in LAYOUTS if (marker := layout.marker(task)))
    require_subsets(task, root, (), " or ".join(markers))
    raise MissingError(f"{root} is in no layout that {task.metadata.name} can be read from.")


def recognise_collection(folder: Path) -> tuple[str, list[str]]:
    """Return the task type ("Retrieval", "Reranking", "STS") and the splits of a user's folder.

    Raises:
        MissingError: no layout fits, or the judgements are absent.
    """
    for layout in LAYOUTS:
        if (content := layout.collection(folder)) is not None:
            return content
    names = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing"
    raise MissingError(
        f"{folder} is no collection: it holds {names}. Expected corpus.jsonl, queries.jsonl and"
        " qrels/<split>.tsv; or <split>.jsonl with sentence1, sentence2, score (STS) or query,"
        " positive, negative (reranking)."
    )
