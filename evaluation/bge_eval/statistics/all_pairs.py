"""Paired randomisation tests of every pair of systems at once.

The sign flips of `bge_eval.statistics.randomisation` do not depend on the systems, so one draw
serves all pairs: a test of 105 pairs costs one matrix product. The p-value of one pair is that of
its own test; the p-values of several pairs are not corrected here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from bge_eval.statistics.difference import difference_interval
from bge_eval.statistics.intervals import CONFIDENCE, Interval
from bge_eval.statistics.randomisation import (
    EXACT_UP_TO,
    SADDLEPOINT_FROM,
    Randomisation,
    decided,
    randomisation_test,
)
from bge_eval.statistics.samples import CELLS, RESAMPLES, TIE, Values


@dataclass(frozen=True, slots=True)
class PairTest:
    """The second system of a pair against the first."""

    first: int
    """Index of the first system."""
    second: int
    """Index of the second system."""
    difference: float
    """The second's mean minus the first's."""
    interval: Interval | None
    """95% interval of the difference; None for a single query."""
    p_value: float
    """Two-sided p-value, above 0; not corrected."""
    wins: int
    """Queries on which the second is better."""
    ties: int
    """Queries on which both are equal."""
    losses: int
    """Queries on which the second is worse."""


def compare_all_pairs(
    groups: Sequence[Values],
    weights: Sequence[float] = (1.0,),
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> list[PairTest]:
    """Test every pair of systems by a weighted sum of means over groups of queries.

    Args:
        groups: values, one ``(n_systems, n_queries)`` array per group of queries.
        weights: weight of each group's mean.
        seed: seed of the random sign flips.
        resamples: number of random sign flips.

    Returns:
        One test per pair, ``(0, 1), (0, 2), …``; none for fewer than two queries or systems.
    """
    if not groups or sum(group.shape[1] for group in groups) < 2:
        return []
    pairs = list(combinations(range(len(groups[0])), 2))
    raw = [np.concatenate([group[b] - group[a] for group in groups]) for a, b in pairs]
    scale = np.concatenate(
        [
            np.full(group.shape[1], weight / group.shape[1])
            for group, weight in zip(groups, weights, strict=True)
        ]
    )
    terms = [np.where(np.abs(x) > TIE, x * scale, 0.0) for x in raw]
    # Few differing queries are enumerated, and of very many the distribution is known.
    many = [
        index
        for index, x in enumerate(terms)
        if EXACT_UP_TO < np.count_nonzero(x) < SADDLEPOINT_FROM
    ]
    drawn = dict(
        zip(many, _drawn_tests([terms[index] for index in many], seed, resamples), strict=True)
    )
    edges = np.cumsum([group.shape[1] for group in groups])[:-1]
    results = []
    for index, ((a, b), x) in enumerate(zip(pairs, raw, strict=True)):
        differences = np.split(x, edges)
        test = drawn.get(index) or randomisation_test(differences, weights)
        results.append(
            PairTest(
                first=a,
                second=b,
                difference=float((x * scale).sum()),
                interval=difference_interval(differences, weights, test),
                p_value=test.p_value,
                wins=int((x > TIE).sum()),
                ties=int((np.abs(x) <= TIE).sum()),
                losses=int((x < -TIE).sum()),
            )
        )
    return results


def _drawn_tests(terms: Sequence[Values], seed: int, resamples: int) -> list[Randomisation]:
    """Return the tests of several pairs from the same random sign flips.

    Args:
        terms: for each pair ``(n_queries,)``, each query's part of the mean difference.
        seed: seed of the random sign flips.
        resamples: number of random sign flips.
    """
    if not terms:
        return []
    matrix = np.array(terms).T  # (queries, pairs)
    sums = np.empty((len(terms), resamples))
    generator = np.random.default_rng(seed)
    size = max(1, CELLS // len(matrix))
    for start in range(0, resamples, size):
        stop = min(start + size, resamples)
        bits = generator.integers(0, 256, (stop - start, -(-len(matrix) // 8)), dtype=np.uint8)
        signs = np.unpackbits(bits, axis=1, count=len(matrix)) * 2.0 - 1.0
        sums[:, start:stop] = np.abs(signs @ matrix).T
    return [
        decided(x[x != 0], of_pair, level=round(1 - CONFIDENCE, 12), exact=False)
        for x, of_pair in zip(terms, sums, strict=True)
    ]
