"""The cost of encoding texts and of scoring pairs, measured on some of the batches of a run.

A run sorts its texts by length and fills batches with tokens, so that a few texts alone would make
other batches: fuller of padding, and too few to keep all cores busy. Here a window of texts is
batched as the run does it, and batches from the longest to the shortest are computed.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from bge_eval.progress import Progress
from bge_eval.rerank.late import LateInteractionReranker
from bge_eval.rerank.multi_vector import MultiVectorReranker
from bge_eval.runtime.batches import WINDOW, PairRule, batches_by_length
from bge_eval.scale.energy import Meter

if TYPE_CHECKING:
    from bge_eval.rerank.reranker import Reranker
    from bge_eval.runtime.text_encoder import TextEncoder

_BATCHES = 8
"""Batches that are computed; more where the model computes several at a time."""
_WARM_UP = 16
_PAIRS = 192
"""Pairs that are scored where a reranker does not say how it batches."""
_QUERIES = 4
"""Queries of a sample whose documents are shared between them."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a piece of work takes."""

    seconds: float = 0.0
    """Seconds."""
    tokens: float = 0.0
    """Tokens that the model reads, without padding."""
    joules: dict[str, float] | None = field(default_factory=dict)
    """Kind of device → its energy; None where no counter can be read."""

    def __add__(self, other: Cost) -> Cost:
        energy = [self.joules, other.joules]
        kinds = {kind: None for each in energy for kind in each or ()}
        return Cost(
            self.seconds + other.seconds,
            self.tokens + other.tokens,
            None
            if None in energy
            else {kind: sum((each or {}).get(kind, 0.0) for each in energy) for kind in kinds},
        )

    def times(self, factor: float) -> Cost:
        """Return the cost of ``factor`` times the work."""
        joules = self.joules
        return Cost(
            self.seconds * factor,
            self.tokens * factor,
            None if joules is None else {kind: value * factor for kind, value in joules.items()},
        )


def encoding(
    encoder: TextEncoder, texts: Sequence[str], prompt: str, meter: Meter, progress: Progress
) -> Cost:
    """Return the cost of encoding a window of texts, of which some batches are computed.

    Args:
        encoder: the loaded encoder.
        texts: distinct texts, at most `WINDOW`; those of a larger corpus are drawn at random.
        prompt: what the encoder puts before each.
        meter: reads the counters of energy.
        progress: shows the step.
    """
    if not texts:
        return Cost()
    start = time.perf_counter()
    lengths = encoder.lengths(texts, prompt)
    tokenising = time.perf_counter() - start
    batches = list(batches_by_length(lengths, encoder.batch_tokens))
    chosen = _spread(len(batches), 4 * getattr(encoder.forward, "streams", 1))
    padded = np.array([len(rows) * max(int(lengths[rows[0]]), 1) for rows in batches])
    wanted = np.zeros(len(texts), np.bool_)
    wanted[np.concatenate([batches[place] for place in chosen])] = True
    encoder.encode(texts[:_WARM_UP], prompt)  # the first batches also compile and allocate
    with progress.step("estimate", int(wanted.sum()), "texts") as step:
        before, start = meter.read(), time.perf_counter()
        for _ in encoder.parts(texts, prompt, step, wanted=wanted):
            pass
        elapsed, spent = time.perf_counter() - start, meter.joules_since(before)
    share = padded[chosen].sum() / padded.sum()
    seconds = tokenising + max(elapsed - tokenising, 0.0) / share
    return Cost(elapsed, 0.0, spent).times(seconds / elapsed) + Cost(0.0, float(lengths.sum()))


@dataclass(frozen=True, slots=True)
class PairWork:
    """The second stage of a search."""

    queries: Sequence[str]
    """Queries, drawn at random."""
    documents: Sequence[str]
    """Documents, drawn at random."""
    pairs: int
    """Number of pairs that the run scores."""
    distinct: int
    """Number of documents in them, at most."""


def scoring_pairs(reranker: Reranker, work: PairWork, meter: Meter, progress: Progress) -> Cost:
    """Return the cost of scoring pairs of queries and documents, of which some are scored.

    Args:
        reranker: scores pairs.
        work: the pairs.
        meter: reads the counters of energy.
        progress: shows the step.
    """
    if not (work.queries and work.documents and work.pairs):
        return Cost()
    sample, share = _sample(reranker, work)
    reranker.score(sample[-_WARM_UP:])
    with progress.step("estimate", len(sample), "pairs"):
        before, start = meter.read(), time.perf_counter()
        reranker.score(sample)
        seconds, spent = time.perf_counter() - start, meter.joules_since(before)
    return Cost(seconds, 0.0, spent).times(1 / share)


def _sample(reranker: Reranker, work: PairWork) -> tuple[list[tuple[str, str]], float]:
    """Return some pairs, and which share of the work they are."""
    random = np.random.default_rng(0)
    queries, documents = work.queries, work.documents
    if isinstance(reranker, LateInteractionReranker | MultiVectorReranker):
        # It encodes every text once, however many pairs hold it.
        few = [queries[place] for place in random.permutation(len(queries))[:_QUERIES]]
        some = [documents[place] for place in random.permutation(len(documents))[:_PAIRS]]
        return [(query, text) for query in few for text in some], len(some) / work.distinct
    count = min(work.pairs, WINDOW)
    asked = random.integers(len(queries), size=count).tolist()
    pool = [
        (queries[query], documents[place % len(documents)])
        for place, query in zip(random.permutation(count).tolist(), asked, strict=True)
    ]
    rule = getattr(reranker, "pair_rule", None)
    if rule is None:
        return pool[:_PAIRS], len(pool[:_PAIRS]) / work.pairs
    sample, share = _some_batches(rule(), pool)
    return sample, share * count / work.pairs


def _some_batches(
    rule: PairRule, pool: Sequence[tuple[str, str]]
) -> tuple[list[tuple[str, str]], float]:
    """Return the pairs of some batches of a pool, and their share of its padded tokens."""
    lengths = rule.lengths(pool)
    batches = [batch.rows for batch in rule.batches(pool)]
    padded = np.array([len(rows) * max(int(lengths[rows[0]]), 1) for rows in batches])
    chosen = _spread(len(batches))
    rows = np.concatenate([batches[place] for place in chosen])
    return [pool[row] for row in rows.tolist()], float(padded[chosen].sum() / padded.sum())


def _spread(count: int, least: int = 0) -> npt.NDArray[np.int64]:
    """Return places among ``count`` batches, at equal distances."""
    number = min(max(_BATCHES, least), count)
    return ((np.arange(number) + 0.5) * count / number).astype(np.int64)
