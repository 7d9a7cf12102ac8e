"""Tables: averages that are complete or not shown, gains, the four forms."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bge_eval.cli.show import Form, show
from bge_eval.errors import DamagedError
from bge_eval.leaderboard import Leaderboard, find_results, leaderboard


def save(
    root: Path,
    model: str,
    task: str,
    values: dict[str, float],
    *,
    experiment: dict[str, Any] | None = None,
    aggregate_of: tuple[str, ...] = (),
) -> None:
    folder = root / "results" / model.replace("/", "__") / "rev12345"
    if experiment:
        folder = folder / "experiments" / "_".join(experiment)
    (folder / task).mkdir(parents=True, exist_ok=True)
    meta = {"name": model, "revision": "rev12345", "experiment_kwargs": experiment}
    (folder / "model_meta.json").write_text(json.dumps(meta))
    scores = {split: [{"hf_subset": "default", "ndcg_at_10": v}] for split, v in values.items()}
    (folder / f"{task}.json").write_text(json.dumps({"task_name": task, "scores": scores}))
    record = {"identity": {"model": {"dtype": "float32"}}, "aggregate_of": aggregate_of}
    (folder / task / "run.json").write_text(json.dumps(record))


def board(root: Path, tasks: tuple[str, ...] = ()) -> Leaderboard:
    return leaderboard(find_results([root]), measure="nDCG@10", key="ndcg_at_10", tasks=tasks)


def shown(table: Leaderboard, form: Form, width: int = 120) -> str:
    output = io.StringIO()
    show(table, form, Console(width=width, file=output))
    return output.getvalue()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    save(tmp_path, "a/full", "SciFact", {"test": 0.5})
    save(tmp_path, "a/full", "ArguAna", {"test": 0.3})
    save(tmp_path, "b/partial", "SciFact", {"test": 0.9})
    reranked = {"reranker": "r/tiny@12345678", "rerank_top_k": 50}
    save(tmp_path, "a/full", "SciFact", {"test": 0.625}, experiment=reranked)
    return tmp_path


def test_average_is_complete_or_not_shown(root: Path) -> None:
    table = board(root, ("SciFact", "ArguAna"))
    averages = {row.label: row.average(table.tasks) for row in table.rows}
    assert averages["a/full"] == pytest.approx(0.4)
    assert averages["b/partial"] is None
    text = shown(table, Form.TERMINAL)
    assert "– (1 of 2 tasks)" in text
    assert "b/partial: no average, 1 missing: ArguAna" in text
    frame = table.frame().set_index("model")
    assert frame["average"].isna()["b/partial"]
    assert frame["tasks_done"]["b/partial"] == 1
    partial = [row for row in json.loads(shown(table, Form.JSON))["rows"] if "b/" in row["model"]]
    assert partial[0]["average"] is None and partial[0]["missing"] == ["ArguAna"]


def test_complete_rows_come_first(root: Path) -> None:
    models = [row.model for row in board(root, ("SciFact", "ArguAna")).rows]
    assert models == ["a/full", "a/full", "b/partial"]


def test_second_stage_stands_beneath_with_its_gain(root: Path) -> None:
    table = board(root, ("SciFact",))
    labels = [row.label for row in table.rows]
    assert labels == ["b/partial", "a/full", "a/full + r/tiny (top 50)"]
    assert table.gain(table.rows[2]) == pytest.approx({"SciFact": 0.125})
    assert "+0.12500" in shown(table, Form.TERMINAL)
    assert "| gain |" in shown(table, Form.MARKDOWN)


def test_several_splits_are_averaged_as_mteb_does(tmp_path: Path) -> None:
    save(tmp_path, "a/b", "MultilingualSentiment", {"validation": 0.2, "test": 0.4})
    assert board(tmp_path).rows[0].scores == {"MultilingualSentiment": pytest.approx(0.3)}


def test_aggregate_is_the_mean_of_its_parts(tmp_path: Path) -> None:
    for part, value in (("Android", 0.2), ("Gis", 0.6)):
        save(tmp_path, "a/b", part, {"test": value})
    save(tmp_path, "a/b", "CQADupstack", {"test": 0.1}, aggregate_of=("Android", "Gis"))
    table = board(tmp_path)
    assert table.tasks == ("CQADupstack",)
    assert table.rows[0].scores["CQADupstack"] == pytest.approx(0.4)


def test_forms(root: Path) -> None:
    table = board(root, ("SciFact", "ArguAna"))
    csv = shown(table, Form.CSV).splitlines()
    assert csv[0] == (
        "model,revision,settings,reranker,dtype,SciFact,ArguAna,average,tasks_done,tasks_total"
    )
    assert csv[1].startswith("a/full,rev12345,,,float32,0.5,0.3,0.4,2,2")
    markdown = shown(table, Form.MARKDOWN).splitlines()
    assert markdown[2] == "| model | precision | SciFact | ArguAna | average |"
    assert markdown[4] == "| a/full (rev12345) | float32 | 0.50000 | 0.30000 | 0.40000 |"


def test_narrow_screen_turns_the_table(root: Path) -> None:
    tasks = ("SciFact", "ArguAna", *(f"Task{i}" for i in range(12)))
    text = shown(board(root, tasks), Form.TERMINAL, width=80)
    assert max(map(len, text.splitlines())) <= 80
    assert all(task in text for task in tasks)


def test_chinese_names_keep_their_columns(tmp_path: Path) -> None:
    save(tmp_path, "模型/向量", "检索任务", {"test": 0.5})
    lines = shown(board(tmp_path), Form.TERMINAL).splitlines()
    from rich.cells import cell_len

    assert len({cell_len(line) for line in lines if line.startswith(("│", "┃"))}) == 1


def test_damaged_result_is_named(root: Path) -> None:
    path = next(root.rglob("ArguAna.json"))
    path.write_text("{")
    with pytest.raises(DamagedError, match=r"ArguAna\.json"):
        board(root)
