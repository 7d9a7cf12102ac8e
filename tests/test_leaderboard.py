"""Tables: averages that are complete or not shown, gains, the four forms."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bge_eval.cli.formats.registry import Format
from bge_eval.cli.grid import Look
from bge_eval.cli.show import notes, show
from bge_eval.errors import DamagedError
from bge_eval.leaderboard.board import Leaderboard, Mean
from bge_eval.leaderboard.reading import leaderboard
from bge_eval.leaderboard.rows import Aggregates, Column, Disagreement
from bge_eval.measures.mteb_keys import MAIN_KEY
from bge_eval.results.saved import find_results
from saved import result_folder


def save(
    root: Path,
    model: str,
    task: str,
    values: dict[str, float],
    *,
    experiment: dict[str, Any] | None = None,
    aggregate_of: tuple[str, ...] = (),
    subset: str = "default",
    recorded: dict[str, Any] | None = None,
) -> None:
    folder = result_folder(root, model, task, experiment)
    path = folder / f"{task}.json"
    scores = json.loads(path.read_text())["scores"] if path.is_file() else {}
    for split, value in values.items():
        entry = {"hf_subset": subset, "ndcg_at_10": value, "main_score": value}
        scores.setdefault(split, []).append(entry)
    path.write_text(json.dumps({"task_name": task, "scores": scores}))
    record: dict[str, Any] = {
        "identity": {"model": {"dtype": "float32"}},
        "aggregate_of": aggregate_of,
    }
    record |= recorded or {}
    (folder / task / "run.json").write_text(json.dumps(record))


def board(root: Path, tasks: tuple[str, ...] = ()) -> Leaderboard:
    return leaderboard(find_results([root]), measure="nDCG@10", key="ndcg_at_10", tasks=tasks)


def typed(root: Path, *columns: Column, key: str = MAIN_KEY, **more: Any) -> Leaderboard:
    paths = find_results([root])
    return leaderboard(paths, measure="main score", key=key, columns=columns, **more)


def shown(table: Leaderboard, form: Format, width: int = 120, *, types: bool = False) -> str:
    output = io.StringIO()
    show(table, form, Console(width=width, file=output), Look(types=types))
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
    text = shown(table, Format.TERMINAL)
    assert "– (1 of 2 tasks)" in text
    assert "b/partial: no average, 1 missing: ArguAna" in text
    frame = table.frame().set_index("model")
    assert frame["average"].isna()["b/partial"]
    assert frame["tasks_done"]["b/partial"] == 1
    partial = [row for row in json.loads(shown(table, Format.JSON))["rows"] if "b/" in row["model"]]
    assert partial[0]["average"] is None and partial[0]["missing"] == ["ArguAna"]


def test_complete_rows_come_first(root: Path) -> None:
    models = [row.model for row in board(root, ("SciFact", "ArguAna")).rows]
    assert models == ["a/full", "a/full", "b/partial"]


def test_second_stage_stands_beneath_with_its_gain(root: Path) -> None:
    table = board(root, ("SciFact",))
    labels = [row.label for row in table.rows]
    assert labels == ["b/partial", "a/full", "a/full + r/tiny (top 50)"]
    assert table.gain(table.rows[2]) == pytest.approx({"SciFact": 0.125})
    assert "+0.12500" in shown(table, Format.TERMINAL)
    assert "| gain |" in shown(table, Format.MARKDOWN)


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
    csv = shown(table, Format.CSV).splitlines()
    assert csv[0] == (
        "model,revision,settings,reranker,dtype,SciFact,ArguAna,average,tasks_done,tasks_total"
    )
    assert csv[1].startswith("a/full,rev12345,,,float32,0.5,0.3,0.4,2,2")
    markdown = shown(table, Format.MARKDOWN).splitlines()
    assert markdown[2] == "| model | precision | SciFact | ArguAna | average |"
    assert markdown[4] == "| a/full (rev12345) | float32 | 0.50000 | 0.30000 | 0.40000 |"


def test_narrow_screen_turns_the_table(root: Path) -> None:
    tasks = ("SciFact", "ArguAna", *(f"Task{i}" for i in range(12)))
    text = shown(board(root, tasks), Format.TERMINAL, width=80)
    assert max(map(len, text.splitlines())) <= 80
    assert all(task in text for task in tasks)


def test_chinese_names_keep_their_columns(tmp_path: Path) -> None:
    save(tmp_path, "模型/向量", "检索任务", {"test": 0.5})
    lines = shown(board(tmp_path), Format.TERMINAL).splitlines()
    from rich.cells import cell_len

    assert len({cell_len(line) for line in lines if line.startswith(("│", "┃"))}) == 1


def test_damaged_result_is_named(root: Path) -> None:
    path = next(root.rglob("ArguAna.json"))
    path.write_text("{")
    with pytest.raises(DamagedError, match=r"ArguAna\.json"):
        board(root)


SCIFACT = Column("SciFact", "Retrieval", ("test",), ("default",), "ndcg_at_10")
ARGUANA = Column("ArguAna", "Retrieval", ("test",), ("default",), "ndcg_at_10")
STS12 = Column("STS12", "STS", ("test",), ("default",), "cosine_spearman")


@pytest.fixture
def several_types(tmp_path: Path) -> Path:
    for task, value in (("SciFact", 0.5), ("ArguAna", 0.25), ("STS12", 0.75)):
        save(tmp_path, "a/full", task, {"test": value})
    save(tmp_path, "b/partial", "SciFact", {"test": 0.5})
    save(tmp_path, "b/partial", "STS12", {"test": 0.5})
    return tmp_path


def test_means_by_type(several_types: Path) -> None:
    table = typed(several_types, SCIFACT, ARGUANA, STS12)
    full, partial = table.rows
    assert table.means(full) == {
        "Mean (Task)": Mean(0.5, 3, 3),
        "Mean (TaskType)": Mean(0.5625, 2, 2),
        "Retrieval": Mean(0.375, 2, 2),
        "STS": Mean(0.75, 1, 1),
    }
    assert table.means(partial) == {
        "Mean (Task)": Mean(None, 2, 3),
        "Mean (TaskType)": Mean(None, 1, 2),
        "Retrieval": Mean(None, 1, 2),
        "STS": Mean(0.5, 1, 1),
    }


def test_types_in_every_form(several_types: Path) -> None:
    table = typed(several_types, SCIFACT, ARGUANA, STS12)
    csv = shown(table, Format.CSV, types=True).splitlines()
    assert csv[0] == (
        "model,revision,settings,reranker,dtype,Mean (Task),Mean (TaskType),Retrieval,STS,"
        "tasks_done,tasks_total"
    )
    assert csv[1:] == [
        "a/full,rev12345,,,float32,0.5,0.5625,0.375,0.75,3,3",
        "b/partial,rev12345,,,float32,,,,0.5,2,3",
    ]
    markdown = shown(table, Format.MARKDOWN, types=True).splitlines()
    assert markdown[2] == "| model | precision | Mean (Task) | Mean (TaskType) | Retrieval | STS |"
    assert markdown[5] == (
        "| b/partial (rev12345) | float32 | – (2 of 3) | – (1 of 2) | – (1 of 2) | 0.50000 |"
    )
    terminal = shown(table, Format.TERMINAL, types=True)
    assert "0.56250" in terminal and "– (2 of 3)" in terminal
    assert "b/partial: no average, 1 missing: ArguAna" in terminal
    partial = json.loads(shown(table, Format.JSON))["rows"][1]["means"]
    assert partial["Mean (Task)"] == {"value": None, "done": 2, "total": 3}


def test_gain_of_means_is_printed(several_types: Path) -> None:
    reranked = {"reranker": "r/tiny@12345678", "rerank_top_k": 50}
    for task in ("SciFact", "ArguAna"):
        save(several_types, "a/full", task, {"test": 0.625}, experiment=reranked)
    table = typed(several_types, SCIFACT, ARGUANA, STS12)
    assert "| gain |  | – | – | +0.25000 | – |" in shown(table, Format.MARKDOWN, types=True)


@pytest.mark.parametrize(
    ("splits", "subsets", "expected"),
    [
        (("test",), ("en",), 0.5),
        (("test",), ("en", "de"), 0.375),
        (("validation", "test"), ("en",), None),
        (("dev", "test"), ("en",), 0.75),
        (("test",), ("fr",), None),
        (("test",), (), 0.375),
        ((), (), (0.5 + 0.25 + 1.0) / 3),
    ],
)
def test_only_the_benchmarks_splits_and_subsets_count(
    tmp_path: Path, splits: tuple[str, ...], subsets: tuple[str, ...], expected: float | None
) -> None:
    save(tmp_path, "a/b", "STS22", {"test": 0.5, "dev": 1.0}, subset="en")
    save(tmp_path, "a/b", "STS22", {"test": 0.25}, subset="de")
    rows = typed(tmp_path, Column("STS22", "STS", splits, subsets)).rows
    assert [row.scores["STS22"] for row in rows] == ([] if expected is None else [expected])


def test_the_record_tells_type_and_main_measure(tmp_path: Path) -> None:
    recorded = {"task_type": "Retrieval", "main_measure": "ndcg_at_10"}
    save(tmp_path, "a/b", "SciFact", {"test": 0.5}, recorded=recorded)
    table = leaderboard(find_results([tmp_path]), measure="main score", key=MAIN_KEY)
    assert table.columns == (Column("SciFact", "Retrieval", main="ndcg_at_10"),)
    save(tmp_path, "a/b", "Older", {"test": 0.5})
    older = leaderboard(find_results([tmp_path]), measure="main score", key=MAIN_KEY)
    assert json.loads(shown(older, Format.JSON))["rows"][0]["means"] is None


def test_a_measure_that_is_not_there_is_missing(several_types: Path) -> None:
    assert typed(several_types, SCIFACT, key="recall_at_100").rows == ()


def test_nan_is_missing(tmp_path: Path) -> None:
    save(tmp_path, "a/b", "SciFact", {"test": float("nan")})
    assert typed(tmp_path, SCIFACT).rows == ()


WHOLE = Column("Whole", "Retrieval", ("test",), ("default",), parts=(Column("One"), Column("Two")))


@pytest.mark.parametrize(
    ("aggregates", "saved", "expected", "disagrees"),
    [
        (Aggregates.RECOMPUTED, {"Whole": 0.25, "One": 0.5, "Two": 0.75}, 0.625, True),
        (Aggregates.PUBLISHED, {"Whole": 0.25, "One": 0.5, "Two": 0.75}, 0.25, True),
        (Aggregates.RECOMPUTED, {"Whole": 0.625001, "One": 0.5, "Two": 0.75}, 0.625, False),
        (Aggregates.RECOMPUTED, {"Whole": 0.25, "One": 0.5}, 0.25, False),
        (Aggregates.RECOMPUTED, {"One": 0.5, "Two": 0.75}, 0.625, False),
        (Aggregates.PUBLISHED, {"One": 0.5, "Two": 0.75}, None, False),
        (Aggregates.RECOMPUTED, {"One": 0.5}, None, False),
    ],
)
def test_aggregate_and_its_parts(
    tmp_path: Path,
    aggregates: Aggregates,
    saved: dict[str, float],
    expected: float | None,
    disagrees: bool,
) -> None:
    for task, value in saved.items():
        save(tmp_path, "a/b", task, {"test": value})
    table = typed(tmp_path, WHOLE, aggregates=aggregates)
    assert [row.scores["Whole"] for row in table.rows] == ([] if expected is None else [expected])
    marks = {"Whole": Disagreement(0.25, 0.625, 2)} if disagrees else {}
    assert all(row.disagreements == marks for row in table.rows)
    line = "* a/b: Whole: saved 0.250000, over its 2 parts 0.625000"
    assert notes(table) == ([line] if disagrees else [])
    if disagrees:
        assert "| a/b (rev12345) \\* |" in shown(table, Format.MARKDOWN)


def test_a_thousand_results_are_a_hundred_rows(tmp_path: Path) -> None:
    for number in range(100):
        for task in range(10):
            save(tmp_path, f"a/model{number}", f"Task{task}", {"test": 0.5})
    assert len(board(tmp_path).rows) == 100


def test_wide_table_comes_in_pieces(tmp_path: Path) -> None:
    tasks = [f"ATaskWithALongName{number}" for number in range(8)]
    for model in range(7):
        for task in tasks:
            save(tmp_path, f"a/model{model}", task, {"test": 0.5})
    lines = shown(board(tmp_path), Format.TERMINAL, width=80).splitlines()
    assert max(map(len, lines)) <= 80
    assert all(sum(task in line for line in lines) == 1 for task in tasks)


def test_a_reranker_with_settings_stands_beneath_its_first_stage(root: Path) -> None:
    stage = {"reranker": "r/other@12345678", "rerank_top_k": 20, "reranker_max_length": 160}
    save(root, "a/full", "SciFact", {"test": 0.75}, experiment=stage)
    lines = shown(board(root, ("SciFact",)), Format.TERMINAL).splitlines()
    place = next(index for index, line in enumerate(lines) if "a/full" in line)
    assert "r/other (top 20, max_length=160)" in lines[place + 1]
    assert "+0.25000" in lines[place + 2]


def test_two_checkpoints_of_one_reranker_are_two_rows(root: Path) -> None:
    for revision, values in (("11111111", {"SciFact": 0.7}), ("22222222", {"ArguAna": 0.5})):
        stage = {"reranker": f"local/rr@{revision}", "rerank_top_k": 20}
        for task, value in values.items():
            folder = result_folder(root, "a/full", task, stage | {"at": revision})
            folder = folder.rename(folder.with_name(f"reranker_{revision}"))
            (folder / "model_meta.json").write_text(
                json.dumps({"name": "a/full", "revision": "rev12345", "experiment_kwargs": stage})
            )
            entry = {"hf_subset": "default", "ndcg_at_10": value, "main_score": value}
            (folder / f"{task}.json").write_text(json.dumps({"scores": {"test": [entry]}}))
    rows = [row for row in board(root).rows if "local/rr" in (row.reranker or "")]
    assert {row.reranker: row.scores for row in rows} == {
        "local/rr@11111111 (top 20)": {"SciFact": 0.7},
        "local/rr@22222222 (top 20)": {"ArguAna": 0.5},
    }


def test_a_second_stage_without_its_first_names_the_retriever(root: Path) -> None:
    stage = {"reranker": "r/other@12345678", "rerank_top_k": 20}
    save(root, "a/full", "SciFact", {"test": 0.75}, experiment=stage)
    table = board(root, ("SciFact",))
    alone = replace(table, rows=tuple(row for row in table.rows if row.reranker))
    assert "a/full + r/other (top 20) (rev12345)" in shown(alone, Format.MARKDOWN)


def test_a_prompt_is_shown_by_value(tmp_path: Path) -> None:
    for digest, prompt in (("1f0c22ab", "Find: "), ("77aa00bb", "Find papers: ")):
        save(
            tmp_path / digest,
            "a/model",
            "SciFact",
            {"test": 0.5},
            experiment={"prompts": digest, "dtype": "float16"},
            recorded={"identity": {"model": {"dtype": "float16", "prompts": {"query": prompt}}}},
        )
    shown = board(tmp_path)
    assert [row.label for row in shown.rows] == [
        "a/model [dtype float16, query prompt “Find: ”]",
        "a/model [dtype float16, query prompt “Find papers: ”]",
    ]
    assert [row.settings for row in shown.rows] == [
        "dtype=float16, prompts=1f0c22ab",
        "dtype=float16, prompts=77aa00bb",
    ]


def test_the_prompt_of_an_option_is_shown_by_value(tmp_path: Path) -> None:
    prompts = {"query": "Find: ", "document": "Text: "}
    for settings, recorded in (
        ({"query_prompt": "1f0c22ab"}, prompts),
        ({"query_prompt": "none"}, {"query": "", "document": "Text: "}),
        ({"document_prompt": "77aa00bb", "query_prompt": "1f0c22ac"}, prompts),
        ({"query_prompt": "1f0c22ad"}, None),
    ):
        save(
            tmp_path / "-".join(settings.values()),
            "a/model",
            "SciFact",
            {"test": 0.5},
            experiment=settings,
            recorded={"identity": {"model": {"prompts": recorded}}},
        )
    assert {row.label for row in board(tmp_path).rows} == {
        "a/model [query prompt “Find: ”]",
        "a/model [query prompt none]",
        "a/model [document prompt “Text: ”, query prompt “Find: ”]",
        "a/model [query prompt 1f0c22ad]",
    }
