"""Faults of a retrieval data set, each with the queries and documents that have it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from bge_eval.audit.broken import problem_of
from bge_eval.audit.near import SIMILARITY, Hashes, NearDuplicates, WordHashes, rolled
from bge_eval.data.words import compared_words
from bge_eval.records import Qrels

_CONTAINED_WORDS, _CONTAINED_LETTERS = 8, 20
"""Least words and characters of a query that is looked for within documents."""


class Fault(StrEnum):
    """Class of faults."""

    EXACT = "exact duplicates in the corpus"
    NEAR = "near duplicates in the corpus"
    QUERY_IN_CORPUS = "queries that stand in the corpus"
    REPEATED = "repeated queries"
    LEAKED = "queries of the training data"
    EMPTY = "empty texts"
    BROKEN = "broken texts"
    NO_POSITIVE = "queries without a relevant document"
    DANGLING = "relevant documents that the corpus lacks"


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault."""

    fault: Fault
    """Its class."""
    query: str = ""
    """The id of the query that has it, "" for none."""
    documents: tuple[str, ...] = ()
    """The ids of the documents that have it; of duplicates, two."""
    other: str = ""
    """The id of the query that it repeats, with the split or file it is in for a leak."""
    detail: str = ""
    """How alike, or what is broken, e.g. "similarity 0.93" or "mojibake in the query"."""


@dataclass(frozen=True, slots=True)
class Texts:
    """The texts of one part of a task."""

    documents: Callable[[], Iterable[tuple[str, str]]]
    """Yields (id, text) of every document, in the same order at every call."""
    document: Callable[[str], str]
    """Returns the text of one document."""
    queries: Mapping[str, str]
    """Query id → text."""
    qrels: Qrels
    """The judgements."""
    training: Mapping[str, str] = field(default_factory=dict)
    """Name of a training query, e.g. "train: 17" → its text."""


def find_faults(texts: Texts, similarity: float = SIMILARITY) -> list[Finding]:
    """Return every fault, class by class.

    Texts are compared by their words: letter case, spacing and punctuation do not count. A query
    stands in the corpus if a document is the same or nearly the same text, or contains the query
    word by word where it has at least 8 words and 20 characters.

    Args:
        texts: the texts and the judgements.
        similarity: the least Jaccard similarity of three-word shingles of near duplicates.
    """
    search = _Search(texts, similarity)
    findings = [*search.run(), *_judgement_faults(texts.qrels, search.known_documents)]
    order = list(Fault)
    return sorted(findings, key=lambda finding: order.index(finding.fault))


def _judgement_faults(qrels: Qrels, documents: set[str]) -> list[Finding]:
    findings = []
    for query, grades in qrels.items():
        relevant = [document for document, grade in grades.items() if grade > 0]
        if not relevant:
            findings.append(Finding(Fault.NO_POSITIVE, query))
        if gone := tuple(document for document in relevant if document not in documents):
            findings.append(Finding(Fault.DANGLING, query, gone))
    return findings


class _Search:
    """One pass over queries, training queries and documents, which meet in one index."""

    def __init__(self, texts: Texts, similarity: float) -> None:
        self.texts = texts
        self.known_documents: set[str] = set()
        self._hashes = WordHashes()
        self._near = NearDuplicates(similarity)
        self._first: dict[tuple[str, bytes], str] = {}
        self._long: dict[int, list[str]] = {}
        self._findings: list[Finding] = []

    def run(self) -> list[Finding]:
        """Find what is wrong with the texts themselves."""
        # Queries come first, so that crowded buckets of the index still compare them.
        for id, text in self.texts.queries.items():
            self._add_query(id, text)
        for name, text in self.texts.training.items():
            words = self._words(text)
            self._first.setdefault(("t", words.tobytes()), name)
            self._near.add(f"t{name}", words)
        for id in self.texts.queries:
            words = self._words(self.texts.queries[id])
            leak = self._first.get(("t", words.tobytes())) if len(words) else None
            if leak is not None:
                self._note(Fault.LEAKED, query=id, other=leak, detail="same words")
        keys = np.array(sorted(self._long), np.uint64)
        for id, text in self.texts.documents():
            self.known_documents.add(id)
            self._add_document(id, text, keys)
        self._add_pairs()
        return self._findings

    def _words(self, text: str) -> Hashes:
        return self._hashes.of(compared_words(text))

    def _note(self, fault: Fault, **values: object) -> None:
        self._findings.append(Finding(fault, **values))  # type: ignore[arg-type]

    def _add_query(self, id: str, text: str) -> None:
        if problem := problem_of(text):
            fault = Fault.EMPTY if problem == "empty" else Fault.BROKEN
            self._note(fault, query=id, detail=problem)
        words = self._words(text)
        if not len(words):
            return
        first = self._first.setdefault(("q", words.tobytes()), id)
        if first != id:
            self._note(Fault.REPEATED, query=id, other=first, detail="same words")
            return
        self._near.add(f"q{id}", words)
        if len(words) >= _CONTAINED_WORDS and len(text.strip()) >= _CONTAINED_LETTERS:
            start = int(rolled(words[:_CONTAINED_WORDS], _CONTAINED_WORDS)[0])
            self._long.setdefault(start, []).append(id)

    def _add_document(self, id: str, text: str, keys: Hashes) -> None:
        if problem := problem_of(text):
            fault = Fault.EMPTY if problem == "empty" else Fault.BROKEN
            self._note(fault, documents=(id,), detail=problem)
        words = self._words(text)
        if not len(words):
            return
        same = self._first.get(("q", words.tobytes()))
        if same is not None:
            self._note(Fault.QUERY_IN_CORPUS, query=same, documents=(id,), detail="same words")
        first = self._first.setdefault(("d", words.tobytes()), id)
        if first != id:
            self._note(Fault.EXACT, documents=(first, id), detail="same words")
        else:
            self._near.add(f"d{id}", words)
        if same is None and len(keys):
            self._add_contained(id, text, words, keys)

    def _add_contained(self, id: str, text: str, words: Hashes, keys: Hashes) -> None:
        runs = rolled(words, _CONTAINED_WORDS)
        starts = set(runs[np.isin(runs, keys)].tolist()) if len(runs) else set()
        if not starts:
            return
        whole = f" {' '.join(compared_words(text))} "
        for query in (query for start in starts for query in self._long[start]):
            if f" {' '.join(compared_words(self.texts.queries[query]))} " in whole:
                self._note(
                    Fault.QUERY_IN_CORPUS, query=query, documents=(id,), detail="within the text"
                )

    def _add_pairs(self) -> None:
        contained = {
            (f.query, f.documents) for f in self._findings if f.fault is Fault.QUERY_IN_CORPUS
        }
        leaked = {finding.query for finding in self._findings if finding.fault is Fault.LEAKED}
        for one, two, similarity in self._near.pairs(self._words_of):
            kinds, first, second = one[0] + two[0], one[1:], two[1:]
            detail = f"similarity {similarity:.2f}"
            if kinds == "dd":
                self._note(Fault.NEAR, documents=(first, second), detail=detail)
            elif kinds == "qd" and (first, (second,)) not in contained:
                self._note(Fault.QUERY_IN_CORPUS, query=first, documents=(second,), detail=detail)
            elif kinds == "qq":
                self._note(Fault.REPEATED, query=second, other=first, detail=detail)
            elif kinds == "qt" and first not in leaked:
                self._note(Fault.LEAKED, query=first, other=second, detail=detail)

    def _words_of(self, key: str) -> Hashes:
        if key[0] == "d":
            return self._words(self.texts.document(key[1:]))
        return self._words((self.texts.queries if key[0] == "q" else self.texts.training)[key[1:]])
