"""A folder of one's own as an mteb retrieval task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mteb.abstasks.retrieval import AbsTaskRetrieval


@dataclass(frozen=True, slots=True)
class Collection:
    """A retrieval collection in the BEIR layout that is no task of mteb's."""

    name: str
    """The task's name, as results are filed."""
    folder: Path
    """Where it lies."""
    description: str
    """One sentence on what it is."""
    languages: Sequence[str]
    """mteb's language codes, e.g. ("eng-Latn", "zho-Hans")."""
    split: str = "test"
    """The split to score."""
    shipped: bool = True
    """Whether the folder comes with the package; otherwise it is looked for in data folders."""


def collection_task(collection: Collection) -> AbsTaskRetrieval:
    """Return a fresh mteb task for a collection; its data are attached like any local folder's."""
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.abstasks.task_metadata import TaskMetadata

    metadata = TaskMetadata(
        name=collection.name,
        description=collection.description,
        reference=None,
        dataset={"path": f"local/{collection.name}", "revision": "local"},
        type="Retrieval",
        category="t2t",
        modalities=["text"],
        eval_splits=[collection.split],
        eval_langs=list(collection.languages),
        main_score="ndcg_at_10",
        date=None,
        domains=None,
        task_subtypes=None,
        license=None,
        annotations_creators=None,
        dialect=None,
        sample_creation=None,
        bibtex_citation=None,
    )
    task = type(collection.name, (AbsTaskRetrieval,), {"metadata": metadata})()
    assert isinstance(task, AbsTaskRetrieval)
    return task
