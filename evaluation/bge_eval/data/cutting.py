"""Cut the data that a task holds: its first queries, or a corpus of fewer documents."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

from bge_eval.errors import UsageError
from bge_eval.records import SplitKey
from bge_eval.results.cut import Cut

if TYPE_CHECKING:
    from datasets import Dataset
    from mteb.abstasks import AbsTask

_BATCH = 65536
_LEAST = {"Retrieval": 1, "STS": 2, "PairClassification": 2, "Classification": 2}
"""Kind of task → the fewest items that have a score."""


def refuse_uncuttable(task: AbsTask, cut: Cut) -> None:
    """Refuse a cut that has no meaning for a task.

    Raises:
        UsageError: the message names the task, the option and the reason.
    """
    name, kind = task.metadata.name, _kind(task)
    if cut.lite and kind != "Retrieval":
        raise UsageError(f"--lite: {name} searches no documents, so there is no corpus to cut.")
    if cut.lite and _reranks(task):
        raise UsageError(
            f"--lite: {name} ranks the candidates of each query and searches no corpus. --limit"
            " takes its first queries."
        )
    if cut.lite and hasattr(task, "answers"):
        raise UsageError(
            f"--lite: {name} is judged by answers in the passages, so that any document may be"
            " relevant. --limit takes its first queries."
        )
    if not cut.limit:
        return
    if not kind:
        raise UsageError(
            f"--limit: {name} is a task of type {task.metadata.type}, whose score over a part of"
            " its texts is another quantity. Leave it out."
        )
    if task.metadata.main_score == "p-MRR":
        raise UsageError(
            f"--limit: {name} compares pairs of queries, which their first ones would tear apart."
        )
    if cut.limit < _LEAST[kind]:
        raise UsageError(f"--limit {cut.limit}: {name} has no score over fewer than two items.")


def cut_data(
    task: AbsTask,
    cut: Cut,
    kept: Mapping[SplitKey, Collection[str]],
    note: Callable[[str], None] = lambda text: None,
) -> None:
    """Cut the data of a task that is loaded; the source that loaded them detaches them.

    Args:
        task: the task; its ``dataset`` is replaced.
        cut: what is left.
        kept: (subset, split) → documents of given runs that stay in the corpus.
        note: receives a sentence about every corpus that was cut.

    Raises:
        UsageError: the cut has no meaning for the task, or leaves nothing to score.
    """
    refuse_uncuttable(task, cut)
    before: Any = task.dataset
    by_subset: dict[str, Any] = {}
    for subset in task.hf_subsets:
        whole = before.get(subset, before)
        parts = {}
        for split in task.eval_splits:
            place = f"{task.metadata.name}, {'/'.join((subset, split))}"
            if _kind(task) == "Retrieval":
                part = _first_queries(task, subset, whole[split], cut.limit)
                if cut.lite:
                    part = _small_corpus(part, cut, kept.get((subset, split), ()), place, note)
                parts[split] = part
            else:
                parts[split] = _first_rows(task, whole[split], cut.limit, place)
        by_subset[subset] = type(whole)({**whole, **parts})
        if subset not in before:
            task.dataset = by_subset[subset]
            return
    task.dataset = type(before)({**before, **by_subset})


def sampled(ids: Iterable[str], size: int, seed: int) -> set[str]:
    """Return a sample of ids that depends on the ids and the seed alone, not on their order.

    A smaller sample of the same seed is part of a larger one.
    """

    def place(key: str) -> bytes:
        return hashlib.blake2b(f"{seed}\0{key}".encode(), digest_size=8).digest()

    return set(heapq.nsmallest(size, ids, key=place))


def _kind(task: AbsTask) -> str:
    """Return the kind of a task whose items are scored one by one; "" for others."""
    from mteb.abstasks import AbsTaskClassification
    from mteb.abstasks.pair_classification import AbsTaskPairClassification
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.abstasks.sts import AbsTaskSTS

    if isinstance(task, AbsTaskRetrieval):
        return "Retrieval"
    if isinstance(task, AbsTaskSTS):
        return "STS"
    if isinstance(task, AbsTaskPairClassification):
        return "PairClassification"
    if isinstance(task, AbsTaskClassification) and task.metadata.type == "Classification":
        trains = getattr(task, "is_cross_validation", False) or task.train_split in task.eval_splits
        return "" if trains else "Classification"
    return ""


def _reranks(task: AbsTask) -> bool:
    return "Reranking" in str(task.metadata.type)


def _first_queries(task: AbsTask, subset: str, part: Mapping[str, Any], limit: int) -> Any:
    """Return one split of a search with its first judged queries; all of them for a limit of 0."""
    if not limit:
        return part
    qrels, table = part["relevant_docs"], part["queries"]
    rows = [row for row, query in enumerate(table["id"]) if query in qrels][:limit]
    queries = table.select(rows)
    chosen = dict.fromkeys(queries["id"])
    candidates = part.get("top_ranked")
    if (answers := getattr(task, "answers", None)) is not None:
        answers[subset] = {query: answers[subset][query] for query in chosen}
    return {
        **part,
        "queries": queries,
        "relevant_docs": {query: qrels[query] for query in chosen},
        "top_ranked": candidates
        and {query: candidates[query] for query in chosen if query in candidates},
    }


def _small_corpus(
    part: Mapping[str, Any],
    cut: Cut,
    of_runs: Collection[str],
    place: str,
    note: Callable[[str], None],
) -> Any:
    """Return one split of a search with the documents that a cut keeps, in their order."""
    corpus = cast("Dataset", part["corpus"])
    judged = {document for grades in part["relevant_docs"].values() for document in grades}
    sample = sampled(_ids(corpus), cut.lite, cut.seed)
    stay = judged | set(of_runs) | sample
    rows = [row for row, document in enumerate(_ids(corpus)) if document in stay]
    note(
        f"{place}: {len(rows):,} of {len(corpus):,} documents: the judged ones,"
        f" {f'{len(of_runs):,} of the runs, ' if of_runs else ''}and a sample of"
        f" {len(sample):,}"
    )
    return {**part, "corpus": corpus.select(rows)}


def _ids(corpus: Dataset) -> Iterable[str]:
    for start in range(0, len(corpus), _BATCH):
        yield from corpus[start : start + _BATCH]["id"]


def _first_rows(task: AbsTask, rows: Any, limit: int, place: str) -> Any:
    """Return the first pairs of texts, or texts, of one split.

    Raises:
        UsageError: all of them have the same label.
    """
    from datasets import Dataset

    if len(rows) == 1 and isinstance(next(iter(rows[0].values())), list):
        rows = Dataset.from_dict(rows[0])  # mteb 1 had all pairs in one row
    first = rows.select(range(min(limit, len(rows))))
    column = getattr(task, "label_column_name", None)
    if isinstance(column, str) and len(set(first[column])) < 2:
        raise UsageError(
            f"--limit {limit}: the first {len(first)} of {place} all have the label"
            f" {first[column][0]!r}, so there is nothing to tell apart. Take more."
        )
    return first
