"""Damaged results, runs, judgements, baselines and sheets: refused by every command that reads."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bad_inputs import POINTER, Change, both, refused, text
from conftest import CommandLine
from saved import save_run

DEEP = "[" * 100_000
TASK = "BgeEvalDemo"
Case = tuple[Change, str]
QRELS = {"q1": {"d1": 1, "d2": 0}, "q2": {"d2": 1}}
RUN = {"q1": {"d1": 0.9, "d2": 0.1}, "q2": {"d1": 0.4, "d2": 0.2}}


def packed(name: str, content: str | bytes) -> Change:
    data = content.encode() if isinstance(content, str) else content
    return text(name, gzip.compress(data))


def cut(name: str) -> Change:
    def change(folder: Path) -> None:
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[: len(whole) // 2])

    return change


def keys(name: str, change: Callable[[Any], Any]) -> Change:
    """Return a change of a JSON file's content."""

    def apply(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(change(content)))

    return apply


def scores(change: Callable[[dict[str, Any]], Any]) -> Change:
    """Return a change of the scores of the only split and subset."""

    def apply(content: Any) -> Any:
        entries = content["scores"]["test"]
        return {**content, "scores": {"test": [change(entry) for entry in entries]}}

    return keys(f"{TASK}.json", apply)


RECORD = f"{TASK}/run.json"
RESULTS: dict[str, Case] = {
    "result emptied": (text(f"{TASK}.json", ""), "is no readable result"),
    "result cut": (cut(f"{TASK}.json"), "is no readable result"),
    "result of bytes": (text(f"{TASK}.json", b"\xff\x00"), "is no readable result"),
    "result of a list": (text(f"{TASK}.json", "[]"), "expected a JSON object"),
    "result deep": (text(f"{TASK}.json", DEEP), "is no readable result"),
    "result a pointer": (text(f"{TASK}.json", POINTER), "is no readable result"),
    "no scores": (text(f"{TASK}.json", "{}"), "scores"),
    "scores of a number": (keys(f"{TASK}.json", lambda c: {**c, "scores": 5}), "scores"),
    "scores in a list": (keys(f"{TASK}.json", lambda c: {**c, "scores": [5]}), "scores"),
    "split of a number": (keys(f"{TASK}.json", lambda c: {**c, "scores": {"test": 5}}), "scores"),
    "entry of a number": (scores(lambda entry: 5), "scores"),
    "score in words": (scores(lambda e: {**e, "main_score": "high"}), "main_score"),
    "score of infinity": (scores(lambda e: {**e, "main_score": float("inf")}), "main_score"),
    "score of a list": (scores(lambda e: {**e, "main_score": [1]}), "main_score"),
    "record emptied": (text(RECORD, ""), "run.json is not readable JSON"),
    "record cut": (cut(RECORD), "run.json is not readable JSON"),
    "record of a list": (text(RECORD, "[]"), "run.json: the content is"),
    "record deep": (text(RECORD, DEEP), "run.json is not readable JSON"),
    "record of the future": (
        keys(RECORD, lambda c: {"format": 99}), "run.json: format is 99, and this bge-eval reads",
    ),
    "record with text for a list": (
        keys(RECORD, lambda c: {"files": "x"}), "run.json: files is 'x', expected a list",
    ),
    "record with a number for text": (
        keys(RECORD, lambda c: {"main_measure": 5}), "main_measure is 5, expected a text",
    ),
    "model emptied": (text("model_meta.json", ""), "model_meta.json is no readable result"),
    "model of a list": (text("model_meta.json", "[]"), "model_meta.json is no result"),
    "model deep": (text("model_meta.json", DEEP), "model_meta.json is no readable result"),
    "model without a name": (text("model_meta.json", "{}"), "model_meta.json.*name"),
    "model of a number": (
        text("model_meta.json", '{"name": "a/b", "revision": "x", "experiment_kwargs": 5}'),
        "model_meta.json",
    ),
}  # fmt: skip

FILES: dict[str, Case] = {
    "run emptied": (packed(f"{TASK}.run.tsv.gz", ""), "run"),
    "run cut": (cut(f"{TASK}.run.tsv.gz"), "is no readable run file"),
    "run of bytes": (packed(f"{TASK}.run.tsv.gz", b"\xff\xfe"), "is no readable run file"),
    "run that is not packed": (text(f"{TASK}.run.tsv.gz", "q1 Q0"), "is no readable run file"),
    "run of two columns": (packed(f"{TASK}.run.tsv.gz", "q1\td1\n"), "line 1: a TREC run has six"),
    "run scored in words": (
        packed(f"{TASK}.run.tsv.gz", "q1\tQ0\td1\t1\thigh\tx\n"), "high",
    ),
    "run scored nan": (
        packed(f"{TASK}.run.tsv.gz", "q1\tQ0\td1\t1\tnan\tx\n"), "line 1: .*scores nan",
    ),
    "run with a document twice": (
        packed(f"{TASK}.run.tsv.gz", "q1\tQ0\td1\t1\t2\tx\nq1\tQ0\td1\t2\t1\tx\n"),
        "line 2: document 'd1' of query 'q1' is there twice",
    ),
    "run gone": (lambda folder: (folder / f"{TASK}.run.tsv.gz").unlink(), "has no file of run"),
    "qrels cut": (cut(f"{TASK}.qrels.tsv.gz"), "holds no readable qrels"),
    "qrels emptied": (packed(f"{TASK}.qrels.tsv.gz", ""), "qrels|judgements"),
    "qrels of words": (packed(f"{TASK}.qrels.tsv.gz", "q1\t0\td1\tyes\n"), "line 1: the grade"),
    "qrels of many digits": (
        packed(f"{TASK}.qrels.tsv.gz", f"q1\t0\td1\t{'9' * 5000}\n"), "line 1: the grade",
    ),
    "qrels of two grades": (
        packed(f"{TASK}.qrels.tsv.gz", "q1\t0\td1\t1\nq1\t0\td1\t2\n"), "line 2: 'q1' and 'd1'",
    ),
    "qrels gone": (
        lambda folder: (folder / f"{TASK}.qrels.tsv.gz").unlink(), "has no file of qrels",
    ),
    "files that leave": (
        keys(RECORD, lambda c: {**c, "files": [{**c["files"][0], "run": "../../../../secret"}]}),
        "secret",
    ),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a model with one saved run."""
    save_run(tmp_path / "out", "org/model", RUN, QRELS, task=TASK)
    [path] = (tmp_path / "out").rglob(f"{TASK}.json")
    (tmp_path / "secret").write_text("q1\tQ0\td1\t1\t1.0\tx\n")
    return path.parent


@pytest.mark.parametrize("command", ["table", "report", "compare"])
@pytest.mark.parametrize("case", RESULTS)
def test_a_damaged_result(
    bge_eval: CommandLine, folder: Path, tmp_path: Path, case: str, command: str
) -> None:
    change, message = RESULTS[case]
    save_run(tmp_path / "other", "org/other", RUN, QRELS, task=TASK)
    change(folder)
    more = {"report": ("-o", tmp_path / "r.html"), "compare": (tmp_path / "other",)}
    done = bge_eval(command, tmp_path / "out", *more.get(command, ()))
    assert str(folder) in refused(done, 3, message)
    assert done.stdout == "" and not (tmp_path / "r.html").exists()


@pytest.mark.parametrize("case", FILES)
def test_damaged_files_beside_a_result(
    bge_eval: CommandLine, folder: Path, tmp_path: Path, case: str
) -> None:
    change, message = FILES[case]
    change(folder)
    said = refused(bge_eval("rescore", tmp_path / "out"), 3, message)
    assert str(folder) in said or "emptied" in case


RUNS: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "the run's are none"),
    "of bytes": (b"\xff\xfe", "is no readable run file"),
    "of two columns": ("q1 d1\n", "line 1: a TREC run has six columns"),
    "of seven columns": ("q1 Q0 d1 1 0.5 tag x\n", "line 1: a TREC run has six columns"),
    "scored in words": ("q1 Q0 d1 1 high tag\n", "line 1: .*scores high"),
    "scored inf": ("q1 Q0 d1 1 inf tag\n", "line 1: .*scores inf"),
    "with a document twice": ("q1 Q0 d1 1 2 t\nq1 Q0 d1 2 1 t\n", "line 2: document 'd1'"),
    "of JSON": ('{"q1": {"d1": 1}}', "line 1: a TREC run has six columns"),
    "a pointer": (POINTER, "line 1: a TREC run has six columns|pointer"),
}


@pytest.mark.parametrize("case", RUNS)
def test_runs_of_other_tools(bge_eval: CommandLine, tmp_path: Path, case: str) -> None:
    content, message = RUNS[case]
    data = content.encode() if isinstance(content, str) else content
    (tmp_path / "a.run").write_bytes(data)
    (tmp_path / "a.qrels").write_text("q1 0 d1 1\n")
    done = bge_eval("rescore", tmp_path / "a.run", "--qrels", tmp_path / "a.qrels")
    assert str(tmp_path / "a.run") in refused(done, 3, message) or case == "empty"


def entry(**values: Any) -> Change:
    def change(folder: Path) -> None:
        content = json.loads((folder / "demo.json").read_text())
        content["tasks"][TASK] |= values
        (folder / "demo.json").write_text(json.dumps(content))

    return change


def without(name: str) -> Change:
    def change(folder: Path) -> None:
        content = json.loads((folder / "demo.json").read_text())
        del content["tasks"][TASK][name]
        (folder / "demo.json").write_text(json.dumps(content))

    return change


BASELINES: dict[str, Case] = {
    "emptied": (text("demo.json", ""), "demo.json is no readable result"),
    "cut": (cut("demo.json"), "demo.json is no readable result"),
    "of a list": (text("demo.json", "[]"), "expected a JSON object"),
    "deep": (text("demo.json", DEEP), "demo.json is no readable result"),
    "of another kind": (text("demo.json", "{}"), "is missing or not a number|no result"),
    "of the future": (keys("demo.json", lambda c: {**c, "format": 9}), "has format version 9"),
    "tasks in a list": (keys("demo.json", lambda c: {**c, "tasks": []}), "is damaged"),
    "no tasks": (keys("demo.json", lambda c: {n: c[n] for n in c if n != "tasks"}), "is damaged"),
    "a task of a number": (keys("demo.json", lambda c: {**c, "tasks": {TASK: 5}}), "is damaged"),
    "no scores": (without("scores"), "is damaged"),
    "no cost": (without("cost"), "is damaged"),
    "no model": (without("model"), "is damaged"),
    "scores of NaN": (entry(scores={"main": float("nan")}), "is missing or not finite"),
    "scores in words": (entry(scores={"main": "x"}), "is damaged"),
    "another score": (entry(scores={"main": 0.1}), "but the mean of its queries is"),
    "queries of no base64": (entry(queries={"default/test": "?"}), "is damaged"),
    "queries not packed": (entry(queries={"default/test": "cXEx"}), "is damaged"),
    "queries of a number": (entry(queries={"default/test": 5}), "is damaged"),
    "queries in a list": (entry(queries=[5]), "is damaged"),
    "cost of a number": (entry(cost=5), "is damaged"),
    "identity of a number": (entry(identity=5), "is damaged"),
    "measure of a number": (entry(main_measure=5), "is damaged"),
    "model of a number": (entry(model=5), "is damaged"),
    "time of a word": (
        entry(cost={"seconds": "x", "tokens": None, "memory_bytes": None, "machine": ""}),
        "is damaged",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BASELINES)
def test_a_damaged_baseline(bge_eval: CommandLine, folder: Path, tmp_path: Path, case: str) -> None:
    change, message = BASELINES[case]
    (tmp_path / "b").mkdir()
    source = Path(__file__).parent.parent / "results" / "baselines" / "demo.json"
    shutil.copy(source, tmp_path / "b" / "demo.json")
    change(tmp_path / "b")
    done = bge_eval("check", "--baseline", tmp_path / "b" / "demo.json", tmp_path / "out")
    assert "demo.json" in refused(done, 3, message)


SHEETS: dict[str, tuple[str, str | bytes, str]] = {
    "empty": ("a.csv", "", "The sheet has no rows"),
    "bytes": ("a.csv", b"\xff\xfe", "no readable sheet"),
    "no columns": ("a.csv", "x,y\n1,2\n", "row 2: no column task"),
    "a grade of a word": ("a.csv", "task,query_id,document_id,grade\nT,q,d,yes\n", "is 'yes'"),
    "a grade below zero": ("a.csv", "task,query_id,document_id,grade\nT,q,d,-1\n", "grade is '-1'"),
    "a grade too large": (
        "a.csv", f"task,query_id,document_id,grade\nT,q,d,{'9' * 5000}\n", "the grade",
    ),
    "a row twice": (
        "a.csv", "task,query_id,document_id,grade\nT,q,d,1\nT,q,d,2\n", "'d' stands there twice",
    ),
    "no JSON": ("a.jsonl", "x\n", "is no readable sheet"),
    "rows in lists": ("a.jsonl", "[1]\n", "is no readable sheet"),
    "deep": ("a.jsonl", DEEP, "is no readable sheet"),
}  # fmt: skip


@pytest.mark.parametrize("case", SHEETS)
def test_a_damaged_sheet(bge_eval: CommandLine, folder: Path, tmp_path: Path, case: str) -> None:
    name, content, message = SHEETS[case]
    text(name, content)(tmp_path)
    output = ("--output", tmp_path / "mine.qrels")
    done = bge_eval("judge", "read", tmp_path / name, "--run", tmp_path / "out", *output)
    refused(done, 2 if case == "empty" else 3, message)


def test_the_sound_results_are_accepted(
    bge_eval: CommandLine, folder: Path, tmp_path: Path
) -> None:
    both()(folder)
    for command in ("table", "rescore"):
        done = bge_eval(command, tmp_path / "out")
        assert done.returncode == 0, done.stderr
