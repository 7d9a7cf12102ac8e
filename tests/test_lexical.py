"""BM25: as mteb's baseline, with Chinese in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mteb
import numpy as np
import pytest
from datasets import Dataset

from bge_eval.encode.settings import Overrides, Pooling
from bge_eval.errors import UsageError
from bge_eval.evaluation.evaluate import evaluate
from bge_eval.evaluation.options import Options
from bge_eval.models.bm25 import BM25Model, chinese_words
from bge_eval.models.kinds import ModelOptions
from bge_eval.models.opening import open_model
from bge_eval.records import Run
from bge_eval.suites.catalogue import plan
from conftest import write_beir

DOCUMENTS = {
    "d1": ("Vitamin D", "Vitamin D strengthens bones."),
    "d2": ("", "Sleep loss weakens memory."),
    "d3": ("糖尿病", "二型糖尿病与体重有关。"),
    "d4": ("", "Aspirin thins the blood."),
    "d5": ("Bees", "Honey bees dance to point at flowers."),
    "d6": ("", ""),
    "d7": ("", "Snoring loss weakens memory."),
}
LANGUAGES = {"en": ["eng-Latn"], "zh": ["zho-Hans"], "both": ["eng-Latn", "zho-Hans"]}


def search(queries: dict[str, str], language: str = "both", top_k: int = 10, **more: Any) -> Run:
    metadata = mteb.get_task("SciFact").metadata.model_copy(
        update={"eval_langs": LANGUAGES[language]}
    )
    corpus = [{"id": i, "title": title, "text": text} for i, (title, text) in DOCUMENTS.items()]
    model = BM25Model()
    model.index(Dataset.from_list(corpus))
    asked = Dataset.from_list([{"id": i, "text": text} for i, text in queries.items()])
    common: dict[str, Any] = {"hf_split": "test", "hf_subset": "default", "top_k": top_k}
    return model.search(asked, task_metadata=metadata, **common, **more)


def test_finds_words_of_both_languages() -> None:
    run = search(
        {"q1": "strengthening a bone", "q2": "糖尿病的原因", "q3": "the", "q4": "ＢＥＥＳ"}
    )
    assert list(run["q1"]) == ["d1"], "stemmed, and without stopwords"
    assert list(run["q2"]) == ["d3"]
    assert run["q3"] == {}, "what shares no word is not found"
    assert list(run["q4"]) == ["d5"]


@pytest.mark.parametrize("language", ["en", "zh", "both"])
def test_chinese_is_noticed_whatever_the_task_says(language: str) -> None:
    assert list(search({"q": "糖尿病"}, language)["q"]) == ["d3"]


def test_words_of_chinese_text() -> None:
    words = chinese_words()
    assert words("ＢＧＥ的糖尿病 models，") == ["bge", "的", "糖尿", "糖尿病", "model"]
    assert words("") == []
    assert words("。 ，!") == []


def test_equal_scores_at_the_cut() -> None:
    queries = {"q": "bees sleep aspirin vitamin"}
    whole = search(queries)["q"]
    ranked = sorted(whole, key=lambda doc: (whole[doc], doc), reverse=True)
    assert [list(search(queries, top_k=k)["q"]) for k in (1, 2, 3)] == [
        ranked[:1],
        ranked[:2],
        ranked[:3],
    ]
    alike = search({"q": "sleep snoring"})["q"]
    assert alike["d2"] == alike["d7"], "the case that ids decide"
    assert list(search({"q": "sleep snoring"}, top_k=1)["q"]) == ["d7"]


def test_every_candidate_is_scored() -> None:
    run = search({"q1": "bees", "q2": "blood"}, top_ranked={"q1": ["d1", "d5", "d6"], "q2": ["d2"]})
    assert set(run["q1"]) == {"d1", "d5", "d6"}
    assert next(iter(run["q1"])) == "d5"
    assert run["q2"] == {"d2": 0.0}


def test_query_of_no_known_word() -> None:
    assert search({"q1": "", "q2": "qqq", "q3": "。"}) == {"q1": {}, "q2": {}, "q3": {}}


def test_settings_of_encoders_are_refused() -> None:
    with pytest.raises(UsageError, match="--pooling cannot be used with --model bm25"):
        open_model("bm25", ModelOptions(overrides=Overrides(pooling=Pooling.CLS)))
    assert isinstance(open_model("bm25", ModelOptions(shared=True)), BM25Model)


def test_other_task_types_are_refused(tmp_path: Path) -> None:
    rows = [{"sentence1": "a", "sentence2": "b", "score": n} for n in range(3)]
    (tmp_path / "STSBenchmark").mkdir()
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "STSBenchmark" / "test.jsonl").write_text(lines, encoding="utf-8")
    options = Options(tmp_path / "out", (tmp_path,), offline=True)
    report = evaluate(BM25Model(), plan(["STSBenchmark"]), options)
    assert isinstance(report.failed["STSBenchmark"], UsageError)


def test_run_is_saved_with_its_identity(small_scifact: Path, tmp_path: Path) -> None:
    options = Options(tmp_path / "out", (small_scifact,), offline=True)
    report = evaluate(BM25Model(), plan(["SciFact"]), options)
    path = report.done["SciFact"][0]
    assert path.parent.parent.name == "bge-eval__bm25"
    record = json.loads((path.parent / "SciFact" / "run.json").read_text(encoding="utf-8"))
    model, packages = record["identity"]["model"], record["identity"]["packages"]
    assert (model["k1"], model["b"], model["method"]) == (1.5, 0.75, "lucene")
    assert {"bm25s", "PyStemmer", "rjieba"} <= packages.keys()
    assert (path.parent / "SciFact.run.tsv.gz").is_file()
    assert evaluate(BM25Model(), plan(["SciFact"]), options).reused == ["SciFact"]


@pytest.mark.filterwarnings("ignore")
def test_equals_mteb(tmp_path: Path) -> None:
    """On English data the scores are those of mteb's own baseline."""
    from mteb.models.model_implementations.bm25 import BM25Search

    rng = np.random.default_rng(3)
    words = ["bone", "bones", "sleeping", "sleep", "honey", "dance", "the", "of", "memory", "blood"]
    texts = [" ".join(rng.choice(words, 12)) for _ in range(40)]
    corpus = [{"_id": f"d{n}", "title": text[:9], "text": text} for n, text in enumerate(texts)]
    queries = {f"q{n}": " ".join(rng.choice(words, 3)) for n in range(8)}
    qrels = [(query, f"d{rng.integers(40)}", 1) for query in queries]
    write_beir(tmp_path / "SciFact", corpus, queries, qrels)
    ours = BM25Model()
    options = Options(tmp_path / "out", (tmp_path,), offline=True)
    path = evaluate(ours, plan(["SciFact"]), options).done["SciFact"][0]
    found = mteb.TaskResult.from_disk(path).scores["test"][0]

    theirs = Dataset.from_list([{"id": row["_id"], **row} for row in corpus])
    asked = Dataset.from_list([{"id": query, "text": text} for query, text in queries.items()])
    common: dict[str, Any] = {
        "task_metadata": mteb.get_task("SciFact").metadata,
        "hf_split": "test",
        "hf_subset": "default",
        "encode_kwargs": {},
    }
    baseline = BM25Search()
    baseline.index(theirs, **common)
    expected = baseline.search(asked, top_k=1000, **common)
    ours.index(theirs)
    run = ours.search(asked, top_k=1000, **common)
    assert {q: {d: s for d, s in docs.items() if s > 0} for q, docs in expected.items()} == run
    assert found["ndcg_at_10"] > 0


def test_published_baseline(real_data: Path, tmp_path: Path) -> None:
    """The public results hold 0.68736 for mteb/baseline-bm25s on SciFact."""
    options = Options(tmp_path, (real_data,), offline=True)
    report = evaluate(BM25Model(), plan(["SciFact", "XQuADRetrieval"], ["default", "zh"]), options)
    score = {
        name: mteb.TaskResult.from_disk(paths[0]).get_score() for name, paths in report.done.items()
    }
    assert abs(score["SciFact"] - 0.68736) < 0.002
    assert score["XQuADRetrieval"] > 0.9552, "words beat single characters (0.9512)"
