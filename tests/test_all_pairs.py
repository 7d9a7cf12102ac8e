"""Tests of all pairs at once, against the test of one pair."""

from __future__ import annotations

import numpy as np
import pytest

from bge_eval.statistics.all_pairs import compare_all_pairs
from bge_eval.statistics.paired import compare_means
from bge_eval.statistics.samples import RESAMPLES


def systems(count: int, queries: int, seed: int = 0) -> np.ndarray:
    """Draw values that differ by system and share the queries' difficulty."""
    draw = np.random.default_rng(seed)
    values = draw.uniform(0, 1, queries) + draw.normal(0, 0.2, (count, queries))
    values += np.arange(count)[:, None] * 0.02
    return values.clip(0, 1).round(2)


@pytest.mark.parametrize("queries", [2, 9, 16, 60, 300])
def test_every_pair_has_the_p_value_of_its_own_test(queries: int) -> None:
    values = systems(4, queries)
    tests = compare_all_pairs([values])
    assert [(test.first, test.second) for test in tests] == [
        (0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3),
    ]  # fmt: skip
    for test in tests:
        expected = compare_means([values[test.first]], [values[test.second]], [1.0])
        error = 0.0 if expected.exact else 4 * (2 * expected.p_value / RESAMPLES) ** 0.5
        assert test.p_value == pytest.approx(expected.p_value, abs=error + 1e-9)
        assert test.difference == pytest.approx(expected.difference)
        assert (test.wins, test.ties, test.losses) == (
            expected.wins,
            expected.ties,
            expected.losses,
        )
        assert test.interval is not None and expected.interval is not None
        assert test.interval.low <= test.difference <= test.interval.high
        assert test.interval.high == pytest.approx(expected.interval.high, abs=0.01)
        assert (test.p_value < 0.05) == (not test.interval.low <= 0 <= test.interval.high)


def test_groups_of_queries_are_weighted() -> None:
    groups, weights = [systems(3, 40), systems(3, 70, seed=1)], [0.25, 0.75]
    for test in compare_all_pairs(groups, weights):
        before, after = ([group[i] for group in groups] for i in (test.first, test.second))
        expected = compare_means(before, after, weights)
        assert test.difference == pytest.approx(expected.difference)
        error = 4 * (2 * expected.p_value / RESAMPLES) ** 0.5
        assert test.p_value == pytest.approx(expected.p_value, abs=error + 1e-9)


def test_far_tails_are_those_of_one_pair() -> None:
    values = systems(2, 400)
    values[1] = values[0] + np.random.default_rng(3).uniform(0.0, 0.4, 400)
    (test,) = compare_all_pairs([values])
    expected = compare_means([values[0]], [values[1]], [1.0])
    assert 0 < test.p_value < 1e-30
    assert test.p_value == pytest.approx(expected.p_value, rel=1e-6)


def test_equal_systems_and_single_queries() -> None:
    same = np.ones((2, 30)) / 3
    (test,) = compare_all_pairs([same])
    assert (test.p_value, test.ties) == (1.0, 30)
    assert compare_all_pairs([np.ones((3, 1))]) == []
    assert compare_all_pairs([np.ones((1, 30))]) == []
