"""Any measure from a run: equal to what was saved, to trec_eval's order, to beir's functions."""

from __future__ import annotations

import csv
import io
import random
from pathlib import Path

import numpy as np
import pytest
import pytrec_eval

from bge_eval.errors import DamagedError, MissingError, UsageError
from bge_eval.evaluation.evaluate import evaluate
from bge_eval.evaluation.options import Options
from bge_eval.measures.measure import parse_measure, parse_measures
from bge_eval.measures.per_query import per_query
from bge_eval.measures.rescore import judge, without_identical_ids
from bge_eval.models.kinds import ModelOptions
from bge_eval.records import Qrels, Run
from bge_eval.results.saved import SavedResult
from bge_eval.results.trec import read_run, write_qrels, write_run
from bge_eval.suites.catalogue import plan
from conftest import CommandLine


def tied(queries: int = 60) -> tuple[Run, Qrels]:
    """A run full of ties, some of which are ties only as 32-bit numbers; grades 0 to 3."""
    generator = random.Random(5)
    documents = [f"d{number:03d}" for number in range(80)]
    unknown = [f"x{number:03d}" for number in range(20)]
    run: Run = {}
    qrels: Qrels = {}
    for number in range(queries):
        chosen = generator.sample(documents, 30)
        run[f"q{number}"] = {
            document: generator.choice([0.5, 25.123456, 25.1234561, 7.0, 3.25])
            for document in [*chosen, *generator.sample(unknown, 10)]
        }
        judged = generator.sample(documents, 12)
        qrels[f"q{number}"] = {document: generator.choice([0, 1, 2, 3]) for document in judged}
    del run["q1"]  # a judged query without a result
    qrels["q2"] = dict.fromkeys(qrels["q2"], 0)  # one without a relevant document
    run["q-unjudged"] = {"d001": 1.0}
    return run, qrels


def test_values_are_trec_evals_also_where_scores_tie() -> None:
    run, qrels = tied()
    names = ["nDCG@10", "AP", "AP@5", "R@20", "P@5", "Success@1", "RR", "Rprec", "AP(rel=2)"]
    measures = parse_measures(names)
    ours = judge(run, qrels, measures)
    keys = {"ndcg_cut.10", "map", "map_cut.5", "recall.20", "P.5", "success.1", "recip_rank"}
    theirs = pytrec_eval.RelevanceEvaluator(qrels, {*keys, "Rprec"}).evaluate(run)
    graded = pytrec_eval.RelevanceEvaluator(qrels, {"map"}, relevance_level=2).evaluate(run)
    named = zip(
        measures,
        ["ndcg_cut_10", "map", "map_cut_5", "recall_20", "P_5", "success_1", "recip_rank", "Rprec"],
        strict=False,
    )
    for measure, key in named:
        for query in qrels:
            expected = theirs.get(query, {}).get(key, 0.0)
            assert ours[measure].per_query[query] == pytest.approx(expected, abs=1e-9)
        mean = sum(ours[measure].per_query.values()) / len(qrels)
        assert ours[measure].mean == pytest.approx(mean, abs=1e-12)
    for query, values in graded.items():
        assert ours[measures[-1]].per_query[query] == pytest.approx(values["map"], abs=1e-9)


def test_tools_that_break_ties_otherwise_get_the_same_order() -> None:
    # ir_measures computes RR with a cutoff in a tool that orders equal scores the other way.
    run, qrels = tied()
    measures = parse_measures(["RR@100", "RR"])
    with_cutoff, without = judge(run, qrels, measures).values()
    assert with_cutoff.per_query == pytest.approx(without.per_query, abs=1e-9)
    assert len(set(without.per_query.values())) > 3


def test_beirs_measures_are_beirs() -> None:
    from beir.retrieval.custom_metrics import hole, recall_cap, top_k_accuracy

    run, qrels = tied()
    del run["q2"], run["q-unjudged"]  # beir's functions fail on these
    # Scores as places, in trec_eval's order, since beir leaves ties as they come.
    ordered = {
        query: {
            document: float(place)
            for place, document in enumerate(
                sorted(scores, key=lambda document: (np.float32(scores[document]), document))
            )
        }
        for query, scores in run.items()
    }
    measures = parse_measures(["R_cap@5", "hole@10", "beir:accuracy@3"])
    ours = [judged.mean for judged in judge(run, qrels, measures).values()]
    theirs = [
        recall_cap(qrels, ordered, [5])["R_cap@5"],
        hole(qrels, ordered, [10])["Hole@10"],
        top_k_accuracy(qrels, ordered, [3])["Accuracy@3"],
    ]
    assert ours == theirs
    assert all(0.01 < value < 0.99 for value in ours)
    for judged in judge(run, qrels, measures).values():
        assert judged.per_query.keys() == qrels.keys()
        mean = sum(judged.per_query.values()) / len(qrels)
        assert mean == pytest.approx(judged.mean, abs=1e-5)


def test_beirs_measures_bear_what_beirs_functions_do_not() -> None:
    run, qrels = tied()
    capped, accuracy = judge(run, qrels, parse_measures(["R_cap@5", "beir:Accuracy@3"])).values()
    assert capped.per_query["q2"] == accuracy.per_query["q2"] == 0
    assert capped.per_query["q1"] == 0


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("ndcg@10", "nDCG@10"),
        ("MAP@100", "AP@100"),
        ("mrr@10", "RR@10"),
        ("recall@5", "R@5"),
        ("AP(rel=2)", "AP(rel=2)"),
        ("r_cap@100", "R_cap@100"),
        ("beir:Accuracy@5", "beir:Accuracy@5"),
        ("Accuracy@5", "Accuracy@5"),
    ],
)
def test_names(text: str, name: str) -> None:
    assert str(parse_measure(text)) == name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nDCGG@10", "Did you mean nDCG@10"),
        ("nDCG@0", "at least 1"),
        ("R_cap@0", "at least 1"),
        ("AP(rell=2)", "wrong parameter"),
        ("__import__('os')", "not a measure"),
        ("", "not a measure"),
        ("RBP(p=0.8)@5", "none of ir_measures' tools"),
        ("BPM", "lacks one that it needs"),
    ],
)
def test_wrong_names(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_measure(text)


def test_several_names_in_one_text() -> None:
    found = parse_measures(["nDCG@10 AP(rel=2) ndcg@10", "P@5"])
    assert [str(measure) for measure in found] == ["nDCG@10", "AP(rel=2)", "P@5"]


def test_nothing_in_common() -> None:
    with pytest.raises(DamagedError, match=r"no query in common: the run's are 'q1'.*'a1'"):
        judge({"q1": {"d1": 1.0}}, {"a1": {"d1": 1}}, parse_measures(["nDCG@10"]))


def test_a_score_that_is_no_number() -> None:
    with pytest.raises(DamagedError, match="query 'q1'"):
        judge({"q1": {"d1": float("nan")}}, {"q1": {"d1": 1}}, parse_measures(["nDCG@10"]))


def test_identical_ids() -> None:
    assert without_identical_ids({"a": {"a": 1.0, "b": 0.5}}) == {"a": {"b": 0.5}}


def test_a_document_twice_and_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "run.txt"
    path.write_text("q1 Q0 d1 1 2.5 x\n\nq1 Q0 d2 2 1.5 x\n\n")
    assert read_run(path) == {"q1": {"d1": 2.5, "d2": 1.5}}
    path.write_text("q1 Q0 d1 1 2.5 x\nq1 Q0 d1 2 1.5 x\n")
    with pytest.raises(DamagedError, match="line 2: document 'd1' of query 'q1' is there twice"):
        read_run(path)


@pytest.fixture(scope="module")
def demo_runs(tmp_path_factory: pytest.TempPathFactory, tiny_bge: Path) -> Path:
    """The demo collection, evaluated by a tiny encoder."""
    from bge_eval.models.transformer import EncoderModel

    output = tmp_path_factory.mktemp("runs")
    model = EncoderModel(str(tiny_bge), ModelOptions(offline=True))
    assert not evaluate(model, plan(["demo"]), Options(output, offline=True)).failed
    return output


def test_rescoring_gives_what_was_saved(demo_runs: Path) -> None:
    saved = SavedResult(next(demo_runs.rglob("BgeEvalDemo.json")))
    [part] = saved.runs()
    assert part.name == "BgeEvalDemo/default/test"
    run, qrels = part.result.run(part.key), part.result.qrels(part.key)
    names, kept = saved.per_query(part.key)
    computed = judge(run, qrels, parse_measures(names))
    again = per_query(run, qrels)
    for column, judged in enumerate(computed.values()):
        for query, row in kept.items():
            assert judged.per_query[query] == pytest.approx(row[column], abs=1e-9)
            assert judged.per_query[query] == pytest.approx(again[query][column], abs=1e-9)
    # And mteb's own scores, which it rounds.
    [scores] = saved.scores["test"]
    keys = {
        "nDCG@20": "ndcg_at_20",
        "R@100": "recall_at_100",
        "AP@1000": "map_at_1000",
        "RR@10": "mrr_at_10",
        "P@5": "precision_at_5",
        "Success@3": "hit_rate_at_3",
    }
    means = judge(run, qrels, parse_measures(keys))
    for measure, key in zip(means, keys.values(), strict=True):
        assert means[measure].mean == pytest.approx(scores[key], abs=1e-5), measure


def test_command(bge_eval: CommandLine, demo_runs: Path, tmp_path: Path) -> None:
    done = bge_eval("rescore", demo_runs, "--metric", "nDCG@20", "P@5", "R_cap@10", "--format=csv")
    assert done.returncode == 0, done.stderr
    [row] = csv.DictReader(io.StringIO(done.stdout))
    assert list(row) == ["run", "task", "nDCG@20", "P@5", "R_cap@10"]
    saved = SavedResult(next(demo_runs.rglob("BgeEvalDemo.json")))
    assert float(row["nDCG@20"]) == pytest.approx(saved.scores["test"][0]["ndcg_at_20"], abs=1e-5)
    done = bge_eval("rescore", demo_runs, "--tasks", "demo", "--metric", "nDCG@20", "--format=csv")
    assert [found["nDCG@20"] for found in csv.DictReader(io.StringIO(done.stdout))] == [
        row["nDCG@20"]
    ]
    # The same numbers from the bare files, as another tool would have written them.
    [part] = saved.keys
    run_file, qrels = tmp_path / "other.trec", tmp_path / "test.tsv"
    lines = ["query-id\tcorpus-id\tscore"]
    lines += [
        f"{q}\t{d}\t{g}" for q, judged in saved.qrels(part).items() for d, g in judged.items()
    ]
    qrels.write_text("\n".join(lines) + "\n")
    with run_file.open("w") as file:
        for query, scores in saved.run(part).items():
            for place, (document, score) in enumerate(scores.items(), start=1):
                file.write(f"{query} Q0 {document} {place} {score!r} tool\n")
    other = bge_eval(
        *("rescore", run_file, "--qrels", qrels, "--metric", "nDCG@20", "P@5", "R_cap@10"),
        *("--format", "csv"),
    )
    [again] = csv.DictReader(io.StringIO(other.stdout))
    assert (again["run"], again["task"]) == ("other", "test")
    assert [again[name] for name in list(row)[2:]] == [row[name] for name in list(row)[2:]]


def test_command_by_query_with_what_a_run_lacks(bge_eval: CommandLine, tmp_path: Path) -> None:
    run, qrels = tied(6)
    write_run(tmp_path / "some.run.tsv.gz", run, "some")
    write_qrels(tmp_path / "judged.qrels.tsv.gz", qrels)
    done = bge_eval(
        *("rescore", tmp_path / "some.run.tsv.gz", "--qrels", tmp_path / "judged.qrels.tsv.gz"),
        *("--metric", "nDCG@100", "--per-query", "--format", "csv"),
    )
    assert done.returncode == 0, done.stderr
    rows = {row["query"]: row for row in csv.DictReader(io.StringIO(done.stdout))}
    assert rows.keys() == qrels.keys()
    assert float(rows["q1"]["nDCG@100"]) == 0
    assert "1 of 6 judged queries have no result" in done.stderr
    assert "1 queries are not judged" in done.stderr
    assert "the run ends at place 40" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["a.trec"], 2, "needs judgements: --qrels FILE"),
        (["a.trec", "--qrels", "nowhere.tsv"], 3, "nowhere.tsv holds no readable qrels"),
        (["nowhere"], 3, "'nowhere' is no file or folder"),
        ([], 3, "results/runs does not exist"),
        (["published"], 2, "Published scores have no runs"),
        (["a.trec", "--metric", "nDCGG@10"], 2, "Did you mean nDCG@10"),
        (["note.md"], 2, "neither a result"),
    ],
)
def test_wrong_input(
    bge_eval: CommandLine, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    (tmp_path / "cwd").mkdir()
    (tmp_path / "cwd" / "a.trec").write_text("q1 Q0 d1 1 0.5 x\n")
    (tmp_path / "cwd" / "note.md").write_text("no run\n")
    done = bge_eval("rescore", *arguments)
    assert done.returncode == code, done.stderr
    assert message in " ".join(done.stderr.split())
    assert done.stdout == "" and "Traceback" not in done.stderr


def test_an_aggregate_without_its_parts(tmp_path: Path) -> None:
    (tmp_path / "Whole").mkdir()
    (tmp_path / "Whole.json").write_text('{"scores": {}}')
    (tmp_path / "Whole" / "run.json").write_text('{"aggregate_of": ["One", "Two"]}')
    with pytest.raises(MissingError, match=r"mean over 2 tasks.*One\.json"):
        SavedResult(tmp_path / "Whole.json").runs()
