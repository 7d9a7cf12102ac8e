"""Single queries for the report: the values of every system, and its top documents.

The page holds them as gzipped blocks that the browser decompresses on demand: an overview for
each group of queries, and the documents of 64 queries at a time. So a page with ten thousand
queries opens as fast as one with ten.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from bge_eval.errors import MissingError
from bge_eval.records import Excerpt, Qrels, SplitKey
from bge_eval.results.saved import SavedResult

DEPTH = 10
"""Number of documents shown for a query and a system."""
TITLE_LENGTH = 160
"""Number of characters shown of a document's title."""
TEXT_LENGTH = 280
"""Number of characters shown of a document's text."""
QUERY_LENGTH = 160
"""Number of characters of a query in the list; the selected query is shown in full."""
TESTED = 8
"""Number of top systems whose pairs are tested; more would take long."""
RESAMPLES = 2000
"""Number of bootstrap samples and random swaps for each pair."""
CHUNK = 64
"""Number of queries in one block of documents."""


@dataclass(frozen=True, slots=True)
class QueryGroup:
    """Queries of one part of a task that several systems ran with the same qrels."""

    task: str
    """mteb's task name."""
    part: SplitKey
    """(subset, split)."""
    label: str
    """Its display name, e.g. ``XQuADRetrieval · zh``."""
    measures: tuple[str, ...]
    """The measures stored for every query."""
    qrels: Qrels
    """The qrels that all of its systems were scored with."""
    results: dict[int, SavedResult]
    """Index of the system → its result."""
    values: dict[int, dict[str, list[float]]]
    """Index of the system → query id → its value of each measure."""

    def tests(self) -> dict[str, dict[str, float]]:
        """Compare every pair of systems by every measure.

        Returns:
            ``"<A>-<B>:<measure>"`` → the 95% interval of B minus A and its p-value, e.g.
            ``{"0-1:nDCG@10": {"low": -0.02, "high": 0.01, "p": 0.4}}``; each pair once, the
            lower index first. Only the first `TESTED` systems are compared.
        """
        from bge_eval.statistics.paired import compare

        found = {}
        for before, after in combinations(sorted(self.results)[:TESTED], 2):
            shared = [q for q in self.qrels if q in self.values[before] and q in self.values[after]]
            if len(shared) < 2:
                continue
            for column, measure in enumerate(self.measures):
                one = [self.values[before][query][column] for query in shared]
                two = [self.values[after][query][column] for query in shared]
                result = compare(one, two, resamples=RESAMPLES)
                if result.interval is not None:
                    found[f"{before}-{after}:{measure}"] = {
                        "low": round(result.interval.low, 5),
                        "high": round(result.interval.high, 5),
                        "p": round(result.p_value, 5),
                    }
        return found

    @property
    def queries(self) -> list[str]:
        """Return the ids of the judged queries."""
        return list(self.qrels)


@dataclass(frozen=True, slots=True)
class Blocks:
    """A group of queries as the page holds it."""

    overview: str
    """Base64 of gzipped JSON: ids, texts, numbers of relevant documents, values by system."""
    chunks: tuple[str, ...]
    """Base64 of gzipped JSON: documents and rankings, `CHUNK` queries in each."""


def query_groups(task: str, results: Mapping[int, SavedResult]) -> list[QueryGroup]:
    """Group the queries of one task by part and qrels.

    Args:
        task: mteb's task name.
        results: index of the system → its result of the task.
    """
    groups: dict[tuple[SplitKey, str], QueryGroup] = {}
    for index, result in results.items():
        for part in result.keys:
            try:
                qrels = result.qrels(part)
                measures, values = result.per_query(part)
            except MissingError:
                continue  # an older result without qrels; a note on the page says so
            key = (part, _digest(qrels, measures))
            group = groups.get(key)
            if group is None:
                group = groups[key] = QueryGroup(task, part, "", tuple(measures), qrels, {}, {})
            group.results[index] = result
            group.values[index] = values
    return _labelled(list(groups.values()))


def pack(group: QueryGroup) -> Blocks:
    """Compress a group of queries for the page."""
    part, qrels = group.part, group.qrels
    queries: dict[str, str] = {}
    documents: dict[str, Excerpt] = {}
    heads = {}
    for index, result in group.results.items():
        texts = result.texts(part)
        queries.update(texts.queries)
        documents.update(texts.documents)
        heads[index] = result.heads(part, DEPTH, qrels)
    ids = group.queries
    overview = {
        "ids": ids,
        "texts": [_cut(queries.get(query, ""), QUERY_LENGTH) for query in ids],
        "relevant": [sum(grade > 0 for grade in qrels[query].values()) for query in ids],
        "values": {
            index: [
                [round(values[query][column], 4) if query in values else None for query in ids]
                for column in range(len(group.measures))
            ]
            for index, values in group.values.items()
        },
    }
    chunks = []
    for start in range(0, len(ids), CHUNK):
        content = _chunk(ids[start : start + CHUNK], qrels, heads, queries, documents)
        chunks.append(_block(content))
    return Blocks(_block(overview), tuple(chunks))


def _chunk(
    ids: Sequence[str],
    qrels: Qrels,
    heads: Mapping[int, Mapping[str, tuple[list[str], dict[str, int]]]],
    queries: Mapping[str, str],
    documents: Mapping[str, Excerpt],
) -> dict[str, Any]:
    """Return the texts and rankings of some queries, each document once."""
    shown: dict[str, list[str]] = {}
    entries = {}
    for query in ids:
        relevant = {doc: grade for doc, grade in qrels[query].items() if grade > 0}
        systems = {index: found[query] for index, found in heads.items()}
        entries[query] = {"text": queries.get(query, ""), "relevant": relevant, "systems": systems}
        for document in (*relevant, *(doc for head, _ in systems.values() for doc in head)):
            excerpt = documents.get(document)
            if excerpt is not None and document not in shown:
                title = _cut(excerpt.title, TITLE_LENGTH)
                shown[document] = [title, _cut(excerpt.text, TEXT_LENGTH)]
    return {"queries": entries, "documents": shown}


def _cut(text: str, length: int) -> str:
    """Shorten a text; an ellipsis marks the cut."""
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def _block(content: Any) -> str:
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    packed = gzip.compress(text.encode("utf-8", "replace"), compresslevel=6, mtime=0)
    return base64.b64encode(packed).decode("ascii")


def _digest(qrels: Qrels, measures: Sequence[str]) -> str:
    """Return a hash of qrels and measures that does not depend on the order of the qrels."""
    canonical = json.dumps([qrels, list(measures)], sort_keys=True)
    return hashlib.sha256(canonical.encode("utf-8", "replace")).hexdigest()


def _labelled(groups: Sequence[QueryGroup]) -> list[QueryGroup]:
    """Give every group a label: the task, and subset and split where these differ."""
    subsets = {group.part[0] for group in groups}
    splits = {group.part[1] for group in groups}
    labelled = []
    seen: dict[SplitKey, int] = {}
    for group in groups:
        seen[group.part] = number = seen.get(group.part, 0) + 1
        words = [group.task]
        words += [group.part[0]] * (len(subsets) > 1 or group.part[0] != "default")
        words += [group.part[1]] * (len(splits) > 1)
        words += [f"other judgements {number}"] * (number > 1)
        labelled.append(
            QueryGroup(
                group.task,
                group.part,
                " · ".join(words),
                group.measures,
                group.qrels,
                group.results,
                group.values,
            )
        )
    return labelled
