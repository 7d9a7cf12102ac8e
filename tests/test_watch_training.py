"""`bge-eval watch` beside FlagEmbedding's own trainer, and killed in the middle of its work."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bge_eval.results.saved import SavedResult, find_results
from conftest import CommandLine, make_encoder
from parity.flagembedding import FlagEmbedding, old_layout
from trainings import PAIRS, train_sentence_transformer

pytestmark = pytest.mark.slow


def scores(text: str) -> dict[str, str]:
    """Return checkpoint → score of a table in CSV."""
    rows = csv.DictReader(io.StringIO(text))
    return {row["model"].rpartition("/")[2].partition(" ")[0]: row["SciFact"] for row in rows}


def test_the_checkpoints_of_flagembeddings_trainer(
    tmp_path: Path,
    minilm_folder: Path,
    small_scifact: Path,
    bge_eval: CommandLine,
    flagembedding: FlagEmbedding,
) -> None:
    """Trained by its own command; a checkpoint has no modules.json, so the pooling is stated."""
    model = make_encoder(tmp_path / "tiny", minilm_folder, "cls", bare=True)
    old_layout(model)
    lines = [{"query": q, "pos": [p], "neg": [PAIRS[n - 1][1]]} for n, (q, p) in enumerate(PAIRS)]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    checkpoints = tmp_path / "checkpoints"
    command = [
        *("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "1"),
        *("-m", "FlagEmbedding.finetune.embedder.encoder_only.base"),
        *("--model_name_or_path", str(model), "--train_data", str(tmp_path / "train.jsonl")),
        *("--cache_path", str(tmp_path / "cache"), "--output_dir", str(checkpoints)),
        *("--train_group_size", "2", "--max_steps", "4", "--save_steps", "2"),
        *("--per_device_train_batch_size", "4", "--learning_rate", "0.01", "--use_cpu", "True"),
        *("--sentence_pooling_method", "cls", "--normalize_embeddings", "True"),
        *("--report_to", "none"),
    ]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    trained = subprocess.run(
        [str(flagembedding.python), *command],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert trained.returncode == 0, trained.stderr[-2000:]
    common = ["--tasks", "SciFact", "--data-dir", small_scifact, "--offline", "--format", "csv"]
    common += ["--pooling", "cls", "--normalize"]
    watched = bge_eval("watch", checkpoints, *common, "--output", tmp_path / "out", "--idle", "0")
    assert watched.returncode == 0, watched.stderr
    assert sorted(scores(watched.stdout)) == ["checkpoint-2", "checkpoint-4"]
    for name, score in scores(watched.stdout).items():
        alone = bge_eval(
            *("run", "--model", checkpoints / name, *common, "--output", tmp_path / "alone")
        )
        assert scores(alone.stdout) == {name: score}, alone.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
@pytest.mark.slow
def test_a_watch_that_was_killed_continues(
    tmp_path: Path, tiny_bge: Path, small_scifact: Path, bge_eval: CommandLine
) -> None:
    checkpoints = tmp_path / "checkpoints"
    train_sentence_transformer(tiny_bge, checkpoints)
    common: list[str | Path] = ["--tasks", "SciFact", "--data-dir", small_scifact, "--offline"]

    def watch(output: str) -> list[str | Path]:
        printed = ["--keep-best", "1", "--idle", "0", "--format", "csv"]
        return ["watch", checkpoints, *common, "--output", tmp_path / output, *printed]

    process = subprocess.Popen(
        [sys.executable, "-m", "bge_eval", *map(str, watch("killed"))],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    results = tmp_path / "killed" / "results"
    while process.poll() is None and not any(results.rglob("SciFact.json")):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = len(list(results.rglob("SciFact.json")))
    again = bge_eval(*watch("killed"))
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("already done with this identity") == before >= 1
    whole = bge_eval(*watch("whole"))
    assert scores(again.stdout) == scores(whole.stdout)
    assert len(scores(whole.stdout)) == 3
    for folder in ("killed", "whole"):
        saved = [SavedResult(path) for path in find_results([tmp_path / folder])]
        best = max(saved, key=lambda each: (each.main_score(), each.model))
        top = {each.model for each in saved if each.main_score() == best.main_score()}
        (kept,) = (tmp_path / folder / "best").iterdir()
        assert any(model.endswith(kept.name) for model in top)
