"""Coverage of the interval of a difference over queries and prompts.

``python benchmarks/prompt_coverage.py`` prints a table in Markdown; `STATISTICS.md` keeps it.
Differences of two real systems on SciFact (``data/scifact.tsv``, nDCG@10) are the queries'
population. Every prompt moves a model's score on all queries by a normal amount, and on each query
by another; so each sample has new queries and new prompts. An interval covers if it holds the
difference over all queries and all prompts.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bge_eval.statistics.crossed import OverPrompts, PromptValues, compare_over_prompts
from interval_coverage import scifact

Array = npt.NDArray[np.float64]
DRAWS = 199


@dataclass(frozen=True, slots=True)
class Design:
    """Which prompts the two models have."""

    name: str
    """For the table."""
    same: bool
    """Both models have the same prompts, whose effects on them are independent."""
    documents: int = 1
    """Document prompts, each with every query prompt."""


DESIGNS = (
    Design("same", True),
    Design("own", False),
    Design("same, × 3 document prompts", True, 3),
)
PROMPTS = (2, 3, 5, 10)
SIZES = (50, 300)
EFFECTS = ((0.0, 0.15), (0.01, 0.15), (0.02, 0.15), (0.05, 0.15))
"""Standard deviations of a prompt's effect on the score, and on a single query's value."""


def one_model(
    base: Array, count: int, documents: int, effects: tuple[float, float], draw: np.random.Generator
) -> Array:
    """Return values ``(count × documents, n_queries)`` of a model under random prompts."""
    of_prompt, of_query = effects
    by_query = draw.normal(0, of_prompt, (count, 1)) + draw.normal(0, of_query, (count, len(base)))
    by_document = draw.normal(0, of_prompt, (documents, 1))
    by_document = by_document + draw.normal(0, of_query, (documents, len(base)))
    shift = by_document if documents > 1 else np.zeros((1, len(base)))
    return np.array([base + query + document for query in by_query for document in shift])


def samples(
    design: Design, count: int, size: int, effects: tuple[float, float], number: int
) -> Iterator[tuple[OverPrompts, float]]:
    """Yield comparisons of samples, with the true difference."""
    systems = scifact()
    first, second = systems["BM25"], systems[[*systems][-1]]
    draw = np.random.default_rng((count, size, number))
    for n in range(number):
        rows = draw.integers(0, len(first), size)
        sides = []
        for side, base in enumerate((first, second)):
            own = "" if design.same else str(side)
            prompts = tuple(
                (f"q{q}{own}", f"d{d}{own}") for q in range(count) for d in range(design.documents)
            )
            values = one_model(base[rows], count, design.documents, effects, draw)
            sides.append(PromptValues(prompts, (values,)))
        yield (
            compare_over_prompts(sides[0], sides[1], seed=n, resamples=DRAWS),
            float((second - first).mean()),
        )


def cell(design: Design, count: int, size: int, effects: tuple[float, float], number: int) -> str:
    """Return the coverage over queries and prompts, that over queries alone, and the width."""
    covered = alone = 0
    width = 0.0
    for result, truth in samples(design, count, size, effects, number):
        interval, inner = result.interval, result.over_queries.interval
        assert interval is not None and inner is not None
        covered += interval.low <= truth <= interval.high
        alone += inner.low <= truth <= inner.high
        width += interval.high - interval.low
    return " · ".join(f"{each / number:.3f}" for each in (covered, alone, width))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=1000)
    arguments = parser.parse_args()
    heads = " | ".join(f"{of_prompt:g}" for of_prompt, _ in EFFECTS)
    print(f"| prompts | query prompts | queries | {heads} |")
    print(f"| --- | ---: | ---: |{' --- |' * len(EFFECTS)}")
    for design in DESIGNS:
        for count in PROMPTS:
            for size in SIZES:
                cells = [cell(design, count, size, each, arguments.samples) for each in EFFECTS]
                print(f"| {design.name} | {count} | {size} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
