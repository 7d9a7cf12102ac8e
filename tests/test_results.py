"""Identities, run files, and an output folder in which nothing is lost or half-written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bge_eval.encode.settings import Dtype, Overrides, Pooling
from bge_eval.errors import DamagedError, MissingError, StorageError
from bge_eval.evaluation.evaluate import evaluate
from bge_eval.evaluation.options import Options
from bge_eval.measures.per_query import per_query
from bge_eval.models.kinds import ModelOptions
from bge_eval.models.transformer import EncoderModel
from bge_eval.results.finished import Report
from bge_eval.results.identity import Identity, differences
from bge_eval.results.saved import SavedResult, find_results
from bge_eval.results.trec import read_qrels, read_run, write_run
from bge_eval.suites.catalogue import plan
from conftest import BUILTIN

IDENTITY = Identity(
    task="SciFact",
    task_revision="r1",
    model={"name": "a/b", "revision": "c", "dtype": "float32", "prompts": {"query": ""}},
    data={"layout": "beir", "fingerprint": "f", "splits": ("test",), "subsets": ("default",)},
    search={"index": "flat", "top_k": 1000, "drop_identical_ids": False},
    packages={"mteb": "2.26.24"},
)


def changed(**parts: Any) -> Identity:
    values = {name: getattr(IDENTITY, name) for name in IDENTITY.__slots__}
    return Identity(**{**values, **parts})


@pytest.mark.parametrize(
    ("parts", "named"),
    [
        ({"task_revision": "r2"}, "task_revision"),
        ({"model": {**IDENTITY.model, "dtype": "bfloat16"}}, "model.dtype"),
        ({"model": {**IDENTITY.model, "prompts": {"query": "q: "}}}, "model.prompts.query"),
        ({"data": {**IDENTITY.data, "fingerprint": "g"}}, "data.fingerprint"),
        ({"search": {**IDENTITY.search, "top_k": 10}}, "search.top_k"),
        ({"reranker": {"name": "x/y"}}, "reranker"),
        ({"packages": {"mteb": "2.27.0"}}, "packages.mteb"),
    ],
)
def test_anything_that_differs_makes_another_identity(parts: dict[str, Any], named: str) -> None:
    other = changed(**parts)
    assert other.digest != IDENTITY.digest
    assert differences(other.as_dict(), IDENTITY.as_dict()) == [named]
    assert changed().digest == IDENTITY.digest


def test_run_file_reads_back_the_same(tmp_path: Path) -> None:
    scores = np.random.default_rng(0).normal(size=200).astype(np.float32) * 10.0
    run = {"查询 1": {f"d {i}": float(score) for i, score in enumerate(scores)}, "q2": {"x": 1e-7}}
    write_run(tmp_path / "x.run.tsv.gz", run, "a model/with space")
    assert read_run(tmp_path / "x.run.tsv.gz") == run


def test_run_files_of_other_tools(tmp_path: Path) -> None:
    path = tmp_path / "anserini.txt"
    path.write_text("q1 Q0 d1 1 12.5 Anserini\nq1 Q0 d2 2 12.25 Anserini\n")
    assert read_run(path) == {"q1": {"d1": 12.5, "d2": 12.25}}
    path.write_text("q1 d1 12.5\n")
    with pytest.raises(DamagedError, match="line 1: a TREC run has six columns"):
        read_run(path)


def run(output: Path, data: Path, **overrides: Any) -> Report:
    model = EncoderModel(BUILTIN, ModelOptions(overrides=Overrides(**overrides)))
    return evaluate(model, plan(["SciFact"]), Options(output, (data,), offline=True))


def test_only_the_same_identity_is_reused(small_scifact: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    first = run(output, small_scifact)
    assert first.reused == []
    assert run(output, small_scifact).reused == ["SciFact"]
    for overrides in (
        {"query_prompt": "query: "},
        {"max_length": 8},
        {"dtype": Dtype.BFLOAT16},
        {"pooling": Pooling.CLS},
        {"truncate_dim": 64},
    ):
        other = run(output, small_scifact, **overrides)
        assert other.reused == [], overrides
        assert other.done["SciFact"] != first.done["SciFact"]
    # All of them live side by side, and the first is still there.
    assert run(output, small_scifact).reused == ["SciFact"]
    assert len(list(output.rglob("SciFact.json"))) == 6
    # What is said and equals the model's own setting is the same setting.
    assert run(output, small_scifact, pooling=Pooling.MEAN).reused == ["SciFact"]


def test_a_task_with_a_dot_in_its_name(tmp_path: Path) -> None:
    """STSBenchmark.v2 stands beside STSBenchmark, and neither takes the other's files along."""
    from test_layouts import STS, write_rows

    options = Options(tmp_path / "out", (tmp_path,), offline=True, overwrite=True)
    for name in ("STSBenchmark", "STSBenchmark.v2"):
        for split in ("train", "validation", "dev", "test"):
            write_rows(tmp_path / name / f"{split}.jsonl", STS)
    planned = plan(["STSBenchmark.v2", "STSBenchmark"])
    first = evaluate(EncoderModel(BUILTIN), planned, options)
    assert not first.failed
    evaluate(EncoderModel(BUILTIN), plan(["STSBenchmark"]), options)
    kept = [path for paths in first.done.values() for path in paths]
    assert all(path.is_file() and (path.parent / path.stem / "run.json").is_file() for path in kept)


def test_killed_between_two_files(small_scifact: Path, tmp_path: Path) -> None:
    """mteb's JSON is put in place last: without it there is no result, and the task runs."""
    output = tmp_path / "out"
    path = run(output, small_scifact).done["SciFact"][0]
    path.unlink()
    assert run(output, small_scifact).reused == []
    assert path.is_file()


def test_failure_while_writing_leaves_the_old_result(
    small_scifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    path = run(output, small_scifact).done["SciFact"][0]
    before = path.read_bytes()

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bge_eval.results.store.write_per_query", full_disk)
    model = EncoderModel(BUILTIN)
    options = Options(output, (small_scifact,), offline=True, overwrite=True)
    with pytest.raises(StorageError, match="No space left"):
        evaluate(model, plan(["SciFact"]), options)
    assert path.read_bytes() == before
    assert sorted(entry.name for entry in output.iterdir()) == [".locks", "results"]
    monkeypatch.undo()
    assert run(output, small_scifact).reused == ["SciFact"]


def test_second_reranker_does_not_run_the_first_stage_again(
    small_scifact: Path, tmp_path: Path, tiny_cross_encoder: Path
) -> None:
    from bge_eval.encode.locate import locate
    from bge_eval.rerank.cross_encoder import CrossEncoderReranker

    output = tmp_path / "out"
    run(output, small_scifact)
    model = EncoderModel(BUILTIN)
    reranker = CrossEncoderReranker(locate(str(tiny_cross_encoder)))
    options = Options(output, (small_scifact,), offline=True)
    report = evaluate(model, plan(["SciFact"]), options, reranker=reranker)
    assert len(report.done["SciFact"]) == 2
    assert "device" not in model.machine_settings(), "the encoder's weights were loaded"


def test_what_stands_beside_a_result(small_scifact: Path, tmp_path: Path) -> None:
    path = run(tmp_path / "out", small_scifact).done["SciFact"][0]
    [found] = find_results([tmp_path / "out"])
    assert found == path
    saved = SavedResult(path)
    assert saved.task == "SciFact"
    assert saved.label == saved.model == "builtin/all-MiniLM-L6-v2"
    [part] = saved.keys
    ranked, qrels, texts = saved.run(part), saved.qrels(part), saved.texts(part)
    # The saved judgements are those that the saved scores come from.
    names, values = saved.per_query(part)
    again = per_query(ranked, qrels)
    assert names == ["nDCG@10", "RR@10", "R@100"]
    assert values.keys() == again.keys() == qrels.keys()
    for query, row in values.items():
        assert row == pytest.approx(again[query], abs=1e-8)
    lines = next(small_scifact.rglob("corpus.jsonl")).read_text(encoding="utf-8").splitlines()
    corpus = {item["_id"]: item for item in map(json.loads, lines)}
    assert texts.queries.keys() == qrels.keys()
    for query, judged in qrels.items():
        best = sorted(ranked[query], key=lambda doc: (ranked[query][doc], doc), reverse=True)[:10]
        for document in {*judged, *best}:
            excerpt = texts.documents[document]
            assert excerpt.title == corpus[document].get("title", "")
            assert excerpt.text == corpus[document]["text"][:400]


def test_a_file_beside_a_result_is_gone(small_scifact: Path, tmp_path: Path) -> None:
    saved = SavedResult(run(tmp_path / "out", small_scifact).done["SciFact"][0])
    [part] = saved.keys
    (saved.path.parent / "SciFact.qrels.tsv.gz").unlink()
    with pytest.raises(MissingError, match="no file of qrels for default/test"):
        saved.qrels(part)
    (saved.path.parent / "SciFact.texts.jsonl.gz").write_bytes(b"nothing of the kind")
    with pytest.raises(DamagedError, match=r"SciFact\.texts\.jsonl\.gz is damaged"):
        saved.texts(part)


def test_qrels_of_either_form(tmp_path: Path) -> None:
    path = tmp_path / "qrels.txt"
    path.write_text("q1 0 d1 2\nq1 0 d2 0\n")
    assert read_qrels(path) == {"q1": {"d1": 2, "d2": 0}}
    path.write_text("query-id\tcorpus-id\tscore\nq 1\td1\t1\n")
    assert read_qrels(path) == {"q 1": {"d1": 1}}
    path.write_text("q1 d1 yes\n")
    with pytest.raises(DamagedError, match="line 1: the grade 'yes'"):
        read_qrels(path)
