"""Failed queries: kinds, groups with intervals, fields, and training data from them."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from scipy.stats import binomtest

from bge_eval.errors import UsageError
from bge_eval.measures.measure import Measure
from bge_eval.mistakes.groups import (
    ABSENT,
    OTHERS,
    by_length,
    by_relevant,
    by_script,
    by_values,
    kinds,
    quarters,
)
from bge_eval.mistakes.negatives import Miner, write_training
from bge_eval.mistakes.queries import JudgedQuery, Kind, judged_queries
from bge_eval.records import Qrels, Run
from bge_eval.statistics.proportions import share_interval
from conftest import CommandLine, write_beir

NDCG = Measure("nDCG", 10)


def run_of(*documents: str) -> dict[str, float]:
    return {document: 1.0 - place / 1000 for place, document in enumerate(documents)}


def crowd(count: int) -> list[str]:
    return [f"x{number:03d}" for number in range(count)]


@pytest.mark.parametrize(
    ("ranking", "kind", "first"),
    [
        (["good", "x"], Kind.INCOMPLETE, 1),
        (["good", "fine"], Kind.NONE, 1),
        (["x", "good", "fine"], Kind.UNJUDGED_ABOVE, 2),
        (["x", "bad", "good", "fine"], Kind.JUDGED_ABOVE, 3),
        ([*crowd(99), "good"], Kind.UNJUDGED_ABOVE, 100),
        ([*crowd(100), "good"], Kind.MISSED, 101),
        (["bad", "x"], Kind.MISSED, None),
    ],
)
def test_every_query_has_one_kind(ranking: list[str], kind: Kind, first: int | None) -> None:
    qrels: Qrels = {"q": {"good": 2, "fine": 1, "bad": 0}, "none": {"bad": 0}}
    [query] = judged_queries("", {"q": run_of(*ranking)}, qrels, NDCG)
    assert (query.kind, query.first, query.relevant) == (kind, first, 2)
    assert query.top == tuple(ranking[: first - 1 if first else None][:3])


def test_a_query_without_results_is_missed() -> None:
    run: Run = {"q": run_of("a")}
    lost, found = judged_queries("", run, {"lost": {"a": 1}, "q": {"a": 1}}, NDCG)
    assert (lost.kind, lost.value, found.kind, found.value) == (Kind.MISSED, 0.0, Kind.NONE, 1.0)


def some(*values: float) -> list[JudgedQuery]:
    return [
        JudgedQuery("", f"q{place}", value, Kind.NONE if value else Kind.MISSED, place + 1, 1, ())
        for place, value in enumerate(values)
    ]


def test_the_points_lost_by_kind_add_up_to_the_distance_from_one() -> None:
    queries = some(0.0, 0.5, 1.0, 0.25)
    shares = kinds(queries)
    assert [share.kind for share in shares] == list(Kind)
    assert sum(share.share.count for share in shares) == 4
    mean = sum(query.value for query in queries) / 4
    assert sum(share.lost for share in shares) == pytest.approx(1 - mean)
    groups = by_relevant(queries)
    assert [(group.name, group.queries) for group in groups] == [("1", 1), ("2–3", 2), ("4–9", 1)]
    assert sum(group.lost for group in groups) == pytest.approx(1 - mean)
    assert groups[0].interval is None and groups[0].missed.count == 1


@pytest.mark.parametrize(("count", "total"), [(0, 7), (7, 7), (1, 7), (13, 300), (299, 300)])
def test_the_interval_of_a_share_is_wilsons(count: int, total: int) -> None:
    theirs = binomtest(count, total).proportion_ci(method="wilson")
    ours = share_interval(count, total)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_a_share_of_nothing_is_refused() -> None:
    for count, total in ((0, 0), (3, 2), (-1, 2)):
        with pytest.raises(ValueError, match="a share needs"):
            share_interval(count, total)


def test_quarters_hold_every_number_once() -> None:
    labels, order = quarters([3, 1, 2, 2, 9, 4, 4, 4])
    assert order == ["1–2", "3", "4", "9"]
    assert labels == ["3", "1–2", "1–2", "1–2", "9", "4", "4", "4"]
    assert quarters(range(1, 101))[1] == ["1–25", "26–50", "51–75", "76–100"]
    assert quarters([5, 5]) == (["5", "5"], ["5"])
    assert quarters([]) == ([], [])


def test_length_counts_words_and_chinese_characters() -> None:
    queries = some(1, 1, 1, 1)
    texts = dict(
        zip(
            [("", query.id) for query in queries],
            ["one", "two words", "三个字 now", "a b c d e f g h"],
            strict=True,
        )
    )
    groups = by_length(queries, texts)
    assert [(group.name, group.queries) for group in groups] == [
        ("1", 1), ("2", 1), ("4", 1), ("8", 1),
    ]  # fmt: skip
    scripts = by_script(queries, {**texts, ("", "q0"): "护照 a"})
    assert [(group.name, group.queries) for group in scripts] == [("Cjk", 2), ("Latin", 2)]
    assert by_script(queries[:2], texts) == []


def test_rare_values_form_one_group_and_absent_ones_another() -> None:
    queries = some(*[1.0] * 20)
    values: list[list[str | float]] = [["common"]] * 3
    values += [[f"rare{number}"] for number in range(15)]
    values += [["common", "twice"], []]
    groups = by_values("topic", queries, values)
    sizes = {group.name: group.queries for group in groups}
    assert sizes["common"] == 4 and sizes[ABSENT] == 1 and groups[-1].name == ABSENT
    assert len(sizes) == 13 and sizes[OTHERS] == 6
    years = by_values("year", queries, [[float(2000 + number)] for number in range(20)])
    assert [group.name for group in years] == [
        "2000–2004", "2005–2009", "2010–2014", "2015–2019",
    ]  # fmt: skip


def test_negatives_are_below_the_margin_and_suspects_are_not() -> None:
    run: Run = {
        "q": {"pos": 0.8, "late": 0.3, "above": 0.9, "near": 0.77, "far": 0.7, "bad": 0.85},
        "none": {"a": 0.9},
        "negative": {"pos": -1.0, "near": -0.9, "far": -1.1},
    }
    qrels: Qrels = {
        "q": {"pos": 1, "late": 1, "bad": 0},
        "none": {"gone": 1},
        "negative": {"pos": 1},
    }
    hard = {mined.query: mined for mined in Miner().hard_negatives(run, qrels)}
    assert list(hard["q"].others) == ["bad", "far"]
    assert hard["q"].positives == {"pos": 0.8, "late": 0.3}
    assert list(hard["negative"].others) == ["far"]
    assert "none" not in hard
    suspects = {mined.query: list(mined.others) for mined in Miner().suspects(run, qrels)}
    assert suspects == {"q": ["above", "near"], "negative": ["near"]}
    [first] = [m for m in Miner(most=1).hard_negatives(run, qrels) if m.query == "q"]
    assert list(first.others) == ["bad"]
    for wrong in (0.0, 1.5):
        with pytest.raises(UsageError, match="--margin"):
            Miner(margin=wrong)


def test_lines_have_a_score_for_every_text(tmp_path: Path) -> None:
    run: Run = {"q": {"pos": 0.8, "far": 0.2}, "lost": {"bad": 0.5}}
    qrels: Qrels = {"q": {"pos": 1, "lost": 2, "gone": 1}, "lost": {"pos": 1, "bad": 0}}
    mined = Miner().hard_negatives(run, qrels)
    texts = {"pos": "the positive", "lost": "not retrieved", "far": "far", "bad": "bad"}
    path = tmp_path / "train.jsonl"
    written = write_training(path, mined, {"q": "Q", "lost": "L"}, texts)
    [line] = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    assert (written.lines, written.documents, written.unscored) == (1, 1, 1)
    assert line["query"] == "Q"
    assert (line["pos"], line["pos_scores"]) == (["the positive"], [0.8])
    assert (line["neg"], line["neg_scores"], line["neg_ids"]) == (["far"], [0.2], ["far"])
    write_training(path, mined, {"q": "Q", "lost": "L"}, texts, scores=False)
    first, second = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    assert sorted(first["pos"]) == ["not retrieved", "the positive"] and "pos_scores" not in first
    assert (second["pos"], second["neg"]) == (["the positive"], ["bad"])
    with pytest.raises(UsageError, match="does not exist"):
        write_training(tmp_path / "no" / "x.jsonl", mined, {}, {})


@pytest.fixture
def visas(tmp_path: Path) -> Path:
    """A collection whose queries have a topic and a year, and whose documents a source."""
    documents = {
        "d1": ("law", "A visa for students takes six weeks."),
        "d2": ("law", "A visa for workers takes two weeks."),
        "d3": ("news", "The passport office opens at nine."),
        "d4": ("news", "A lost passport is reported to the police."),
        "d5": ("news", "Students pay less for the bus."),
    }
    folder = write_beir(
        tmp_path / "Visas",
        [{"_id": k, "text": text, "source": source} for k, (source, text) in documents.items()],
        {},
        [("q1", "d1", 1), ("q2", "d3", 1), ("q3", "d4", 1), ("q4", "d5", 1), ("q4", "d1", 0)],
    )
    queries = [
        {"_id": "q1", "text": "students visa weeks", "topic": "visa"},
        {"_id": "q2", "text": "office hours police", "metadata": {"topic": "passport"}},
        {"_id": "q3", "text": "lost passport", "metadata": {"topic": "passport"}},
        {"_id": "q4", "text": "visa for students on the bus takes how long"},
    ]
    text = "\n".join(map(json.dumps, queries))
    (folder / "queries.jsonl").write_text(text, encoding="utf-8")
    return folder


def test_mistakes_of_a_real_run(bge_eval_here: CommandLine, visas: Path) -> None:
    done = bge_eval_here("run", "--model", "bm25", "--tasks", visas, "--offline")
    assert done.returncode == 0, done.stderr
    done = bge_eval_here("mistakes", "--by", "topic", "--by", "document.source", "--format", "csv")
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    sizes = {(row["by"], row["group"]): int(row["queries"]) for row in rows}
    assert sizes["topic", "passport"] == 2
    assert sizes["topic", "visa"] == sizes["topic", ABSENT] == 1
    assert sizes["document.source", "news"] == 3 and sizes["document.source", "law"] == 1
    assert sum(count for (by, _), count in sizes.items() if by == "mistake") == 4
    shown = bge_eval_here("mistakes", "bm25", "--queries", 1)
    assert "[q4] visa for students on the bus" in shown.stdout and "above: [d1]" in shown.stdout
    wrong = bge_eval_here("mistakes", "--by", "topik")
    assert wrong.returncode == 2 and "Did you mean topic?" in wrong.stderr


def test_training_data_of_a_real_run(bge_eval_here: CommandLine, visas: Path) -> None:
    bge_eval_here("run", "--model", "bm25", "--tasks", visas, "--offline")
    done = bge_eval_here(
        "mistakes", "--hard-negatives", "hard.jsonl", "--suspects", "suspects.jsonl"
    )
    assert done.returncode == 0, done.stderr
    assert "cannot be scored on it" in done.stdout
    hard = {
        line["query_id"]: line
        for line in map(json.loads, Path("hard.jsonl").read_text(encoding="utf-8").splitlines())
    }
    assert hard["q4"]["query"] == "visa for students on the bus takes how long"
    assert "A visa for students takes six weeks." in hard["q4"]["neg"]
    for line in hard.values():
        assert len(line["pos"]) == len(line["pos_scores"]) and line["neg"]
        assert len(line["neg"]) == len(line["neg_scores"])
    (visas / "corpus.jsonl").write_text('{"_id": "d1", "text": "other"}\n', encoding="utf-8")
    changed = bge_eval_here("mistakes", "--hard-negatives", "hard.jsonl")
    assert changed.returncode == 3 and "is not what bge-eval/bm25" in changed.stderr


def test_what_cannot_be_told_is_refused(bge_eval_here: CommandLine, tmp_path: Path) -> None:
    run, qrels = Path("own.trec"), Path("own.qrels")
    run.write_text("q1 Q0 d1 1 2.0 x\nq1 Q0 d2 2 1.0 x\n")
    qrels.write_text("q1 0 d2 1\n")
    assert bge_eval_here("mistakes", run).returncode == 2
    done = bge_eval_here("mistakes", run, "--qrels", qrels, "--format", "json")
    [task] = json.loads(done.stdout)["tasks"]
    assert task["queries"] == 1 and task["measure"] == "nDCG@10"
    done = bge_eval_here("mistakes", run, "--qrels", qrels, "--hard-negatives", "x.jsonl")
    assert done.returncode == 2 and "whose data are unknown" in done.stderr
    assert bge_eval_here("mistakes", "nowhere").returncode == 3
    assert bge_eval_here("mistakes", "published:org/model").returncode == 2
