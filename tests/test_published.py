"""Published scores: the figures of MTEB's own table, and of its own code on the same results."""

from __future__ import annotations

import csv
import gzip
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from packaging.version import InvalidVersion, Version
from typer.testing import CliRunner

from bge_eval.cli.app import application
from bge_eval.cli.columns import columns_of
from bge_eval.errors import UsageError
from bge_eval.leaderboard.board import Leaderboard
from bge_eval.leaderboard.published import parsed_version, published_rows, read_published
from bge_eval.leaderboard.reading import leaderboard
from bge_eval.leaderboard.rows import Aggregates, Column, Disagreement, Row
from bge_eval.measures.mteb_keys import MAIN_KEY
from bge_eval.resources import published_folder
from bge_eval.results.saved import find_results

BASE = "BAAI/bge-base-en-v1.5"
MAIN = "a5beb1e3e68b9ab74eb54cfd186867f64f240e1a"


def published(suite: str, aggregates: Aggregates = Aggregates.RECOMPUTED) -> Leaderboard:
    import mteb

    columns = columns_of([suite])
    own = {str(meta.name): meta.revision for meta in mteb.get_model_metas()}
    rows = published_rows(columns, key=MAIN_KEY, main_revisions=own, aggregates=aggregates)
    return leaderboard([], measure="main score", key=MAIN_KEY, columns=columns, others=rows)


def percent(board: Leaderboard, model: str) -> dict[str, float | None]:
    row = row_of(board, model)
    means = board.means(row).items()
    return {name: mean.value and round(100 * mean.value, 2) for name, mean in means}


def row_of(board: Leaderboard, model: str) -> Row:
    return next(row for row in board.rows if row.model == model)


def test_the_figures_of_mtebs_table() -> None:
    board = published("mteb-en", Aggregates.PUBLISHED)
    assert percent(board, BASE) == {
        "Mean (Task)": 63.17,
        "Mean (TaskType)": 61.67,
        "Classification": 73.72,
        "Retrieval": 53.23,
        "Clustering": 45.81,
        "Reranking": 58.86,
        "STS": 82.45,
        "PairClassification": 86.56,
        "Summarization": 31.07,
    }
    assert row_of(board, BASE).scores["CQADupstackRetrieval"] == 0.415925


def test_an_aggregate_is_recomputed_and_marked() -> None:
    board = published("mteb-en")
    assert percent(board, BASE)["Retrieval"] == 53.28
    row = row_of(board, BASE)
    assert row.scores["CQADupstackRetrieval"] == pytest.approx(0.423575833)
    mean = row.scores["CQADupstackRetrieval"]
    assert row.disagreements == {"CQADupstackRetrieval": Disagreement(0.415925, mean, 12)}
    assert set(row.revision.split(", ")) == {MAIN, "external"}
    assert not row_of(board, "Qwen/Qwen3-Embedding-0.6B").disagreements


def write_as_mteb(root: Path, columns: tuple[Column, ...], models: tuple[str, ...]) -> None:
    """Put published scores where mteb keeps results, one file for each revision and task."""
    tasks = {column.task for column in columns}
    for model, found in read_published(tasks).items():
        for task, submissions in found.items() if model in models else ():
            for submission in submissions:
                folder = root / "results" / model.replace("/", "__") / submission.revision
                folder.mkdir(parents=True, exist_ok=True)
                meta = {"name": model, "revision": submission.revision}
                (folder / "model_meta.json").write_text(json.dumps(meta))
                scores = {
                    split: [{"main_score": None, "languages": ["eng-Latn"], **e} for e in entries]
                    for split, entries in submission.scores.items()
                }
                content = {
                    "task_name": task,
                    "dataset_revision": submission.data_revision,
                    "mteb_version": submission.version or None,
                    "scores": scores,
                    "evaluation_time": None,
                    "kg_co2_emissions": None,
                }
                (folder / f"{task}.json").write_text(json.dumps(content))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("suite", "benchmark"),
    [("mteb-en", "MTEB(eng, v1)"), ("mteb-en-v2", "MTEB(eng, v2)"), ("c-mteb", "MTEB(cmn, v1)")],
)
def test_mtebs_own_table_of_the_same_results(tmp_path: Path, suite: str, benchmark: str) -> None:
    import mteb

    board = published(suite, Aggregates.PUBLISHED)
    models = tuple(row.model for row in board.rows)
    write_as_mteb(tmp_path, board.columns, models)
    results = mteb.ResultCache(tmp_path).load_results(
        tasks=mteb.get_benchmark(benchmark), include_remote=False, require_model_meta=False
    )
    theirs = {line["Model"]: line for line in results.get_benchmark_result().to_dict("records")}
    assert set(theirs) == set(models)
    for row in board.rows:
        for name, mean in board.means(row).items():
            value = theirs[row.model][name]
            expected = None if value is None or math.isnan(value) else pytest.approx(value)
            assert mean.value == expected, (row.model, name)


@pytest.mark.filterwarnings("ignore")
def test_mtebs_own_means_of_result_files(tmp_path: Path) -> None:
    """The same, with our table reading the result files instead of the published ones."""
    import mteb

    columns = tuple(columns_of(["mteb-en"]))
    models = ("Qwen/Qwen3-Embedding-0.6B", "sentence-transformers/all-MiniLM-L6-v2")
    write_as_mteb(tmp_path, columns, models)
    benchmark = mteb.get_benchmark("MTEB(eng, v1)")
    results = mteb.ResultCache(tmp_path).load_results(
        tasks=benchmark, include_remote=False, require_model_meta=False
    )
    theirs = benchmark.get_score(results)
    paths = find_results([tmp_path])
    board = leaderboard(paths, measure="main score", key=MAIN_KEY, columns=columns)
    assert {row.model for row in board.rows} == set(theirs) == set(models)
    for row in board.rows:
        ours = {name.replace(" ", ""): mean.value for name, mean in board.means(row).items()}
        assert len(ours) == 9
        assert ours == {name: pytest.approx(theirs[row.model][name]) for name in ours}


COLUMNS = [
    Column("SciFact", "Retrieval", ("test",), ("default",), "ndcg_at_10", "now"),
    Column("STS12", "STS", ("test",), ("default",), "cosine_spearman", "now"),
]


@pytest.fixture
def other_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Lines that stand in for the published ones, written when they are first read."""
    lines: list[dict[str, Any]] = []

    def folder() -> Path:
        with gzip.open(tmp_path / "mteb_scores.csv.gz", "wt", newline="") as file:
            keys = ["main_score", "ndcg_at_10", "mrr_at_10", "map_at_100"]
            keys += ["recall_at_10", "recall_at_100", "recall_at_1000"]
            names = ["model", "revision", "task", "dataset_revision", "mteb_version", "split"]
            writer = csv.DictWriter(file, [*names, "subset", *keys], restval="")
            writer.writeheader()
            writer.writerows(lines)
        return tmp_path

    monkeypatch.setattr("bge_eval.leaderboard.published.published_folder", folder)
    return lines


def line(revision: str, version: str, score: float, **more: Any) -> dict[str, Any]:
    fixed = {"model": "a/b", "task": "SciFact", "split": "test", "subset": "default"}
    given = {"revision": revision, "mteb_version": version, "main_score": score}
    return {**fixed, "dataset_revision": "now", **given, **more}


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([("main", "1.0.0", 0.1), ("other", "2.0.0", 0.2)], 0.1),
        ([("other", "2.0.0", 0.2), ("main", "", 0.1)], 0.1),
        ([("old", "1.9.0", 0.1), ("new", "1.12.0", 0.2)], 0.2),
        ([("external", "1.0.0", 0.1), ("other", "", 0.2)], 0.1),
        ([("external", "", 0.1), ("other", "", 0.2)], 0.2),
        ([("no_revision_available", "2.0.0", 0.1), ("other", "1.0.0", 0.2)], 0.2),
        ([("other", "1.29.10-2.18.7", 0.1), ("another", "1.0.0", 0.2)], 0.2),
    ],
)
def test_one_revision_counts(
    other_scores: list[dict[str, Any]], lines: list[tuple[str, str, float]], expected: float
) -> None:
    other_scores += [line(*item) for item in lines]
    rows = published_rows(COLUMNS, key=MAIN_KEY, main_revisions={"a/b": "main"})
    assert [row.scores for row in rows] == [{"SciFact": expected}]


def test_what_published_rows_lack_is_said(other_scores: list[dict[str, Any]]) -> None:
    from bge_eval.cli.show import notes

    other_scores += [
        line("main", "1.0.0", 0.5),
        line("main", "1.0.0", 0.5, model="c/d", dataset_revision="before"),
        line("main", "1.0.0", 0.25, model="c/d", task="STS12"),
        line("main", "1.0.0", 0.75, model="e/f", task="Unrelated"),
        line("main", "1.0.0", 0.75, model="g/h", split="train"),
    ]
    rows = published_rows(COLUMNS, key=MAIN_KEY, main_revisions={})
    board = leaderboard([], measure="main score", key=MAIN_KEY, columns=COLUMNS, others=rows)
    assert [row.label for row in board.rows] == ["c/d (published)", "a/b (published)"]
    assert board.rows[0].other_data == ("SciFact",)
    assert notes(board) == [
        "Published rows that lack some of the 2 tasks: a/b (STS12)",
        "Published on another revision of the data than the task has now, or on an unstated one:"
        " 1 of 3 scores, of SciFact",
    ]
    assert board.frame()["published"].all() and list(board.frame()["other_data"]) == [1, 0]


def test_versions_are_those_that_mteb_can_compare() -> None:
    with gzip.open(published_folder() / "mteb_scores.csv.gz", "rt", encoding="utf-8") as file:
        versions = {row["mteb_version"] for row in csv.DictReader(file)}
    for text in versions:
        try:
            expected = Version(text).release
        except InvalidVersion:
            assert parsed_version(text) is None
        else:
            assert parsed_version(text) == expected


def test_a_measure_that_is_not_published_is_refused() -> None:
    with pytest.raises(UsageError, match="do not hold precision_at_5"):
        published_rows(COLUMNS, key="precision_at_5", main_revisions={})


def test_source_is_named_and_no_address_is() -> None:
    readme = (published_folder() / "README.md").read_text(encoding="utf-8")
    assert "f4cc6c8b" in readme and "2026-08-20" in readme
    assert "://" not in readme and not re.search(r"(^|\s)/\w+/", readme)


def test_the_command_places_a_model_among_the_published(tmp_path: Path) -> None:
    folder = tmp_path / "results" / "own__model" / "rev12345"
    folder.mkdir(parents=True)
    (folder / "model_meta.json").write_text('{"name": "own/model", "revision": "rev12345"}')
    entry = {"hf_subset": "default", "main_score": 0.74, "ndcg_at_10": 0.74}
    content = {"task_name": "SciFact", "scores": {"test": [entry]}}
    (folder / "SciFact.json").write_text(json.dumps(content))
    arguments = [
        "table",
        str(tmp_path),
        "--published",
        "--models",
        "own",
        "--models",
        "bge-base-en",
    ]
    done = CliRunner().invoke(application(), [*arguments, "--format", "json"])
    assert done.exit_code == 0, done.output
    table = json.loads(done.stdout)
    assert table["measure"] == "nDCG@10"
    assert [(row["model"], row["published"]) for row in table["rows"]] == [
        ("BAAI/bge-base-en-v1.5", True),
        ("own/model", False),
        ("BAAI/bge-base-en", True),
    ]
    assert "another revision of the data" in done.stderr
    types = CliRunner().invoke(
        application(), ["table", str(tmp_path), "--types", "--format", "csv"]
    )
    assert types.stdout.splitlines()[1] == "own/model,rev12345,,,,0.74,0.74,0.74,1,1"


def test_a_name_that_is_nothing_is_refused(tmp_path: Path) -> None:
    done = CliRunner().invoke(application(), ["table", "--published", "--tasks", "SciFat"])
    assert done.exit_code != 0
    assert "SciFact" in str(done.exception) + done.output
