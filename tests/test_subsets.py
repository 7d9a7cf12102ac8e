"""A result of some of a task's subsets is shown as that, and never as the task's score."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bge_eval.cli.app import application
from bge_eval.results.saved import SavedResult
from generate_results import Sizes, generate_results

_TASK = "XQuADRetrieval"
_SIZES = Sizes(systems=1, queries=6, documents=5)


def table(*words: str) -> str:
    result = CliRunner().invoke(application(), ["table", *words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def record(*words: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(table(*words, "--format", "json"))
    return content


@pytest.fixture(scope="module")
def chinese(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chinese")
    generate_results(folder, [_TASK], _SIZES, subsets=["zh"], prefix="a/chinese")
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    generate_results(folder, [_TASK, "SciFact"], _SIZES, seed=1)
    return folder


def score(folder: Path) -> float:
    [path] = folder.rglob(f"{_TASK}.json")
    entries = SavedResult(path).scores["validation"]
    return sum(float(entry["main_score"]) for entry in entries) / len(entries)


@pytest.mark.parametrize("words", [[], ["--tasks", _TASK, "--subset", "zh"], ["--lang", "zh"]])
def test_a_column_of_one_language_bears_its_name(chinese: Path, words: list[str]) -> None:
    [row] = csv.DictReader(io.StringIO(table(str(chinese), *words, "--format", "csv")))
    assert float(row[f"{_TASK}/zh"]) == pytest.approx(score(chinese))
    assert _TASK not in row


@pytest.mark.parametrize("more", [[], ["--published"]])
def test_under_the_task_one_language_has_no_part_in_the_mean(
    chinese: Path, more: list[str]
) -> None:
    [row] = [row for row in record(str(chinese), "--tasks", _TASK, *more)["rows"]
             if not row["published"]]  # fmt: skip
    assert row["scores"] == {_TASK: None}
    assert row["average"] is None
    value = pytest.approx(score(chinese))
    assert row["partial"] == {_TASK: {"value": value, "subsets": ["zh"], "total": 12}}
    shown = table(str(chinese), "--tasks", _TASK, "--format", "markdown", *more)
    assert f"{score(chinese):.5f} (zh)" in shown


def test_beside_a_whole_result_a_partial_one_is_told_apart(chinese: Path, whole: Path) -> None:
    rows = record(str(whole), str(chinese), "--tasks", _TASK, "--best")["rows"]
    assert [row["scores"][_TASK] is None for row in rows] == [False, True]
    assert rows[0]["scores"][_TASK] == pytest.approx(score(whole))
    assert rows[1]["standings"] == {_TASK: None}


def test_one_language_of_several_results_is_compared_on_that_language(
    chinese: Path, whole: Path
) -> None:
    rows = record(str(whole), str(chinese), "--subset", "zh")["rows"]
    [path] = whole.rglob(f"{_TASK}.json")
    [entry] = [e for e in SavedResult(path).scores["validation"] if e["hf_subset"] == "zh"]
    figures = sorted(row["scores"][_TASK] for row in rows)
    assert figures == pytest.approx(sorted([entry["main_score"], score(chinese)]))


def test_a_whole_result_keeps_the_tasks_name(whole: Path) -> None:
    [row] = csv.DictReader(io.StringIO(table(str(whole), "--format", "csv")))
    assert float(row[_TASK]) == pytest.approx(score(whole))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tasks", _TASK, "--subset", "xx"], "has none of the subsets xx"),
        (["--subset", "xx"], "None of the tasks with a result has xx"),
        (["--tasks", "SciFact", "--lang", "zho"], "None of the tasks is in zho"),
        (["--tasks", "NoSuchTask", "--lang", "zho"], "--lang: the languages of NoSuchTask"),
    ],
)
def test_what_no_task_has_is_refused(whole: Path, words: list[str], message: str) -> None:
    result = CliRunner().invoke(application(), ["table", str(whole), *words])
    assert message in str(result.exception) + result.output


def test_the_report_names_the_language(chinese: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    words = ["report", str(chinese), "--tasks", _TASK, "-o", str(page), "--no-published"]
    result = CliRunner().invoke(application(), words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "zh alone, of 12 subsets" in page.read_text()
    result = CliRunner().invoke(application(), [*words, "--subset", "zh"], catch_exceptions=False)
    assert f"{score(chinese):.4f}" in page.read_text()


def test_no_system_is_the_best_while_rows_are_incomplete(
    chinese: Path, whole: Path, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    words = ["report", str(whole), str(chinese), "-o", str(page), "--no-published"]
    CliRunner().invoke(application(), words, catch_exceptions=False)
    text = page.read_text()
    assert "1 of 2 systems have a score on all tasks, so none is called the best." in text
    assert "has the best" not in text


def test_seconds_of_some_tasks_are_shown_as_that(chinese: Path, whole: Path) -> None:
    shown = table(str(whole), str(chinese), "--costs", "--format", "markdown")
    assert "| seconds |" in shown and "(0 of 2 tasks)" in shown
