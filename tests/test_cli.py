"""The command line as a person meets it: help, errors, exit codes, what goes to which stream."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from bge_eval.results.trec import read_per_query, read_run
from conftest import BUILTIN, CommandLine, write_beir


def test_help_loads_no_heavy_library(bge_eval_process: CommandLine) -> None:
    """Loading mteb or torch takes seconds; help answers without them."""
    done = bge_eval_process("--help", env={"PYTHONPROFILEIMPORTTIME": "1"})
    assert done.returncode == 0
    assert all(
        command in done.stdout for command in ("run", "table", "compare", "rescore", "tasks")
    )
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "bge_eval.cli.app" in loaded
    assert not loaded & {"torch", "mteb", "transformers", "pandas", "scipy", "datasets"}


COMMANDS = ["run", "table", "compare", "check", "rescore", "report", "export", "store", "tasks"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(bge_eval: CommandLine, command: str) -> None:
    done = bge_eval(command, "--help")
    assert done.returncode == 0
    assert f"bge-eval {command}" in done.stdout


def test_tasks(bge_eval: CommandLine, small_scifact: Path) -> None:
    listed = bge_eval("tasks").stdout
    assert all(name in listed for name in ("beir", "mteb-en", "c-mteb", "demo"))
    wrong = bge_eval("tasks", "bier")
    assert wrong.returncode == 2
    assert "Did you mean beir" in wrong.stderr
    (small_scifact / "nfcorpus").mkdir()
    beir = bge_eval("tasks", "beir", "--data-dir", small_scifact, "--json")
    rows = {row["task"]: row for row in json.loads(beir.stdout)}
    assert len(rows) == 14 + 12
    assert rows["SciFact"]["origin"] == str(small_scifact / "scifact")
    assert rows["SciFact"]["size"] == 5183
    assert (
        "has the name of NFCorpus, but it contains no corpus.jsonl" in rows["NFCorpus"]["missing"]
    )
    assert "no folder or zip named ArguAna" in rows["ArguAna"]["missing"]
    shown = bge_eval("tasks", "beir", "--data-dir", small_scifact)
    assert "1 of 26 tasks can be run offline from here." in shown.stdout
    assert "name a suite" in bge_eval("tasks", "--lang", "zho").stderr


def test_data_check(bge_eval: CommandLine, small_scifact: Path) -> None:
    done = bge_eval("data", "check", "--tasks", "SciFact,NFCorpus", "--data-dir", small_scifact)
    assert done.returncode == 3
    shown = " ".join(done.stdout.split())
    assert "5 test documents, 3 test queries" in shown
    assert "5 here, 5,183" in shown, shown
    assert "2 of 2 data sets are missing or not as expected" in done.stderr
    fine = bge_eval("data", "check", "--tasks", "demo", "--data-dir", small_scifact)
    assert fine.returncode == 0, fine.stderr
    assert "199 test documents, 68 test queries" in " ".join(fine.stdout.split())


def test_data_check_of_real_sets(bge_eval: CommandLine, real_data: Path) -> None:
    names = "SciFact,STSBenchmark,LCQMC,Ocnli,Banking77Classification"
    done = bge_eval("data", "check", "--tasks", names, "--data-dir", real_data)
    assert done.returncode == 0, done.stdout


def test_tasks_tells_the_truth_about_splits(bge_eval: CommandLine, small_scifact: Path) -> None:
    (small_scifact / "scifact" / "qrels" / "test.tsv").rename(
        small_scifact / "scifact" / "qrels" / "dev.tsv"
    )
    done = bge_eval("tasks", "SciFact", "--data-dir", small_scifact, "--json")
    assert "no qrels/test.tsv" in json.loads(done.stdout)[0]["missing"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--tasks", "SciFcat"], 2, "Did you mean SciFact"),
        (["--tasks", "demo", "--metric", "nDCG@7"], 2, "results hold the cutoffs"),
        (["--tasks", "demo", "--pooling", "median"], 2, "--pooling"),
        (["--tasks", "demo", "--max-length", "100000"], 2, "exceeds the .* positions of"),
        (["--tasks", "SciFact", "--data-dir", "nowhere"], 3, "data folder nowhere does not exist"),
        (["--tasks", "SciFact", "--offline"], 3, "The data of SciFact"),
        (["--tasks", "demo", "--lang", "deu"], 2, "None of the tasks is in deu"),
        (["--tasks", "./nowhere"], 2, "no such folder"),
        (["--tasks", ""], 2, "No task was given"),
        ([], 2, "No task was given"),
        (["--tasks", "demo", "--rerank-top-k", "5"], 2, "no effect without --reranker"),
        (["--tasks", "demo", "--api-timeout", "5"], 2, "is for a server's address"),
        (["--tasks", "demo", "--reranker-api-model", "r"], 2, "is for a server's address"),
        (["--tasks", "demo", "--max-length", "2", "--no-store"], 2, "leaves no room for a text"),
        (["--tasks", "demo", "--store", "here", "--no-store"], 2, "contradict each other"),
        (
            ["--tasks", "demo", "--reranker", BUILTIN, "--reranker-kind=late", "--dtype", "int8"],
            2,
            "int8 is for embedders and cross-encoders",
        ),
    ],
)
def test_wrong_input(bge_eval: CommandLine, arguments: list[str], code: int, message: str) -> None:
    done = bge_eval("run", "--model", BUILTIN, *arguments)
    assert done.returncode == code, done.stderr
    assert re.search(message, " ".join(done.stderr.split())), done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_missing_data_are_reported_together_before_anything_runs(
    bge_eval: CommandLine, small_scifact: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    done = bge_eval(
        *("run", "--model", BUILTIN, "--tasks", "SciFact", "NFCorpus", "ArguAna"),
        *("--data-dir", small_scifact, "--offline", "--output", output),
    )
    assert done.returncode == 3
    assert "The data of 2 of 3 tasks are missing" in done.stderr
    assert "- NFCorpus, ArguAna: no folder or zip of this name" in done.stderr
    assert "bge-eval data fetch --tasks NFCorpus,ArguAna --data-dir" in done.stderr
    assert "which holds: scifact" in done.stderr
    assert "--available runs the tasks whose data are here" in done.stderr
    assert not output.exists()


def test_dry_run_lists_and_computes_nothing(
    bge_eval: CommandLine, small_scifact: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    command = (
        *("run", "demo", "SciFact", "NFCorpus", "-m", BUILTIN, "-o", output),
        *("--data-dir", small_scifact, "--offline"),
    )
    first = bge_eval(*command, "--dry-run")
    assert first.returncode == 0, first.stderr
    states = dict(
        re.findall(r"(BgeEvalDemo|SciFact|NFCorpus)\W+(done|to run|data missing)", first.stdout)
    )
    assert states == {"BgeEvalDemo": "to run", "SciFact": "to run", "NFCorpus": "data missing"}
    assert not output.exists()
    assert bge_eval(*command, "--available").returncode == 0
    again = bge_eval(*command, "--dry-run").stdout
    states = dict(re.findall(r"(BgeEvalDemo|SciFact|NFCorpus)\W+(done|to run|data missing)", again))
    assert states == {"BgeEvalDemo": "done", "SciFact": "done", "NFCorpus": "data missing"}


def test_a_run_tells_score_and_pace_and_what_comes_next(
    bge_eval: CommandLine, tmp_path: Path
) -> None:
    done = bge_eval(
        *("run", "demo", "-m", BUILTIN, "-o", tmp_path, "--offline", "--metric", "ndcg_at_10"),
        *("--format", "json"),
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"BgeEvalDemo: nDCG@10 0\.\d{5} in .* s; 1 of 1 tasks done", done.stderr)
    assert f"Next: bge-eval table {tmp_path}" in done.stderr
    assert json.loads(done.stdout)["measure"] == "nDCG@10"


def test_available_runs_what_is_here(
    bge_eval: CommandLine, small_scifact: Path, tmp_path: Path
) -> None:
    done = bge_eval(
        *("run", "--model", BUILTIN, "--tasks", "beir", "--available", "--data-dir", small_scifact),
        *("--offline", "--output", tmp_path / "out", "--format", "json"),
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"NFCorpus, .*MSMARCO: left out, no folder or zip", done.stderr)
    row = json.loads(done.stdout)["rows"][0]
    assert row["average"] is None
    assert len(row["missing"]) == 14
    assert row["scores"]["SciFact"] is not None


def test_available_asks_no_hub(bge_eval: CommandLine, small_scifact: Path, tmp_path: Path) -> None:
    """Without ``--offline`` too: only data that are not here would be asked for."""
    done = bge_eval(
        *("run", "--model", "bm25", "--tasks", "NFCorpus,SciFact", "--available"),
        *("--data-dir", small_scifact, "--output", tmp_path / "out"),
    )
    assert done.returncode == 0, done.stderr
    assert "NFCorpus: left out, no folder or zip of this name in a --data-dir" in done.stderr
    assert "data from mteb/nfcorpus" not in done.stderr and "SciFact: nDCG@10" in done.stderr


def test_damaged_data(bge_eval: CommandLine, small_scifact: Path, tmp_path: Path) -> None:
    path = small_scifact / "scifact" / "queries.jsonl"
    path.write_text("{}\n", encoding="utf-8")
    output = tmp_path / "out"
    done = bge_eval(
        *("run", "--model", BUILTIN, "--tasks", "SciFact"),
        *("--data-dir", small_scifact, "--offline", "--output", output),
    )
    assert done.returncode == 3
    assert "queries.jsonl, line 1: no _id" in done.stderr
    assert not list(output.rglob("*.json"))


def test_run_from_end_to_end(bge_eval: CommandLine, small_scifact: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    run = ["run", "--model", BUILTIN, "--tasks", "SciFact", "--data-dir", str(small_scifact)]
    run += ["--offline", "--no-store", "--output", str(output)]
    done = bge_eval(*run, "--format", "json")
    assert done.returncode == 0, done.stderr
    # stdout is the table and nothing else; stderr says how the model was run.
    board = json.loads(done.stdout)
    assert board["measure"] == "nDCG@10" and board["tasks"] == ["SciFact"]
    assert "mean pooling, normalised, 256 tokens, cosine, float32" in done.stderr

    place = next(output.rglob("SciFact.json")).parent
    names = sorted(path.name for path in place.iterdir())
    assert names == [
        "SciFact",
        "SciFact.json",
        "SciFact.qrels.tsv.gz",
        "SciFact.queries.tsv.gz",
        "SciFact.run.tsv.gz",
        "SciFact.texts.jsonl.gz",
        "model_meta.json",
        "run_settings.jsonl",
    ]
    assert set(read_run(place / "SciFact.run.tsv.gz")) == {"q1", "q2", "q3"}
    measures, values = read_per_query(place / "SciFact.queries.tsv.gz")
    assert measures == ["nDCG@10", "RR@10", "R@100"]
    mean = sum(row[0] for row in values.values()) / len(values)
    assert mean == pytest.approx(board["rows"][0]["scores"]["SciFact"], abs=1e-5)
    record = json.loads((place / "SciFact" / "run.json").read_text(encoding="utf-8"))
    phases = {"load", "load model", "tokenise", "encode queries", "encode corpus", "search"}
    assert set(record["seconds"]) == {*phases, "measure"}
    assert record["counts"]["encode corpus"] == 5
    assert record["identity"]["data"]["layout"] == "beir"
    assert not [path for path in output.iterdir() if path.name.startswith(".staging")]

    # Another precision stands beside it.
    other = bge_eval(*run, "--dtype", "bfloat16")
    assert other.returncode == 0, other.stderr
    assert (place / "experiments" / "dtype_bfloat16" / "SciFact.json").is_file()

    # Changed data: it runs again, says why, and loses nothing.
    write_beir(
        small_scifact / "scifact",
        [{"_id": "d1", "text": "bones"}, {"_id": "d2", "text": "sleep"}],
        {"q1": "strong bones"},
        [("q1", "d1", 1)],
    )
    changed = bge_eval(*run)
    assert changed.returncode == 0, changed.stderr
    assert "another data.fingerprint" in " ".join(changed.stderr.split())
    assert set(read_run(place / "SciFact.run.tsv.gz")) == {"q1"}
    kept = next((output / "replaced").rglob("SciFact.run.tsv.gz"))
    assert set(read_run(kept)) == {"q1", "q2", "q3"}

    # The folder opens in mteb, both settings in it.
    import mteb

    loaded = mteb.ResultCache(output).load_results(load_experiments="match_name")
    assert {result.task_results[0].task_name for result in loaded.model_results} == {"SciFact"}

    table = bge_eval("table", output, "--metric", "R@100", "--format", "csv")
    assert table.returncode == 0, table.stderr
    lines = table.stdout.strip().splitlines()
    assert lines[0].startswith("model,revision,settings,reranker,dtype,SciFact,average")
    assert len(lines) == 3


def test_table_without_results(bge_eval: CommandLine, tmp_path: Path) -> None:
    done = bge_eval("table")
    assert done.returncode == 3
    assert "results/runs does not exist" in " ".join(done.stderr.split())
    (tmp_path / "empty").mkdir()
    assert "holds no results" in bge_eval("table", tmp_path / "empty").stderr


@pytest.mark.slow
def test_unforeseen_failure_is_a_paragraph(bge_eval_process: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "cwd").mkdir()
    (tmp_path / "cwd" / "broken.py").write_text(
        "class Encoder:\n    def encode(self, texts):\n        return 1 / 0\n\nload = Encoder\n"
    )
    arguments = ["run", "--model", "broken:load", "--tasks", "demo", "--offline", "-q"]
    done = bge_eval_process(*arguments)
    assert done.returncode == 1
    assert "This was not foreseen" in done.stderr
    assert done.stderr.count("ZeroDivisionError") == 1, "every failure is printed once"
    assert "Traceback" not in done.stderr
    debugged = bge_eval_process("--debug", *arguments)
    assert "Traceback" in debugged.stderr


FORBID_SOCKETS = """
import sys

def forbid(event, arguments):
    if event in ("socket.__new__", "socket.connect", "socket.getaddrinfo", "socket.bind"):
        raise RuntimeError(f"a socket was opened: {event} {arguments[1:]}")

sys.addaudithook(forbid)
"""


@pytest.mark.slow
def test_offline_opens_no_socket(bge_eval_process: CommandLine, tmp_path: Path) -> None:
    """The whole demo, in a process where the interpreter refuses every socket."""
    (tmp_path / "guard").mkdir()
    (tmp_path / "guard" / "sitecustomize.py").write_text(FORBID_SOCKETS)
    done = bge_eval_process(
        *("run", "--model", BUILTIN, "--tasks", "demo", "--offline", "--output", tmp_path / "out"),
        env={"PYTHONPATH": str(tmp_path / "guard"), "HF_HUB_OFFLINE": "0"},
    )
    assert done.returncode == 0, done.stderr
    assert "BgeEvalDemo" in done.stdout
    # The guard is on: without --offline and with a model of the hub, it bites.
    online = bge_eval_process(
        *("run", "--model", "BAAI/bge-base-en-v1.5", "--tasks", "demo"),
        env={
            "PYTHONPATH": str(tmp_path / "guard"),
            "HF_HUB_OFFLINE": "0",
            "HF_HOME": str(tmp_path / "hf"),
        },
    )
    assert online.returncode == 3
    assert "a socket was opened" in online.stderr


def test_a_label_names_the_row_everywhere_and_computes_nothing_again(
    bge_eval: CommandLine, tmp_path: Path
) -> None:
    command = ("run", "demo", "-m", BUILTIN, "-o", tmp_path, "--offline", "--format", "json")
    assert bge_eval(*command).returncode == 0
    named = bge_eval(*command, "--label", " step 3000 ")
    assert "already done" in named.stderr
    assert "step 3000" in bge_eval("table", tmp_path, "--format", "markdown").stdout
    wrong = bge_eval(*command, "--label", "two\nlines")
    assert wrong.returncode == 2 and "--label takes one line" in wrong.stderr
    several = bge_eval(*command, "--model", "bm25", "--label", "both")
    assert several.returncode == 2 and "--label names one row" in several.stderr
