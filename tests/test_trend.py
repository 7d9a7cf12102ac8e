"""Series of checkpoints: which rows are one, their scores over steps, the sparkline."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from bge_eval.cli.trend import sparkline
from bge_eval.leaderboard.rows import Row
from bge_eval.leaderboard.steps import step_name
from bge_eval.leaderboard.trend import find_series
from conftest import CommandLine
from saved import save_run

_STEPS = (250, 500, 1000)


def row(name: str, *, settings: str = "", title: str = "", reranker: str | None = None) -> Row:
    return Row(name, "r", settings, reranker, "float32", title=title)


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """Three checkpoints on two tasks: the second is best, and far better than the first."""
    for step, good in zip(_STEPS, (2, 20, 18), strict=True):
        for task in ("SciFact", "NFCorpus"):
            run = {f"q{n}": {"d": 2.0 if n < good else 0.5, "x": 1.0} for n in range(20)}
            qrels = {f"q{n}": {"d": 1} for n in range(20)}
            save_run(tmp_path, f"mine/checkpoint-{step}", run, qrels, task=task)
    save_run(tmp_path, "a/other-v2", {"q0": {"d": 1.0}}, {"q0": {"d": 1}}, task="SciFact")
    return tmp_path


def test_a_series_is_names_that_differ_in_steps_alone() -> None:
    rows = [
        row("mine/checkpoint-1000"),
        row("org/all-MiniLM-L6-v2"),
        row("org/all-MiniLM-L12-v2"),
        row("mine/checkpoint-500"),
        row("other/checkpoint-500"),
        row("mine/checkpoint-500", settings="dtype=float16"),
        row("mine/checkpoint-1000", settings="dtype=float16"),
        row("mine/checkpoint-1000", reranker="r"),
    ]
    first, second = find_series(rows)
    assert (first.name, first.rows, first.steps) == ("mine", (3, 0), (500, 1000))
    assert (second.name, second.rows) == ("mine [dtype=float16]", (5, 6))


@pytest.mark.parametrize(
    ("names", "steps", "labels"),
    [
        # Lightning counts steps over all epochs, others anew in each.
        (["e/epoch_1-step_300", "e/epoch_2-step_100"], (1, 2), "epoch_1-step_300"),
        (["e/epoch=2-step=600", "e/epoch=1-step=300"], (300, 600), "epoch=1-step=300"),
        (["e/global_step10", "e/global_step9"], (9, 10), "global_step9"),
        (["e/my-model-step-20", "e/my-model-step-3"], (3, 20), "step-3"),
    ],
)
def test_steps_are_ordered_as_numbers(
    names: list[str], steps: tuple[int, ...], labels: str
) -> None:
    [series] = find_series([row(name) for name in names])
    assert series.steps == steps
    assert series.labels[0] == labels


@pytest.mark.parametrize(
    ("name", "base", "step"),
    [
        ("out/checkpoint-500", "out", 500),
        ("out/my-model-step-20", "out/my-model", 20),
        ("out/epoch_1-step_300", "out", 300),
        ("out/Epoch=2-Step=600", "out", 600),
        ("out/mycheckpoint-5", "out/my", 5),
        ("out/steps_7", "out", 7),
        ("out/ckpt7", "out", 7),
        ("checkpoint-3", "", 3),
    ],
)
def test_a_name_of_a_checkpoint_is_read_in_one_way(name: str, base: str, step: int) -> None:
    parts = step_name(name)
    assert parts is not None and (parts.base, parts.step) == (base, step)
    assert step_name(name, numbered=True) == parts


@pytest.mark.parametrize("name", ["org/arbiter-2", "org/bge-m3", "org/e5-small-v2", "a/footsteps9"])
def test_a_number_in_a_name_is_no_step(name: str) -> None:
    assert step_name(name) is None
    parts = step_name(name, numbered=True)
    assert parts is not None and parts.base == name.split("/")[0]


def test_labels_of_the_users_own_are_a_series() -> None:
    rows = [row("a/b", title="step 3000"), row("a/b", title="step 500"), row("a/b", title="best")]
    [series] = find_series(rows)
    assert (series.name, series.rows, series.steps) == ("step", (1, 0), (500, 3000))


def test_a_sparkline_goes_from_the_lowest_to_the_highest() -> None:
    assert sparkline([0.0, 0.5, None, 1.0]) == "▁▅ █"
    assert sparkline([0.3, 0.3]) == "▄▄"
    many = sparkline([n / 999 for n in range(1000)])
    assert len(many) == 40
    assert (many[0], many[-1]) == ("▁", "█")
    assert sparkline([]) == ""


def test_a_trend_has_scores_intervals_and_the_steps_like_the_best(
    bge_eval: CommandLine, trained: Path
) -> None:
    done = bge_eval("table", trained, "--trend", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [each["task"] for each in rows[::3]] == ["SciFact", "NFCorpus", "average"]
    mean = [each for each in rows if each["task"] == "average"]
    assert [int(each["step"]) for each in mean] == [*_STEPS]
    expected = [(good + (20 - good) * 0.6309297535714575) / 20 for good in (2, 20, 18)]
    assert [float(each["score"]) for each in mean] == pytest.approx(expected)
    assert all(float(each["low"]) <= float(each["score"]) <= float(each["high"]) for each in mean)
    assert [each["best"] for each in mean] == ["False", "True", "False"]
    assert [each["tied_with_best"] for each in mean] == ["False", "False", "True"]
    shown = bge_eval("table", trained, "--trend").stdout
    assert "▁█▇" in shown
    for form in ("markdown", "html", "latex", "json"):
        assert bge_eval("table", trained, "--trend", "--format", form).returncode == 0
    assert json.loads(bge_eval("table", trained, "--trend", "--format", "json").stdout)["steps"]


def test_a_trend_needs_a_series_and_no_other_marks(
    bge_eval: CommandLine, trained: Path, tmp_path: Path
) -> None:
    none = bge_eval("table", trained, "--trend", "--models", "other")
    assert (none.returncode, "checkpoints of one training" in none.stderr) == (3, True)
    both = bge_eval("table", trained, "--trend", "--best")
    assert (both.returncode, "--trend shows steps and no --best" in both.stderr) == (2, True)


def test_a_comparison_of_a_training_is_against_its_first_step(
    bge_eval: CommandLine, trained: Path
) -> None:
    folder = trained / "results"
    for side in ("mine", "MINE"):
        done = bge_eval("compare", side, "--runs", trained, "--format", "json")
        pairs = json.loads(done.stdout)["pairs"]
        assert [(each["a"], each["b"]) for each in pairs] == [
            ("mine/checkpoint-250", "mine/checkpoint-500"),
            ("mine/checkpoint-250", "mine/checkpoint-1000"),
        ]
    assert bge_eval("compare", folder, "--format", "json").stdout == done.stdout
    alone = bge_eval("compare", "a/other-v2", "--runs", trained)
    assert (alone.returncode, "nothing to be compared with" in alone.stderr) == (2, True)
    for step in (1, 2):
        run = {"q0": {"d": 1.0}}
        save_run(trained, f"second/step-{step}", run, {"q0": {"d": 1}}, task="SciFact")
    several = bge_eval("compare", folder)
    assert (several.returncode, "several trainings: mine, second" in several.stderr) == (2, True)
