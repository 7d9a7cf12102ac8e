"""How often a table denies one of k equal systems "cannot be told from the best".

``python benchmarks/multiplicity.py`` prints a table in Markdown; `STATISTICS.md` keeps it. The
systems' values of a query are permuted at random, so that all systems are equal; the queries are
SciFact's (``data/scifact.tsv``, nDCG@10), drawn with replacement.
"""

from __future__ import annotations

import argparse

import numpy as np

from bge_eval.statistics.many import tukey_hsd
from bge_eval.statistics.randomisation import randomisation_p_value
from interval_coverage import scifact


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", type=int, default=1000)
    parser.add_argument("--queries", type=int, nargs="+", default=[50, 300])
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    generator = np.random.default_rng(arguments.seed)
    real = np.column_stack([*scifact().values()])
    print("| systems | queries | randomised Tukey HSD | each tested against the best |")
    print("| ---: | ---: | ---: | ---: |")
    for k in (4, 8, 16):
        for n in arguments.queries:
            tukey = alone = 0
            for table in range(arguments.tables):
                rows = real[generator.integers(0, len(real), n)]
                choice = generator.integers(0, rows.shape[1], (n, k))
                values = np.take_along_axis(rows, choice, axis=1)
                best = int(values.mean(axis=0).argmax())
                tukey += tukey_hsd([values], seed=table)[best].min() < 0.05
                alone += any(
                    randomisation_p_value([values[:, best] - values[:, i]], resamples=500)[0] < 0.05
                    for i in range(k)
                    if i != best
                )
            rates = (tukey / arguments.tables, alone / arguments.tables)
            print(f"| {k} | {n} | {rates[0]:.3f} | {rates[1]:.3f} |", flush=True)


if __name__ == "__main__":
    main()
