"""Whether a difference between two systems is more than chance: paired tests over queries.

What is compared are the values of one measure for the same queries under two systems. The
queries are taken as a sample of those that the systems will meet:

- The confidence interval of the difference is a bias-corrected and accelerated bootstrap over
  queries (Efron, "Better Bootstrap Confidence Intervals", JASA 82, 1987; for retrieval Sakai,
  "Evaluating Evaluation Metrics based on the Bootstrap", SIGIR 2006).
- The p-value is that of Fisher's two-sided randomisation test: if the systems were the same,
  each query's two values might as well be swapped (Fisher, "The Design of Experiments", 1935;
  for retrieval Smucker, Allan and Carterette, "A Comparison of Statistical Significance Tests
  for Information Retrieval Evaluation", CIKM 2007). All swaps are tried where there are few
  queries; otherwise swaps are drawn, and the observed one counts among them, so that p is never
  0 (Phipson and Smyth, "Permutation P-values Should Never Be Zero", SAGMB 9, 2010).
- Several tests at once are corrected by Holm's step-down method ("A Simple Sequentially
  Rejective Multiple Test Procedure", Scandinavian Journal of Statistics 6, 1979).
- The effect size is Cohen's d for pairs ("Statistical Power Analysis for the Behavioral
  Sciences", 1988; for retrieval Sakai, "Statistical Reform in Information Retrieval?", SIGIR
  Forum 48, 2014).

A mean over several tasks is treated as it is formed: queries are drawn within their own task.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
"""``(n,)`` float64, one for each query."""

RESAMPLES = 10_000
"""Bootstrap samples, and swaps of the randomisation test, that are drawn."""
CONFIDENCE = 0.95
"""How often the interval is to hold the true difference."""
EXACT_UP_TO = 16
"""So many queries that differ: all of their 2**16 swaps are tried instead of drawn."""
TIE = 1e-9
"""Values of a query that are this near are the same."""
METHOD = (
    "interval: paired bootstrap over queries (BCa, Efron 1987);"
    " p: two-sided paired randomisation test (Fisher 1935; Smucker et al. 2007)"
)
"""The methods in one line, for people."""

_CELLS = 2**18
"""Random numbers that are held at once, so that they stay in the processor's cache."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval."""

    low: float
    """Its lower end."""
    high: float
    """Its upper end."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two systems on the same queries."""

    queries: int
    """How many queries both have."""
    before: float
    """The first system's mean."""
    after: float
    """The second system's mean."""
    difference: float
    """``after - before``."""
    interval: Interval | None
    """Of the difference; None for a single query."""
    p_value: float
    """Of the hypothesis that the systems are the same, two-sided."""
    exact: bool
    """Whether all swaps were tried, so that p is exact."""
    effect_size: float | None
    """Cohen's d: the difference in standard deviations of the queries' differences; None where
    they do not vary."""
    wins: int
    """Queries on which the second system is better."""
    ties: int
    """Queries on which both are the same."""
    losses: int
    """Queries on which the second system is worse."""


def compare(
    before: Sequence[float] | Values,
    after: Sequence[float] | Values,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Comparison:
    """Compare two systems on the queries of one task.

    Args:
        before: the first system's values, ``(n_queries,)``.
        after: the second system's values of the same queries in the same order.
        seed: of everything that is drawn; the same seed gives the same numbers.
        resamples: how many bootstrap samples and swaps are drawn.
        confidence: of the interval.

    Raises:
        ValueError: there are no values, their number differs, or one is no finite number.
    """
    return compare_means(
        [before], [after], [1.0], seed=seed, resamples=resamples, confidence=confidence
    )


def compare_means(
    before: Sequence[Sequence[float] | Values],
    after: Sequence[Sequence[float] | Values],
    weights: Sequence[float],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Comparison:
    """Compare two systems by a weighted sum of means over groups of queries.

    Args:
        before: the first system's values, one ``(n_queries,)`` for each group (a task, or a
            split or subset of one).
        after: the second system's, likewise.
        weights: what every group's mean counts; they sum to 1 for a mean over tasks.
        seed: of everything that is drawn.
        resamples: how many bootstrap samples and swaps are drawn.
        confidence: of the interval.

    Raises:
        ValueError: as `compare`.
    """
    first = [_values(group) for group in before]
    second = [_values(group) for group in after]
    if not first or [len(group) for group in first] != [len(group) for group in second]:
        raise ValueError("the systems must have values for the same queries")
    differences = [b - a for a, b in zip(first, second, strict=True)]
    p_value, exact = randomisation_p_value(differences, weights, seed=seed, resamples=resamples)
    every = np.concatenate(differences)
    return Comparison(
        queries=len(every),
        before=_mean(first, weights),
        after=_mean(second, weights),
        difference=_mean(differences, weights),
        interval=bootstrap_interval(
            differences, weights, seed=seed, resamples=resamples, confidence=confidence
        ),
        p_value=p_value,
        exact=exact,
        effect_size=effect_size(differences, weights),
        wins=int((every > TIE).sum()),
        ties=int((np.abs(every) <= TIE).sum()),
        losses=int((every < -TIE).sum()),
    )


def bootstrap_interval(
    groups: Sequence[Sequence[float] | Values],
    weights: Sequence[float] = (1.0,),
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Interval | None:
    """Return the BCa bootstrap interval of a mean: of one system's values, or of differences.

    For one group it is what ``scipy.stats.bootstrap(…, method="BCa")`` gives, without its
    n × n table of leave-one-out samples: for a mean they are known in closed form.

    Args:
        groups: values, one ``(n,)`` for each group; each is drawn from by itself.
        weights: what every group's mean counts.
        seed: of the draws.
        resamples: how many samples are drawn.
        confidence: how often the interval is to hold the true mean.

    Returns:
        The interval; None if a group has a single value, of which nothing is known but itself.
    """
    from scipy.special import ndtr, ndtri

    values = [_values(group) for group in groups]
    if min(map(len, values)) < 2:
        return None
    mean = _mean(values, weights)
    if all(np.ptp(x) <= TIE for x in values):
        return Interval(mean, mean)
    generator = np.random.default_rng(seed)
    drawn = np.zeros(resamples)
    for x, weight in _zip(values, weights):
        drawn += weight * _means_of_samples(x, resamples, generator)
    below = np.count_nonzero(drawn < mean) + np.count_nonzero(drawn == mean) / 2
    bias = ndtri(below / resamples)
    deviations = [weight * (x - x.mean()) / len(x) for x, weight in _zip(values, weights)]
    influence = np.concatenate(deviations)
    spread = float(np.square(influence).sum())
    acceleration = float(np.power(influence, 3).sum()) / (6 * spread**1.5)
    quantiles = ndtri([(1 - confidence) / 2, (1 + confidence) / 2])
    shifted = bias + (bias + quantiles) / (1 - acceleration * (bias + quantiles))
    low, high = np.quantile(drawn, ndtr(shifted))
    return Interval(float(low), float(high))


def randomisation_p_value(
    differences: Sequence[Sequence[float] | Values],
    weights: Sequence[float] = (1.0,),
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> tuple[float, bool]:
    """Return the p-value of the two-sided paired randomisation test.

    To swap a query's two values is to turn the sign of its difference, so queries without a
    difference need no draws. With all swaps tried it is what ``scipy.stats.permutation_test(…,
    permutation_type="samples")`` gives.

    Args:
        differences: one ``(n,)`` for each group.
        weights: what every group's mean counts.
        seed: of the draws.
        resamples: how many swaps are drawn.

    Returns:
        p, and whether it is exact because all swaps were tried.
    """
    values = [_values(group) for group in differences]
    terms = np.concatenate([weight * x / len(x) for x, weight in _zip(values, weights)])
    # Ties first: their rounding must not weigh in what the swaps, which leave them out, must reach.
    terms = terms[np.concatenate([np.abs(x) > TIE for x in values])]
    observed = abs(float(terms.sum()))
    # Sums of the same terms in another order may differ in the last digits.
    least = observed - 1e-12 * float(np.abs(terms).sum())
    if len(terms) <= EXACT_UP_TO:
        signs = np.unpackbits(
            np.arange(2 ** len(terms), dtype=">u4").view(np.uint8).reshape(-1, 4), axis=1
        )[:, 32 - len(terms) :]
        return float(np.mean(np.abs(_signed_sums(signs, terms)) >= least)), True
    generator = np.random.default_rng(seed)
    extreme = 0
    size = max(1, _CELLS // len(terms))
    for start in range(0, resamples, size):
        count = min(size, resamples - start)
        bits = generator.integers(0, 256, (count, -(-len(terms) // 8)), dtype=np.uint8)
        signs = np.unpackbits(bits, axis=1, count=len(terms))
        extreme += int(np.count_nonzero(np.abs(_signed_sums(signs, terms)) >= least))
    return (extreme + 1) / (resamples + 1), False


def effect_size(
    differences: Sequence[Sequence[float] | Values], weights: Sequence[float] = (1.0,)
) -> float | None:
    """Return Cohen's d of paired values: the mean difference over their standard deviation.

    Args:
        differences: one ``(n,)`` for each group.
        weights: what every group counts; the groups' variances are averaged by them.

    Returns:
        d, or None where the differences do not vary.
    """
    values = [_values(group) for group in differences]
    if min(map(len, values)) < 2:
        return None
    variance = sum(weight * float(x.var(ddof=1)) for x, weight in _zip(values, weights))
    variance /= sum(weights)
    return _mean(values, weights) / variance**0.5 if variance > TIE**2 else None


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for being several, in the order given (Holm 1979).

    The chance that any of the corrected ones is below a level although nothing differs is at
    most that level, whether or not the tests depend on each other.
    """
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected


def _values(group: Sequence[float] | Values) -> Values:
    values = np.asarray(group, np.float64)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise ValueError("a group of values must be one finite number for each query")
    return values


def _zip(values: Sequence[Values], weights: Sequence[float]) -> list[tuple[Values, float]]:
    return list(zip(values, weights, strict=True))


def _mean(values: Sequence[Values], weights: Sequence[float]) -> float:
    return sum(weight * float(x.mean()) for x, weight in _zip(values, weights))


def _means_of_samples(values: Values, resamples: int, generator: np.random.Generator) -> Values:
    """Return the means of samples drawn with replacement, ``(resamples,)``."""
    means = np.empty(resamples)
    size = max(1, _CELLS // len(values))
    for start in range(0, resamples, size):
        stop = min(start + size, resamples)
        rows = generator.integers(0, len(values), (stop - start, len(values)), dtype=np.int32)
        means[start:stop] = values[rows].mean(axis=1)
    return means


def _signed_sums(signs: npt.NDArray[np.uint8], terms: Values) -> Values:
    """Return Σ ±term for every row of bits; a set bit turns the sign."""
    sums: Values = terms.sum() - 2 * (signs @ terms)
    return sums
