"""The estimate of a run against the run itself."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bge_eval.cli.estimated import show
from bge_eval.encode.locate import locate
from bge_eval.encode.store import stored_spaces
from bge_eval.evaluation.evaluate import evaluate
from bge_eval.evaluation.options import Options
from bge_eval.models.kinds import ModelOptions
from bge_eval.models.transformer import EncoderModel
from bge_eval.progress import Progress
from bge_eval.rerank.families import load_reranker
from bge_eval.rerank.late import LateInteractionReranker
from bge_eval.rerank.reranker import RerankerOptions
from bge_eval.runtime.batches import PairRule
from bge_eval.scale import measuring
from bge_eval.scale.energy import (
    Meter,
    gpu_identifiers,
    joules_between,
    read_counters,
    read_gpus,
)
from bge_eval.scale.estimate import TaskEstimate, estimate
from bge_eval.scale.indexing import IndexWork, index_cost
from bge_eval.scale.measuring import Cost, PairWork, scoring_pairs
from bge_eval.scale.sampling import word_vectors
from bge_eval.search.factory import TRAINING
from bge_eval.search.faiss_index import FaissIndex
from bge_eval.search.index import IndexOptions
from bge_eval.suites.catalogue import plan
from conftest import BUILTIN, CommandLine


@pytest.mark.slow
def test_an_estimate_counts_what_the_run_then_reads_and_stores(tmp_path: Path) -> None:
    store = tmp_path / "store"
    model = EncoderModel(BUILTIN, ModelOptions(store=store))
    options = Options(tmp_path / "runs", offline=True)
    [before] = estimate(model, plan(["demo"]), options, Progress())
    assert list(stored_spaces(store)) == []  # the sample is not kept
    assert before.seconds > 0 and before.memory_bytes > 50 * 2**20
    report = evaluate(model, plan(["demo"]), options)
    model.flush()
    [path] = report.done["BgeEvalDemo"]
    record = json.loads((path.with_suffix("") / "run.json").read_text())
    assert before.tokens == pytest.approx(sum(record["tokens"].values()), rel=0.001)
    counts = sum(space.texts for space in stored_spaces(store))
    assert before.texts - before.stored == pytest.approx(counts, abs=3)
    [after] = estimate(model, plan(["demo"]), options, Progress())
    assert after.reason == "its result is saved" and after.seconds == 0
    [again] = estimate(model, plan(["demo"]), Options(tmp_path / "other", offline=True), Progress())
    assert again.tokens == 0 and again.stored == again.texts


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("-m", BUILTIN, "--price", "2"), "--price belongs to --estimate"),
        (("-m", "bm25", "--estimate"), "--estimate measures encoders"),
    ],
)
def test_what_is_not_estimated_is_refused(
    options: tuple[str, ...], message: str, bge_eval: CommandLine
) -> None:
    done = bge_eval("run", "demo", "--offline", *options)
    assert done.returncode == 2 and message in " ".join(done.stderr.split())


@pytest.mark.parametrize("name", ["IVF16,PQ8x4fs", "HNSW8", "BIVF16", "IVF300,Flat"])
def test_an_index_is_built_and_searched_over_samples(name: str) -> None:
    work = IndexWork(queries=50, documents=600, dimension=64, depth=100)
    cost = index_cost(IndexOptions(name), work)
    assert cost is not None and cost.seconds > 0 and cost.sample_bytes == 4 * 600 * 64
    rows = np.random.default_rng(3).standard_normal((600, 64)).astype(np.float32)
    built = FaissIndex(IndexOptions(name), None, lambda text: None).opened(rows)
    assert cost.bytes == pytest.approx(built.bytes, rel=0.02)


def test_the_seconds_of_an_index_grow_with_its_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bge_eval.scale.indexing._MOST", 512)
    sizes = []
    for documents in (512, 5_000_000):
        cost = index_cost(IndexOptions("IVF16,Flat"), IndexWork(50, documents, 64, 100))
        assert cost is not None
        sizes.append(cost)
    assert sizes[1].seconds > 100 * sizes[0].seconds  # of 10,000 times the documents
    assert sizes[1].bytes == pytest.approx(5_000_000 * (4 * 64 + 8), rel=0.05)
    assert sizes[1].sample_bytes == 4 * TRAINING * 64


def test_an_index_that_is_too_large_to_be_tried_is_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert index_cost(IndexOptions("IVF65536,Flat"), IndexWork(9, 10**6, 64, 100)) is None
    show([TaskEstimate("SciFact", texts=9, unmeasured="IVF65536,Flat")], None)
    told = " ".join(capsys.readouterr().out.split())
    assert "SciFact: without building and searching IVF65536,Flat, which is too large" in told


@pytest.mark.slow
def test_the_command_prints_the_sum_with_its_cost(bge_eval: CommandLine, tmp_path: Path) -> None:
    command = (
        "run",
        "demo",
        "-m",
        BUILTIN,
        "--offline",
        "-o",
        tmp_path / "runs",
        "--estimate",
        "--no-store",
    )
    done = bge_eval(*command, "--price", "1.5")
    text = " ".join(done.stdout.split())
    assert done.returncode == 0 and "In all" in text and "at 1.5 an hour" in text
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
@pytest.mark.parametrize("store", [True, False])
def test_tasks_without_a_search_are_estimated(
    tmp_path: Path, real_data: Path, tiny_bge: Path, store: bool
) -> None:
    """Every text is counted as often as it is encoded: once with a store, else in every call."""
    model = EncoderModel(str(tiny_bge), ModelOptions(store=tmp_path / "store" if store else False))
    options = Options(tmp_path / "runs", (real_data,), offline=True)
    [before] = estimate(model, plan(["STSBenchmark"]), options, Progress())
    report = evaluate(model, plan(["STSBenchmark"]), options)
    model.flush()
    [path] = report.done["STSBenchmark"]
    record = json.loads((path.with_suffix("") / "run.json").read_text())
    assert before.tokens == pytest.approx(sum(record["tokens"].values()), rel=0.03)
    assert not before.reason and before.search_seconds > 0
    if store:
        counts = sum(space.texts for space in stored_spaces(tmp_path / "store"))
        assert before.texts == counts
        [again] = estimate(
            model, plan(["STSBenchmark"]), Options(tmp_path / "o", (real_data,)), Progress()
        )
        assert again.tokens == 0 and again.stored == again.texts


@pytest.mark.slow
def test_a_reranking_task_lists_no_more_than_its_candidates(tmp_path: Path, tiny_bge: Path) -> None:
    folder = tmp_path / "data" / "AskUbuntuDupQuestions"
    folder.mkdir(parents=True)
    rows = [
        {
            "query": f"how is part {row} mounted",
            "positive": [f"part {row} is mounted so"],
            "negative": [f"part {row} of kind {kind} is sold" for kind in range(5)],
        }
        for row in range(60)
    ]
    (folder / "test.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    model = EncoderModel(str(tiny_bge), ModelOptions(store=False))
    options = Options(tmp_path / "runs", (tmp_path / "data",), offline=True, other_data=True)
    [before] = estimate(model, plan(["AskUbuntuDupQuestions"]), options, Progress())
    report = evaluate(model, plan(["AskUbuntuDupQuestions"]), options)
    [path] = report.done["AskUbuntuDupQuestions"]
    written = sum(file.stat().st_size for file in path.parent.rglob("*"))
    assert written / 4 < before.disk_bytes < 4 * written


@pytest.mark.slow
def test_the_second_stage_is_estimated(
    tmp_path: Path, tiny_bge: Path, tiny_cross_encoder: Path
) -> None:
    model = EncoderModel(str(tiny_bge), ModelOptions(store=tmp_path / "store"))
    reranker = load_reranker(locate(str(tiny_cross_encoder)), RerankerOptions(), model.progress)
    options = Options(tmp_path / "runs", offline=True, rerank_top_k=7)
    [before] = estimate(model, plan(["demo"]), options, Progress(), reranker)
    assert before.rerank.seconds > 0 and before.tokens > 0
    evaluate(model, plan(["demo"]), options)  # the first stage alone
    [between] = estimate(model, plan(["demo"]), options, Progress(), reranker)
    assert between.tokens == 0 and between.pairs == before.pairs
    assert between.rerank.seconds > 0
    report = evaluate(model, plan(["demo"]), options, reranker=reranker)
    path = report.done["BgeEvalDemo"][1]
    record = json.loads((path.with_suffix("") / "run.json").read_text())
    assert before.pairs == record["counts"]["rerank"]
    [after] = estimate(model, plan(["demo"]), options, Progress(), reranker)
    assert after.reason == "its result is saved"


def test_a_reranker_without_batches_of_its_own_is_estimated_by_pair_or_by_text() -> None:
    texts = [f"text {number}" for number in range(50)]
    work = PairWork(texts[:5], texts, pairs=2_000, distinct=400)
    scored: list[int] = []

    def score(pairs: Sequence[tuple[str, str]]) -> object:
        scored.append(len(pairs))
        return np.zeros(len(pairs))

    by_pair: Any = SimpleNamespace(score=score)
    cost = scoring_pairs(by_pair, work, Meter(), Progress())
    assert scored[-1] == 192 and cost.seconds > 0 and cost.joules is None
    by_text = LateInteractionReranker.__new__(LateInteractionReranker)
    pairs, share = measuring._sample(by_text, work)
    assert len(pairs) == 4 * 50 and share == 50 / 400
    assert scoring_pairs(by_pair, PairWork([], texts, 0, 0), Meter(), Progress()) == Cost()


def test_batches_from_the_longest_to_the_shortest_are_computed() -> None:
    assert measuring._spread(3).tolist() == [0, 1, 2]
    assert measuring._spread(80).tolist() == [5, 15, 25, 35, 45, 55, 65, 75]
    assert len(measuring._spread(80, 40)) == 40
    lengths = np.array([5, 9, 9, 30, 4, 4])

    def count(texts: list[str]) -> list[int]:
        return [len(text) for text in texts]

    pool = [("q", "d" * length) for length in lengths]
    sample, share = measuring._some_batches(PairRule(count, 31, 100), pool)
    assert len(sample) == 6 and share == 1.0


def zone(folder: Path, name: str, label: str, energy: int, limit: int = 262_143_328_850) -> None:
    """Write a zone as Linux shows it."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    for file, value in (("name", label), ("energy_uj", energy), ("max_energy_range_uj", limit)):
        (folder / name / file).write_text(f"{value}\n")


def test_the_energy_of_all_sockets_is_read(tmp_path: Path) -> None:
    assert read_counters(tmp_path / "powercap") is None
    assert read_counters(tmp_path) is None, "a folder without counters"
    zone(tmp_path, "intel-rapl:0", "package-0", 5_000_000)
    zone(tmp_path, "intel-rapl:1", "package-1", 262_143_000_000)
    zone(tmp_path, "intel-rapl:0:0", "dram", 7)  # a part of the socket
    zone(tmp_path, "intel-rapl:2", "psys", 9)  # both sockets and more
    zone(tmp_path, "intel-rapl-mmio:0", "package-0", 8)  # the same socket again
    before = read_counters(tmp_path)
    assert before is not None and list(before) == ["intel-rapl:0", "intel-rapl:1"]
    zone(tmp_path, "intel-rapl:0", "package-0", 6_500_000)
    zone(tmp_path, "intel-rapl:1", "package-1", 171_149)  # began at 0 again
    assert joules_between(before, read_counters(tmp_path)) == pytest.approx(1.5 + 0.5)
    (tmp_path / "intel-rapl:1" / "energy_uj").unlink()
    assert read_counters(tmp_path) is None and joules_between(before, None) is None


class Driver(ModuleType):
    """Behaves like nvidia-ml-py's module ``pynvml`` on a machine with two GPUs."""

    class NVMLError(Exception):
        """The library's error."""

    def __init__(self) -> None:
        super().__init__("pynvml")
        self.millijoules = {"GPU-a": 1_000, "GPU-b": 2**64 - 500}
        self.opened = 0

    def nvmlInit(self) -> None:
        self.opened += 1

    def nvmlShutdown(self) -> None:
        self.opened -= 1

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        if not self.opened or uuid not in self.millijoules:
            raise self.NVMLError("Not Found")
        return f"handle of {uuid}"

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:
        if not self.opened:
            raise self.NVMLError("Uninitialized")
        return self.millijoules[handle.removeprefix("handle of ")]


def test_the_energy_of_gpus_is_read_by_nvml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real: Any = pytest.importorskip("pynvml")
    for name in (each for each in vars(Driver) if each.startswith(("nvml", "NVML"))):
        assert callable(getattr(real, name)), name
    assert read_gpus([]) is None and gpu_identifiers("cpu") == ()
    driver = Driver()
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    meter = Meter(("GPU-a", "GPU-b"), tmp_path / "powercap")
    before = meter.read()
    driver.millijoules = {"GPU-a": 3_500, "GPU-b": 500}  # b began at 0 again
    spent = meter.joules_since(before)
    assert spent == {"GPU": 3.5}
    zone(tmp_path / "powercap", "intel-rapl:0", "package-0", 5_000_000)
    before = meter.read()
    zone(tmp_path / "powercap", "intel-rapl:0", "package-0", 7_000_000)
    assert meter.joules_since(before) == {"processor": 2.0, "GPU": 0.0}
    assert driver.opened == 0
    assert read_gpus(["GPU-c"]) is None and driver.opened == 0, "an unknown GPU"
    assert Meter((), tmp_path).joules_since({}) is None
    monkeypatch.setattr(Driver, "nvmlInit", lambda self: (_ for _ in ()).throw(self.NVMLError()))
    assert read_gpus(["GPU-a"]) is None, "without the driver"
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert read_gpus(["GPU-a"]) is None, "without the package"


def test_costs_add_up() -> None:
    first = Cost(2.0, 100.0, {"processor": 5.0}).times(3)
    assert first == Cost(6.0, 300.0, {"processor": 15.0})
    assert first + Cost(1.0, 1.0, {"GPU": 2.0}) == Cost(7.0, 301.0, {"processor": 15.0, "GPU": 2.0})
    assert (first + Cost(1.0, joules=None)).joules is None
    assert first + Cost() == first


def test_vectors_that_stand_for_a_models_are_near_where_words_are_shared() -> None:
    texts = [
        "the cat sat on the mat",
        "a cat on a mat",
        "interest rates rose again",
        "我爱北京",
        "",
    ]
    vectors = word_vectors(texts, 64)
    likeness = vectors @ vectors.T
    assert vectors.shape == (5, 64) and likeness.diagonal() == pytest.approx(1.0)
    assert likeness[0, 1] > 0.3 > abs(likeness[0, 2])
    assert (word_vectors(texts, 64) == vectors).all()
