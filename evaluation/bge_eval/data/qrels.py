"""Read qrels files and check every judgement against the queries and the corpus."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bge_eval.data.files import Place, lines, records
from bge_eval.data.integrity import refuse_none_relevant
from bge_eval.errors import DamagedError
from bge_eval.records import Qrels
from bge_eval.results.judgements import Judgement, add_judgement, grade, judgements

if TYPE_CHECKING:
    from datasets import Dataset

    from bge_eval.progress import Progress


def read_qrels(
    read: Iterable[Judgement],
    place: Place,
    query_file: str,
    queries: set[str],
    documents: npt.NDArray[np.int64],
) -> tuple[Qrels, list[tuple[str, int]]]:
    """Check judgements against queries and corpus.

    Args:
        read: the judgements of the file.
        place: the file, for messages.
        query_file: the queries' file, for messages.
        queries: the ids of all queries.
        documents: the sorted 64-bit hashes of the corpus ids.

    Returns:
        The qrels, and (document id, line) of every judged document that the corpus lacks.

    Raises:
        DamagedError: a query is unknown, two judgements contradict each other, the file has none,
            or no document is relevant.
    """
    qrels: Qrels = {}
    dangling: list[tuple[str, int]] = []
    for judgement in read:
        if judgement.query not in queries:
            raise DamagedError(
                f"{place}, line {judgement.line}: query '{judgement.query}' is not in {query_file}."
            )
        add_judgement(qrels, judgement, place)
        key = hash(judgement.document)
        spot = int(np.searchsorted(documents, key))
        if spot == len(documents) or int(documents[spot]) != key:
            dangling.append((judgement.document, judgement.line))
    if not qrels:
        raise DamagedError(f"{place} holds no judgements.")
    refuse_none_relevant(qrels, place)
    return qrels, dangling


def note_contradictions(table: Dataset, qrels: Qrels, origin: str, progress: Progress) -> None:
    """Tell of documents that a dataset repository judges twice with different grades.

    mteb counts the last grade, and so do its published scores.

    Args:
        table: the rows ``query-id``, ``corpus-id``, ``score``.
        qrels: what mteb's loader made of them.
        origin: the repository, for the message.
        progress: receives the note.
    """
    if len(table) == sum(map(len, qrels.values())):
        return
    columns = (table[name] for name in ("query-id", "corpus-id", "score"))
    other = [
        (str(query), str(document))
        for query, document, score in zip(*columns, strict=True)
        if qrels[str(query)][str(document)] != int(score)
    ]
    if other:
        query, document = other[0]
        progress.note(
            f"{origin}: {len(other)} judgements are contradicted by later ones, such as that of"
            f" '{query}' and '{document}'; the last one counts, as in mteb."
        )


def report_dangling(
    place: Place,
    dangling: list[tuple[str, int]],
    progress: Progress,
    *,
    accepted: bool,
    published: bool,
) -> None:
    """Report judged documents that the corpus lacks.

    Args:
        place: the file, for messages.
        dangling: (document id, line) of every one.
        progress: receives a note.
        accepted: whether the user accepts any.
        published: whether mteb counts exactly so many in the published copy.

    Raises:
        DamagedError: they are neither accepted nor published.
    """
    document, line = dangling[0]
    if published:
        number = len({name for name, _ in dangling})
        progress.note(
            f"{place}: {number} judged documents are not in the corpus,"
            " as in the published copy (mteb counts as many); they count as not retrieved."
        )
        return
    if not accepted:
        raise DamagedError(
            f"{place}, line {line}: document '{document}' is not in corpus.jsonl"
            f" ({len(dangling)} such in the file). If the data set is published like that,"
            " --allow-dangling-qrels keeps them as documents that cannot be retrieved."
        )
    progress.note(
        f"{place}: {len(dangling)} judged documents are not in the corpus; they count as"
        " not retrieved."
    )


def tsv_judgements(place: Place) -> Iterator[Judgement]:
    """Yield the judgements of BEIR's file or of TREC's (`bge_eval.results.judgements`)."""
    return judgements(lines(place), place)


def jsonl_judgements(place: Place) -> Iterator[Judgement]:
    """Yield the judgements of FlagEmbedding's jsonl file.

    Raises:
        DamagedError: a field is missing, or a grade is not a whole number.
    """
    for number, record in records(place):
        missing = [key for key in ("qid", "docid", "relevance") if key not in record]
        if missing:
            raise DamagedError(f"{place}, line {number}: no {missing[0]}.")
        text = json.dumps(record["relevance"]).strip('"')
        score = grade(text, f"{place}, line {number}")
        query, document = (_id(record, name, place, number) for name in ("qid", "docid"))
        yield Judgement(number, query, document, score)


def _id(record: Mapping[str, Any], name: str, place: Place, number: int) -> str:
    value = record[name]
    if isinstance(value, bool) or not isinstance(value, str | int):
        shown = json.dumps(value)[:40]
        raise DamagedError(f"{place}, line {number}: {name} is {shown}, expected an id.")
    return str(value)
