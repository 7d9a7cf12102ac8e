"""Coverage of intervals of a difference on few queries, and their agreement with the p-value.

``python benchmarks/interval_coverage.py`` prints a table in Markdown; `STATISTICS.md` keeps it.
Samples of queries are drawn from the differences of real systems on SciFact (``data/scifact.tsv``,
nDCG@10), and from populations in which few queries change. An interval covers if it holds the
population's mean difference.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import stats

from bge_eval.statistics.difference import difference_interval
from bge_eval.statistics.intervals import bootstrap_interval
from bge_eval.statistics.randomisation import randomisation_test

Array = npt.NDArray[np.float64]
Intervals = tuple[Array, Array]
"""Low and high ends, one for each sample."""

SIZES = (20, 50, 100, 300)
POPULATION = 200_000
DRAWS = 999
DATA = Path(__file__).with_name("data") / "scifact.tsv"


def scifact() -> dict[str, Array]:
    """Return system → nDCG@10 of the 300 test queries."""
    head, *lines = DATA.read_text(encoding="utf-8").splitlines()
    columns = np.array([[float(cell) for cell in line.split("\t")[1:]] for line in lines]).T
    return dict(zip(head.split("\t")[1:], columns, strict=True))


def populations(generator: np.random.Generator) -> dict[str, Array]:
    """Return name → differences to draw samples from."""
    systems = scifact()
    first = next(iter(systems))
    real = {f"{first} → {other}": systems[other] - systems[first] for other in [*systems][1:]}
    others = [*systems][1:]
    real |= {f"{one} → {two}": systems[two] - systems[one] for one, two in pairwise(others)}
    changes = np.concatenate([d[np.abs(d) > 1e-9] for d in real.values()])

    def sparse(share: float, values: Array) -> Array:
        changed = generator.random(POPULATION) < share
        return np.where(changed, generator.choice(values, POPULATION), 0.0)

    return {
        **real,
        "2% of queries change": sparse(0.02, changes),
        "2% change, all for the better": sparse(0.02, np.abs(changes)),
        "5% change": sparse(0.05, changes),
        "10% change": sparse(0.10, changes),
        "5% change from 0 to 1": sparse(0.05, np.ones(1)),
        "Success@1: 10% lost, 30% won": generator.choice(
            [-1.0, 0.0, 1.0], POPULATION, p=[0.1, 0.6, 0.3]
        ),
        "every query changes, skewed": generator.beta(0.3, 3, POPULATION)
        * generator.choice([1, 1, 1, -1], POPULATION),
    }


def ours(samples: Array) -> Intervals:
    """Return the intervals that compare, check and the report print."""
    ends = []
    for sample in samples:
        test = randomisation_test([sample], resamples=DRAWS)
        interval = difference_interval([sample], [1.0], test)
        assert interval is not None
        ends.append((interval.low, interval.high))
    low, high = np.array(ends).T
    return low, high


def student(samples: Array) -> Intervals:
    n = samples.shape[1]
    reach = stats.t.ppf(0.975, n - 1) * samples.std(axis=1, ddof=1) / n**0.5
    return samples.mean(axis=1) - reach, samples.mean(axis=1) + reach


def bca(samples: Array) -> Intervals:
    ends = []
    for sample in samples:
        interval = bootstrap_interval([sample], resamples=DRAWS)
        assert interval is not None
        ends.append((interval.low, interval.high))
    low, high = np.array(ends).T
    return low, high


def inverted(samples: Array) -> Intervals:
    """Invert the randomisation test: the shifts that it does not reject at 0.05."""
    generator = np.random.default_rng(1)
    signs = generator.choice([-1.0, 1.0], (samples.shape[1], DRAWS))
    flipped, shifts, means = samples @ signs, signs.sum(axis=0), samples.mean(axis=1)

    def end(direction: int) -> Array:
        near, far = np.zeros(len(samples)), np.full(len(samples), 2.0)
        for _ in range(24):
            middle = (near + far) / 2
            shift = means + direction * middle
            sums = np.abs(flipped - shift[:, None] * shifts)
            extreme = sums >= (samples.shape[1] * middle)[:, None] * (1 - 1e-12)
            rejected = (extreme.sum(axis=1) + 1) / (DRAWS + 1) < 0.05
            near, far = np.where(rejected, near, middle), np.where(rejected, middle, far)
        return np.asarray(means + direction * far)

    return end(-1), end(1)


METHODS: Mapping[str, Callable[[Array], Intervals]] = {
    "bge-eval": ours,
    "Student's t": student,
    "inverted randomisation test": inverted,
    "BCa bootstrap": bca,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="populations whose name contains this")
    arguments = parser.parse_args()
    names = list(METHODS)
    print(f"| queries | differences | queries that differ | {' | '.join(names)} |")
    print(f"| ---: | --- | ---: |{' --- |' * len(names)}")
    drawn = populations(np.random.default_rng(arguments.seed))
    for place, (name, population) in enumerate(drawn.items()):
        if arguments.only not in name:
            continue
        generator = np.random.default_rng((arguments.seed, place))
        truth, differing = population.mean(), np.mean(np.abs(population) > 1e-9)
        for n in SIZES:
            samples = generator.choice(population, (arguments.samples, n))
            significant = np.array(
                [randomisation_test([each], resamples=DRAWS).p_value < 0.05 for each in samples]
            )
            cells = []
            for method in METHODS.values():
                low, high = method(samples)
                covered = np.mean((low - 1e-12 <= truth) & (truth <= high + 1e-12))
                contradicts = np.mean(significant == ((low <= 0) & (high >= 0)))
                width = np.mean(high - low)
                cells.append(f"{covered:.3f} · {contradicts:.3f} · {width:.3f}")
            print(f"| {n} | {name} | {differing:.0%} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
