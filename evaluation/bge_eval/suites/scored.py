"""The data that a saved result was scored on, opened again for their whole texts and fields."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bge_eval.data.layouts import recognise_source
from bge_eval.data.sources import DataSource
from bge_eval.errors import DamagedError, MissingError, UsageError
from bge_eval.progress import Progress
from bge_eval.records import Qrels, SplitKey
from bge_eval.results.cut import Cut, split_name, task_of
from bge_eval.results.saved import SavedResult
from bge_eval.suites.catalogue import PlannedTask, plan, with_cut

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True, slots=True)
class RetrievalPart:
    """The data of one subset and split of a retrieval or reranking task."""

    source: DataSource
    """The source that they were read from."""
    queries: Dataset
    """Columns id and text, perhaps instruction."""
    corpus: Dataset
    """Columns id and text, perhaps title."""
    qrels: Qrels
    """The judgements."""


def retrieval_parts(planned: PlannedTask, source: DataSource) -> dict[SplitKey, RetrievalPart]:
    """Return the parts of a task whose data are loaded; none for tasks that search nothing."""
    dataset: Any = planned.task.dataset
    parts: dict[SplitKey, RetrievalPart] = {}
    for subset in planned.task.hf_subsets:
        for split in planned.task.eval_splits:
            loaded = dataset[subset][split] if subset in dataset else dataset[split]
            if isinstance(loaded, Mapping) and "corpus" in loaded:
                qrels = {
                    str(query): {str(document): int(grade) for document, grade in grades.items()}
                    for query, grades in loaded["relevant_docs"].items()
                }
                parts[subset, split] = RetrievalPart(
                    source, loaded["queries"], loaded["corpus"], qrels
                )
    return parts


@contextmanager
def scored_data(
    result: SavedResult, data_dirs: Sequence[Path], progress: Progress
) -> Iterator[dict[SplitKey, RetrievalPart]]:
    """Open the data of a result that is no aggregate; they are removed from memory at the end.

    Of a result over the first queries these are the data. A corpus that was cut is whole here.
    They are looked for in the data folders, else where the run read them, else in the Hugging Face
    cache; no connection is opened.

    Raises:
        MissingError: they are not there.
        DamagedError: the data there are others than those of the run.
    """
    planned, source = _found(result, data_dirs)
    identity = result.identity
    own = source.identity(planned.task).fingerprint
    if identity and identity.fingerprint and own != identity.fingerprint:
        raise DamagedError(
            f"{source.origin} is not what {result.label} was scored on: its fingerprint is {own},"
            f" that of the run's data {identity.fingerprint}. Give the folder of the run's data"
            " (--data-dir), or run the model again."
        )
    with source.loaded(planned.task, progress):
        planned.cut_loaded()
        yield retrieval_parts(planned, source)


def _found(result: SavedResult, data_dirs: Sequence[Path]) -> tuple[PlannedTask, DataSource]:
    origin = Path(result.record.data_origin) if result.record.data_origin else None
    there = origin is not None and origin.is_dir()
    try:
        [planned] = plan([task_of(result.task)])
    except UsageError as error:
        if origin is None or not there:
            raise MissingError(
                f"The data of {result.task} are needed, which is no task of mteb's, and"
                f" {origin or 'their folder, which run.json does not name,'} is no folder here."
            ) from error
        [planned] = plan([str(origin.resolve())])
    planned = _restricted(planned, result)
    if limit := split_name(result.task)[1].limit:
        planned = with_cut(planned, Cut(limit=limit))
    if origin is not None and there and not data_dirs:
        return planned, recognise_source(planned.task, origin, dangling=True)
    source = planned.source(data_dirs, offline=True, dangling=True)
    source.check(planned.task)
    return planned, source


def _restricted(planned: PlannedTask, result: SavedResult) -> PlannedTask:
    """Restrict a task to the splits and subsets that were scored."""
    identity = result.identity
    if identity is None:
        return planned
    task = planned.task
    if identity.splits:
        task.filter_eval_splits(list(identity.splits))
    if identity.subsets and task.metadata.is_multilingual:
        task.hf_subsets = list(identity.subsets)
    return replace(planned, task=task)
