"""`bge-eval watch`: real checkpoints of a real training, complete ones only, each once."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import time
from pathlib import Path

import pytest

from bge_eval.results.saved import SavedResult, find_results
from bge_eval.training.checkpoints import Checkpoint, find_checkpoints, keep_links
from conftest import CommandLine
from test_tracking import scalars
from trainings import train_sentence_transformer


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_bge: Path) -> Path:
    """The output folder of a training of six steps, with a checkpoint every two."""
    folder = tmp_path_factory.mktemp("training") / "checkpoints"
    train_sentence_transformer(tiny_bge, folder)
    return folder


@pytest.fixture
def checkpoints(trained: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained, tmp_path / "checkpoints")


def scores(text: str) -> dict[str, str]:
    rows = csv.DictReader(io.StringIO(text))
    return {row["model"].rpartition("/")[2]: row["SciFact"] for row in rows}


def test_checkpoints_are_found_in_order_and_only_complete_ones_count(checkpoints: Path) -> None:
    (checkpoints / "tmp-checkpoint-8").mkdir()
    (checkpoints / "runs").mkdir()
    found = find_checkpoints(checkpoints)
    assert [(each.name, each.step) for each in found] == [
        *(("checkpoint-2", 2), ("checkpoint-4", 4), ("checkpoint-6", 6))
    ]
    assert all(each.is_complete() for each in found)
    weights = checkpoints / "checkpoint-2" / "model.safetensors"
    whole = weights.read_bytes()
    for size in (0, 4, 100, len(whole) - 1):
        weights.write_bytes(whole[:size])
        assert not found[0].is_complete(), size
    weights.unlink()
    assert not found[0].is_complete()
    weights.write_bytes(whole)
    assert found[0].is_complete()
    (checkpoints / "checkpoint-4" / "trainer_state.json").write_text('{"global')
    assert not found[1].is_complete()


def test_without_a_trainers_state_a_folder_must_be_at_rest(checkpoints: Path) -> None:
    checkpoint = find_checkpoints(checkpoints)[0]
    (checkpoint.folder / "trainer_state.json").unlink()
    changed = max(path.stat().st_mtime for path in checkpoint.folder.rglob("*"))
    assert not checkpoint.is_complete(now=changed + 9)
    assert checkpoint.is_complete(now=changed + 10)


def test_a_missing_shard_is_no_complete_checkpoint(checkpoints: Path) -> None:
    checkpoint = find_checkpoints(checkpoints)[0]
    index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    (checkpoint.folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert not checkpoint.is_complete()
    shutil.copy(checkpoint.folder / "model.safetensors", checkpoint.folder / "model-2.safetensors")
    assert checkpoint.is_complete()


def test_each_checkpoint_gets_the_score_of_run_and_a_second_watch_continues(
    tmp_path: Path, checkpoints: Path, small_scifact: Path, bge_eval: CommandLine
) -> None:
    common = ["--tasks", "SciFact", "--data-dir", small_scifact, "--offline", "--format", "csv"]
    watch = ["watch", checkpoints, *common, "--output", tmp_path / "watched", "--idle", "0"]
    watch += ["--track", f"tensorboard={tmp_path / 'tracked'}"]
    (checkpoints / "checkpoint-6" / "trainer_state.json").rename(tmp_path / "state.json")
    later = time.time() + 3600  # still being written, as far as its time tells
    os.utime(checkpoints / "checkpoint-6" / "model.safetensors", (later, later))
    first = bge_eval(*watch)
    assert first.returncode == 0, first.stderr
    assert sorted(scores(first.stdout)) == ["checkpoint-2", "checkpoint-4"]
    (tmp_path / "state.json").rename(checkpoints / "checkpoint-6" / "trainer_state.json")
    done = bge_eval(*watch, "--keep-best", "2", "--newest-first")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("already done with this identity") == 2
    assert done.stderr.index("checkpoint-6: ") < done.stderr.index("checkpoint-2: ")
    for name, score in scores(done.stdout).items():
        alone = bge_eval(
            *("run", "--model", checkpoints / name, *common, "--output", tmp_path / "alone")
        )
        assert scores(alone.stdout) == {name: score}
    [values] = scalars(tmp_path / "tracked").values()
    tracked = {f"checkpoint-{step}": v for (name, step), v in values.items() if "ndcg" in name}
    assert {name: [f"{v:.5f}" for v in each] for name, each in tracked.items()} == {
        name: [score] for name, score in scores(done.stdout).items()
    }
    ranked = sorted(
        find_results([tmp_path / "watched"]),
        key=lambda path: (-SavedResult(path).main_score(), SavedResult(path).model),
    )
    names = [SavedResult(path).model.rpartition("/")[2] for path in ranked]
    assert f"Best: {names[0]}." in done.stderr
    kept = tmp_path / "watched" / "best"
    assert sorted(path.name for path in kept.iterdir()) == sorted(names[:2])
    shutil.rmtree(checkpoints / names[0])
    assert (kept / names[0] / "model.safetensors").stat().st_size > 0


def test_the_patience_ends_with_a_signal(
    tmp_path: Path, checkpoints: Path, small_scifact: Path, bge_eval: CommandLine
) -> None:
    for later in ("checkpoint-4", "checkpoint-6"):  # equal models are no better
        shutil.copy(checkpoints / "checkpoint-2" / "model.safetensors", checkpoints / later)
    common = ["--tasks", "SciFact", "--data-dir", small_scifact, "--offline"]
    watch = ["watch", checkpoints, *common, "--output", tmp_path / "watched"]
    done = bge_eval(*watch, "--patience", "2", "--signal", tmp_path / "stop")
    assert done.returncode == 1, done.stderr
    assert (tmp_path / "stop").read_text() == ("2 checkpoints after checkpoint-2 are no better.\n")
    assert "cannot be told from checkpoint-4, checkpoint-6" in done.stderr
    done = bge_eval(*watch, "--stop-file", tmp_path / "stop")
    assert done.returncode == 0 and "nothing more is evaluated" in done.stderr
    done = bge_eval(*watch, "--until-steps", "5", "--every", "0.1")
    assert done.returncode == 0 and "step 5 is evaluated" in done.stderr


def test_links_never_remove_what_is_not_theirs(tmp_path: Path, checkpoints: Path) -> None:
    found = find_checkpoints(checkpoints)
    kept = tmp_path / "best"
    (kept / "checkpoint-4").mkdir(parents=True)
    (kept / "notes").mkdir()
    keep_links(found[:2], kept)
    keep_links(found[2:], kept)
    assert sorted(path.name for path in kept.iterdir()) == [
        *("checkpoint-4", "checkpoint-6", "notes")
    ]
    keep_links([Checkpoint(9, tmp_path / "checkpoint-9")], kept)
    assert sorted(path.name for path in kept.iterdir()) == ["checkpoint-4", "notes"]
    assert all(each.folder.is_dir() for each in found)


@pytest.mark.parametrize(
    ("options", "code", "expected"),
    [
        ([], 2, "No task was given"),
        (["-t", "demo", "--best-folder", "x"], 2, "--best-folder has no effect without"),
        (["-t", "demo", "--signal", "x"], 2, "--signal has no effect without --patience"),
        (["-t", "demo", "--label", "x"], 2, "No such option: --label"),
        (["-t", "demo"], 3, "There is no folder nowhere"),
    ],
)
def test_wrong_options_are_refused(
    bge_eval: CommandLine, options: list[str], code: int, expected: str
) -> None:
    done = bge_eval("watch", "nowhere", *options)
    assert done.returncode == code and expected in done.stderr
