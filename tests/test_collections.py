"""A folder of one's own as a task: retrieval, reranking and STS, with its options."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from bge_eval.data.collection import read_collection
from bge_eval.encode.settings import Overrides
from bge_eval.errors import DamagedError, MissingError, UsageError
from bge_eval.evaluation.evaluate import evaluate
from bge_eval.evaluation.options import Options
from bge_eval.models.kinds import ModelOptions
from bge_eval.models.transformer import EncoderModel
from bge_eval.results.trec import read_run
from bge_eval.suites.catalogue import plan
from conftest import BUILTIN, CommandLine, write_beir
from test_layouts import as_flagembedding, as_repository, write_rows


@pytest.fixture
def tickets(tmp_path: Path) -> Path:
    return write_beir(
        tmp_path / "tickets",
        [{"_id": f"t{i}", "text": text} for i, text in enumerate(["printer", "网络断开", "login"])],
        {"q1": "the printer is broken", "t2": "login fails"},
        [("q1", "t0", 1), ("t2", "t2", 1)],
        split="dev",
    )


def run_of(folder: Path, output: Path, **overrides: str) -> tuple[str, dict[str, dict[str, float]]]:
    planned = plan([str(folder)])
    model = EncoderModel(BUILTIN, ModelOptions(overrides=Overrides(**overrides)))  # type: ignore[arg-type]
    report = evaluate(model, planned, Options(output, offline=True))
    name = planned[0].name
    path = report.done[name][0]
    record = json.loads((path.parent / name / "run.json").read_text(encoding="utf-8"))
    return record["identity"]["model"]["prompts"]["query"], read_run(
        path.with_name(f"{name}.run.tsv.gz")
    )


@pytest.mark.parametrize("change", [lambda folder: None, as_repository], ids=["beir", "repository"])
def test_runs_as_a_task_of_its_own_name(tickets: Path, tmp_path: Path, change: object) -> None:
    (tickets / "qrels/dev.tsv").rename(tickets / "qrels/test.tsv")
    change(tickets)  # type: ignore[operator]
    _, run = run_of(tickets, tmp_path / "out")
    assert set(run["q1"]) == {"t0", "t1", "t2"}


def test_flagembedding_layout(tickets: Path, tmp_path: Path) -> None:
    (tickets / "qrels/dev.tsv").rename(tickets / "qrels/test.tsv")
    as_flagembedding(tickets)
    _, run = run_of(tickets, tmp_path / "out")
    assert set(run["q1"]) == {"t0", "t1", "t2"}


@pytest.mark.parametrize("measure", ["mrr_at_10", "RR@10"])
def test_options(tickets: Path, tmp_path: Path, measure: str) -> None:
    (tickets / "task.toml").write_text(
        'name = "Tickets.v2"\nsplit = "dev"\nlanguages = ["deu-Latn"]\nquery_prompt = "ticket: "\n'
        f'main_measure = "{measure}"\ndrop_identical_ids = true\n'
    )
    prompt, run = run_of(tickets, tmp_path / "out")
    assert prompt == "ticket: "
    assert "t2" not in run["t2"]
    task = plan([str(tickets)])[0].task
    assert task.metadata.name == "Tickets.v2"
    assert task.metadata.main_score == "mrr_at_10"
    # What is said on the command line still wins.
    assert run_of(tickets, tmp_path / "out2", query_prompt="mine: ")[0] == "mine: "


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("spilt = 'dev'", "there is no option 'spilt'. Did you mean split"),
        ("split = 3", "split must be a str"),
        ("= 3", "is not TOML"),
        ("name = 'Support/Tickets'", "the name 'Support/Tickets' becomes a file name"),
        ("main_measure = 'nDGC@10'", "main_measure is 'nDGC@10': .* Did you mean nDCG@10"),
        ("main_measure = 'ndcg_at_7'", "results hold the cutoffs 1, 3, 5, 10, 20, 100, 1000"),
        ("main_measure = 'max_f1'", "'max_f1' is not a measure"),
    ],
)
def test_wrong_options(tickets: Path, options: str, message: str) -> None:
    (tickets / "task.toml").write_text(options)
    with pytest.raises(DamagedError, match=message):
        read_collection(tickets)


def test_wrong_language(tickets: Path) -> None:
    (tickets / "task.toml").write_text('languages = ["Klingon"]')
    with pytest.raises(DamagedError, match="is no language as mteb writes it"):
        plan([str(tickets)])


def test_split_must_be_clear(tickets: Path) -> None:
    assert read_collection(tickets).split == "dev"
    (tickets / "qrels/eval.tsv").write_bytes((tickets / "qrels/dev.tsv").read_bytes())
    with pytest.raises(MissingError, match="has the splits dev, eval"):
        read_collection(tickets)


def test_no_collection(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(MissingError, match=r"is no collection: it holds notes\.txt"):
        plan([str(tmp_path)])
    with pytest.raises(UsageError, match="there is no such folder"):
        plan(["./nowhere"])


def test_reranking_and_sts_files(tmp_path: Path, bge_eval: CommandLine) -> None:
    write_rows(
        tmp_path / "answers" / "test.jsonl",
        [
            {"query": "strong bones", "positive": ["vitamin D for bones"], "negative": ["a car"]},
            {"query": "记忆", "positive": ["睡眠与记忆"], "negative": ["汽车", "bus"]},
            {"query": "no negatives", "positive": ["x"], "negative": []},
        ],
    )
    pairs = [("a cat", "a feline", 4.5), ("a dog", "a car", 0.5), ("tea", "coffee", 2.0)]
    write_rows(
        tmp_path / "pairs" / "test.jsonl",
        [{"sentence1": a, "sentence2": b, "score": s} for a, b, s in pairs],
    )
    done = bge_eval(
        *("run", "--model", BUILTIN, "--tasks", tmp_path / "answers", tmp_path / "pairs"),
        *("--offline", "--output", tmp_path / "out", "--format", "json"),
    )
    assert done.returncode == 0, done.stderr
    scores = json.loads(done.stdout)["rows"][0]["scores"]
    assert 0.5 <= scores["answers"] <= 1
    assert -1 <= scores["pairs"] <= 1
    run = read_run(next((tmp_path / "out").rglob("answers.run.tsv.gz")))
    assert {query: len(documents) for query, documents in run.items()} == {
        "test_query0": 2,
        "test_query1": 3,
    }


def test_damaged_reranking_row(tmp_path: Path) -> None:
    write_rows(
        tmp_path / "answers" / "test.jsonl",
        [{"query": "a", "positive": "no list", "negative": ["b"]}],
    )
    planned = plan([str(tmp_path / "answers")])
    report = evaluate(EncoderModel(BUILTIN), planned, Options(tmp_path / "out", offline=True))
    assert "line 1: positive is no list of texts" in str(report.failed["answers"])


def test_two_of_one_name_are_not_one(tickets: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    again = shutil.copytree(tickets, tmp_path / "other" / "tickets")
    assert len(plan([str(tickets), f"{tickets}/"])) == 1
    with pytest.raises(UsageError, match="Two tasks are called tickets"):
        plan([str(tickets), str(again)])
    (again / "task.toml").write_text('name = "Again"')
    assert [task.name for task in plan([str(tickets), str(again)])] == ["tickets", "Again"]


def test_a_collection_without_judgements(tickets: Path) -> None:
    shutil.rmtree(tickets / "qrels")
    with pytest.raises(MissingError, match=r"no judgements: expected qrels/<split>\.tsv"):
        plan([str(tickets)])
    (tickets / "README.md").write_text(
        "---\nconfigs:\n- config_name: corpus\n  data_files: corpus.jsonl\n---\n"
    )
    with pytest.raises(MissingError, match="names no configuration 'default' or 'qrels'"):
        plan([str(tickets)])


def test_prompts_of_the_command_line_come_before_those_of_the_folder(
    tickets: Path, tmp_path: Path
) -> None:
    (tickets / "task.toml").write_text('query_prompt = "folder: "')
    assert run_of(tickets, tmp_path / "a")[0] == "folder: "
    said = {"tickets-query": "mine: "}
    assert run_of(tickets, tmp_path / "b", prompts=said)[0] == "mine: "  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", ["t\t0", "t\n0"])
def test_ids_that_no_run_can_hold(tmp_path: Path, wrong: str) -> None:
    folder = write_beir(
        tmp_path / "odd", [{"_id": wrong, "text": "a"}, {"_id": "b", "text": "b"}], {"q": "a"},
        [("q", "b", 1)], split="test",
    )  # fmt: skip
    report = evaluate(EncoderModel(BUILTIN), plan([str(folder)]), Options(tmp_path, offline=True))
    assert "holds a tab or the end of a line" in str(report.failed["odd"])
