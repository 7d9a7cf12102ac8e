"""Collections of ir_datasets, read by its own classes from files; its measures by ir_measures."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import ir_datasets
import ir_measures
import pytest
from ir_datasets.datasets.base import Dataset
from ir_datasets.formats import TrecQrels, TsvDocs, TsvQueries
from ir_datasets.util.download import LocalDownload

from bge_eval.data import ir_collections
from bge_eval.data.ir_collections import IrSource, ir_task, task_name
from bge_eval.errors import BgeEvalError, DamagedError, MissingError, UsageError
from bge_eval.measures.expression import ir_measure
from bge_eval.progress import Progress
from bge_eval.results.saved import SavedResult, find_results
from bge_eval.suites.catalogue import plan
from bge_eval.suites.suite_files import read_suite, suites, task_names
from conftest import CommandLine


class Article(NamedTuple):
    doc_id: str
    url: str
    title: str
    body: str

    def default_text(self) -> str:
        """title and body"""
        return f"{self.title} {self.body}"


class Measures:
    """What a collection's documentation states."""

    def __init__(self, *measures: str) -> None:
        self._measures = list(measures)

    def documentation(self) -> dict[str, Any]:
        return {"official_measures": self._measures}


DOCS = """\
d1\thttp://a\tVitamin D\tVitamin D strengthens bones.
d2\thttp://b\tSleep\tSleep loss weakens memory.
d3\thttp://c\tCalcium\tStrong bones need calcium.
d4\thttp://d\tAspirin\tAspirin thins the blood.
d5\thttp://e\tBees\tHoney bees dance to point at flowers.
"""
QUERIES = "q1\twhat makes bones strong\nq2\tmemory and sleep\nq3\tnever judged\nq4\thoney\n"
QRELS = "q1 0 d1 3\nq1 0 d3 1\nq1 0 d4 -1\nq2 0 d2 1\nq2 0 d4 0\nq4 0 d2 0\nq4 0 d4 0\n"


@pytest.fixture
def register(tmp_path: Path) -> Iterator[Any]:
    """Register a collection of local files with ir_datasets; it is gone after the test."""
    names: list[str] = []

    def call(name: str, *, qrels: str = QRELS, kind: Any = Article, measures: Any = ()) -> str:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        contents = {"docs.tsv": DOCS, "queries.tsv": QUERIES, "qrels": qrels}
        for file, text in contents.items():
            (folder / file).write_text(text, encoding="utf-8")
        parts = [
            TsvDocs(LocalDownload(folder / "docs.tsv"), doc_cls=kind, lang="en"),
            TsvQueries(LocalDownload(folder / "queries.tsv"), lang="en"),
            TrecQrels(LocalDownload(folder / "qrels"), {}),
        ]
        ir_datasets.registry.register(name, Dataset(*parts, Measures(*measures)))
        names.append(name)
        return f"ir:{name}"

    yield call
    for name in names:
        del ir_datasets.registry._registered[name]
    ir_collections._fingerprint.cache_clear()


def saved(folder: Path) -> SavedResult:
    [path] = find_results([folder])
    return SavedResult(path)


def run_bm25(bge_eval: CommandLine, name: str, output: Path, *more: str) -> Any:
    return bge_eval(
        *("run", "--model", "bm25", "--tasks", name, "--offline", "--output", output, *more)
    )


def test_the_official_measures_equal_those_of_ir_measures_on_the_run_file(
    register: Any, tmp_path: Path, bge_eval: CommandLine
) -> None:
    official = ["RR(rel=2)", "nDCG@10", "AP@100", "P(rel=2)@3", "MAP"]
    name = register("ours/graded", measures=official)
    done = run_bm25(bge_eval, name, tmp_path / "out", "--format", "csv")
    assert done.returncode == 0, done.stderr
    result = saved(tmp_path / "out")
    [part] = result.keys
    files = next(iter(result.record.files))
    folder = result.path.parent
    read: Any = ir_measures
    run = list(read.read_trec_run(_text(folder / files.run)))
    qrels = list(read.read_trec_qrels(_text(folder / files.qrels)))
    assert {each.query_id for each in qrels} == {"q1", "q2", "q4"} == set(result.qrels(part))
    measures = [ir_measure(text) for text in official]
    theirs = ir_measures.calc_aggregate(measures, qrels, run)
    [ours] = result.scores["test"]
    stored = {"nDCG@10": "ndcg_at_10", "AP@100": "map_at_100", "MAP": "AP"}
    for measure, text in zip(measures, official, strict=True):
        assert ours[stored.get(text, text)] == pytest.approx(theirs[measure], abs=1e-5), text
    assert ours["main_score"] == ours["RR(rel=2)"] and result.record.main_measure == "RR(rel=2)"
    [row] = csv.DictReader(io.StringIO(done.stdout))
    assert float(row["ir.ours.graded"]) == pytest.approx(ours["RR(rel=2)"], abs=1e-5)
    again = run_bm25(bge_eval, name, tmp_path / "out")
    assert "already done with this identity" in again.stderr
    shown = bge_eval("table", tmp_path / "out", "--tasks", name)
    assert shown.returncode == 0 and "ir.ours.graded" in shown.stdout
    compared = bge_eval("compare", tmp_path / "out", tmp_path / "out")
    assert "RR(rel=2)" in compared.stdout and "untested" not in compared.stdout
    baseline = tmp_path / "baseline.json"
    assert bge_eval("check", tmp_path / "out", "--baseline", baseline, "--update").returncode == 0
    judged = bge_eval("check", tmp_path / "out", "--baseline", baseline, "--format", "json")
    [finding] = json.loads(judged.stdout)["findings"]
    assert finding["what"] == "RR(rel=2)" and finding["comparison"] is not None
    page = bge_eval("report", tmp_path / "out", "-o", tmp_path / "page.html")
    assert page.returncode == 0, page.stderr
    checked = bge_eval("data", "check", "--tasks", name, "--data-dir", tmp_path)
    assert checked.returncode == 0 and "5 test documents, 3 test queries" in checked.stdout


def _text(path: Path) -> Any:
    return io.StringIO(gzip.decompress(path.read_bytes()).decode("utf-8"))


def test_the_text_is_what_ir_datasets_states(register: Any) -> None:
    name = register("ours/fields")
    task: Any = ir_task(name)
    assert task.metadata.name == "ir.ours.fields" and task.metadata.main_score == "ndcg_at_10"
    with IrSource(name, offline=True).loaded(task, Progress()):
        data = task.dataset["default"]["test"]
        assert data["corpus"]["text"][:2] == [
            "Vitamin D Vitamin D strengthens bones.",
            "Sleep Sleep loss weakens memory.",
        ]
        assert set(data["corpus"]["title"]) == {""}
        assert data["queries"]["id"] == ["q1", "q2", "q4"]  # the judged ones
        assert data["relevant_docs"]["q1"] == {"d1": 3, "d3": 1, "d4": -1}


def test_the_identity_is_that_of_the_content(register: Any, tmp_path: Path) -> None:
    prints = {}
    for name, qrels in (("a", QRELS), ("b", QRELS), ("c", QRELS.replace("d1 3", "d1 2"))):
        ours = register(f"ours/{name}", qrels=qrels)
        prints[name] = IrSource(ours).identity(ir_task(ours)).fingerprint
    assert prints["a"] == prints["b"] != prints["c"]
    ir_collections._fingerprint.cache_clear()
    queries = tmp_path / "ours" / "a" / "queries.tsv"
    queries.write_text(QUERIES.replace("never judged", "not judged"))
    assert IrSource("ir:ours/a").identity(ir_task("ir:ours/a")).fingerprint == prints["a"]
    ir_collections._fingerprint.cache_clear()
    queries.write_text(QUERIES.replace("honey", "honeybee"))
    assert IrSource("ir:ours/a").identity(ir_task("ir:ours/a")).fingerprint != prints["a"]


class Untold(NamedTuple):
    doc_id: str
    one: str
    two: str
    three: str


@pytest.mark.parametrize(
    ("changes", "error", "expected"),
    [
        ({"kind": Untold}, UsageError, "which field of Untold is its text. Its fields are doc_id"),
        ({"qrels": QRELS + "q9 0 d1 1\n"}, DamagedError, "not among its queries, such as 'q9'"),
        ({"qrels": QRELS + "q1 0 d9 1\n"}, DamagedError, "not in the corpus, such as 'd9'"),
        ({"qrels": QRELS + "q1 0 d1 1\n"}, DamagedError, "document 'd1' with 3 and with 1"),
        ({"qrels": "q1 0 d1 0\n"}, DamagedError, "no document is relevant"),
        ({"qrels": ""}, DamagedError, "holds no judgements"),
    ],
)
def test_wrong_data_are_refused(
    register: Any, changes: dict[str, Any], error: type[BgeEvalError], expected: str
) -> None:
    name = register("ours/wrong", **changes)
    with pytest.raises(error, match=expected), IrSource(name).loaded(ir_task(name), Progress()):
        pass


def test_absent_documents_may_be_accepted(register: Any) -> None:
    name = register("ours/dangling", qrels=QRELS + "q1 0 d9 1\n")
    task: Any = ir_task(name)
    with IrSource(name, dangling=True).loaded(task, Progress()):
        assert "d9" in task.dataset["default"]["test"]["relevant_docs"]["q1"]


def test_a_file_that_is_gone_is_missing(register: Any, tmp_path: Path) -> None:
    name = register("ours/gone")
    (tmp_path / "ours" / "gone" / "docs.tsv").unlink()
    with pytest.raises(MissingError, match=r"docs\.tsv, which ir_datasets cannot download"):
        IrSource(name, offline=True).check(ir_task(name))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ir:vaswni", "no collection 'vaswni'. Did you mean vaswani?"),
        ("ir:", "no collection ''"),
        ("ir:msmarco-passage", "no queries and no judgements .*ir:msmarco-passage/dev,"),
    ],
)
def test_wrong_names_are_refused(name: str, expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        plan([name])


def test_every_language_is_one_of_mtebs() -> None:
    from mteb.abstasks.task_metadata import TaskMetadata

    known = {**ir_task("ir:vaswani").metadata.model_dump()}
    for code in ir_collections._LANGUAGES.values():
        TaskMetadata(**{**known, "eval_langs": [code]})


def test_a_suite_may_have_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("description = 'two'\ntasks = ['SciFact', 'ir:vaswani']\n", encoding="utf-8")
    suite = read_suite(file)
    assert task_names(suite) == ["SciFact", "ir.vaswani"] == ["SciFact", task_name("ir:vaswani")]
    monkeypatch.setitem(suites(), "mine", suite)
    tasks = plan(["mine"])
    assert [task.name for task in tasks] == ["SciFact", "ir.vaswani"]
    assert isinstance(tasks[1].source([], offline=True), IrSource)


@pytest.mark.slow
def test_a_collection_in_the_folder_of_ir_datasets(tmp_path: Path, bge_eval: CommandLine) -> None:
    home = tmp_path / "home" / "msmarco-passage"
    (home / "trec-dl-2019").mkdir(parents=True)
    env = {"IR_DATASETS_HOME": str(tmp_path / "home")}
    name = "ir:msmarco-passage/trec-dl-2019/judged"
    run = ("run", "--model", "bm25", "--tasks", name, "--offline", "--output", tmp_path / "out")
    done = bge_eval(*run, env=env)
    assert done.returncode == 3 and "may not be downloaded here" in done.stderr
    assert f"bge-eval data fetch --tasks {name}" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    texts = [line.split("\t") for line in DOCS.splitlines()]
    (home / "irds_version.txt").write_text("v2")
    (home / "collection.tsv").write_text("".join(f"{t[0]}\t{t[3]}\n" for t in texts))
    (home / "trec-dl-2019" / "queries.tsv").write_text(QUERIES)
    (home / "trec-dl-2019" / "qrels").write_text(QRELS)
    done = bge_eval(*run, "--format", "csv", env=env)
    assert done.returncode == 0, done.stderr
    assert "5 here, 8,841,823 as published" in done.stderr
    [scores] = saved(tmp_path / "out").scores["test"]
    assert {"RR(rel=2)", "AP(rel=2)", "ndcg_at_10"} <= scores.keys()
    assert scores["main_score"] == scores["ndcg_at_10"]
    assert json.loads(saved(tmp_path / "out").path.read_text())["task_name"] == task_name(name)
