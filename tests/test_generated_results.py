"""The generator of results writes what ``bge-eval run`` would have written."""

from __future__ import annotations

from pathlib import Path

import pytest
from mteb.cache import ResultCache

from bge_eval.leaderboard.reading import leaderboard
from bge_eval.measures.mteb_keys import MAIN_KEY
from bge_eval.results.saved import TOLERANCE, SavedResult
from generate_results import Sizes, generate_results

_TASKS = ("SciFact", "XQuADRetrieval", "STS12", "CQADupstackRetrieval")


def test_generated_results_are_read_by_us_and_by_mteb(tmp_path: Path) -> None:
    paths = generate_results(tmp_path, _TASKS, Sizes(systems=2, queries=8, documents=5))
    assert len(paths) == 2 * len(_TASKS)
    board = leaderboard(paths, measure="main score", key=MAIN_KEY, tasks=_TASKS)
    assert [row.missing(board.tasks) for row in board.rows] == [[], []]
    results = ResultCache(tmp_path).load_results(tasks=["SciFact"])
    assert len(results.model_results) == 2


def test_a_generated_score_is_that_of_its_run(tmp_path: Path) -> None:
    sizes = Sizes(systems=1, queries=8, documents=5)
    [path] = generate_results(tmp_path, ["XQuADRetrieval"], sizes, subsets=["zh", "de"])
    result = SavedResult(path)
    assert len(result.keys) == 2
    for subset, split in result.keys:
        _, values = result.per_query((subset, split))
        [entry] = [each for each in result.scores[split] if each["hf_subset"] == subset]
        mean = sum(row[0] for row in values.values()) / len(values)
        assert entry["ndcg_at_10"] == pytest.approx(mean, abs=TOLERANCE)


def test_equal_seeds_give_equal_systems(tmp_path: Path) -> None:
    sizes = Sizes(systems=1, queries=4, documents=5)
    scores = []
    for number, seed in enumerate((1, 1, 2)):
        [path] = generate_results(tmp_path / str(number), ["SciFact"], sizes, seed=seed)
        scores.append(SavedResult(path).scores["test"][0]["ndcg_at_10"])
    assert scores[0] == scores[1] != scores[2]
