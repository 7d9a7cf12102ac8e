"""The contract of a data source, and how its data are attached to mteb's task object.

Each layout of files has its own source, in the layout's module; `bge_eval.data.layouts` lists them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from bge_eval.data.files import Place
from bge_eval.errors import DamagedError, MissingError
from bge_eval.progress import Progress

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask


@dataclass(frozen=True, slots=True)
class DataIdentity:
    """The data that a score was computed on; part of the run's identity."""

    layout: str
    """"beir", "flagembedding", "rows", "candidates", "answers" or "snapshot" for local files,
    "hub" for mteb's own loading, "code" for a task class of the user's."""
    fingerprint: str
    """Hash of the files' content, or the dataset's repository and revision."""
    splits: tuple[str, ...]
    """The splits that are scored."""
    subsets: tuple[str, ...]
    """The subsets (languages) that are scored; ("default",) where a task has none."""


class DataSource(Protocol):
    """Data of one task that can be attached to mteb's task object."""

    @property
    def origin(self) -> str:
        """Return the folder or repository of the data, for messages."""

    @property
    def is_copy(self) -> bool:
        """Tell whether this is a local copy whose revision is unknown."""

    def identity(self, task: AbsTask) -> DataIdentity:
        """Return the identity of the data without attaching them to the task."""

    def check(self, task: AbsTask) -> None:
        """Raise MissingError if the task needs a file, configuration or split that is absent."""

    def loaded(self, task: AbsTask, progress: Progress) -> Any:
        """Return a context manager inside which the task holds its data."""


@dataclass(frozen=True, slots=True)
class LocalSource:
    """Base of the sources that read a folder or zip of the user's."""

    root: Place
    """The task's folder."""

    @property
    def origin(self) -> str:
        """Return the folder."""
        return str(self.root)

    @property
    def is_copy(self) -> bool:
        """Return True: plain files do not state their revision."""
        return True


def is_retrieval(task: AbsTask) -> bool:
    """Tell whether a task searches or reranks documents."""
    from mteb.abstasks.retrieval import AbsTaskRetrieval

    return isinstance(task, AbsTaskRetrieval)


def subset_folders(task: AbsTask, root: Place) -> dict[str, Place]:
    """Return the folder in which each subset of a task is expected."""
    if not task.metadata.is_multilingual:
        return {"default": root}
    return {subset: root.joinpath(subset) for subset in task.hf_subsets}


def require_subsets(task: AbsTask, root: Place, present: Sequence[str], marker: str) -> None:
    """Raise unless a folder holds every subset of a task.

    Args:
        task: mteb's task.
        root: the task's folder.
        present: the subsets that were recognised.
        marker: the file by which a subset's folder is recognised, for the message.

    Raises:
        MissingError: a subset is absent; the message lists what the folder holds.
    """
    missing = [subset for subset in subset_folders(task, root) if subset not in present]
    if not missing:
        return
    name = task.metadata.name
    if missing == ["default"]:
        content = ", ".join(sorted(entry.name for entry in root.iterdir())[:8]) or "nothing"
        raise MissingError(
            f"{root} has the name of {name}, but it contains no {marker} and is no copy of its"
            f" dataset repository. It holds: {content}."
        )
    folders = sorted(entry.name for entry in root.iterdir() if entry.is_dir())
    raise MissingError(
        f"{name} has language subsets, and {root} has no folder '{missing[0]}' with a"
        f" {marker}; there are: {', '.join(folders) or 'none'}. To run only some,"
        f" add --subset {folders[0] if folders else missing[0]}."
    )


@contextmanager
def attached(task: AbsTask, dataset: Any, *, transform: bool = False) -> Iterator[None]:
    """Attach data to a task as if it had loaded them; detach them at the end.

    Args:
        task: mteb's task.
        dataset: subset → split → data, in the structure that the task's class expects.
        transform: run the task's own ``dataset_transform``.

    Raises:
        DamagedError: the transformation fails for want of a column.
    """
    task.dataset = dataset
    if transform:
        _transform(task)
    task.data_loaded = True
    try:
        yield
    finally:
        task.dataset = None
        task.data_loaded = False


def columns_of(task: AbsTask) -> tuple[str, ...]:
    """Return the columns that a task's evaluation reads."""
    names: list[str] = []
    pair = getattr(task, "column_names", None)
    if pair is not None and task.metadata.type == "STS":
        names += [*pair, "score"]
    for attribute in (
        "input1_column_name",
        "input2_column_name",
        "input_column_name",
        "label_column_name",
        "text_column_name",
        "human_summaries_column_name",
        "machine_summaries_column_name",
        "relevancy_column_name",
    ):
        value = getattr(task, attribute, None)
        if isinstance(value, str):
            names.append(value)
    if task.metadata.type == "BitextMining":
        names += ["sentence1", "sentence2"]
    return tuple(dict.fromkeys(names))


def split_names(task: AbsTask) -> tuple[str, ...]:
    """Return the splits that a task's evaluation reads: those it scores, and its training split."""
    train = getattr(task, "train_split", None)
    training = [train] if isinstance(train, str) else []
    return tuple(dict.fromkeys([*task.eval_splits, *training]))


def _transform(task: AbsTask) -> None:
    """Run the task's own transformation, which is written for the repository's columns.

    Plain files may already have the transformed columns. The transformation then fails because it
    finds nothing to rename, and the data stay as they are.
    """
    before = task.dataset
    try:
        task.dataset_transform(num_proc=None)
    except (ValueError, KeyError) as error:
        tables = [table for table in _tables(before) if hasattr(table, "column_names")]
        required = set(columns_of(task))
        if not tables or not all(required <= set(table.column_names) for table in tables):
            raise DamagedError(
                f"The data of {task.metadata.name} lack columns that the task reads"
                f" ({', '.join(sorted(required))}): {error}"
            ) from error
        task.dataset = before


def _tables(dataset: Any) -> list[Any]:
    if isinstance(dataset, Mapping):
        return [table for value in dataset.values() for table in _tables(value)]
    return [dataset]
