"""Whether the parts of a loaded retrieval split fit together: ids, judgements, candidates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from bge_eval.errors import DamagedError

if TYPE_CHECKING:
    from datasets import Dataset

_ROWS = 65536


def check_split(data: Mapping[str, Any], origin: str, *, dangling: bool) -> int:
    """Check a split as mteb's loader gives it.

    Args:
        data: ``corpus`` and ``queries`` tables with ids, ``relevant_docs``, ``top_ranked``.
        origin: where the data lie, for messages.
        dangling: accept judgements of documents that the corpus lacks.

    Returns:
        How many judged documents the corpus lacks.

    Raises:
        DamagedError: an id stands twice; a judgement or a candidate list names a query or a
            document that is not there.
    """
    documents = _ids_once(data["corpus"], "document", origin)
    queries = _ids_once(data["queries"], "query", origin)
    qrels: Mapping[str, Mapping[str, int]] = data["relevant_docs"]
    if unknown := _absent(qrels, queries):
        raise DamagedError(
            f"{origin}: {len(unknown)} judged queries are not among its queries, such as"
            f" '{unknown[0]}'; part of the queries is missing. Get it again."
        )
    for candidates in (data.get("top_ranked") or {}).values():
        if unknown := _absent(candidates, documents):
            raise DamagedError(
                f"{origin}: document '{unknown[0]}' of a candidate list is not in the corpus; part"
                " of the corpus is missing. Get it again."
            )
    lost = _absent({document: None for judged in qrels.values() for document in judged}, documents)
    if lost and not dangling:
        raise DamagedError(
            f"{origin}: {len(lost)} judged documents are not in the corpus, such as '{lost[0]}';"
            " part of the corpus is missing. Get it again, or, if the set is published like that,"
            " --allow-dangling-qrels keeps them as documents that cannot be found."
        )
    return len(lost)


def refuse_unwritable_ids(table: Dataset, what: str) -> None:
    """Refuse ids that a run's file could not hold: it has a line for each, in columns.

    Args:
        table: documents or queries, with a column ``id``.
        what: "document" or "query", for the message.

    Raises:
        DamagedError: an id holds a tab or the end of a line.
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
    """Return the sorted hashes of a table's ids. 64 bits, so that two ids never share one."""
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
            f"{origin}: {what} id '{table[second]['id']}' stands twice (rows {first + 1} and"
            f" {second + 1}; {len(twice)} ids in all). Get it again."
        )
    return ordered


def _absent(ids: Iterable[str], known: npt.NDArray[np.int64]) -> list[str]:
    """Return the ids that are not among some sorted hashes."""
    keys = list(ids)
    hashes = np.fromiter((hash(key) for key in keys), np.int64, len(keys))
    spots = np.minimum(np.searchsorted(known, hashes), max(len(known) - 1, 0))
    there = known[spots] == hashes if len(known) else np.zeros(len(keys), bool)
    return [key for key, present in zip(keys, there, strict=True) if not present]
