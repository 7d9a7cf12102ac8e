"""Cuts against whole tasks: Kendall's tau as scipy has it, its interval, reversed pairs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import kendalltau

from bge_eval.records import Qrels, Run
from bge_eval.statistics.kendall import kendall
from conftest import CommandLine
from saved import save_run

_QUERIES = 40


def test_tau_is_scipys_on_every_draw() -> None:
    random = np.random.default_rng(3)
    first, second = (random.integers(0, 6, (50, 7)) / 6 for _ in range(2))
    expected = [kendalltau(*pair).statistic for pair in zip(first, second, strict=True)]
    assert kendall(first, second) == pytest.approx(expected)
    assert np.isnan(kendall(np.ones((1, 3)), np.arange(3.0)[None])[0])


def _system(good: int, queries: range) -> tuple[Run, Qrels]:
    """Return a run that has the relevant document first for some queries, second for others."""
    run = {f"q{n}": {"d": 2.0 if n % 40 < good else 0.5, "x": 1.0} for n in queries}
    return run, {f"q{n}": {"d": 1} for n in queries}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Four systems on a task, on its first ten queries, and on a corpus that turns two round."""
    for name, good, lite in (("a", 2, 1), ("b", 9, 15), ("c", 20, 30), ("d", 36, 12)):
        for task, right, count in (
            ("Mine", good, _QUERIES),
            ("Mine@limit=10", good, 10),
            ("Mine@lite=5", lite, _QUERIES),
        ):
            save_run(tmp_path, f"o/{name}", *_system(right, range(count)), task=task)
    save_run(tmp_path, "o/e", *_system(3, range(_QUERIES)), task="Mine")  # has no cut
    return tmp_path


def test_an_agreement_is_over_the_systems_that_have_both(
    bge_eval: CommandLine, saved: Path
) -> None:
    done = bge_eval("agreement", saved, "--format", "json")
    assert done.returncode == 0, done.stderr
    rows = {row["cut"]: row for row in json.loads(done.stdout)}
    limit, lite = rows["Mine@limit=10"], rows["Mine@lite=5"]
    # The first ten queries cannot tell c from d: both have the document first in all of them.
    assert limit["tau"] == pytest.approx(kendalltau([2, 9, 20, 36], [2, 9, 10, 10]).statistic)
    assert (limit["systems"], limit["reversed"]) == (4, 0)
    assert lite["tau"] == pytest.approx(kendalltau([2, 9, 20, 36], [1, 15, 30, 12]).statistic)
    assert lite["low"] <= lite["tau"] <= lite["high"]
    assert lite["reversed"] == 2  # b and c have overtaken d
    assert lite["pairs"] >= 4
    assert (lite["best"], lite["best_of_cut"]) == ("o/d", "o/c")
    change = (1 + 15 + 30 + 12 - 2 - 9 - 20 - 36) * (1 - 0.6309297535714575) / _QUERIES / 4
    assert lite["shift"] == pytest.approx(change)
    for form in ("terminal", "markdown", "csv"):
        assert bge_eval("agreement", saved, "--format", form).returncode == 0


def test_an_agreement_needs_cuts_and_three_systems(bge_eval: CommandLine, saved: Path) -> None:
    few = bge_eval("agreement", saved, "--models", "o/a", "--models", "o/b")
    assert (few.returncode, "No cut there has 3 systems" in few.stderr) == (3, True)
    whole = saved / "results" / "o__e"
    none = bge_eval("agreement", whole)
    assert (none.returncode, "No result there is of a cut" in none.stderr) == (3, True)
