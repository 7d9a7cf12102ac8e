"""Simulate the encoding of a corpus on many machines: stragglers, failures, disk and network.

    python benchmarks/simulate_cluster.py --tokens-per-second 5180 --machines 1 8 64

A part runs on one machine at its speed. A machine fails after an exponential time; the part is then
started again elsewhere and goes on with the next batch, because the store keeps what was encoded.
The corpus is done with its last part. The plan in docs/scale.md is what this prints.
"""

from __future__ import annotations

import argparse
import heapq
import random
import statistics
from dataclasses import dataclass

BYTES_OF_VECTOR = 20
"""Bytes that the store adds to a vector: its key and its row."""
KEPT, BYTES_OF_KEPT = 1_000, 16
"""Documents that a searched part keeps for a query, and their row, score and fingerprint."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """The size of a corpus."""

    name: str
    passages: int
    tokens: int
    """Mean tokens of a passage, which is an assumption; scale the hours in proportion."""
    queries: int


CORPORA = (
    Corpus("MS MARCO", 8_841_823, 80, 6_980),
    Corpus("MIRACL, all languages", 106_000_000, 150, 13_500),
    Corpus("MS MARCO v2.1, segments", 113_520_750, 230, 2_000),
    Corpus("a billion passages", 1_000_000_000, 150, 10_000),
)


@dataclass(frozen=True, slots=True)
class Cluster:
    """Machines and how they fail."""

    machines: int
    parts: int
    spread: float = 0.1
    """Standard deviation of the machines' speeds, as a share of the mean."""
    hours_between_failures: float = 500.0
    """Mean time between two failures of one machine."""
    restart: float = 0.05
    """Hours until a failed part goes on: the scheduler, the start, the reading of the corpus."""


def makespan(work: float, cluster: Cluster, seed: int) -> float:
    """Return the hours until the last part is done.

    Args:
        work: hours of one machine of mean speed.
        cluster: machines, parts, failures.
        seed: of the speeds and failures.
    """
    draw = random.Random(seed)
    free = [
        (0.0, number, max(draw.gauss(1, cluster.spread), 0.2)) for number in range(cluster.machines)
    ]
    heapq.heapify(free)
    left = [work / cluster.parts] * cluster.parts
    end = 0.0
    while left:
        now, number, speed = heapq.heappop(free)
        share = left.pop()
        alive = draw.expovariate(1 / cluster.hours_between_failures)
        if alive < share / speed:
            left.append(share - alive * speed)
            heapq.heappush(free, (now + alive + cluster.restart, number, speed))
            continue
        end = max(end, now + share / speed)
        heapq.heappush(free, (now + share / speed, number, speed))
    return end


def hours(work: float, cluster: Cluster, runs: int = 200) -> tuple[float, float]:
    """Return the median and the 95th percentile of the hours, over simulated runs."""
    spans = sorted(makespan(work, cluster, seed) for seed in range(runs))
    return statistics.median(spans), spans[int(0.95 * runs)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--tokens-per-second", type=float, required=True)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--machines", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--parts-per-machine", type=int, default=1)
    given = parser.parse_args()
    columns = [f"{count} machines, hours (95%)" for count in given.machines]
    print(
        "| corpus | machine-hours |", " | ".join(columns), "| store, GB | searches of parts, GB |"
    )
    print("| --- |" + " ---: |" * (len(columns) + 3))
    for corpus in CORPORA:
        work = corpus.passages * corpus.tokens / given.tokens_per_second / 3600
        cells = []
        for count in given.machines:
            parts = count * given.parts_per_machine
            middle, late = hours(work, Cluster(count, parts))
            cells.append(f"{middle:,.1f} ({late:,.1f})")
        store = corpus.passages * (BYTES_OF_VECTOR + 4 * given.dimension) / 1e9
        searched = corpus.queries * KEPT * BYTES_OF_KEPT * max(given.machines) / 1e9
        print(
            f"| {corpus.name} | {work:,.0f} |",
            " | ".join(cells),
            f"| {store:,.0f} | {searched:,.1f} |",
        )


if __name__ == "__main__":
    main()
