"""Check that ids are unique and that qrels and candidate lists name only known ids."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from bge_eval.errors import DamagedError

if TYPE_CHECKING:
    from datasets import Dataset
    from mteb.abstasks import AbsTask

_ROWS = 65536


def check_split(data: Mapping[str, Any], origin: str, *, dangling: bool) -> int:
    """Check the ids, qrels and candidate lists of a loaded retrieval split.

    Args:
        data: ``corpus`` and ``queries`` tables with ids, ``relevant_docs``, ``top_ranked``.
        origin: the folder of the data, for messages.
        dangling: accept judgements of documents that the corpus lacks.

    Returns:
        The number of judged documents that the corpus lacks.

    Raises:
        DamagedError: an id is used twice, or a judgement or candidate list names an unknown query
            or document.
    """
    documents = _ids_once(data["corpus"], "document", origin)
    queries = _ids_once(data["queries"], "query", origin)
    qrels: Mapping[str, Mapping[str, int]] = data["relevant_docs"]
    refuse_none_relevant(qrels, origin)
    if unknown := _unknown(qrels, queries):
        raise DamagedError(
            f"{origin}: {len(unknown)} judged queries are not among its queries, such as"
            f" '{unknown[0]}'; part of the queries is missing. Download it again."
        )
    for candidates in (data.get("top_ranked") or {}).values():
        if unknown := _unknown(candidates, documents):
            raise DamagedError(
                f"{origin}: document '{unknown[0]}' of a candidate list is not in the corpus; part"
                " of the corpus is missing. Download it again."
            )
    dangling_ids = _unknown(
        {document: None for judged in qrels.values() for document in judged}, documents
    )
    if dangling_ids and not dangling:
        raise DamagedError(
            f"{origin}: {len(dangling_ids)} judged documents are not in the corpus, such as"
            f" '{dangling_ids[0]}';"
            " part of the corpus is missing. Download it again, or, if the data set is"
            " published like that, --allow-dangling-qrels keeps them as documents that cannot be"
            " retrieved."
        )
    return len(dangling_ids)


def refuse_none_relevant(qrels: Mapping[str, Mapping[str, int]], origin: object) -> None:
    """Refuse judgements by which no document is relevant: every model would score 0.

    Args:
        qrels: query id → document id → grade.
        origin: the file or folder, for the message.

    Raises:
        DamagedError: no grade is above 0.
    """
    if not any(grade > 0 for judged in qrels.values() for grade in judged.values()):
        raise DamagedError(
            f"{origin}: no document is relevant by these judgements (no grade is above 0), so"
            " every model would score 0. Relevant documents have grades from 1."
        )


def refuse_unscorable(task: AbsTask, origin: str) -> None:
    """Refuse pairs whose scores are no numbers or all the same: no correlation exists.

    Args:
        task: a task whose data are loaded; only STS is checked.
        origin: the folder, for the message.

    Raises:
        DamagedError: a score is not finite, or all of a split are equal.
    """
    if task.metadata.type != "STS":
        return
    dataset: Any = task.dataset
    subsets = dataset if task.metadata.is_multilingual else {"default": dataset}
    for subset, splits in subsets.items():
        for split in task.eval_splits:
            scores = np.asarray(splits[split]["score"], np.float64)
            where = f"{origin}, {split}" if subset == "default" else f"{origin}, {subset}, {split}"
            if not np.isfinite(scores).all():
                row = int(np.flatnonzero(~np.isfinite(scores))[0]) + 1
                raise DamagedError(f"{where}: the score of row {row} is not a finite number.")
            if len(scores) < 2 or (scores == scores[0]).all():
                raise DamagedError(
                    f"{where}: all scores of the {len(scores)} pairs are {scores[0]:g}, so no"
                    " correlation with them exists. At least two must differ."
                )


def refuse_unwritable_ids(table: Dataset, what: str) -> None:
    """Refuse ids that cannot be written to a TREC run, whose columns are tab-separated.

    Args:
        table: documents or queries, with a column ``id``.
        what: "document" or "query", for the message.

    Raises:
        DamagedError: an id contains a tab or a line break.
    """
    for block in table.select_columns(["id"]).with_format("arrow").iter(_ROWS):
        ids = block["id"]
        wrong = ids.filter(pc.match_substring_regex(ids, r"[\t\r\n]"))
        if len(wrong):
            raise DamagedError(
                f"The {what} id {wrong[0].as_py()!r} holds a tab or the end of a line, so no TREC"
                " run can name it. Give the data other ids."
            )


def _ids_once(table: Dataset, what: str, origin: str) -> npt.NDArray[np.int64]:
    """Return the sorted 64-bit hashes of a table's ids; raise if an id is used twice."""
    hashes = np.empty(len(table), np.int64)
    ids = table.select_columns(["id"])
    for start in range(0, len(table), _ROWS):
        block = ids[start : start + _ROWS]["id"]
        hashes[start : start + len(block)] = [hash(key) for key in block]
    order = np.argsort(hashes, kind="stable")
    ordered: npt.NDArray[np.int64] = hashes[order]
    twice = np.flatnonzero(ordered[1:] == ordered[:-1])
    if len(twice):
        first, second = sorted((int(order[twice[0]]), int(order[twice[0] + 1])))
        raise DamagedError(
            f"{origin}: {what} id '{table[second]['id']}' is used twice (rows {first + 1} and"
            f" {second + 1}; {len(twice)} ids in all). Download it again."
        )
    return ordered


def _unknown(ids: Iterable[str], known: npt.NDArray[np.int64]) -> list[str]:
    """Return the ids whose hashes are not in a sorted array."""
    keys = list(ids)
    hashes = np.fromiter((hash(key) for key in keys), np.int64, len(keys))
    spots = np.minimum(np.searchsorted(known, hashes), max(len(known) - 1, 0))
    there = known[spots] == hashes if len(known) else np.zeros(len(keys), bool)
    return [key for key, present in zip(keys, there, strict=True) if not present]
