"""Paired statistics: equal to scipy's, honest when nothing differs, quick on many queries."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from bge_eval.statistics.corrections import holm
from bge_eval.statistics.difference import difference_interval
from bge_eval.statistics.intervals import bootstrap_interval
from bge_eval.statistics.many import range_probability, tukey_hsd
from bge_eval.statistics.paired import compare, compare_means, effect_size
from bge_eval.statistics.randomisation import (
    randomisation_p_value,
    randomisation_test,
    tail_probability,
)
from bge_eval.statistics.samples import Values

SIMULATIONS = 500


def scores(queries: int, seed: int) -> tuple[Values, Values]:
    """Values as nDCG@10 has them: many queries at 0 and at 1, many the same in both systems."""
    generator = np.random.default_rng(seed)
    hard = generator.random(queries)
    first = np.where(hard < 0.2, 0.0, np.where(hard > 0.8, 1.0, generator.beta(2, 2, queries)))
    moved = np.clip(first + generator.normal(0, 0.3, queries), 0, 1)
    return first, np.where(generator.random(queries) < 0.5, first, moved)


@pytest.mark.parametrize("queries", [4, 20, 300])
@pytest.mark.parametrize("confidence", [0.95, 0.8])
def test_interval_is_scipys(queries: int, confidence: float) -> None:
    first, second = scores(queries, seed=queries)
    ours = bootstrap_interval([second - first], seed=7, resamples=2000, confidence=confidence)
    # Both draw the same indices from the same generator, so not only the method is the same.
    theirs = stats.bootstrap(
        (second - first,),
        np.mean,
        n_resamples=2000,
        confidence_level=confidence,
        method="BCa",
        rng=np.random.default_rng(7),
    ).confidence_interval
    assert ours is not None
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


@pytest.mark.parametrize("shape", [0.05, 0.5, 8.0])
def test_interval_of_many_values_is_what_draws_estimate(shape: float) -> None:
    values = np.random.default_rng(3).beta(shape, 0.5, 1000)
    ours = bootstrap_interval([values])
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(7)
    ).confidence_interval
    assert ours is not None
    # Four standard errors of a 2.5% quantile of 20,000 draws are 0.075 of the standard error.
    error = 0.075 * values.std() / 1000**0.5
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=error)


@pytest.mark.parametrize("queries", [2, 5, 9, 12])
def test_p_value_of_few_queries_is_scipys(queries: int) -> None:
    first, second = scores(queries, seed=queries)
    theirs = stats.permutation_test(
        (second, first),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=2**queries,
    )
    p_value, exact = randomisation_p_value([second - first])
    assert exact and p_value == pytest.approx(theirs.pvalue, abs=1e-12)


def test_p_value_of_many_queries_is_scipys() -> None:
    first, second = scores(120, seed=1)
    drawn, exact = randomisation_p_value([second - first], resamples=20_000)
    theirs = stats.permutation_test(
        (second, first),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=20_000,
        rng=2,
    )
    assert not exact
    # Two draws of 20,000: four standard errors of their difference (scipy doubles a tail).
    error = np.sqrt(3 * drawn * (1 - drawn) / 20_000)
    assert abs(drawn - theirs.pvalue) < 4 * error


def test_the_border_between_all_swaps_and_drawn_ones() -> None:
    generator = np.random.default_rng(3)
    differences = generator.normal(0.1, 0.3, 16)
    all_swaps, exact = randomisation_p_value([differences])
    assert exact
    one_more = np.append(differences, 1e-6)
    drawn, exact = randomisation_p_value([one_more], resamples=200_000)
    assert not exact
    assert drawn == pytest.approx(all_swaps, abs=0.005)
    # Queries on which both are the same change nothing, and need no draws.
    padded = np.concatenate([differences, np.zeros(500)])
    p_value, exact = randomisation_p_value([padded])
    assert exact and p_value == pytest.approx(all_swaps)


def test_nothing_differs() -> None:
    first, _ = scores(30, seed=0)
    same = compare(first, first)
    assert (same.difference, same.p_value, same.exact) == (0, 1, True)
    # 30 queries without a change do not show that no query changes.
    assert same.interval is not None and same.interval.low == -same.interval.high < 0
    assert same.effect_size is None
    assert (same.wins, same.ties, same.losses) == (0, 30, 0)


def test_a_single_query_proves_nothing() -> None:
    one = compare([0.25], [0.75])
    assert (one.difference, one.p_value, one.interval, one.effect_size) == (0.5, 1.0, None, None)


def test_a_constant_gain() -> None:
    every = compare(np.zeros(12), np.full(12, 0.5))
    # Every query changes, all by the same: nothing that the sample missed is conceivable.
    assert every.interval is not None and (every.interval.low, every.interval.high) == (0.5, 0.5)
    assert every.p_value == 2 / 2**12 and every.effect_size is None
    assert (every.wins, every.ties, every.losses) == (12, 0, 0)


def test_direction_counts_and_effect_size() -> None:
    first, second = scores(200, seed=5)
    forth, back = compare(first, second), compare(second, first)
    assert forth.difference == pytest.approx(second.mean() - first.mean())
    assert back.difference == pytest.approx(-forth.difference)
    assert (back.wins, back.ties, back.losses) == (forth.losses, forth.ties, forth.wins)
    assert forth.wins + forth.ties + forth.losses == 200
    differences = second - first
    # d of pairs is the paired t statistic over the root of n.
    t_statistic = stats.ttest_rel(second, first).statistic
    assert effect_size([differences]) == pytest.approx(t_statistic / np.sqrt(200))


def test_same_seed_same_numbers() -> None:
    first, second = scores(100, seed=6)
    assert compare(first, second, seed=4) == compare(first, second, seed=4)
    assert compare(first, second, seed=4) != compare(first, second, seed=5)


def test_mean_over_tasks() -> None:
    large, small = scores(400, seed=8), scores(25, seed=9)
    both = compare_means([large[0], small[0]], [large[1], small[1]], [0.5, 0.5])
    means = [(group[1] - group[0]).mean() for group in (large, small)]
    assert both.difference == pytest.approx(np.mean(means))
    assert both.queries == 425
    # The variance of a mean of independent means is known; the interval has to have its width.
    variance = sum((group[1] - group[0]).var() / len(group[0]) for group in (large, small)) / 4
    assert both.interval is not None
    width = 2 * stats.norm.ppf(0.975) * np.sqrt(variance)
    assert width < both.interval.high - both.interval.low < 1.15 * width
    # And the randomisation test the share of swaps that give a mean as far from 0.
    generator = np.random.default_rng(10)
    swapped = [
        np.mean([(generator.choice([-1, 1], len(a)) * (b - a)).mean() for a, b in (large, small)])
        for _ in range(4000)
    ]
    extreme = np.mean(np.abs(swapped) >= abs(both.difference))
    assert both.p_value == pytest.approx(extreme, abs=0.03)


def test_one_group_is_the_whole() -> None:
    first, second = scores(50, seed=10)
    assert compare_means([first], [second], [1.0]) == compare(first, second)


@pytest.mark.parametrize(
    ("first", "second"), [([], []), ([0.1], [0.1, 0.2]), ([0.1], [float("nan")])]
)
def test_what_cannot_be_compared(first: list[float], second: list[float]) -> None:
    with pytest.raises(ValueError, match="quer"):
        compare(first, second)


def test_holm() -> None:
    # Worked by hand: 0.005 × 4, 0.01 × 3, 0.03 × 2, and 0.04 × 1, which may not fall below.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_keeps_the_error_of_the_family() -> None:
    generator = np.random.default_rng(11)
    false = [min(holm(list(generator.random(15)))) <= 0.05 for _ in range(4000)]
    low, high = stats.binom.interval(0.999, 4000, 1 - (1 - 0.05 / 15) ** 15)
    assert low <= sum(false) <= high


@pytest.mark.parametrize("queries", [12, 60])
def test_rejections_when_nothing_differs(queries: int) -> None:
    """Two runs that differ by swapping the systems at random, query by query."""
    generator = np.random.default_rng(12)
    rejected = 0
    for simulation in range(SIMULATIONS):
        first, second = scores(queries, seed=1000 + simulation)
        swap = generator.random(queries) < 0.5
        differences = np.where(swap, first - second, second - first)
        p_value, _ = randomisation_p_value([differences], seed=simulation, resamples=999)
        rejected += p_value <= 0.05
    low, high = stats.binom.interval(0.95, SIMULATIONS, 0.05)
    # With few queries p can only take few values, so 0.05 is not quite reached.
    assert (0 if queries < 20 else low) <= rejected <= high


def test_coverage_of_the_interval() -> None:
    truth = np.subtract(*scores(1_000_000, seed=13)[::-1]).mean()
    held = 0
    for simulation in range(SIMULATIONS):
        first, second = scores(200, seed=5000 + simulation)
        interval = bootstrap_interval([second - first], seed=simulation, resamples=1000)
        assert interval is not None
        held += interval.low <= truth <= interval.high
    low, high = stats.binom.interval(0.95, SIMULATIONS, 0.95)
    assert low <= held <= high


@pytest.mark.parametrize("queries", [20, 50, 300])
@pytest.mark.parametrize("share", [0.02, 0.1, 0.6, 1.0])
def test_coverage_of_a_difference_and_agreement_with_the_test(queries: int, share: float) -> None:
    """2% to 100% of the queries change; more populations are in benchmarks/interval_coverage.py."""
    generator = np.random.default_rng(int(queries + 100 * share))
    changes = np.clip(generator.normal(0.15, 0.35, 100_000), -1, 1)
    population = np.where(generator.random(100_000) < share, changes, 0.0)
    truth, held = population.mean(), 0
    for _ in range(SIMULATIONS):
        sample = generator.choice(population, queries)
        test = randomisation_test([sample], resamples=499)
        interval = difference_interval([sample], [1.0], test)
        assert interval is not None
        assert (test.p_value < 0.05) != (interval.low <= 0 <= interval.high)
        held += interval.low <= truth <= interval.high
    assert held >= stats.binom.ppf(0.001, SIMULATIONS, 0.94)


def test_an_interval_of_a_mean_over_tasks_covers() -> None:
    generator = np.random.default_rng(31)
    sizes, weights = (20, 60, 300), [1 / 3] * 3
    held = 0
    for _ in range(SIMULATIONS):
        groups = [
            np.where(generator.random(n) < 0.3, generator.normal(0.1, 0.3, n), 0.0) for n in sizes
        ]
        test = randomisation_test(groups, weights, resamples=499)
        interval = difference_interval(groups, weights, test)
        assert interval is not None
        held += interval.low <= 0.03 <= interval.high
    assert held >= stats.binom.ppf(0.001, SIMULATIONS, 0.94)


def test_the_tail_is_that_of_all_flips() -> None:
    """Beyond the random flips' reach, p equals the enumeration of 2**23 flips, within a tenth.

    Sums of reciprocal ranks fall on a grid, where the tail has steps: a smooth approximation
    lies between the flips beyond the threshold and those that reach it.
    """
    generator = np.random.default_rng(21)
    samples = {
        "normal": generator.normal(0, 1, 23),
        "reciprocal ranks": generator.choice([1, 1 / 2, 1 / 3, 1 / 4, -1 / 2, -1], 23),
        "one large": np.append(generator.normal(0, 0.05, 22), 1.0),
    }
    for name, terms in samples.items():
        sums = np.zeros(1)
        for term in terms:
            sums = np.concatenate([sums + term, sums - term])
        sums = np.sort(np.abs(sums))
        for share in (1e-2, 1e-3, 1e-4):
            threshold = sums[int(len(sums) * (1 - share))]
            beyond = float(np.mean(sums > threshold + 1e-9))
            reached = float(np.mean(sums >= threshold - 1e-9))
            p_value, exact = tail_probability(terms, threshold)
            assert not exact
            assert 0.9 * beyond <= p_value <= 1.1 * reached, (name, share)


@pytest.mark.parametrize("queries", [17, 22, 60, 3000])
def test_every_query_lost_is_as_rare_as_one_flip(queries: int) -> None:
    lost = -np.random.default_rng(queries).uniform(0.1, 1, queries)
    p_value, exact = randomisation_p_value([lost])
    assert exact and p_value == max(2.0 ** (1 - queries) if queries < 1000 else 0, 5e-324)


def test_many_queries_need_no_draws() -> None:
    """From 500 differing queries on p is the saddlepoint's: that of 100,000 draws, and for 0, 1."""
    generator = np.random.default_rng(51)
    for mean in (0.0, 0.004, 0.01, 0.015):
        terms = generator.choice([-1, -0.5, 1 / 3, 0.2, 0.5, 1], 700) + mean * 10
        p_value, _ = randomisation_p_value([terms])
        signs = generator.choice([-1.0, 1.0], (20_000, 700))
        drawn = np.mean(np.abs(signs @ terms) >= abs(terms.sum()) - 1e-9)
        error = 4 * np.sqrt(drawn * (1 - drawn) / 20_000) + 0.01 * drawn + 1e-4
        assert abs(p_value - drawn) < error
    terms = np.concatenate([generator.random(400), generator.random(400)])
    assert randomisation_p_value([np.concatenate([terms, -terms])])[0] == pytest.approx(1)


def test_equal_losses_are_binomial() -> None:
    values = np.concatenate([np.full(190, -1.0), np.full(60, 1.0)])
    p_value, exact = randomisation_p_value([values])
    assert exact and p_value == pytest.approx(stats.binomtest(60, 250).pvalue, rel=1e-9)


def test_two_thousand_disasters_are_all_beyond_chance() -> None:
    """A correction for 2,000 tests leaves a disaster significant, and an honest run not."""
    generator = np.random.default_rng(9)
    lost, same = [], []
    for _ in range(2000):
        before = generator.beta(2, 2, 50)
        lost.append(randomisation_p_value([-before], resamples=1000)[0])
        same.append(randomisation_p_value([generator.normal(0, 0.3, 50)], resamples=1000)[0])
    assert max(holm(lost)) < 0.001
    assert min(holm(same)) > 0.05


def test_two_of_many_systems_are_the_paired_test() -> None:
    first, second = scores(60, seed=40)
    p_values = tukey_hsd([np.column_stack([first, second])])
    assert p_values[0, 1] == p_values[1, 0] == randomisation_p_value([second - first])[0]


def test_the_range_of_normal_values_is_scipys() -> None:
    widths = np.array([0.0, 0.5, 2.0, 4.0, 5.5, 7.0])
    for k in (3, 8, 40):
        theirs = stats.studentized_range.sf(widths, k, np.inf)
        assert range_probability(widths, k) == pytest.approx(theirs, rel=1e-3, abs=1e-8)
    assert 0 < range_probability(np.array([30.0]), 8)[0] < 1e-90


@pytest.mark.parametrize("queries", [40, 1200])
@pytest.mark.parametrize("systems", [4, 8, 16])
def test_equal_systems_differ_in_one_table_of_twenty(systems: int, queries: int) -> None:
    """Of k equal systems some pair is significant in at most 5% of the tables."""
    generator = np.random.default_rng(systems)
    denied = 0
    for table in range(120):
        hard = generator.beta(0.5, 0.5, (queries, 1))
        own = generator.beta(0.5, 0.5, (queries, systems))
        values = np.where(generator.random((queries, systems)) < 0.5, hard, own)
        denied += tukey_hsd([values], seed=table, resamples=99).min() < 0.05
    assert denied <= stats.binom.ppf(0.999, 120, 0.05)


def test_many_systems_are_permuted_within_queries() -> None:
    """Few queries: the p-values are those of permutations drawn one by one."""
    generator = np.random.default_rng(41)
    values = generator.beta(2, 2, (12, 5)) + np.array([0.25, 0.1, 0, 0, 0])
    p_values = tukey_hsd([values], resamples=4000)
    ranges = [np.ptp(generator.permuted(values, axis=1).mean(axis=0)) for _ in range(4000)]
    distance = abs(values.mean(axis=0)[0] - values.mean(axis=0)[4])
    expected = np.mean(np.array(ranges) >= distance)
    error = np.sqrt(2 * expected * (1 - expected) / 4000)
    assert abs(p_values[0, 4] - expected) < 5 * error + 0.01


def test_ten_thousand_queries() -> None:
    first, second = scores(10_000, seed=14)
    result = compare(first, second)
    assert result.queries == 10_000 and 0 < result.p_value <= 1


def test_rounding_of_what_did_not_change_is_no_evidence() -> None:
    """Saved values have nine digits: those that were not saved differ from them by as little."""
    values = np.random.default_rng(0).random(300)
    saved = np.array([float(f"{value:.9g}") for value in values])
    assert randomisation_p_value([values - saved])[0] == 1.0
    values[:4] += 0.1
    p_value, exact = randomisation_p_value([values - saved])
    assert exact and p_value == pytest.approx(2 / 2**4)


def test_equal_steps_do_not_put_0_at_the_end_of_the_interval() -> None:
    """Of values on a grid many flips equal the critical one; rounding must not decide."""
    generator = np.random.default_rng(50)
    for seed in range(300):
        sample = generator.choice([-1.0, 0.0, 1.0], 50, p=[0.1, 0.6, 0.3])
        test = randomisation_test([sample], seed=seed, resamples=999)
        interval = difference_interval([sample], [1.0], test)
        assert interval is not None
        assert test.significant != (interval.low <= 0 <= interval.high)
