"""The estimate of a run against the run itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bge_eval.encode.store import stored_spaces
from bge_eval.evaluation import Options, evaluate
from bge_eval.models.kinds import ModelOptions
from bge_eval.models.transformer import EncoderModel
from bge_eval.progress import Progress
from bge_eval.scale.energy import joules_between, read_counters
from bge_eval.scale.estimate import estimate
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
    assert before.tokens == pytest.approx(sum(record["tokens"].values()), rel=0.02)
    counts = sum(space.texts for space in stored_spaces(store))
    assert before.texts - before.stored == pytest.approx(counts, abs=3)
    [after] = estimate(model, plan(["demo"]), options, Progress())
    assert after.reason == "its result is saved" and after.seconds == 0
    [again] = estimate(model, plan(["demo"]), Options(tmp_path / "other", offline=True), Progress())
    assert again.tokens == again.encode_seconds == 0 and again.stored == again.texts


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("-m", BUILTIN, "--price", "2"), "--price belongs to --estimate"),
        (("-m", "bm25", "--estimate"), "--estimate measures encoders"),
        (("-m", BUILTIN, "--estimate", "--reranker", "x"), "how long a reranker takes"),
    ],
)
def test_what_is_not_estimated_is_refused(
    options: tuple[str, ...], message: str, bge_eval: CommandLine
) -> None:
    done = bge_eval("run", "demo", "--offline", *options)
    assert done.returncode == 2 and message in " ".join(done.stderr.split())


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
        assert again.tokens == again.encode_seconds == 0 and again.stored == again.texts


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
