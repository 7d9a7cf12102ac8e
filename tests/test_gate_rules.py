"""The gate's rules: their file, and what corrections for many tests let through."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bge_eval.errors import UsageError
from bge_eval.gate.baseline import Baseline
from bge_eval.gate.entry import Entry
from bge_eval.gate.outcome import Status
from bge_eval.gate.power import detectable_drops
from bge_eval.gate.rules import Rule, Rules, read_rules
from bge_eval.gate.verdict import check


def test_precedence_of_rules(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(
        "[default]\nmax_drop = 0.01\nalpha = 0.1\n"
        "[suite.beir]\nmax_relative_drop = 0.02\n"
        "[task.SciFact]\nmax_drop = 0.03\nqueries = ['1']\n",
        encoding="utf-8",
    )
    rules = read_rules(path)
    assert rules.of("Other").tolerance(0.5) == 0.01
    assert rules.of("NFCorpus", ["beir"]).tolerance(0.5) == 0.01  # 2% of 0.5
    assert rules.of("NFCorpus", ["beir"]).tolerance(0.3) == pytest.approx(0.006)
    own = rules.of("SciFact", ["beir"])
    assert (own.tolerance(0.1), own.alpha, own.queries) == (0.03, 0.1, ("1",))


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("[defualt]\n", "Did you mean default"),
        ("[default]\nmax_drp = 1\n", "Did you mean max_drop"),
        ("[default]\nmax_drop = 5\n", "max_drop = 5 must be 0 to 1"),
        ("[default]\nmax_drop = nan\n", "must be 0 to 1"),
        ("[default]\nmax_drop = true\n", "must be a number"),
        ("[default]\nsignificant = 1\n", "must be true or false"),
        ('[default]\nmeasures = "main"\n', "must be a list"),
        ('[default]\nmeasures = ["ndcg@10"]\n', "must be written as 'nDCG@10'"),
        ('[default]\nmeasures = ["nDCG@7"]\n', "cutoffs 1, 3, 5"),
        ("[task]\nSciFact = 1\n", r"write a table \[task.NAME\]"),
        ("[task.SciFact]\nqueries = [1]\n", "ids in quotes"),
        ("[average]\nqueries = []\n", "queries is not a key of this table"),
    ],
)
def test_wrong_rules_are_named(tmp_path: Path, toml: str, message: str) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(toml, encoding="utf-8")
    with pytest.raises(UsageError, match=message):
        read_rules(path)


def values_entry(task: str, values: dict[str, float]) -> Entry:
    mean = sum(values.values()) / len(values)
    scores = {"main": mean, "nDCG@10": mean}
    return Entry(task, "m", "nDCG@10", scores, queries={"nDCG@10": {"default/test": values}})


def losing(seed: int, loss: float, queries: int = 100) -> tuple[dict[str, float], dict[str, float]]:
    """Draw a baseline's values, and those of a run that loses that much on average."""
    draw = np.random.default_rng(seed)
    before = draw.beta(2, 2, queries)
    after = before - loss + draw.normal(0, 0.06, queries)
    names = [f"q{place}" for place in range(queries)]
    return dict(zip(names, before, strict=True)), dict(zip(names, after, strict=True))


def test_an_average_is_a_family_of_its_own(tmp_path: Path) -> None:
    """56 tasks that lose a little each: no task can be shown to, and their mean can."""
    drawn = {f"Task{i}": losing(i, 0.01) for i in range(56)}
    before = {task: values_entry(task, values) for task, (values, _) in drawn.items()}
    after = {task: values_entry(task, values) for task, (_, values) in drawn.items()}
    rules = Rules(average=Rule(max_drop=0.002))
    outcome = check(Baseline("b", tmp_path / "b.json", before), after, rules)
    *_, mean = outcome.findings
    assert mean.task == "average of the baseline's tasks"
    assert mean.status is Status.REGRESSED
    assert mean.comparison is not None and mean.p_value == mean.comparison.p_value


@pytest.mark.parametrize("tasks", [501, 2000])
def test_no_number_of_tasks_hides_a_disaster(tmp_path: Path, tasks: int) -> None:
    """Every query of every task falls to 0; a correction for so many tests must not hide it."""
    draw = np.random.default_rng(tasks)
    names = [f"q{place}" for place in range(20)]
    before, after = {}, {}
    for index in range(tasks):
        values = dict(zip(names, draw.uniform(0.2, 1, len(names)), strict=True))
        before[f"T{index}"] = values_entry(f"T{index}", values)
        after[f"T{index}"] = values_entry(f"T{index}", dict.fromkeys(names, 0.0))
    outcome = check(Baseline("b", tmp_path / "b.json", before), after, Rules())
    assert len(outcome.of(Status.REGRESSED)) == tasks and outcome.exit_code == 1


def test_the_detectable_drop_is_found_with_its_power(tmp_path: Path) -> None:
    """Runs that lose as much as the baseline can detect fail in about 80% of the cases."""
    first, second = losing(1, 0.0, queries=150)
    old = Baseline("b", tmp_path / "b.json", {"T": values_entry("T", first)})
    new = replace(old, entries={"T": values_entry("T", second)})
    rules = Rules(default=Rule(max_drop=0.0))
    [task] = detectable_drops(old, new, rules)
    assert task.measured
    [assumed] = detectable_drops(None, new, rules)
    assert not assumed.measured and assumed.drop > task.drop
    draw = np.random.default_rng(5)
    failed = 0
    for _ in range(200):
        # The rules are judged on other queries of the same spread.
        after = {q: v - task.drop + draw.normal(0, 0.06) for q, v in second.items()}
        outcome = check(new, {"T": values_entry("T", after)}, rules)
        failed += bool(outcome.of(Status.REGRESSED))
    # The spread itself is known from 150 queries to about 6%, which moves the power by 0.06.
    assert 0.8 - 0.06 - 0.1 < failed / 200 < 0.8 + 0.06 + 0.1
