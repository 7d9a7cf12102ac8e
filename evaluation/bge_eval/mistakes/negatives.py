"""Suspected false negatives and hard negatives of a run, as FlagEmbedding's training data.

A document that is not judged relevant, and scores nearly as high as a relevant one, is more likely
a relevant document that nobody judged than a negative. Positive-aware mining (Moreira et al.,
"NV-Retriever: Improving text embedding models with effective hard-negative mining", 2024) takes a
document as negative only if it scores below a share of the positive's score; 95% was best there.
The documents above that share are the suspects.

FlagEmbedding's line is ``{"query", "pos": […], "neg": […], "pos_scores": […], "neg_scores": […]}``
(https://github.com/FlagOpen/FlagEmbedding, examples/finetune).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bge_eval.errors import UsageError
from bge_eval.records import Qrels, Run
from bge_eval.results.whole import whole_file
from bge_eval.search.ranking import ranked

MARGIN = 0.95
"""Share of the best relevant document's score from which on a document is suspected."""
NEGATIVES = 15
"""Default number of negatives for a query, FlagEmbedding's own."""
DEEPEST = 200
"""Number of top documents from which negatives are taken, FlagEmbedding's own."""


@dataclass(frozen=True, slots=True)
class Mined:
    """One query with its positives and its negatives or suspects, best first."""

    query: str
    """Query id."""
    positives: dict[str, float | None]
    """Relevant document → score; None if the run does not have it."""
    others: dict[str, float]
    """Hard negative or suspect → score."""


@dataclass(frozen=True, slots=True)
class Miner:
    """Divides the top documents that are not judged relevant into suspects and negatives."""

    margin: float = MARGIN
    """Share of the best relevant document's score, above 0, at most 1."""
    most: int = NEGATIVES
    """Largest number of documents for a query."""

    def __post_init__(self) -> None:
        """Raise `UsageError` for a margin outside (0, 1]."""
        if not 0 < self.margin <= 1:
            raise UsageError(f"--margin is a share above 0 and at most 1, not {self.margin:g}.")

    def hard_negatives(self, run: Run, qrels: Qrels) -> list[Mined]:
        """Return the best documents below the margin, judged irrelevant or not judged.

        A query of which the run has no relevant document has no threshold; only documents that
        are judged irrelevant are its negatives.
        """
        return [mined for mined in self._each(run, qrels, suspects=False) if mined.others]

    def suspects(self, run: Run, qrels: Qrels) -> list[Mined]:
        """Return the unjudged documents from the margin on."""
        return [mined for mined in self._each(run, qrels, suspects=True) if mined.others]

    def _each(self, run: Run, qrels: Qrels, *, suspects: bool) -> Iterator[Mined]:
        for query, grades in qrels.items():
            scores = run.get(query, {})
            relevant = sorted((d for d, grade in grades.items() if grade > 0), key=str)
            positives = {document: scores.get(document) for document in relevant}
            known = [score for score in positives.values() if score is not None]
            if not relevant:
                continue
            threshold = self._threshold(max(known)) if known else None
            others: dict[str, float] = {}
            for document in ranked(scores, DEEPEST):
                if document in positives or len(others) == self.most:
                    continue
                near = threshold is None or scores[document] >= threshold
                chosen = (
                    near and threshold is not None and document not in grades
                    if suspects
                    else document in grades or not near
                )
                if chosen:
                    others[document] = scores[document]
            ordered = {d: positives[d] for d in ranked({d: s or 0.0 for d, s in positives.items()})}
            yield Mined(query, ordered, others)

    def _threshold(self, best: float) -> float:
        """Return the score from which on a document is suspected.

        A share of a score means nothing where scores may be negative (a cross-encoder's logits):
        there the positive's own score is the threshold.
        """
        return best * self.margin if best > 0 else best


@dataclass(frozen=True, slots=True)
class Written:
    """What was written to a file of training data."""

    lines: int
    """Number of queries."""
    documents: int
    """Number of negatives, or suspects, of all of them."""
    unscored: int
    """Queries left out because the run or the corpus has none of their relevant documents."""


def write_training(
    path: Path,
    mined: Iterable[Mined],
    queries: Mapping[str, str],
    documents: Mapping[str, str],
    *,
    scores: bool = True,
) -> Written:
    """Write one line for each query.

    Args:
        path: the file; its folder exists.
        mined: the queries.
        queries: query id → whole text.
        documents: document id → title and text as the model reads them; judged documents that
            the corpus lacks are left out.
        scores: write ``pos_scores`` and ``neg_scores``. Training reads a score for each text, so
            positives that the run does not have are left out.

    Raises:
        UsageError: the folder does not exist.
        KeyError: a text is absent.
    """
    if not path.parent.is_dir():
        raise UsageError(f"{path.parent} does not exist; {path.name} cannot be written there.")
    lines = count = unscored = 0
    with whole_file(path) as file:
        for one in mined:
            present = {d: s for d, s in one.positives.items() if d in documents}
            known = {d: s for d, s in present.items() if s is not None}
            positives = list(known if scores else present)
            if not positives:
                unscored += 1
                continue
            line: dict[str, object] = {
                "query": queries[one.query],
                "pos": [documents[document] for document in positives],
                "neg": [documents[document] for document in one.others],
            }
            if scores:
                line["pos_scores"] = [known[document] for document in positives]
                line["neg_scores"] = list(one.others.values())
            line |= {"query_id": one.query, "pos_ids": positives, "neg_ids": list(one.others)}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            lines += 1
            count += len(one.others)
    return Written(lines, count, unscored)
