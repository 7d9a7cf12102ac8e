"""Collections that no task of mteb's covers: documents of MS MARCO, AIR-Bench, cross-language
reranking, answers of MKQA; each on real files in the layout in which people have them."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from bge_eval.data.answers import has_answer
from bge_eval.suites.catalogue import plan
from bge_eval.suites.suite_files import suites, task_names
from conftest import BUILTIN, CommandLine, write_beir
from test_layouts import readme, write_rows

DOCUMENTS = ["Vitamin D keeps bones strong.", "Sleep loss weakens memory.", "蜜蜂用舞蹈指路。"]


def scores(call: CommandLine, data: Path, *tasks: str, metric: str = "main") -> dict[str, float]:
    run = ["run", "--model", BUILTIN, "--data-dir", data, "--offline", "--format", "json"]
    done = call(*run, "--tasks", *tasks, "--metric", metric)
    assert done.returncode == 0, done.stderr
    found: dict[str, float] = json.loads(done.stdout)["rows"][0]["scores"]
    return found


def flag_folder(folder: Path, split: str) -> None:
    """A folder as FlagEmbedding and AIR-Bench lay it out; ids as numbers, no titles."""
    corpus = [{"id": f"D{n}", "text": text} for n, text in enumerate(DOCUMENTS)]
    write_rows(folder / "corpus.jsonl", corpus)
    questions = [{"id": n, "text": text} for n, text in enumerate(["strong bones", "memory"])]
    write_rows(folder / f"{split}_queries.jsonl", questions)
    judged = [{"qid": n, "docid": f"D{n}", "relevance": 1} for n in range(2)]
    write_rows(folder / f"{split}_qrels.jsonl", judged)


def test_msmarco_documents(bge_eval_here: CommandLine, tmp_path: Path) -> None:
    for split in ("dev", "dl19", "dl20"):
        flag_folder(tmp_path / "data" / "msmarco-doc", split)
    names = ["MSMARCODocument", "TRECDL2019Document", "TRECDL2020Document"]
    assert task_names(suites()["msmarco"])[3:] == names
    assert scores(bge_eval_here, tmp_path / "data", *names) == dict.fromkeys(names, 1.0)
    record = json.loads(next(tmp_path.rglob("TRECDL2019Document/run.json")).read_text())
    assert record["identity"]["data"]["splits"] == ["dl19"]
    assert record["identity"]["data"]["layout"] == "flagembedding"
    mains = [task.task.metadata.main_score for task in plan(names)]
    assert mains == ["mrr_at_100", "ndcg_at_10", "ndcg_at_10"]


def test_air_bench(bge_eval_here: CommandLine, tmp_path: Path) -> None:
    """The dataset repository and that of its judgements, put into one folder."""
    flag_folder(tmp_path / "data" / "qa_wiki_en" / "AIR-Bench_24.05" / "default", "dev")
    planned = plan(["air-bench"])
    assert len(planned) == 54 + 4
    wiki = next(task for task in planned if task.name == "AIRBenchQAWikiEn")
    assert wiki.repositories == ("AIR-Bench/qa_wiki_en", "AIR-Bench/qrels-qa_wiki_en-dev")
    assert scores(bge_eval_here, tmp_path / "data", "AIRBenchQAWikiEn") == {"AIRBenchQAWikiEn": 1.0}


@pytest.mark.parametrize("with_readme", [True, False])
def test_cross_language_reranking(
    bge_eval_here: CommandLine, tmp_path: Path, with_readme: bool
) -> None:
    folder = tmp_path / "data" / "T2Reranking_zh2en"
    (folder / "data").mkdir(parents=True)
    rows = [
        {"query": "什么 keeps bones strong", "positive": [DOCUMENTS[0]], "negative": DOCUMENTS[1:]},
        {"query": "no candidates of one kind", "positive": [], "negative": ["x"]},
        {
            "query": "what weakens 记忆 memory",
            "positive": [DOCUMENTS[1]],
            "negative": [DOCUMENTS[0]],
        },
    ]
    pd.DataFrame(rows).to_parquet(folder / "data" / "dev-00000-of-00001-780e7df94f8dab2b.parquet")
    if with_readme:
        readme(folder, {"default": {"dev": "data/dev-*"}})
    assert len(plan(["c-mteb-reranking"])) == 6
    assert scores(bge_eval_here, tmp_path / "data", "T2RerankingZh2En")["T2RerankingZh2En"] == 1.0
    from bge_eval.results.trec import read_run

    run = read_run(next(tmp_path.rglob("T2RerankingZh2En.run.tsv.gz")))
    assert {query: len(documents) for query, documents in run.items()} == {
        "dev_query0": 3,
        "dev_query1": 2,
    }


def test_old_copy_of_an_mteb_reranking_set(bge_eval_here: CommandLine, tmp_path: Path) -> None:
    """C-MTEB's own repositories hold rows; mteb's newer copies of the same sets do not."""
    folder = tmp_path / "data" / "T2Reranking"
    write_rows(folder / "data" / "dev.jsonl", [{"query": "a", "positive": ["a"], "negative": "b"}])
    readme(folder, {"default": {"dev": "data/dev.jsonl"}})
    run = ["run", "--model", BUILTIN, "--data-dir", tmp_path / "data", "--offline"]
    done = bge_eval_here(*run, "--tasks", "T2Reranking")
    assert done.returncode == 3
    assert "row 1: negative is no list of texts" in " ".join(done.stderr.split())


# ── answers ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "answer", "holds"),
    [
        ("The capital is Paris.", "paris", True),
        ("Parisian life", "Paris", False),  # whole tokens
        ("born in 1,234 BC", "1,234", True),
        ("born in 1 234", "1,234", False),
        ("Café del Mar", "cafe\u0301 DEL", True),  # composed and decomposed are one
        ("我在北京", "北京", False),  # no spaces: a run of letters is one token
        ("我在 北京 ！", "北京", True),
        ("anything", " ", False),
        ("", "x", False),
    ],
)
def test_has_answer(text: str, answer: str, holds: bool) -> None:
    assert has_answer(text, [answer]) is holds


QUESTIONS = {
    "1": ("what keeps bones strong", ["Vitamin D", "calcium"]),
    "2": ("what does sleep loss weaken", ["the memory", "memory"]),
    "3": ("who wrote Faust", ["Goethe"]),
}


def mkqa(folder: Path, *, single: bool) -> None:
    corpus = [{"id": n, "title": "", "text": text} for n, text in enumerate(DOCUMENTS)]
    write_rows(folder / "corpus.jsonl", corpus)
    if single:
        rows = [{"id": k, "question": q, "answers": a} for k, (q, a) in QUESTIONS.items()]
        write_rows(folder / "en.jsonl", rows)
        return
    asked = [{"id": k, "text": q} for k, (q, _) in QUESTIONS.items()]
    write_rows(folder / "en" / "test_queries.jsonl", asked)
    answered = [{"qid": k, "answers": a} for k, (_, a) in QUESTIONS.items()]
    write_rows(folder / "en" / "test_qrels.jsonl", answered)


@pytest.mark.parametrize("single", [True, False])
def test_mkqa(bge_eval_here: CommandLine, tmp_path: Path, single: bool) -> None:
    mkqa(tmp_path / "data" / "mkqa", single=single)
    run = ["run", "--model", BUILTIN, "--data-dir", tmp_path / "data", "--offline"]
    run += ["--tasks", "MKQAAnswerRecall", "--subset", "en", "--format", "json"]
    done = bge_eval_here(*run)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"][0]["scores"]["MKQAAnswerRecall"] == pytest.approx(2 / 3)
    result = json.loads(next(tmp_path.rglob("MKQAAnswerRecall.json")).read_text())
    entry = result["scores"]["test"][0]
    assert entry["hit_rate_at_1"] == entry["hit_rate_at_20"] == pytest.approx(2 / 3, abs=1e-5)
    assert not [key for key in entry if key.startswith(("ndcg", "recall", "map"))]
    assert "already done" in bge_eval_here(*run).stderr
    again = bge_eval_here(*run, "--metric", "Success@20")
    assert json.loads(again.stdout)["rows"][0]["scores"]["MKQAAnswerRecall"] == pytest.approx(2 / 3)


def test_mkqa_language_is_missing(bge_eval_here: CommandLine, tmp_path: Path) -> None:
    mkqa(tmp_path / "data" / "mkqa", single=True)
    run = ["run", "--model", BUILTIN, "--data-dir", tmp_path / "data", "--offline"]
    done = bge_eval_here(*run, "--tasks", "MKQAAnswerRecall", "--subset", "fi")
    assert done.returncode == 3
    assert "has no fi/test_queries.jsonl. It holds: corpus.jsonl, en.jsonl" in " ".join(
        done.stderr.split()
    )
    (tmp_path / "data" / "mkqa" / "en.jsonl").write_text('{"id": 1, "question": "x"}\n')
    done = bge_eval_here(*run, "--tasks", "MKQAAnswerRecall", "--subset", "en")
    assert done.returncode == 3
    assert "en.jsonl, line 1: answers is no list of texts" in " ".join(done.stderr.split())


def test_a_set_without_a_repository_is_never_looked_for_on_the_hub(
    bge_eval_here: CommandLine, tmp_path: Path
) -> None:
    write_beir(
        tmp_path / "data" / "other", [{"_id": "d", "text": "x"}], {"q": "x"}, [("q", "d", 1)]
    )
    done = bge_eval_here(
        "run", "--model", BUILTIN, "--tasks", "BioASQ", "--data-dir", tmp_path / "data"
    )
    assert done.returncode == 3
    assert "no folder or zip named BioASQ or bioasq" in " ".join(done.stderr.split())
