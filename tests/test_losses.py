"""What int8, bfloat16 and approximate indexes lose: the figures of ``compare``, in the table."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from bge_eval.compare.outputs import MAIN, output
from bge_eval.compare.pairs import Difference, compare_pair, corrected
from bge_eval.compare.sides import Side, sides_in
from bge_eval.leaderboard.board import Leaderboard
from bge_eval.leaderboard.losses import Losses, exact_rows, losing, losses
from bge_eval.leaderboard.reading import leaderboard
from bge_eval.leaderboard.significance import Evidence
from bge_eval.measures.mteb_keys import MAIN_KEY
from bge_eval.records import Run
from bge_eval.results.saved import find_results
from bge_eval.results.store import ITEMS
from bge_eval.results.trec import write_per_query
from conftest import BUILTIN, CommandLine
from saved import result_folder, save_run
from test_significance import QRELS, QUERIES, a_run

INT8: dict[str, Any] = {"dtype": "int8", "calibration": "0123456789abcdef"}
HNSW = {"index": "HNSW32", "index_params": {"efSearch": 64.0}}


def changed(run: Run, queries: int) -> Run:
    """Put the relevant document of some queries last."""
    worse = {query: dict(documents) for query, documents in run.items()}
    for query in QUERIES[:queries]:
        worse[query][f"{query}-gold"] = -1.0
    return worse


def recorded(
    task: str = "Mine", search: dict[str, Any] | None = None, data: str = "f" * 8, **model: Any
) -> dict[str, Any]:
    facts = {"name": "org/m", "revision": "1", "dtype": "float32", "pooling": "mean", **model}
    return {
        "identity": {
            "task": task,
            "task_revision": "1",
            "model": facts,
            "data": {"fingerprint": data, "splits": ["test"]},
            "search": {"index": "flat", "top_k": 100, **(search or {})},
        }
    }


def save_sts(root: Path, noise: float, experiment: dict[str, Any] | None, **model: Any) -> None:
    draw = np.random.default_rng(7)
    gold = np.round(5 * draw.random(200))
    values = gold + draw.normal(0, 1.5, 200) + np.random.default_rng(8).normal(0, noise, 200)
    folder = result_folder(root, "org/m", "Pairs", experiment)
    entry = {"hf_subset": "default", "main_score": float(stats.spearmanr(gold, values)[0])}
    name = f"Pairs{ITEMS}"
    rows = {str(i): row for i, row in enumerate(zip(gold, values, strict=True))}
    write_per_query(folder / name, ("gold", "cosine"), rows, head="item")
    record = {
        "format": 1,
        **recorded("Pairs", **model),
        "task_type": "STS",
        "main_measure": "cosine_spearman",
        "files": [],
        "items": [{"subset": "default", "split": "test", "kind": "pairs", "name": name}],
    }
    (folder / "Pairs" / "run.json").write_text(json.dumps(record))
    (folder / "Pairs.json").write_text(
        json.dumps({"task_name": "Pairs", "scores": {"test": [entry]}})
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A model in float32, in int8 and through an index, on two retrieval tasks and one of pairs."""
    folder = tmp_path / "runs"
    for task, seed, lost in (("Mine", 1, 30), ("Other", 2, 2)):
        exact, int8 = a_run(seed, 2), changed(a_run(seed, 2), lost)
        save_run(folder, "org/m", exact, QRELS, task=task, recorded=recorded(task))
        save_run(
            folder, "org/m", int8, QRELS, task=task, experiment={"dtype": "int8"},
            recorded=recorded(task, **INT8),
        )  # fmt: skip
    save_sts(folder, 0.0, None)
    save_sts(folder, 0.4, {"dtype": "int8"}, **INT8)
    save_run(
        folder, "org/m", changed(a_run(1, 2), 1), QRELS,
        experiment={"index": "HNSW32", "efSearch": 64.0}, recorded=recorded(search=HNSW),
    )  # fmt: skip
    return folder


def board_of(root: Path) -> Leaderboard:
    return leaderboard(find_results([root]), measure="main", key=MAIN_KEY)


def of_tasks(board: Leaderboard) -> list[Losses | None]:
    weights = {task: {task: 1.0} for task in board.tasks}
    weights["average"] = dict.fromkeys(board.tasks, 1 / len(board.tasks))
    return losses(board, Evidence(board, MAIN_KEY), weights)


def compared(root: Path) -> dict[str, Difference]:
    """Return title → difference of the float32 and the int8 row by ``compare``."""
    sides = {side.label: side for side in sides_in(root)}
    one, two = sides["org/m"], sides["org/m [dtype=int8]"]

    def both(side: Side, task: str) -> Any:
        return output(side, task, MAIN)

    tasks = list(two.results)
    outputs = {task: (both(one, task), both(two, task)) for task in tasks}
    pair = compare_pair(("one", "two"), outputs, [("all", tasks)])
    [line] = corrected([pair])
    return {each.title: each for each in (*line.tasks, *line.means)}


def test_losses_are_the_figures_of_compare(root: Path) -> None:
    board = board_of(root)
    assert set(board.tasks) == {"Mine", "Other", "Pairs"}
    by_dtype = dict(zip([(r.dtype, r.settings) for r in board.rows], of_tasks(board), strict=True))
    assert by_dtype["float32", ""] is None
    int8 = by_dtype["int8", "dtype=int8"]
    assert int8 is not None and int8.reduced == "int8"
    theirs = compared(root)
    assert len(theirs) == 4
    for title, line in theirs.items():
        loss = int8.by_heading["average" if "mean" in title else title]
        assert loss.comparison is not None and line.statistics is not None
        assert loss.difference == pytest.approx(line.difference, abs=1e-12)
        assert loss.comparison.interval == line.statistics.interval
        assert loss.comparison.p_value == line.statistics.p_value
        assert loss.corrected == line.corrected
    assert int8.by_heading["Mine"].significant and not int8.by_heading["Other"].significant


def test_an_index_loses_against_the_exact_search(root: Path) -> None:
    board = board_of(root)
    [hnsw] = [each for each in of_tasks(board) if each is not None and "HNSW" in each.reduced]
    assert hnsw.reduced == "HNSW32, efSearch=64" and set(hnsw.by_heading) == {"Mine"}
    assert not hnsw.by_heading["Mine"].significant
    assert "not more than chance" in hnsw.sentence({"Mine": "My task"})
    assert hnsw.sentence({"Mine": "My task"}).startswith("HNSW32, efSearch=64: My task -0.")


REDUCED: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"dtype": "bfloat16", "backend": "openvino"}, {}, "bfloat16"),
    (INT8, {"vectors": "binary", "rescore_top": 40}, "int8, flat, vectors=binary, rescore_top=40"),
    ({"truncate_dim": 64}, {}, "64 dimensions"),
    ({}, {"parts": 4}, "flat, parts=4"),
    (INT8, HNSW, "int8, HNSW32"),
]


@pytest.mark.parametrize(("model", "search", "reduced"), REDUCED)
def test_every_reduction_is_named(
    tmp_path: Path, model: dict[str, Any], search: dict[str, Any], reduced: str
) -> None:
    save_run(tmp_path, "org/m", a_run(1, 2), QRELS, recorded=recorded())
    save_run(
        tmp_path, "org/m", a_run(1, 2), QRELS, experiment={"x": 1},
        recorded=recorded(search=search, **model),
    )  # fmt: skip
    board = board_of(tmp_path)
    [only] = [each for each in of_tasks(board) if each is not None]
    assert only.reduced.startswith(reduced)
    assert board.rows[only.exact].settings == ""
    assert "the same on every query" in only.sentence({})


OTHERS: list[dict[str, Any]] = [
    {"prompts": {"query": "q: "}},
    {"pooling": "cls"},
    {"revision": "2"},
    {"data": "other"},
    {"search": {"top_k": 10}},
]


@pytest.mark.parametrize("other", OTHERS, ids=lambda other: next(iter(other)))
def test_another_model_or_data_is_no_exact_row(tmp_path: Path, other: dict[str, Any]) -> None:
    save_run(tmp_path, "org/m", a_run(1, 2), QRELS, recorded=recorded(**other))
    save_run(
        tmp_path, "org/m", a_run(2, 2), QRELS, experiment={"dtype": "int8"},
        recorded=recorded(**INT8),
    )  # fmt: skip
    assert exact_rows(board_of(tmp_path)) == [None, None]


def test_a_reranker_s_precision_and_the_nearest_exact_row(tmp_path: Path) -> None:
    def reranked(dtype: str) -> dict[str, Any]:
        record = recorded()
        record["identity"]["reranker"] = {"name": "r", "dtype": dtype}
        return record

    base: dict[str, Any] = {"reranker": "r@1", "rerank_top_k": 50}
    for dtype in ("float32", "int8"):
        more = {} if dtype == "float32" else {"reranker_dtype": dtype}
        save_run(
            tmp_path, "org/m", a_run(1, 2), QRELS, experiment={**base, **more},
            recorded=reranked(dtype),
        )  # fmt: skip
    save_run(
        tmp_path, "org/m", a_run(1, 3), QRELS, experiment={"truncate_dim": 64},
        recorded=recorded(truncate_dim=64),
    )  # fmt: skip
    save_run(
        tmp_path, "org/m", a_run(1, 4), QRELS, experiment={"truncate_dim": 64, "dtype": "int8"},
        recorded=recorded(truncate_dim=64, **INT8),
    )  # fmt: skip
    board = board_of(tmp_path)
    found = {each.reduced: board.rows[each.exact] for each in of_tasks(board) if each is not None}
    assert found["reranker int8"].reranker == "r (top 50)"
    assert found["int8"].settings == "truncate_dim=64"  # no row has all dimensions
    save_run(tmp_path, "org/m", a_run(1, 2), QRELS, recorded=recorded())
    board = board_of(tmp_path)
    found = {each.reduced: board.rows[each.exact] for each in of_tasks(board) if each is not None}
    assert set(found) == {"reranker int8", "64 dimensions", "int8, 64 dimensions"}
    assert found["int8, 64 dimensions"].settings == ""


def test_scores_without_values_are_not_tested(root: Path) -> None:
    next(root.rglob("experiments/dtype/Pairs.json")).write_text(
        json.dumps(
            {
                "task_name": "Pairs",
                "scores": {"test": [{"hf_subset": "default", "main_score": 0.5}]},
            }
        )
    )
    board = board_of(root)
    [int8] = [each for each in of_tasks(board) if each is not None and each.reduced == "int8"]
    loss = int8.by_heading["Pairs"]
    assert loss.comparison is None and loss.corrected is None and not loss.significant
    assert "not tested" in loss.sentence and "[" not in loss.text


READERS: dict[str, Callable[[str], bool]] = {
    "terminal": lambda text: "loss of int8; HNSW32, efSearch=64: against org/m" in text,
    "markdown": lambda text: "| loss | " in text and "†" in text,
    "html": lambda text: "loss</th>" in text and "†" in text,
    "latex": lambda text: r"\quad loss" in text and r"$\dagger$" in text,
}


@pytest.mark.parametrize("form", READERS)
def test_the_table_shows_losses(root: Path, bge_eval: CommandLine, form: str) -> None:
    done = bge_eval("table", root, "--format", form)
    assert done.returncode == 0, done.stderr
    assert READERS[form](done.stdout)
    assert f"{-compared(root)['Mine'].difference:.5f}" in done.stdout
    assert "against org/m" in done.stdout + done.stderr
    without = bge_eval("table", root, "--format", form, "--no-loss")
    assert "loss" not in without.stdout


def test_losses_in_csv_and_json(root: Path, bge_eval: CommandLine) -> None:
    mine = compared(root)["Mine"]
    assert mine.statistics is not None and mine.statistics.interval is not None
    rows = {
        row["settings"]: row
        for row in csv.DictReader(io.StringIO(bge_eval("table", root, "--format", "csv").stdout))
    }
    assert rows[""]["loss:Mine"] == "" and rows[""]["loss_p:Mine"] == ""
    assert float(rows["dtype=int8"]["loss:Mine"]) == pytest.approx(mine.difference)
    assert float(rows["dtype=int8"]["loss_low:Mine"]) == mine.statistics.interval.low
    assert float(rows["dtype=int8"]["loss_p_holm:Mine"]) == mine.corrected
    content = json.loads(bge_eval("table", root, "--format", "json").stdout)
    losses = {row["settings"]: row["loss"] for row in content["rows"]}
    assert losses[""] is None and losses["dtype=int8"]["against"] == "org/m"
    assert losses["dtype=int8"]["by"]["Mine"]["significant"]
    types = bge_eval("table", root, "--types", "--format", "json")
    means = json.loads(types.stdout)["rows"]
    assert {"STS", "Retrieval"} <= set(
        next(row for row in means if row["settings"] == "dtype=int8")["loss"]["by"]
    )
    exact = bge_eval("table", root, "--models", "BM25", "--format", "csv")
    assert "loss" not in exact.stdout


def test_a_line_for_every_reduced_row(root: Path) -> None:
    board = board_of(root)
    lines = [line for _, line in losing(board, Evidence(board, MAIN_KEY))]
    assert len(lines) == 2
    assert any(line.startswith("org/m in int8: ") and "more than chance" in line for line in lines)


@pytest.mark.slow
def test_a_run_says_what_it_loses(bge_eval: CommandLine, tmp_path: Path) -> None:
    command = ["run", "--model", BUILTIN, "--tasks", "demo", "--output", tmp_path / "out"]
    first = bge_eval(*command)
    assert first.returncode == 0 and "chance" not in first.stderr
    shorter = bge_eval(*command, "--truncate-dim", "32")
    assert shorter.returncode == 0, shorter.stderr
    assert "in 32 dimensions: " in shorter.stderr and "than chance" in shorter.stderr
    report = tmp_path / "report.html"
    done = bge_eval("report", tmp_path / "out", "--no-published", "--output", report)
    assert done.returncode == 0, done.stderr
    assert "in 32 dimensions: " in report.read_text(encoding="utf-8")
