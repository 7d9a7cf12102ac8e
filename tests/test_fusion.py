"""Fusion: the formulas by eye, mteb's own fusion, identities, the command line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mteb
import pytest
from datasets import Dataset

from bge_eval.errors import DamagedError, MissingError, UsageError
from bge_eval.evaluation.evaluate import evaluate
from bge_eval.evaluation.options import Options
from bge_eval.models.base import Model
from bge_eval.models.bm25 import BM25Model
from bge_eval.models.fused import FusedModel, Fusion, parse_weights
from bge_eval.models.saved_runs import open_runs
from bge_eval.records import Run
from bge_eval.results.trec import write_run
from bge_eval.suites.catalogue import plan
from conftest import CommandLine

FIRST: Run = {"q1": {"d1": 9.0, "d2": 7.0, "d3": 5.0}, "q2": {"d2": 1.0}, "q3": {"d3": 2.0}}
SECOND: Run = {"q1": {"d3": 0.9, "d4": 0.8, "d1": 0.1}, "q2": {"d4": 0.5, "d2": 0.4}}


def saved(folder: Path, run: Run, name: str) -> Model:
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.run.tsv.gz"
    write_run(path, run, name)
    return open_runs(path)


@pytest.fixture
def parts(tmp_path: Path) -> list[Model]:
    return [saved(tmp_path / "runs", FIRST, "a"), saved(tmp_path / "runs", SECOND, "b")]


def search(model: Any, top_k: int = 10) -> Run:
    ids = ["d1", "d2", "d3", "d4", "d5"]
    common: dict[str, Any] = {
        "task_metadata": mteb.get_task("SciFact").metadata,
        "hf_split": "test",
        "hf_subset": "default",
        "encode_kwargs": {},
        "num_proc": None,
    }
    corpus = Dataset.from_list([{"id": doc, "title": "", "text": "bees dance"} for doc in ids])
    queries = Dataset.from_list([{"id": f"q{n}", "text": "bees"} for n in (1, 2, 3)])
    model.index(corpus, **common)
    run: Run = model.search(queries, top_k=top_k, **common)
    return run


def test_reciprocal_ranks(parts: list[Model]) -> None:
    run = search(FusedModel(parts, Fusion.RRF))
    assert run["q1"] == pytest.approx(
        {"d1": 1 / 61 + 1 / 63, "d3": 1 / 63 + 1 / 61, "d2": 1 / 62, "d4": 1 / 62}
    )
    assert list(run["q1"]) == ["d3", "d1", "d4", "d2"], "equal scores by descending id"
    assert run["q3"] == {"d3": 1 / 61}, "a part that retrieved nothing adds nothing"


def test_scaled_scores_with_weights(parts: list[Model]) -> None:
    run = search(FusedModel(parts, Fusion.MINMAX, [1.0, 0.5]))
    assert run["q1"] == pytest.approx({"d1": 1.0, "d2": 0.5, "d3": 0.5, "d4": 0.5 * 0.875})
    assert next(iter(run["q1"])) == "d1"


def test_weight_of_nothing_is_the_other_alone(parts: list[Model]) -> None:
    run = search(FusedModel(parts, Fusion.RRF, [1.0, 0.0]), top_k=3)
    assert list(run["q1"]) == ["d1", "d2", "d3"]
    assert [len(docs) for docs in search(FusedModel(parts, Fusion.RRF), top_k=1).values()] == [
        1
    ] * 3


@pytest.mark.parametrize(
    ("method", "theirs"), [("rrf", "rrf"), ("minmax", "rsf"), ("dbsf", "dbsf")]
)
@pytest.mark.parametrize("weights", [None, [2.0, 0.7, 0.1]])
def test_equals_mteb(
    parts: list[Model], method: str, theirs: Any, weights: Sequence[float] | None
) -> None:
    from mteb.models.hybrid_wrappers import HybridSearch

    three = [*parts, BM25Model()]
    hybrid = HybridSearch(three, weights or [1.0] * 3, fusion_strategy=theirs)
    expected = search(hybrid)
    assert search(FusedModel(three, Fusion(method), weights)) == expected
    assert len(expected["q1"]) == 5


def test_identity_names_parts_method_and_weights(tmp_path: Path, parts: list[Model]) -> None:
    task = mteb.get_task("SciFact").metadata
    plain = FusedModel(parts, Fusion.RRF)
    other = saved(tmp_path / "other", {**SECOND, "q3": {"d1": 1.0}}, "b")
    told = plain.identity(task)
    assert [part["name"] for part in told["parts"]] == ["runs/a", "runs/b"]
    assert told["fusion"] == "rrf"
    different = [
        FusedModel(parts, Fusion.MINMAX),
        FusedModel(parts, Fusion.RRF, [1.0, 0.5]),
        FusedModel(parts[::-1], Fusion.RRF),
        FusedModel([parts[0], other], Fusion.RRF),
    ]
    identities = [json.dumps(model.identity(task)) for model in [plain, *different]]
    assert len(set(identities)) == 5
    places = {(m.mteb_model_meta.name, m.mteb_model_meta.revision) for m in [plain, *different]}
    assert len(places) == 5
    same = FusedModel(parts, Fusion.RRF, [1.0, 1.0])
    assert same.identity(task) == told


def test_evaluated_like_a_model(tmp_path: Path, small_scifact: Path) -> None:
    options = Options(tmp_path / "out", (small_scifact,), offline=True)
    tasks = plan(["SciFact"])
    bm25 = open_runs(evaluate(BM25Model(), tasks, options).done["SciFact"][0].parent)
    foreign = saved(tmp_path / "runs", {"q1": {"d2": 1.0}, "q2": {"d2": 3.0}}, "other")
    fused = FusedModel([bm25, foreign], Fusion.RRF)
    path = evaluate(fused, tasks, options).done["SciFact"][0]
    found = mteb.TaskResult.from_disk(path).scores["test"][0]
    assert found["recall_at_10"] == 1.0
    assert evaluate(fused, tasks, options).reused == ["SciFact"]
    changed = FusedModel([bm25, foreign], Fusion.RRF, [1.0, 3.0])
    assert not evaluate(changed, tasks, options).reused
    strange = FusedModel([bm25, saved(tmp_path / "x", {"q1": {"d99": 1.0}}, "x")], Fusion.RRF)
    assert isinstance(evaluate(strange, tasks, options).failed["SciFact"], DamagedError)


def test_parts_of_other_data_are_refused(tmp_path: Path, small_scifact: Path) -> None:
    options = Options(tmp_path / "out", (small_scifact,), offline=True)
    tasks = plan(["SciFact"])
    bm25 = open_runs(evaluate(BM25Model(), tasks, options).done["SciFact"][0].parent)
    queries = small_scifact / "scifact" / "queries.jsonl"
    queries.write_text(queries.read_text(encoding="utf-8").replace("strong", "weak"))
    report = evaluate(FusedModel([bm25, bm25], Fusion.RRF), plan(["SciFact"]), options)
    assert "other data" in str(report.failed["SciFact"])


@pytest.mark.parametrize(
    ("count", "weights", "said"),
    [
        (1, None, "two models or more"),
        (2, [1.0], "1 numbers for 2 models"),
        (2, [0, 0], "all be 0"),
    ],
)
def test_what_cannot_be_fused(
    parts: list[Model], count: int, weights: list[float] | None, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        FusedModel(parts[:count], Fusion.RRF, weights)


@pytest.mark.parametrize("text", ["1,x", "", "1,,2", "nan,1", "inf,1"])
def test_weights_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="numbers with commas"):
        parse_weights(text)


def test_command(bge_eval: CommandLine, small_scifact: Path, tmp_path: Path) -> None:
    saved(tmp_path / "runs", {"q1": {"d1": 1.0}, "q3": {"d3": 3.0}}, "other")
    common = ["run", "--tasks", "SciFact", "--data-dir", str(small_scifact), "--offline"]
    run = f"run:{tmp_path / 'runs' / 'other.run.tsv.gz'}"
    done = bge_eval(*common, "--fuse", "rrf", "--model", "bm25", "--model", run)
    assert done.returncode == 0, done.stderr
    assert "Fusion by rrf: bge-eval/bm25 × 1, runs/other × 1" in done.stderr
    assert "bge-eval/bm25" in done.stdout
    assert "fusion/rrf-bm25+other" in done.stdout
    with pytest.raises(MissingError, match="no such file or folder"):
        open_runs(tmp_path / "nothing")
