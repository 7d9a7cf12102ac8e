"""The simulation of a cluster keeps to what can be computed by hand."""

from __future__ import annotations

import pytest

from simulate_cluster import Cluster, makespan, replay


def test_equal_machines_without_failures_share_the_work() -> None:
    for machines, parts, rounds in ((1, 1, 1), (4, 4, 1), (4, 8, 2), (4, 9, 3)):
        cluster = Cluster(machines, parts, spread=0, hours_between_failures=1e12)
        assert makespan(90, cluster, 1) == pytest.approx(rounds * 90 / parts)


def test_a_failure_costs_the_restart_and_no_work() -> None:
    reliable = Cluster(1, 1, spread=0, hours_between_failures=1e12)
    failing = Cluster(1, 1, spread=0, hours_between_failures=10, restart=0.5)
    extra = makespan(100, failing, 3) - makespan(100, reliable, 3)
    assert extra > 0 and (extra / 0.5) == pytest.approx(round(extra / 0.5))


def test_more_parts_than_machines_even_out_slow_machines() -> None:
    few, many = (Cluster(8, parts, spread=0.3, hours_between_failures=1e12) for parts in (8, 64))
    assert all(makespan(100, many, seed) < makespan(100, few, seed) for seed in range(20))


def test_a_replay_loses_one_part_and_the_time_of_a_start() -> None:
    assert replay(90, 9, [1.0]) == pytest.approx(90)
    assert replay(90, 9, [1.0, 2.0]) == pytest.approx(30)
    # Worker 1 dies in its second part of 10, and is back at 45: worker 0 does the rest meanwhile.
    assert replay(80, 8, [1.0, 1.0], (1, 15.0, 30.0)) == pytest.approx(60)
    assert replay(80, 8, [1.0, 1.0], (1, 15.0, 1e9)) == pytest.approx(70)
