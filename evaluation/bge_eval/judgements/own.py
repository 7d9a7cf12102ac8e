"""Judgements of one's own, read from a sheet and kept in a file of their own.

They never enter the published judgements. A run that is scored with both has another name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from bge_eval.errors import DamagedError
from bge_eval.judgements.sheet import Row
from bge_eval.records import Qrels
from bge_eval.results.whole import whole_file


def own_qrels(rows: Sequence[Row]) -> Qrels:
    """Return the graded rows of a sheet that are no controls, as judgements."""
    qrels: Qrels = {}
    for row in rows:
        if row.grade is not None and not row.control:
            qrels.setdefault(row.query_id, {})[row.document_id] = row.grade
    return qrels


def write_own(path: Path, qrels: Qrels) -> None:
    """Write judgements in TREC's four columns, tab-separated."""
    with whole_file(path) as file:
        for query, grades in qrels.items():
            file.writelines(
                f"{query}\t0\t{document}\t{grade}\n" for document, grade in grades.items()
            )


def with_own(published: Qrels, own: Qrels, path: Path) -> Qrels:
    """Return published judgements with further ones.

    Args:
        published: the judgements that a run was scored with.
        own: further judgements, of the same queries.
        path: the file of the further ones, for messages.

    Raises:
        DamagedError: a query is not among the published ones, or a document is judged in both.
    """
    joined = {query: dict(grades) for query, grades in published.items()}
    for query, grades in own.items():
        if query not in joined:
            raise DamagedError(
                f"{path}: query '{query}' is none of those that the run is judged on. Are these"
                " judgements of another task?"
            )
        if both := next((document for document in grades if document in joined[query]), None):
            raise DamagedError(
                f"{path}: '{both}' is already judged for query '{query}' in the run's own"
                " judgements. A file of further judgements holds only documents that nobody judged"
                " before; to score with other judgements altogether: --qrels."
            )
        joined[query].update(grades)
    return joined


def control_grades(rows: Sequence[Row], published: Mapping[str, Mapping[str, int]]) -> list[int]:
    """Return the existing grades of control rows; 0 for one that is presumed irrelevant.

    Presumed irrelevant is a relevant document of another query, where the published judgements
    hold no irrelevant documents.
    """
    return [published.get(row.query_id, {}).get(row.document_id, 0) for row in rows]
