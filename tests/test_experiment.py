"""Experiments: the file, one row for each setting, shared work once, choices on another split."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bge_eval.cli.words import parse, repeating_options
from bge_eval.errors import BgeEvalError, DamagedError, MissingError, UsageError
from bge_eval.experiment.file import Experiment, read_experiment
from bge_eval.results.saved import SavedResult, find_results
from conftest import CommandLine


def read(folder: Path, text: str, typed: Mapping[str, Any] | None = None) -> Experiment:
    file = folder / "experiment.toml"
    file.write_text(text, encoding="utf-8")
    return read_experiment(file, repeating_options(), typed or {})


def test_every_combination_is_a_setting(tmp_path: Path) -> None:
    experiment = read(
        tmp_path,
        """
        tasks = ["SciFact"]
        offline = true
        [[models]]
        model = "a"
        max-length = [128, 256]
        [[models]]
        model = ["bm25", "a"]
        fuse = "rrf"
        weights = ["1,1", "1,2", "1,4"]
        [[rerankers]]
        reranker = "r"
        rerank-top-k = [10, 50]
        [grid]
        normalize = [true, false]
        """,
    )
    assert len(experiment.settings) == (2 + 3) * 2 * 2
    assert experiment.settings[1].words() == (
        [
            "--tasks",
            "SciFact",
            "--offline",
            "--model",
            "a",
            "--max-length",
            "128",
            "--normalize",
            "--reranker",
            "r",
            "--rerank-top-k",
            "50",
        ]
    )
    assert experiment.settings[-1].words() == (
        [
            "--tasks",
            "SciFact",
            "--offline",
            "--model",
            "bm25",
            "--model",
            "a",
            "--fuse",
            "rrf",
            "--weights",
            "1,4",
            "--no-normalize",
            "--reranker",
            "r",
            "--rerank-top-k",
            "50",
        ]
    )
    assert experiment.varied == [
        *("model", "max-length", "normalize", "rerank-top-k", "fuse", "weights"),
    ]
    parsed = [parse(setting.words()) for setting in experiment.settings]
    assert [each.reranker.rerank_top_k for each in parsed[:2]] == [10, 50]
    assert parsed[-1].model.settings.normalize is False


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        ("maxlength = 3", UsageError, "'maxlength' is no option of bge-eval run. Did you mean max"),
        ("model = 'a'\n[grid]\npooling = 'cls'", UsageError, "[grid] pooling takes a list"),
        ("[grid]\ntasks = ['a', 'b']", UsageError, "'tasks' is the same in all settings"),
        ("overwrite = true", UsageError, "'overwrite' cannot be stated in an experiment"),
        ("format = 'csv'", UsageError, "'format' cannot be stated in an experiment"),
        ("[[models]]\nmax-length = 3", UsageError, "an entry of [[models]] has model"),
        ("models = [3]", UsageError, "an entry of [[models]] has model"),
        ("models = ['a', 'a']", UsageError, "states a setting twice: a"),
        ("dtype = 'int8'\nmodels = ['a']\n[grid]\ndtype = ['float32']", UsageError, "dtype twice"),
        ("models = ['a']\n[choose]\nsplit = 'dev'", UsageError, "[choose] takes split"),
        (
            "models = ['a']\n[choose]\nsplit = 'dev'\noptions = ['weights']",
            UsageError,
            "no two settings differ in that",
        ),
        (
            "models = ['a']\n[choose]\nsplit = 'dev'\noptions = ['weight']",
            UsageError,
            "'weight' is no option of bge-eval run. Did you mean weights",
        ),
        ("tasks = [", DamagedError, "is no readable TOML file"),
    ],
)
def test_a_wrong_file_is_refused(
    tmp_path: Path, text: str, kind: type[BgeEvalError], expected: str
) -> None:
    with pytest.raises(kind) as error:
        read(tmp_path, text)
    assert expected in str(error.value)


def test_the_command_line_and_the_file_do_not_contradict_each_other(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--output is on the command line and 'output' in"):
        read(tmp_path, "models = ['a']\noutput = 'x'", {"output": "y"})
    with pytest.raises(MissingError, match=r"There is no experiment"):
        read_experiment(tmp_path / "none.toml", repeating_options(), {})


def test_a_wrong_value_is_refused_before_anything_runs(
    tmp_path: Path, bge_eval: CommandLine
) -> None:
    file = tmp_path / "experiment.toml"
    file.write_text("tasks = ['demo']\nmodels = ['bm25']\n[grid]\nmax-length = [64, 0]\n")
    done = bge_eval("run", file)
    assert done.returncode == 2
    assert "max-length 0: Invalid value for '--max-length'" in done.stderr
    done = bge_eval("run", file, "--overwrite")
    assert done.returncode == 2 and "--overwrite is not for an experiment" in done.stderr
    done = bge_eval("run", file, "SciFact")
    assert done.returncode == 2 and "An experiment runs alone" in done.stderr


@pytest.fixture
def experiment_file(
    tmp_path: Path, small_scifact: Path, tiny_bge: Path, tiny_cross_encoder: Path
) -> Path:
    train = small_scifact / "scifact" / "qrels" / "train.tsv"
    train.write_text("query-id\tcorpus-id\tscore\nq1\td4\t1\nq2\td5\t1\n", encoding="utf-8")
    file = tmp_path / "experiment.toml"
    file.write_text(
        f"""
        tasks = ["SciFact"]
        data-dir = "{small_scifact}"
        output = "{tmp_path / "out"}"
        store = "{tmp_path / "store"}"
        offline = true
        [[models]]
        model = "{tiny_bge}"
        truncate-dim = [16, 32]
        [[rerankers]]
        reranker = "{tiny_cross_encoder}"
        rerank-top-k = [1, 2, 4]
        """,
        encoding="utf-8",
    )
    return file


def table(text: str) -> list[tuple[str, ...]]:
    return [tuple(row.values()) for row in csv.DictReader(io.StringIO(text))]


@pytest.mark.slow
def test_a_row_is_what_the_setting_alone_gives_and_shared_work_is_done_once(
    tmp_path: Path, bge_eval: CommandLine, experiment_file: Path
) -> None:
    done = bge_eval("run", experiment_file, "--format", "csv")
    assert done.returncode == 0, done.stderr
    rows = table(done.stdout)
    assert len(rows) == len(set(rows)) == 2 + 2 * 3
    results = [SavedResult(path) for path in find_results([tmp_path / "out"])]
    profiles = [result.record.profile for result in results]
    encoded = [profile.tokens.get("encode corpus", 0) for profile in profiles if profile]
    assert sum(count > 0 for count in encoded) == 1  # the other dimension's vectors are stored
    pairs = sum(profile.counts.get("rerank", 0) for profile in profiles if profile)
    words = read_experiment(experiment_file, repeating_options(), {}).settings[-1].words()
    alone = [word.replace(str(tmp_path / "out"), str(tmp_path / "alone")) for word in words]
    store = alone.index("--store")
    fresh = bge_eval("run", *alone[:store], *alone[store + 2 :], "--no-store", "--format", "csv")
    assert fresh.returncode == 0, fresh.stderr
    assert set(table(fresh.stdout)) <= set(rows)
    whole = [SavedResult(path).record.profile for path in find_results([tmp_path / "alone"])]
    deepest = sum(profile.counts.get("rerank", 0) for profile in whole if profile)
    assert 0 < pairs <= 3 * 5  # every query with every document at most, whatever the depth
    assert deepest == 3 * 4
    again = bge_eval("run", experiment_file, "--format", "csv")
    assert table(again.stdout) == rows
    assert again.stderr.count("already done with this identity") == 6
    listed = bge_eval("run", experiment_file, "--dry-run")
    assert listed.stdout.count("done") == 6 and "to run" not in listed.stdout


@pytest.mark.slow
def test_what_is_chosen_on_one_split_is_reported_on_another(
    tmp_path: Path, bge_eval: CommandLine, experiment_file: Path
) -> None:
    text = experiment_file.read_text(encoding="utf-8")
    choose = '\n[choose]\nsplit = "train"\noptions = ["rerank-top-k"]\n'
    experiment_file.write_text(text + choose, encoding="utf-8")
    listed = bge_eval("run", experiment_file, "--dry-run")
    assert listed.returncode == 0, listed.stderr
    assert listed.stdout.count("after the choice") == 2 and listed.stdout.count("to run") == 6
    assert not (tmp_path / "out").exists()
    done = bge_eval("run", experiment_file, "--format", "csv")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Chosen on train: rerank-top-k") == 2
    reported = [SavedResult(path) for path in find_results([tmp_path / "out"])]
    assert {tuple(result.scores) for result in reported} == {("test",)}
    assert len(reported) == len(table(done.stdout)) == 4
    tried = [SavedResult(path) for path in find_results([tmp_path / "out" / "dev"])]
    assert {tuple(result.scores) for result in tried} == {("train",)}
    for dimension in (16, 32):
        scores = {
            result.experiment["rerank_top_k"]: result.main_score()
            for result in tried
            if result.experiment["truncate_dim"] == dimension and "reranker" in result.experiment
        }
        chosen = [
            result.experiment["rerank_top_k"]
            for result in reported
            if result.experiment["truncate_dim"] == dimension and "reranker" in result.experiment
        ]
        assert len(scores) == 3 and [scores[depth] for depth in chosen] == [max(scores.values())]


def test_the_reported_split_cannot_choose(
    tmp_path: Path, bge_eval: CommandLine, experiment_file: Path
) -> None:
    text = experiment_file.read_text(encoding="utf-8")
    choose = '\n[choose]\nsplit = "test"\noptions = ["rerank-top-k"]\n'
    experiment_file.write_text(text + choose, encoding="utf-8")
    done = bge_eval("run", experiment_file)
    assert done.returncode == 2 and "is the split on which SciFact is reported" in done.stderr
