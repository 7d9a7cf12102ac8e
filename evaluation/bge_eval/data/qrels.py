"""Read qrels files and check every judgement against the queries and the corpus."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from bge_eval.data.files import Place, lines, records
from bge_eval.errors import DamagedError
from bge_eval.records import Qrels

if TYPE_CHECKING:
    from bge_eval.progress import Progress

_HEADER = ("query-id", "corpus-id", "score")

Judgement = tuple[int, str, str, str]
"""Line number, query id, document id, grade as written in the file."""


def read_qrels(
    judgements: Iterable[Judgement],
    place: Place,
    query_file: str,
    queries: set[str],
    documents: npt.NDArray[np.int64],
) -> tuple[Qrels, list[tuple[str, int]]]:
    """Check judgements against queries and corpus.

    Args:
        judgements: the lines of the file.
        place: the file, for messages.
        query_file: the queries' file, for messages.
        queries: the ids of all queries.
        documents: the sorted 64-bit hashes of the corpus ids.

    Returns:
        The qrels, and (document id, line) of every judged document that the corpus lacks.

    Raises:
        DamagedError: a grade is no integer, a query is unknown, two judgements contradict each
            other, or the file has none.
    """
    qrels: Qrels = {}
    dangling: list[tuple[str, int]] = []
    for number, query, document, grade in judgements:
        try:
            score = int(grade)
        except ValueError as error:
            raise DamagedError(
                f"{place}, line {number}: the score '{grade}' is no integer."
            ) from error
        if query not in queries:
            raise DamagedError(f"{place}, line {number}: query '{query}' is not in {query_file}.")
        judged = qrels.setdefault(query, {})
        if judged.get(document, score) != score:
            raise DamagedError(
                f"{place}, line {number}: '{query}' and '{document}' were already judged"
                f" {judged[document]}, now {score}."
            )
        judged[document] = score
        key = hash(document)
        spot = int(np.searchsorted(documents, key))
        if spot == len(documents) or int(documents[spot]) != key:
            dangling.append((document, number))
    if not qrels:
        raise DamagedError(f"{place} holds no judgements.")
    return qrels, dangling


def report_dangling(
    place: Place, dangling: list[tuple[str, int]], progress: Progress, *, accepted: bool
) -> None:
    """Report judged documents that the corpus lacks; raise DamagedError if not accepted."""
    document, line = dangling[0]
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
    """Yield the judgements of BEIR's tab-separated file with a header."""
    header = True
    for number, line in lines(place):
        cells = [cell.strip() for cell in line.split("\t")]
        if header:
            header = False
            if tuple(cells[:3]) != _HEADER:
                raise DamagedError(
                    f"{place}, line {number}: expected the header"
                    f" 'query-id<TAB>corpus-id<TAB>score', found '{line[:60]}'."
                )
            continue
        if len(cells) != 3:
            raise DamagedError(
                f"{place}, line {number}: expected three columns with tabs between, found"
                f" {len(cells)} ('{line[:60]}')."
            )
        yield number, cells[0], cells[1], cells[2]


def jsonl_judgements(place: Place) -> Iterator[Judgement]:
    """Yield the judgements of FlagEmbedding's jsonl file."""
    for number, record in records(place):
        missing = [key for key in ("qid", "docid", "relevance") if key not in record]
        if missing:
            raise DamagedError(f"{place}, line {number}: no {missing[0]}.")
        yield (
            number,
            str(record["qid"]),
            str(record["docid"]),
            json.dumps(record["relevance"]).strip('"'),
        )
