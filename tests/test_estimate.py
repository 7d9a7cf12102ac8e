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
