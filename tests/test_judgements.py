"""Unjudged documents: bounds, decisions, sheets, a language model as judge, own judgements."""

from __future__ import annotations

import csv
import io
import itertools
import json
import random
from pathlib import Path

import ir_measures
import pytest

from bge_eval.errors import DamagedError, UsageError
from bge_eval.judgements.agreement import agreement
from bge_eval.judgements.deciding import decide
from bge_eval.judgements.holes import condensed_run, holes, unjudged_within
from bge_eval.judgements.own import own_qrels, with_own
from bge_eval.judgements.pool import controls
from bge_eval.judgements.sheet import Row, read_sheet, write_sheet
from bge_eval.measures.expression import ir_measure
from bge_eval.measures.measure import Measure, parse_measure
from bge_eval.measures.rescore import judge
from bge_eval.records import Qrels, Run
from bge_eval.results.trec import read_qrels, read_run
from conftest import CommandLine, write_beir
from model_server import ModelServer, changed
from saved import save_run

NDCG5 = Measure("nDCG", 5)


def random_run(seed: int, queries: int = 6) -> tuple[Run, Qrels]:
    generator = random.Random(seed)
    documents = [f"d{number}" for number in range(14)]
    run = {f"q{n}": {d: generator.random() for d in documents} for n in range(queries)}
    qrels = {
        f"q{n}": {d: generator.choice([0, 1, 1]) for d in generator.sample(documents, 7)}
        for n in range(queries)
    }
    return run, qrels


@pytest.mark.parametrize("name", ["nDCG@5", "AP@5", "RR@5", "P@5", "R@5", "Success@3"])
def test_bounds_are_those_of_all_judgements(name: str) -> None:
    run, qrels = random_run(3)
    measure = parse_measure(name)
    low = high = 0.0
    for query in qrels:
        unjudged = unjudged_within(run, qrels, query, measure.cutoff or 0)
        values = []
        for grades in itertools.product([0, 1], repeat=len(unjudged)):
            more = {query: {**qrels[query], **dict(zip(unjudged, grades, strict=True))}}
            values.append(judge({query: run[query]}, more, [measure])[measure].mean)
        low += min(values) / len(qrels)
        high += max(values) / len(qrels)
    own = holes(run, qrels, measure)
    assert [own.low, own.high] == pytest.approx([low, high])
    assert own.all_relevant is not None
    assert low - 1e-9 <= own.value <= high + 1e-9
    assert low - 1e-9 <= own.all_relevant <= high + 1e-9
    assert high - low > 0.1 or name == "Success@3"


@pytest.mark.parametrize("name", ["nDCG@5", "AP@5", "P@5", "R@5", "Success@3"])
def test_condensed_values_are_those_of_ir_measures(name: str) -> None:
    run, qrels = random_run(5)
    family, _, cutoff = name.partition("@")
    theirs = ir_measure(f"{family}(judged_only=True)@{cutoff}")
    [expected] = ir_measures.calc_aggregate([theirs], qrels, run).values()
    own = holes(run, qrels, parse_measure(name))
    assert own.condensed == pytest.approx(expected)
    assert {len(scores) for scores in condensed_run(run, qrels).values()} == {7}
    judged = ir_measure(f"Judged@{cutoff}")
    [share] = ir_measures.calc_aggregate([judged], qrels, run).values()
    assert own.judged == pytest.approx(share)


def test_swings_are_the_differences_of_single_judgements() -> None:
    (first, qrels), (second, _) = random_run(7), random_run(8)
    decision = decide([first, second], qrels, NDCG5)
    one, two = (judge(run, qrels, [NDCG5])[NDCG5].mean for run in (first, second))
    assert decision.value == pytest.approx(two - one)
    assert len(decision.documents) > 10
    for unjudged in decision.documents:
        more = {q: dict(grades) for q, grades in qrels.items()}
        more[unjudged.query][unjudged.document] = 1
        new = [judge(run, more, [NDCG5])[NDCG5].mean for run in (first, second)]
        assert unjudged.swing == pytest.approx(new[1] - new[0] - decision.value)
    swings = [abs(unjudged.swing) for unjudged in decision.documents]
    assert swings == sorted(swings, reverse=True)


def test_the_reversing_documents_reverse() -> None:
    (first, qrels), (second, _) = random_run(7), random_run(8)
    decision = decide([first, second], qrels, NDCG5)
    assert decision.reversing is not None
    helping = [one for one in decision.documents if one.swing * decision.value < 0]

    def difference(count: int) -> float:
        more = {q: dict(grades) for q, grades in qrels.items()}
        for one in helping[:count]:
            more[one.query][one.document] = 1
        values = [judge(run, more, [NDCG5])[NDCG5].mean for run in (first, second)]
        return values[1] - values[0]

    assert difference(decision.reversing) * decision.value < 0
    assert difference(decision.reversing - 1) * decision.value >= 0
    assert decide([first], qrels, NDCG5).reversing is None


def test_kappa_is_scikit_learns() -> None:
    from sklearn.metrics import cohen_kappa_score  # type: ignore[import-untyped]

    generator = random.Random(2)
    existing = [generator.choice([0, 0, 1, 2]) for _ in range(200)]
    judged = [g if generator.random() < 0.7 else generator.choice([0, 1, 2]) for g in existing]
    own = agreement(existing, judged)
    theirs = cohen_kappa_score([g > 0 for g in existing], [g > 0 for g in judged])
    assert own.kappa == pytest.approx(theirs)
    assert own.grades == (0, 1, 2) and own.documents == 200
    assert own.table[2][0] == sum(
        (one, two) == (2, 0) for one, two in zip(existing, judged, strict=True)
    )
    assert agreement([1, 1], [1, 1]).kappa is None
    with pytest.raises(ValueError, match="one grade of each"):
        agreement([], [])


def test_controls_are_balanced_and_known() -> None:
    qrels: Qrels = {f"q{n}": {f"good{n}": 1, f"bad{n}": 0} for n in range(30)}
    drawn = controls(qrels, 20, seed=1)
    assert sum(qrels[q][d] for q, d in drawn.pairs) == 10 and not drawn.presumed
    positives: Qrels = {f"q{n}": {f"good{n}": 1} for n in range(30)}
    drawn = controls(positives, 20, seed=1)
    assert drawn.presumed and len(set(drawn.pairs)) == 20
    assert sum(d in positives[q] for q, d in drawn.pairs) == 10
    assert drawn == controls(positives, 20, seed=1) != controls(positives, 20, seed=2)


@pytest.mark.parametrize("name", ["sheet.csv", "sheet.jsonl"])
def test_a_sheet_reads_back(tmp_path: Path, name: str) -> None:
    rows = [
        Row("T/default/test", "q1", "d1", 'was, "ist"\nlos?', "=cmd|' /C calc'!A1", None),
        Row("T/default/test", "q1", "d2", "问题", "文档", 2, "llm:x", control=True),
    ]
    path = tmp_path / name
    write_sheet(path, rows)
    again = read_sheet(path)
    assert [(r.query_id, r.document_id, r.grade, r.judge, r.control) for r in again] == [
        ("q1", "d1", None, "", False),
        ("q1", "d2", 2, "llm:x", True),
    ]
    assert (again[0].query, again[1].document) == (rows[0].query, "文档")
    if name.endswith(".csv"):
        assert "'=cmd" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("task,query_id\nT,q\n", "no column document_id, grade"),
        ("task,query_id,document_id,grade\nT,q,d,yes\n", "the grade is 'yes'"),
        ("task,query_id,document_id,grade\nT,q,d,-1\n", "the grade is '-1'"),
        ("task,query_id,document_id,grade\nT,q,d,1\nT,q,d,0\n", "stands there twice"),
    ],
)
def test_wrong_sheets(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "sheet.csv"
    path.write_text(text)
    with pytest.raises(DamagedError, match=message):
        read_sheet(path)
    with pytest.raises(UsageError, match=r"\.csv or \.jsonl"):
        write_sheet(tmp_path / "sheet.xlsx", [])


def test_own_judgements_never_replace_published_ones(tmp_path: Path) -> None:
    path = tmp_path / "mine.qrels"
    rows = [
        Row("T", "q1", "d1", "", "", 1),
        Row("T", "q1", "d2", "", "", None),
        Row("T", "q1", "d3", "", "", 1, control=True),
    ]
    assert own_qrels(rows) == {"q1": {"d1": 1}}
    assert with_own({"q1": {"d3": 1}}, {"q1": {"d1": 1}}, path) == {"q1": {"d3": 1, "d1": 1}}
    with pytest.raises(DamagedError, match="already judged"):
        with_own({"q1": {"d1": 1}}, {"q1": {"d1": 1}}, path)
    with pytest.raises(DamagedError, match="another task"):
        with_own({"q1": {"d1": 1}}, {"q9": {"d1": 1}}, path)


@pytest.fixture
def bees(bge_eval_here: CommandLine, tmp_path: Path) -> Path:
    """A collection with unjudged relevant documents, and a saved run of it."""
    corpus = [
        {"_id": f"d{n}", "text": f"honey bees dance in field {n} near the river"} for n in range(8)
    ]
    corpus += [{"_id": f"x{n}", "text": f"trains leave station {n} at noon"} for n in range(8)]
    queries = {f"q{n}": f"bees dance field {n}" for n in range(8)}
    queries |= {f"t{n}": f"trains station {n}" for n in range(8)}
    qrels = [(f"q{n}", f"d{n}", 1) for n in range(8)] + [(f"t{n}", f"x{n}", 1) for n in range(8)]
    qrels += [(f"q{n}", f"x{n}", 0) for n in range(8)] + [(f"t{n}", f"d{n}", 0) for n in range(8)]
    folder = write_beir(tmp_path / "Bees", corpus, queries, qrels)
    done = bge_eval_here("run", "--model", "bm25", "--tasks", folder, "--offline")
    assert done.returncode == 0, done.stderr
    return folder


def test_judging_from_export_to_score(bge_eval_here: CommandLine, bees: Path) -> None:
    done = bge_eval_here("judge", "export", "bm25", "--sheet", "sheet.csv", "--controls", 12)
    assert done.returncode == 0, done.stderr
    assert "12 controls are in sheet.csv" in done.stderr
    with ModelServer() as server:
        ask = ["judge", "ask", "sheet.csv", "--server", server.url, "--run", "bm25"]
        done = bge_eval_here(*ask, "--output", "judged.csv")
        assert done.returncode == 0, done.stderr
        assert "Cohen's kappa 1.000" in " ".join(done.stdout.split())
        bodies = server.asked("/v1/chat/completions")
        assert len(bodies) == len(read_sheet(Path("sheet.csv")))
        assert {body["temperature"] for body in bodies} == {0}
    rows = read_sheet(Path("judged.csv"))
    assert {row.judge for row in rows} == {"llm:letters"}
    done = bge_eval_here("judge", "read", "judged.csv", "--run", "bm25", "--output", "mine.qrels")
    assert done.returncode == 0, done.stderr
    own = read_qrels(Path("mine.qrels"))
    assert sum(map(len, own.values())) == sum(not row.control for row in rows)
    more = ["--more-judgements", "mine.qrels", "--format", "csv"]
    [alone] = _csv(bge_eval_here("rescore", "--metric", "P@5", "--format", "csv").stdout)
    [joined] = _csv(bge_eval_here("rescore", "--metric", "P@5", *more).stdout)
    assert alone["task"] == "Bees" and joined["task"] == "Bees [+ mine.qrels]"
    assert float(joined["P@5"]) > float(alone["P@5"])
    shown = _csv(bge_eval_here("rescore", "--unjudged", "--metric", "P@5", *more).stdout)
    assert [row["measure"] for row in shown] == ["P@5", "Bpref"]
    assert float(shown[0]["judged"]) > 0.9
    again = bge_eval_here("judge", "read", "judged.csv", "--run", "nothing", "--output", "x.qrels")
    assert again.returncode == 3


def test_a_judge_that_does_not_agree_judges_nothing(bge_eval_here: CommandLine, bees: Path) -> None:
    bge_eval_here("judge", "export", "bm25", "--sheet", "sheet.jsonl", "--controls", 10)

    def reversed_grade(choices: list[dict[str, dict[str, str]]]) -> None:
        message = choices[0]["message"]
        message["content"] = f"{1 - int(message['content'])}"

    def unclear(choices: list[dict[str, dict[str, str]]]) -> None:
        choices[0]["message"]["content"] = "either 0 or 1"

    with ModelServer() as server:
        ask = ["judge", "ask", "sheet.jsonl", "--server", server.url, "--run", "bm25"]
        server.always = changed(reversed_grade, "choices")
        done = bge_eval_here(*ask, "--output", "judged.jsonl")
        assert done.returncode == 1 and "kappa -1.000" in done.stdout
        assert "were not judged" in done.stderr
        assert len(server.asked("/v1/chat/completions")) == 10
        server.always = changed(unclear, "choices")
        done = bge_eval_here(*ask, "--output", "unclear.jsonl")
        assert done.returncode == 1 and "agreement of llm:letters is unknown" in done.stdout
    rows = read_sheet(Path("judged.jsonl"))
    assert all((row.grade is not None) is row.control for row in rows)
    assert all(row.grade is None for row in read_sheet(Path("unclear.jsonl")))


def test_the_list_of_deciding_documents(bge_eval_here: CommandLine, bees: Path) -> None:
    [path] = Path("results/runs").rglob("*.run.tsv.gz")
    run = {q: {d: -s for d, s in scores.items()} for q, scores in read_run(path).items()}
    [judgements] = Path("results/runs").rglob("*.qrels.tsv.gz")
    save_run(Path("other"), "org/upside-down", run, read_qrels(judgements), task="Bees")
    export = ["judge", "export", "bm25", "other", "--sheet", "sheet.csv"]
    done = bge_eval_here(*export, "--format", "csv")
    assert done.returncode == 0, done.stderr
    rows = _csv(done.stdout)
    assert rows and all(row["rank_a"] or row["rank_b"] for row in rows)
    swings = [abs(float(row["swing"])) for row in rows]
    assert swings == sorted(swings, reverse=True)
    shown = bge_eval_here(*export).stdout
    assert "rank A" in shown and rows[0]["document_id"] in shown
    done = bge_eval_here("mistakes", "bm25", "--qrels", "mine.qrels", "--format", "csv")
    assert done.returncode == 3
    Path("mine.qrels").write_text("q0 0 d1 1\n")
    rows = _csv(
        bge_eval_here("mistakes", "bm25", "--qrels", "mine.qrels", "--format", "csv").stdout
    )
    assert {row["task"] for row in rows} == {"Bees [judged by mine.qrels]"}


def test_what_a_sheet_cannot_be_of(bge_eval_here: CommandLine, bees: Path) -> None:
    export = ["judge", "export", "bm25", "--sheet"]
    assert bge_eval_here(*export, "sheet.txt").returncode == 2
    assert bge_eval_here(*export, "no/sheet.csv").returncode == 2
    assert bge_eval_here(*export, "sheet.csv", "--metric", "AP").returncode == 2
    done = bge_eval_here(*export, "none.csv", "--controls", 0, "--most", 3)
    assert done.returncode == 0 and len(read_sheet(Path("none.csv"))) == 3
    with ModelServer() as server:
        ask = ["--server", server.url, "--run", "bm25", "--output", "judged.csv"]
        done = bge_eval_here("judge", "ask", "none.csv", *ask)
        assert done.returncode == 3 and "has no controls" in done.stderr
        early = bge_eval_here("judge", "ask", "none.csv", *ask[:-1], "no/judged.csv")
        assert early.returncode == 2 and "does not exist" in early.stderr
        assert server.asked("/v1/chat/completions") == []
    text = Path("none.csv").read_text().replace("Bees/default/test", "Others/default/test")
    Path("other.csv").write_text(text)
    done = bge_eval_here("judge", "read", "other.csv", "--run", "bm25", "--output", "x.qrels")
    assert done.returncode == 3 and "Others" in done.stderr


def test_other_judgements_of_a_saved_run_are_named(bge_eval_here: CommandLine, bees: Path) -> None:
    Path("other.qrels").write_text("q0 0 d1 1\n")
    done = bge_eval_here("rescore", "--qrels", "other.qrels", "--format", "json")
    [row] = json.loads(done.stdout)
    assert row["task"] == "Bees [judged by other.qrels]"


def _csv(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))
