"""Ranks of a table: mteb's Borda count, ranks that hold together, training on the tasks."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path

import mteb
import numpy as np
import polars as pl
import pytest
from mteb.benchmarks._create_table import _borda_rank_from_long, _get_borda_rank
from typer.testing import CliRunner

from bge_eval.cli.app import application
from bge_eval.cli.columns import columns_of
from bge_eval.leaderboard.board import Leaderboard
from bge_eval.leaderboard.published import published_rows
from bge_eval.leaderboard.ranks import borda_ranks, ranks
from bge_eval.leaderboard.rows import Column, Row, ordered
from bge_eval.leaderboard.significance import Evidence
from bge_eval.leaderboard.zero_shot import zero_shot
from bge_eval.measures.mteb_keys import MAIN_KEY
from generate_results import Sizes, generate_results


def long_form(rows: Sequence[Row]) -> pl.DataFrame:
    cells = [(row.model, task, score) for row in rows for task, score in row.scores.items()]
    return pl.DataFrame(cells, ["model_name", "task_name", "score"], orient="row")


@pytest.mark.parametrize("suite", ["mteb-en", "beir", "c-mteb", "mteb-en-v2"])
def test_the_borda_count_is_mtebs_on_its_published_results(suite: str) -> None:
    columns = columns_of([suite])
    rows = published_rows(columns, key=MAIN_KEY, main_revisions={})
    tasks = [column.task for column in columns]
    ours = borda_ranks([[row.scores.get(task) for task in tasks] for row in rows])
    mtebs = dict(_borda_rank_from_long(long_form(rows)).iter_rows())
    assert len(rows) > 20
    assert dict(zip((row.model for row in rows), ours, strict=True)) == mtebs


def test_the_borda_count_of_ties_and_holes_is_mtebs() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        table = rng.integers(0, 4, (9, 6)) / 4  # many ties
        full = borda_ranks(table.tolist())
        wide = pl.DataFrame(table, [str(task) for task in range(6)])
        assert wide.select(_get_borda_rank(wide.columns)).to_series().to_list() == full
        holes = [[None if rng.random() < 0.3 else score for score in row] for row in table.tolist()]
        rows = []
        for number, of_row in enumerate(holes):
            scores = {str(task): score for task, score in enumerate(of_row) if score is not None}
            rows.append(Row(f"m{number:02d}", "", "", None, "", scores))
        mtebs = dict(_borda_rank_from_long(long_form(rows), n_models=9).iter_rows())
        assert borda_ranks(holes) == [mtebs.get(row.model, 9) for row in rows]


def board_of_scores(table: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> Leaderboard:
    tasks = [f"T{number}" for number in range(table.shape[1])]
    rows = [
        Row(f"a/m{number}", "r", "", None, "", dict(zip(tasks, scores, strict=True)))
        for number, scores in enumerate(table.tolist())
    ]
    columns = tuple(Column(task, "STS") for task in tasks)
    return Leaderboard("main score", columns, tuple(ordered(rows, tasks)))


def test_equal_systems_keep_every_rank_in_most_tables() -> None:
    """Of six equal systems no rank is excluded in at least 95% of tables; here of 100."""
    rng = np.random.default_rng(1)
    excluded = 0
    for _ in range(100):
        board = board_of_scores(rng.normal(size=(6, 12)))
        placed = [rank for rank in ranks(board, Evidence(board, MAIN_KEY)) if rank is not None]
        assert all(rank.over == "tasks" for rank in placed)
        excluded += any((rank.low, rank.high) != (1, 6) for rank in placed)
    assert excluded <= 11  # a binomial of 100 at 0.05 is above in 1% of cases


def test_true_ranks_lie_in_all_intervals() -> None:
    rng = np.random.default_rng(2)
    strengths = np.array([0.0, 0.0, 0.4, 1.2, 3.0])
    outside = narrow = 0
    for _ in range(100):
        table = strengths[:, None] + rng.normal(size=(1, 30)) + rng.normal(size=(5, 30))
        board = board_of_scores(table)
        wrong = False
        places = zip(board.rows, ranks(board, Evidence(board, MAIN_KEY)), strict=True)
        for row, rank in places:
            own = strengths[int(row.model[-1])]
            best, worst = 1 + int((strengths > own).sum()), int((strengths >= own).sum())
            assert rank is not None and rank.low is not None and rank.high is not None
            wrong |= not (rank.low <= worst and rank.high >= best)
            narrow += own == 3.0 and rank.high == 1
        outside += wrong
    assert outside <= 11
    assert narrow > 75


def test_incomplete_rows_have_a_borda_rank_alone() -> None:
    board = board_of_scores(np.random.default_rng(3).normal(size=(3, 4)))
    half = Row("a/half", "r", "", None, "", {"T0": 9.0})
    none = Row("a/none", "r", "", None, "", {})
    board = Leaderboard("", board.columns, (*board.rows, half, none))
    placed = ranks(board, Evidence(board, MAIN_KEY))
    assert placed[4] is None
    assert placed[3] is not None and placed[3].mean is None and placed[3].low is None
    assert sorted(rank.mean for rank in placed[:3] if rank and rank.mean) == [1, 2, 3]


def table(*words: str) -> str:
    result = CliRunner().invoke(application(), ["table", *words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_ranks_are_over_queries_where_there_are_runs(tmp_path: Path) -> None:
    generate_results(tmp_path, ["SciFact", "NFCorpus"], Sizes(4, queries=60, documents=8), gap=0.5)
    rows = json.loads(table(str(tmp_path), "--ranks", "--format", "json"))["rows"]
    places = [row["rank"] for row in rows]
    assert [place["over"] for place in places] == ["queries"] * 4
    assert [place["mean"] for place in places] == [1, 2, 3, 4]
    assert places[0]["high"] < 4 and places[3]["low"] > 1
    generate_results(tmp_path, ["STS12"], Sizes(4), gap=0.5)
    rows = json.loads(table(str(tmp_path), "--ranks", "--format", "json"))["rows"]
    assert [row["rank"]["over"] for row in rows] == ["tasks"] * 4
    shown = table(str(tmp_path), "--ranks", "--format", "markdown")
    assert "| Rank (Borda) | rank by mean |" in shown and re.search(r"\| 4 \([1-3]–4\) \|", shown)
    [first, *_] = csv.DictReader(io.StringIO(table(str(tmp_path), "--ranks", "--format", "csv")))
    assert (first["rank_borda"], first["rank_mean"], first["rank_low"]) == ("1", "1", "1")


def test_zero_shot_is_what_mteb_says() -> None:
    metas = {str(meta.name): meta for meta in mteb.get_model_metas()}
    names = ["BAAI/bge-base-en-v1.5", "sentence-transformers/all-MiniLM-L6-v2", "a/own"]
    rows = tuple(Row(name, "r", "", None, "") for name in names)
    tasks = ["NQ", "HotpotQA", "SciFact"]
    board = Leaderboard("", tuple(map(Column, tasks)), rows)
    answers = zero_shot(board, {name: metas[name].get_training_datasets() for name in names[:2]})
    for row, answer in zip(rows[:2], answers, strict=False):
        assert answer.zero_shot is metas[row.model].is_zero_shot_on(tasks)
        trained = [task for task in tasks if metas[row.model].is_zero_shot_on([task]) is False]
        assert list(answer.trained_on) == trained
    assert answers[0].trained_on and answers[0].text.startswith("no (")
    assert answers[2].zero_shot is None


def test_a_reranker_trained_on_a_task_is_not_zero_shot() -> None:
    metas = {str(meta.name): meta for meta in mteb.get_model_metas()}
    clean = next(
        name
        for name, meta in metas.items()
        if meta.is_zero_shot_on(["NQ"]) and meta.training_datasets
    )
    rows = tuple(
        Row(clean, "r", "", reranker, "")
        for reranker in (None, "BAAI/bge-base-en-v1.5@12345678 (top 100)", "a/own (top 100)")
    )
    training = {
        name: metas[name].get_training_datasets() for name in (clean, "BAAI/bge-base-en-v1.5")
    }
    answers = zero_shot(Leaderboard("", (Column("NQ"),), rows), training)
    assert [answer.zero_shot for answer in answers] == [True, False, None]
