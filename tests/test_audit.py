"""Faults of data sets: planted ones are found, sound ones are not, and their effects are right."""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bge_eval.audit.broken import problem_of
from bge_eval.audit.effects import effects
from bge_eval.audit.faults import Fault, Finding, Texts, find_faults
from bge_eval.audit.near import NearDuplicates, WordHashes, clusters, jaccard, shingles
from bge_eval.data.words import compared_words
from bge_eval.measures.measure import Measure
from bge_eval.measures.rescore import judge
from bge_eval.records import Qrels, Run
from bge_eval.results.trec import read_run
from conftest import CommandLine, write_beir

NDCG = Measure("nDCG", 10)
VOCABULARY = [f"word{number}" for number in range(3000)]


def changed(words: Sequence[str], share: float, generator: random.Random) -> list[str]:
    """Replace a share of the words, in one run of them."""
    count = round(share * len(words))
    start = generator.randrange(len(words) - count)
    return [*words[:start], *(f"other{n}" for n in range(count)), *words[start + count :]]


def test_every_near_duplicate_is_found_and_nothing_else() -> None:
    generator = random.Random(4)
    texts: dict[str, list[str]] = {}
    for number in range(150):
        words = generator.choices(VOCABULARY, k=generator.randrange(30, 200))
        texts[f"{number}"] = words
        texts[f"{number} like"] = changed(words, generator.uniform(0, 0.4), generator)
    hashes, near = WordHashes(), NearDuplicates(0.8)
    of = {key: hashes.of(words) for key, words in texts.items()}
    for key, hashed in of.items():
        near.add(key, hashed)
    found = {(one, two): similarity for one, two, similarity in near.pairs(of.__getitem__)}
    exact = {
        (f"{number}", f"{number} like"): _jaccard(texts[f"{number}"], texts[f"{number} like"])
        for number in range(150)
    }
    expected = {pair: value for pair, value in exact.items() if value >= 0.8}
    assert found == pytest.approx(expected)
    assert 30 < len(expected) < 120


def _jaccard(one: Sequence[str], two: Sequence[str]) -> float:
    first, second = ({tuple(w[i : i + 3]) for i in range(len(w) - 2)} for w in (one, two))
    return len(first & second) / len(first | second)


def test_short_and_empty_texts_have_shingles_of_their_own() -> None:
    hashes = WordHashes()
    one, two, none = (shingles(hashes.of(words)) for words in (["a"], ["a", "b"], []))
    assert len(one) == len(two) == 1 and not len(none)
    assert jaccard(one, two) == 0 and jaccard(none, none) == 0 and jaccard(two, two) == 1
    assert np.array_equal(WordHashes().of(["b"]), hashes.of(["b"]))


def test_crowded_buckets_stay_linear() -> None:
    hashes, near = WordHashes(), NearDuplicates()
    words = hashes.of(VOCABULARY[:50])
    for number in range(400):
        near.add(str(number), words)
    pairs = near.pairs(lambda key: words)
    assert len(pairs) == sum(399 - place for place in range(20))
    assert [len(cluster) for cluster in clusters([(a, b) for a, b, _ in pairs])] == [400]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "empty"),
        (" \n\u3000", "empty"),
        ("Nuclear Factor-\ufffdB", "replacement characters"),
        ("the cafÃ© is open", "mojibake"),
        ("itâ€™s here", "mojibake"),
        ("Ð¿Ñ€Ð¸Ð²ÐµÑ‚", "mojibake"),
        ("ä¸\xadæ–‡", "mojibake"),
        ("10 Â°C", "mojibake"),
        ("KováÄ\x8d and Å½ivot", "mojibake"),
        ("数据锟斤拷", "mojibake"),
        ("a\x07b", "control characters"),
        ("tabs\tand\nlines", ""),
        ("café, naïve “É” »Fuß« «CAFÉ» DÉPOSÉ\xa0! 10 °C £5 ÄÖÜ não são", ""),
        ("中文，日本語、한국어, русский, עברית", ""),
        ("Å½ivot", ""),  # two letters that one text may hold by chance
    ],
)
def test_broken_texts(text: str, problem: str) -> None:
    assert problem_of(text) == problem


@pytest.mark.parametrize("text", ["Größe", "naïveté", "€ 5 – „gut“", "приветствие", "中文字符"])
def test_every_text_read_as_windows_1252_is_mojibake(text: str) -> None:
    broken = b"".join(bytes([byte]) for byte in text.encode()).decode("latin-1")
    assert problem_of(broken) == "mojibake"
    assert problem_of(text) == ""


def texts_of(
    documents: dict[str, str],
    queries: dict[str, str],
    qrels: Qrels,
    training: dict[str, str] | None = None,
) -> Texts:
    return Texts(documents.items, documents.__getitem__, queries, qrels, training or {})


PLANTED = {
    "d1": "Vitamin D strengthens the bones of children and of old people in winter.",
    "d1 again": "VITAMIN D strengthens the bones of children, and of old people: in winter",
    "d1 nearly": "Vitamin D strengthens the bones of children and of old people in summer.",
    "d2": "Sleep loss weakens memory, attention and the will to go on with long tasks.",
    "d3": "We ask: does a dance of honey bees point at the flowers they found? It does.",
    "d4": "",
    "d5": "Aspirin thins the \ufffd blood.",
    "d6": "why is the sky blue",
}
QUESTIONS = {
    "q1": "what makes bones strong",
    "q2": "does a dance of honey bees point at the flowers they found",
    "q3": "Why is the sky blue?",
    "q4": "What makes bones  strong!",
    "q5": "how much sleep do people need every night to think well and remember all",
    "q6": "ask about blood",
}
JUDGED: Qrels = {
    "q1": {"d1": 1},
    "q2": {"d3": 1},
    "q3": {"d6": 1, "d2": 1},
    "q4": {"d1": 2, "gone": 1},
    "q5": {"d2": 0},
    "q6": {"d5": 1},
}


def test_planted_faults_are_found_once_each() -> None:
    training = {
        "train: 7": "how much sleep do people need every night to think well and remember it",
        "train: 8": "ASK about blood",
    }
    findings = find_faults(texts_of(PLANTED, QUESTIONS, JUDGED, training))
    seen = [(f.fault, f.query, f.documents, f.other) for f in findings]
    assert seen == [
        (Fault.EXACT, "", ("d1", "d1 again"), ""),
        (Fault.NEAR, "", ("d1", "d1 nearly"), ""),
        (Fault.QUERY_IN_CORPUS, "q2", ("d3",), ""),
        (Fault.QUERY_IN_CORPUS, "q3", ("d6",), ""),
        (Fault.REPEATED, "q4", (), "q1"),
        (Fault.LEAKED, "q6", (), "train: 8"),
        (Fault.LEAKED, "q5", (), "train: 7"),
        (Fault.EMPTY, "", ("d4",), ""),
        (Fault.BROKEN, "", ("d5",), ""),
        (Fault.NO_POSITIVE, "q5", (), ""),
        (Fault.DANGLING, "q4", ("gone",), ""),
    ]


def test_sound_data_have_no_faults() -> None:
    documents = {"d1": PLANTED["d1"], "d2": PLANTED["d2"]}
    qrels: Qrels = {"q1": {"d1": 1}, "q5": {"d2": 1}}
    queries = {query: QUESTIONS[query] for query in qrels}
    assert find_faults(texts_of(documents, queries, qrels, {"train: 1": "something else"})) == []


def test_effects_are_the_repaired_scores() -> None:
    run: Run = {
        "q1": {"copy": 3.0, "good": 2.0, "x": 1.0},
        "q2": {"self": 3.0, "good": 2.0},
        "q3": {"x": 2.0},
        "q4": {"good": 1.0},
    }
    qrels: Qrels = {
        "q1": {"good": 1},
        "q2": {"good": 1},
        "q3": {"bad": 1, "gone": 1},
        "q4": {"good": 0},
    }
    second = 0.6309297535714575  # nDCG of one relevant document at rank 2
    findings = [
        Finding(Fault.EXACT, documents=("good", "copy")),
        Finding(Fault.QUERY_IN_CORPUS, "q2", ("self",)),
        Finding(Fault.BROKEN, documents=("bad",)),
        Finding(Fault.NO_POSITIVE, "q4"),
        Finding(Fault.DANGLING, "q3", ("gone",)),
        Finding(Fault.LEAKED, "q1", other="train: 1"),
    ]
    found = effects(findings, run, qrels, NDCG)
    score = 2 * second / 4
    assert [effect.score for effect in found.values()] == pytest.approx([score] * 6)
    exact = found[Fault.EXACT]
    # The copy is the document itself, so q1 scores 1; q2 is affected and keeps its value.
    assert exact.repaired == pytest.approx((1 + second) / 4)
    assert exact.queries == 2
    assert [exact.low, exact.high] == pytest.approx([0, 2 / 4])
    assert found[Fault.QUERY_IN_CORPUS].repaired == pytest.approx((second + 1) / 4)
    assert found[Fault.BROKEN].repaired == pytest.approx(2 * second / 3)
    assert found[Fault.NO_POSITIVE].repaired == pytest.approx(2 * second / 3)
    assert found[Fault.DANGLING].repaired == pytest.approx(score)
    assert found[Fault.LEAKED].repaired == pytest.approx(second / 3)
    assert Fault.NEAR not in found


def test_a_repair_that_leaves_no_query_has_no_score() -> None:
    [effect] = effects(
        [Finding(Fault.LEAKED, "q", other="t")], {"q": {"d": 1.0}}, {"q": {"d": 1}}, NDCG
    ).values()
    assert effect.repaired is None and (effect.low, effect.high) == (0, 1)


def records_of(done: Any) -> dict[str, dict[str, str]]:
    assert done.returncode == 0, done.stderr
    return {row["fault"]: row for row in csv.DictReader(io.StringIO(done.stdout))}


def test_planted_faults_in_the_demo(bge_eval_here: CommandLine, tmp_path: Path) -> None:
    from bge_eval.resources import tasks_folder

    demo = tasks_folder() / "demo"
    corpus = _lines(demo / "corpus.jsonl")
    queries = {row["_id"]: row["text"] for row in _lines(demo / "queries.jsonl")}
    rows = [line.split("\t") for line in (demo / "qrels" / "test.tsv").read_text().splitlines()]
    qrels = [(query, document, grade) for query, document, grade in rows[1:]]
    first, second = (query for query in list(dict.fromkeys(row[0] for row in qrels))[:2])
    by_id = {row["_id"]: row for row in corpus}
    positive = next(row[1] for row in qrels if row[0] == first and row[2] != "0")
    corpus += [
        {**by_id[positive], "_id": "copy"},
        {"_id": "asked", "title": "", "text": queries[second].upper()},
        {"_id": "hole", "title": "", "text": ""},
        {"_id": "broken", "title": "", "text": "Ã¼berall Ã¤hnlich"},
    ]
    queries["learnt"] = queries[first]
    queries["lonely"] = "nothing here answers this question at all"
    folder = write_beir(tmp_path / "Planted", corpus, queries, [*qrels, ("lonely", positive, 0)])
    train = ["query-id\tcorpus-id\tscore", f"learnt\t{positive}\t1"]
    (folder / "qrels" / "train.tsv").write_text("\n".join(train) + "\n")
    done = bge_eval_here("run", "--model", "bm25", "--tasks", folder, "--offline")
    assert done.returncode == 0, done.stderr
    done = bge_eval_here(
        "data", "audit", "--tasks", folder, "--run", "bm25", "--findings", "faults.jsonl",
        "--format", "csv",
    )  # fmt: skip
    rows_by = records_of(done)
    found = {name: int(row["found"]) for name, row in rows_by.items()}
    assert rows_by[Fault.LEAKED]["queries"] == "1"
    clean = records_of(bge_eval_here("data", "audit", "--tasks", "demo", "--format", "csv"))
    assert clean[Fault.LEAKED]["found"] == ""  # nothing is known of training queries
    before = {name: int(row["found"] or 0) for name, row in clean.items()}
    more = {name: found[name] - before[name] for name in found if found[name] != before[name]}
    assert more == {
        Fault.EXACT: 1, Fault.QUERY_IN_CORPUS: 1, Fault.LEAKED: 1, Fault.EMPTY: 1,
        Fault.BROKEN: 1, Fault.NO_POSITIVE: 1,
    }  # fmt: skip
    lines = _lines(Path("faults.jsonl"))
    assert {"asked"} == {d for line in lines if line["query"] == second for d in line["documents"]}
    # The effect of the copy, computed by hand from the saved run.
    [path] = Path("results/runs").rglob("*.run.tsv.gz")
    run = read_run(path)
    judged: Qrels = {}
    for query, document, grade in [*qrels, ("lonely", positive, "0")]:
        judged.setdefault(query, {})[document] = int(grade)
    one = {
        query: {d: s for d, s in scores.items() if d != "copy" or positive not in scores}
        for query, scores in run.items()
    }
    by_hand = judge(one, judged, [NDCG])[NDCG].mean
    assert float(rows_by[Fault.EXACT]["without"]) == pytest.approx(by_hand)
    shown = bge_eval_here("data", "audit", "--tasks", folder, "--run", "bm25")
    assert "asked (same words)" in shown.stdout and "may move" in shown.stdout


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_training_file_is_compared(bge_eval_here: CommandLine, small_scifact: Path) -> None:
    train = Path("train.jsonl")
    train.write_text('{"query": "Memory and sleep!", "pos": [], "neg": []}\n')
    arguments = ["data", "audit", "--tasks", "SciFact", "--data-dir", small_scifact]
    rows = records_of(bge_eval_here(*arguments, "--train", train, "--format", "csv"))
    leak = rows[Fault.LEAKED]
    assert (leak["found"], leak["example"]) == ("1", "query q2 = train.jsonl:1 (same words)")
    train.write_text('{"ask": "Memory and sleep!"}\n')
    wrong = bge_eval_here(*arguments, "--train", train)
    assert wrong.returncode == 3 and "its fields are ask" in wrong.stderr
    assert bge_eval_here(*arguments, "--train", "no.jsonl").returncode == 3
    assert bge_eval_here(*arguments, "--similarity", "2").returncode == 2
    assert bge_eval_here(*arguments, "--findings", "no/where.jsonl").returncode == 2
    assert bge_eval_here(*arguments, "--run", "nowhere").returncode == 3


def test_rows_are_counted_by_mtebs_filters(bge_eval_here: CommandLine, tmp_path: Path) -> None:
    folder = tmp_path / "data" / "Banking77Classification"
    folder.mkdir(parents=True)
    train = [{"text": f"question number {n}", "label": n % 77} for n in range(154)]
    test = [{"text": f"another question {n}", "label": n % 77} for n in range(20)]
    test += [{"text": "Another  QUESTION 3", "label": 3}, {"text": " ", "label": 1}]
    test += [{"text": "question number 5", "label": 5}]
    for name, rows in (("train", train), ("test", test)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    done = bge_eval_here(
        "data", "audit", "--tasks", "Banking77Classification", "--data-dir", tmp_path / "data",
        "--format", "csv",
    )  # fmt: skip
    found = {name: (int(row["found"]), int(row["of"])) for name, row in records_of(done).items()}
    assert found == {
        "repeated rows": (1, 23),
        "rows of the training split": (1, 23),
        "empty texts": (1, 23),
    }


def test_faults_of_scifact(bge_eval_here: CommandLine, real_data: Path) -> None:
    """Its replacement characters, its claims that are near copies of training claims."""
    arguments = ["data", "audit", "--tasks", "SciFact", "--data-dir", real_data, "--format", "csv"]
    found = {name: int(row["found"]) for name, row in records_of(bge_eval_here(*arguments)).items()}
    corpus = _lines(real_data / "SciFact" / "corpus.jsonl")
    replaced = sum("\ufffd" in row["title"] + row["text"] for row in corpus)
    assert found[Fault.BROKEN] >= replaced == 6
    assert found[Fault.LEAKED] >= 1 and found[Fault.EXACT] == 0
    assert compared_words("Nuclear Factor-κB!") == ["nuclear", "factor", "κb"]
