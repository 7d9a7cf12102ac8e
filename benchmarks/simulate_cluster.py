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

CHARACTERS_OF_TOKEN = 4.3
"""Bytes of text for each token: 343 characters in the 80 tokens of MS MARCO's passages."""
BYTES_SEEN = 8
"""Bytes that a part keeps for each text of the corpus; `--engine ray` keeps none."""
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


def replay(
    work: float, parts: int, speeds: list[float], death: tuple[int, float, float] | None = None
) -> float:
    """Return the time that workers of known speeds take, dealt as `bge_eval.scale.crew` deals.

    A worker holds two parts. One that dies loses the part that it computes and gives back the
    other; its place is empty until a new worker has started.

    Args:
        work: time of one worker of speed 1.
        parts: equal parts of the work.
        speeds: the workers' speeds.
        death: the number of a worker from 0, when it dies, and how long its place is empty.
    """
    left, end = parts, 0.0
    free = [(0.0, number) for number in range(len(speeds))]
    heapq.heapify(free)
    while left:
        now, number = heapq.heappop(free)
        done = now + work / parts / speeds[number]
        if death is not None and death[0] == number and now <= death[1] < done:
            heapq.heappush(free, (death[1] + death[2], number))
            death = None
            continue
        left, end = left - 1, max(end, done)
        heapq.heappush(free, (done, number))
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
    parser.add_argument("--price", type=float, default=0.10, help="of a machine for an hour")
    given = parser.parse_args()
    columns = [f"{count} machines, hours (95%)" for count in given.machines]
    columns += ["memory of a part, GB", "store, GB", "network, GB", "searches of parts, GB"]
    print("| corpus | machine-hours | money |", " | ".join(columns), "|")
    print("| --- |" + " ---: |" * (len(columns) + 2))
    for corpus in CORPORA:
        work = corpus.passages * corpus.tokens / given.tokens_per_second / 3600
        cells = []
        for count in given.machines:
            parts = count * given.parts_per_machine
            middle, late = hours(work, Cluster(count, parts))
            cells.append(f"{middle:,.1f} ({late:,.1f})")
        vector, text = 4 * given.dimension, CHARACTERS_OF_TOKEN * corpus.tokens
        sizes = [
            corpus.passages * BYTES_SEEN,
            corpus.passages * (BYTES_OF_VECTOR + vector),
            corpus.passages * (text + vector),  # texts to the workers of a cluster, vectors back
            corpus.queries * KEPT * BYTES_OF_KEPT * max(given.machines),
        ]
        cells += [f"{size / 1e9:,.1f}" for size in sizes]
        money = f"{work * given.price:,.0f}"
        print(f"| {corpus.name} | {work:,.0f} | {money} |", " | ".join(cells), "|")


if __name__ == "__main__":
    main()
