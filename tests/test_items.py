"""Pairs and texts: what each contributes to a score that is no mean over queries."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import (  # type: ignore[import-untyped]
    average_precision_score,
    f1_score,
)

from bge_eval.compare.outputs import MAIN, output
from bge_eval.compare.pairs import Verdict, compare_pair, corrected
from bge_eval.compare.sides import find_side
from bge_eval.gate.baseline import Baseline
from bge_eval.gate.entry import entry_of
from bge_eval.gate.gate import Request, judge, update
from bge_eval.gate.outcome import Status
from bge_eval.gate.rules import Rules
from bge_eval.gate.verdict import check
from bge_eval.leaderboard.reading import leaderboard
from bge_eval.leaderboard.significance import Evidence
from bge_eval.measures.items import (
    Array,
    ItemValues,
    average_precision,
    best_accuracy,
    best_f1,
    contributions,
    item_values,
    macro_f1,
    pearson,
    spearman,
)
from bge_eval.measures.mteb_keys import MAIN_KEY
from bge_eval.results.saved import SavedResult, find_results
from bge_eval.results.store import ITEMS
from bge_eval.results.trec import write_per_query
from bge_eval.statistics.difference import difference_interval
from bge_eval.statistics.randomisation import randomisation_test
from conftest import BUILTIN, CommandLine
from saved import result_folder

N = 300


def sts(seed: int, noise: float) -> tuple[Array, Array]:
    """Draw gold scores with many ties, and rounded similarities."""
    draw = np.random.default_rng(seed)
    gold = np.round(5 * draw.random(N))
    return gold, np.round(gold + draw.normal(0, noise, N), 1)


def pairs(seed: int, noise: float) -> tuple[Array, Array]:
    draw = np.random.default_rng(seed)
    gold = (draw.random(N) < 0.3).astype(np.float64)
    return gold, np.round(gold + draw.normal(0, noise, N), 1)


CORRELATIONS: list[tuple[Any, Callable[[Array, Array], float], Any]] = [
    (spearman, lambda gold, x: float(stats.spearmanr(gold, x)[0]), sts),
    (pearson, lambda gold, x: float(stats.pearsonr(gold, x)[0]), sts),
    (average_precision, lambda gold, x: float(average_precision_score(gold, x)), pairs),
]


@pytest.mark.parametrize(("ours", "theirs", "drawn"), CORRELATIONS)
def test_contributions_are_the_jackknifes(ours: Any, theirs: Any, drawn: Any) -> None:
    gold, values = drawn(1, 1.5)
    added = ours(gold, values)
    score = theirs(gold, values)
    assert added.mean() == pytest.approx(score, abs=1e-12)
    keep = ~np.eye(N, dtype=bool)
    without = np.array([theirs(gold[rest], values[rest]) for rest in keep])
    pseudo = N * score - (N - 1) * without
    # The infinitesimal jackknife differs from the leave-one-out one by terms of 1/n.
    assert np.corrcoef(added, pseudo)[0, 1] > 0.999
    assert added.std() == pytest.approx(pseudo.std(), rel=0.03)


def test_thresholds_are_mtebs() -> None:
    from mteb.abstasks import AbsTaskPairClassification as Task

    gold, values = pairs(2, 0.8)
    labels = gold.astype(np.int64)
    task: Any = Task
    accuracy, _ = task._find_best_acc_and_threshold(None, list(values), labels, True)
    f1 = task._find_best_f1_and_threshold(None, list(values), labels, True)[0]
    assert best_accuracy(gold, values).mean() == pytest.approx(accuracy)
    assert best_f1(gold, values).mean() == pytest.approx(f1)


def test_classification_is_the_mean_over_experiments() -> None:
    draw = np.random.default_rng(3)
    gold = draw.integers(0, 4, N).astype(np.float64)
    columns = [np.where(draw.random(N) < 0.7, gold, draw.integers(0, 4, N)) for _ in range(5)]
    added = contributions(gold, columns, "accuracy")
    assert added is not None
    assert added.mean() == pytest.approx(np.mean([(gold == x).mean() for x in columns]))
    assert set(np.round(5 * added)) <= {0, 1, 2, 3, 4, 5}
    expected = f1_score(gold, columns[0], average="macro")
    assert macro_f1(gold, columns[0]).mean() == pytest.approx(expected)


def test_a_maximum_is_its_largest_similarity() -> None:
    gold, good = pairs(4, 0.5)
    _, bad = pairs(5, 3)
    added = contributions(gold, [bad, good], "max_ap")
    assert added is not None
    assert added.mean() == pytest.approx(average_precision_score(gold, good))
    assert contributions(gold, [good], "recall") is None


@pytest.mark.parametrize(("ours", "_theirs", "drawn"), CORRELATIONS)
def test_intervals_and_tests_hold_for_pairs(ours: Any, _theirs: Any, drawn: Any) -> None:
    """Two equally noisy models: few rejections, and the interval of their difference holds 0."""
    rejected, simulations = 0, 300
    for seed in range(simulations):
        gold, first = drawn(seed, 1.5)
        noise = np.random.default_rng(seed + 10_000).normal(0, 1.5, N)
        second = np.round(gold + noise, 1)
        differences = ours(gold, second) - ours(gold, first)
        test = randomisation_test([differences], resamples=999)
        interval = difference_interval([differences], [1.0], test)
        assert interval is not None
        rejected += test.p_value < 0.05
        assert test.significant != (interval.low <= 0 <= interval.high)
    assert rejected <= stats.binom.ppf(0.999, simulations, 0.05)


def save_pairs(root: Path, model: str, noise: float, *, items: bool = True) -> Path:
    """Save an STS result as `run` does."""
    gold, _ = sts(7, 1.0)
    values = gold + np.random.default_rng(hash(noise) % 1000).normal(0, noise, N)
    folder = result_folder(root, model, "Pairs", None)
    score = float(stats.spearmanr(gold, values)[0])
    entry = {"hf_subset": "default", "main_score": score, "cosine_spearman": score}
    record: dict[str, Any] = {
        "format": 1,
        "identity": {"task": "Pairs", "model": {"name": model}},
        "task_type": "STS",
        "main_measure": "cosine_spearman",
        "files": [],
    }
    if items:
        file = {"subset": "default", "split": "test", "kind": "pairs", "name": f"Pairs{ITEMS}"}
        record["items"] = [file]
        rows = {str(i): row for i, row in enumerate(zip(gold, values, strict=True))}
        write_per_query(folder / f"Pairs{ITEMS}", ("gold", "cosine"), rows, head="item")
    (folder / "Pairs" / "run.json").write_text(json.dumps(record))
    path = folder / "Pairs.json"
    path.write_text(json.dumps({"task_name": "Pairs", "scores": {"test": [entry]}}))
    return path


def test_pairs_are_tested_in_compare_check_and_table(tmp_path: Path) -> None:
    save_pairs(tmp_path / "old", "org/old", 1.0)
    save_pairs(tmp_path / "new", "org/new", 2.5)
    runs = [tmp_path / "old", tmp_path / "new"]
    one, two = find_side("org/old", runs), find_side("org/new", runs)
    first, second = output(one, "Pairs", MAIN), output(two, "Pairs", MAIN)
    assert first is not None and second is not None and first.unit == "pairs"
    pair = compare_pair(("old", "new"), {"Pairs": (first, second)})
    [line] = corrected([pair])[0].tasks
    assert line.verdict is Verdict.WORSE and line.unit == "pairs"
    assert line.statistics is not None and line.statistics.queries == N
    assert line.difference == pytest.approx(second.score - first.score)

    update(Request(str(tmp_path / "main.json"), (runs[0],)))
    [finding] = judge(Request(str(tmp_path / "main.json"), (runs[1],))).findings
    assert finding.status is Status.REGRESSED and finding.p_value is not None
    assert finding.comparison is not None and finding.comparison.queries == N

    board = leaderboard(find_results(runs), measure="main score", key=MAIN_KEY)
    best, worse = Evidence(board, MAIN_KEY).task(board.columns[0])
    assert best is not None and worse is not None
    assert worse.tested and not worse.tied and worse.queries == N
    assert best.low is not None and best.high is not None and best.low < best.score < best.high


def test_results_without_items_are_untested(tmp_path: Path) -> None:
    save_pairs(tmp_path, "org/old", 1.0, items=False)
    path = save_pairs(tmp_path, "org/new", 1.1)
    board = leaderboard(find_results([tmp_path]), measure="main score", key=MAIN_KEY)
    standings = Evidence(board, MAIN_KEY).task(board.columns[0])
    assert [it.tested for it in standings if it is not None] == [False, False]
    # Nor are items that do not give the score.
    assert item_values(SavedResult(path)) is not None
    path.write_text(path.read_text().replace('"main_score": 0.', '"main_score": 0.1'))
    assert item_values(SavedResult(path)) is None
    assert not entry_of(SavedResult(path)).queries


def test_clustering_is_paired_by_its_samples(tmp_path: Path) -> None:
    folder = result_folder(tmp_path, "org/a", "Clusters", None)
    for stored in ({"Level 0": [0.2, 0.4], "Level 1": [0.6, 0.8]}, [0.2, 0.4, 0.6, 0.8]):
        entry = {"hf_subset": "default", "main_score": 0.5, "v_measures": stored}
        path = folder / "Clusters.json"
        path.write_text(json.dumps({"scores": {"test": [entry]}}))
        values = item_values(SavedResult(path))
        assert isinstance(values, ItemValues) and values.unit == "samples"
        assert sorted(values.values["default", "test"].values()) == [0.2, 0.4, 0.6, 0.8]
    # The gate says that such values share their texts.
    entry_read = entry_of(SavedResult(path))
    outcome = check(
        Baseline("b", path, {"Clusters": entry_read}), {"Clusters": entry_read}, Rules()
    )
    assert outcome.findings[0].comparison is not None
    assert any("share many of them" in note.text for note in outcome.notes)


@pytest.mark.slow
def test_items_of_mtebs_tasks(bge_eval: CommandLine, tmp_path: Path) -> None:
    """Real runs of mteb's mock tasks: every type whose items are kept gives mteb's score."""
    from mteb.mocks import mock_tasks

    names = (
        "MockSTSTask",
        "MockMultilingualSTSTask",
        "MockPairClassificationTask",
        "MockClassificationTask",
        "MockMultilabelClassification",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tasks = [f"{mock_tasks.__name__}:{name}" for name in names]
    tasks.append("mteb.mocks.mock_tasks.clustering:MockClusteringTask")  # not in the package itself
    out = tmp_path / "out"
    done = bge_eval("run", "--model", BUILTIN, "--offline", "--output", out, "--tasks", *tasks)
    assert done.returncode == 0, done.stderr
    units = {}
    for path in find_results([out]):
        result = SavedResult(path)
        values = item_values(result)
        units[result.task] = values.unit if values else ""
    assert {name for name, unit in units.items() if unit == "pairs"} >= {
        "MockSTSTask",
        "MockMultilingualSTSTask",
        "MockPairClassificationTask",
    }
    assert units["MockClassificationTask"] == "texts"
    assert units["MockClusteringTask"] == "samples"
