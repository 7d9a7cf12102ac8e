"""Which documents go into a sheet: the deciding ones, and controls that are judged already."""

from __future__ import annotations

import random
from dataclasses import dataclass

from bge_eval.records import Qrels


@dataclass(frozen=True, slots=True)
class Controls:
    """Documents that are judged already, to measure agreement."""

    pairs: tuple[tuple[str, str], ...]
    """(query id, document id), half of them relevant if there are enough."""
    presumed: bool
    """Whether the irrelevant ones are relevant documents of other queries, presumed irrelevant
    because the judgements hold no irrelevant documents."""


def controls(qrels: Qrels, count: int, seed: int) -> Controls:
    """Draw documents that are judged, half of them relevant, at random.

    Args:
        qrels: the judgements.
        count: how many to draw; fewer if there are not enough.
        seed: seed of the draw.
    """
    generator = random.Random(seed)
    relevant, irrelevant = (
        [(q, d) for q, grades in qrels.items() for d, g in grades.items() if (g > 0) is kind]
        for kind in (True, False)
    )
    presumed = not irrelevant
    chosen = generator.sample(relevant, min(count - count // 2, len(relevant)))
    if presumed:
        irrelevant = _of_other_queries(qrels, relevant, count // 2, generator)
    chosen += generator.sample(irrelevant, min(count // 2, len(irrelevant)))
    return Controls(tuple(chosen), presumed)


def _of_other_queries(
    qrels: Qrels, relevant: list[tuple[str, str]], count: int, generator: random.Random
) -> list[tuple[str, str]]:
    """Pair queries with relevant documents of other queries."""
    queries = [query for query, grades in qrels.items() if grades]
    pairs: dict[tuple[str, str], None] = {}
    for _ in range(10 * count):
        query, (_, document) = generator.choice(queries), generator.choice(relevant)
        if document not in qrels[query]:
            pairs.setdefault((query, document))
        if len(pairs) == count:
            break
    return list(pairs)
