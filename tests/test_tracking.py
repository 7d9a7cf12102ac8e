"""Scores in trackers: real clients, and what their own readers read back."""

from __future__ import annotations

import json
import math
import os
import socket
import sqlite3
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import bge_eval
from bge_eval.cli.columns import measure_and_key
from bge_eval.cli.words import parse_settings, repeating_options
from bge_eval.errors import TrackerError, UsageError
from bge_eval.experiment.file import read_experiment
from bge_eval.leaderboard.reading import leaderboard
from bge_eval.results.saved import find_results
from bge_eval.tracking.runs import TrackedRun, tracked_runs
from bge_eval.tracking.sending import TRACKERS, read_targets, send
from conftest import CommandLine
from environments import TRACKERS as CLIENTS
from saved import save_run

QRELS = {f"q{n}": {"good": 1} for n in range(12)}


def ranking(best: int) -> dict[str, dict[str, float]]:
    """A run that finds the document first for so many queries, and second for the others."""
    return {f"q{n}": {"good": 0.5, "other": 0.1 if n < best else 0.9} for n in range(len(QRELS))}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Two systems: one on two tasks, and three checkpoints of a training on one."""
    folder = tmp_path / "results"
    for task, best in (("Mine", 9), ("Other", 3)):
        identity = {
            "identity": {
                "task": task,
                "model": {"name": "org/model", "pooling": "mean", "prompts": {"query": task}},
                "data": {"layout": "beir", "fingerprint": f"print of {task}"},
                "search": {"index": "flat"},
                "packages": {"numpy": "2.4.6"},
            }
        }
        save_run(folder, "org/model", ranking(best), QRELS, task=task, recorded=identity)
    for step, best in ((500, 2), (1000, 7), (1500, 10)):
        save_run(folder, f"out/checkpoint-{step}", ranking(best), QRELS, task="Mine")
    return folder


def runs_of(folder: Path, metric: str = "main", **options: Any) -> list[TrackedRun]:
    measure, key = measure_and_key(metric)
    board = leaderboard(find_results([folder]), measure=measure, key=key)
    return tracked_runs(board, key, **options)


def scalars(folder: Path) -> dict[str, dict[tuple[str, int], list[float]]]:
    """Folder of a run → (metric, step) → every value that its event files hold."""
    content: dict[str, dict[tuple[str, int], list[float]]] = {}
    for run in sorted({path.parent for path in folder.rglob("events.*")}):
        events: Any = EventAccumulator(str(run))
        events.Reload()
        values = content.setdefault(run.name.rpartition("-")[0], {})
        for name in events.Tags()["scalars"]:
            for each in events.Scalars(name):
                values.setdefault((name, each.step), []).append(each.value)
    return content


def test_a_row_is_a_run_and_checkpoints_are_the_steps_of_one(results: Path) -> None:
    alone, training = sorted(runs_of(results), key=lambda run: run.name)
    assert (alone.name, training.name) == ("org/model", "out")
    assert [point.step for point in alone.points] == [0]
    assert [point.step for point in training.points] == [500, 1000, 1500]
    metrics = alone.points[0].metrics
    second = 1 / math.log2(3)
    assert metrics["Mine/ndcg_at_10"] == pytest.approx((9 + 3 * second) / 12)
    assert metrics["Other/ndcg_at_10"] == pytest.approx((3 + 9 * second) / 12)
    assert metrics["mean_of_2_tasks/score"] == pytest.approx((12 + 12 * second) / 24)
    for task, queries in (("Mine", 12), ("Other", 12), ("mean_of_2_tasks", 24)):
        score = "score" if task.startswith("mean") else "ndcg_at_10"
        assert metrics[f"{task}/low"] < metrics[f"{task}/{score}"] < metrics[f"{task}/high"]
        assert metrics[f"{task}/n"] == queries
    assert not any("mean" in name for point in training.points for name in point.metrics)
    assert alone.settings["model.pooling"] == "mean"
    assert alone.settings["model.prompts.query.Other"] == "Other"  # tasks differ in it
    assert alone.settings["data.Mine.fingerprint"] == "print of Mine"
    assert alone.settings["packages.numpy"] == "2.4.6"
    assert alone.settings["mean_of_2_tasks"] == "Mine, Other"
    assert "model.revision" not in training.settings


def test_the_identity_is_that_of_the_row(results: Path) -> None:
    alone, training = sorted(runs_of(results), key=lambda run: run.name)
    assert len({alone.identity, training.identity}) == 2
    save_run(results, "out/checkpoint-2000", ranking(12), QRELS, task="Mine")
    later = sorted(runs_of(results), key=lambda run: run.name)
    assert [run.identity for run in later] == [alone.identity, training.identity]
    with pytest.raises(UsageError, match="would name 2 runs"):
        runs_of(results, name="mine")


def test_a_measure_is_sent_under_its_key(results: Path) -> None:
    metrics = next(run for run in runs_of(results, "R@1") if run.name == "org/model").points[0]
    assert metrics.metrics["Mine/recall_at_1"] == pytest.approx(9 / 12)
    assert metrics.metrics["mean_of_2_tasks/recall_at_1"] == pytest.approx(12 / 24)


def test_tensorboard_reads_every_value_once(
    results: Path, tmp_path: Path, bge_eval: CommandLine
) -> None:
    command = ("track", results, "--to", f"tensorboard={tmp_path / 'tb'}", "--project", "mine")
    first = bge_eval(*command)
    assert first.returncode == 0 and first.stdout == ""
    expected = {
        run.name.replace("/", "_"): {
            (name, point.step): [pytest.approx(value, rel=1e-6)]
            for point in run.points
            for name, value in point.metrics.items()
        }
        for run in runs_of(results)
    }
    assert scalars(tmp_path / "tb" / "mine") == expected
    again = bge_eval(*command)
    assert again.returncode == 0 and "0 values of out; 12 were there already" in again.stderr
    save_run(results, "out/checkpoint-2000", ranking(12), QRELS, task="Mine")
    more = bge_eval(*command)
    assert "TensorBoard" in more.stderr and "4 values of out; 12 were there" in more.stderr
    values = scalars(tmp_path / "tb" / "mine")["out"]
    assert all(len(each) == 1 for each in values.values()) and len(values) == 16
    texts: Any = EventAccumulator(str(next((tmp_path / "tb" / "mine").glob("org_model-*"))))
    texts.Reload()
    [settings] = texts.Tensors("settings/text_summary")
    assert b"| model.pooling | mean |" in settings.tensor_proto.string_val[0]


def test_another_value_of_the_same_step_is_refused(results: Path, tmp_path: Path) -> None:
    [target] = read_targets([f"tensorboard={tmp_path}"], "bge-eval", offline=True)
    send(runs_of(results), target)
    before = scalars(tmp_path)
    save_run(results, "out/checkpoint-500", ranking(5), QRELS, task="Mine")
    with pytest.raises(
        TrackerError, match=r"Mine/ndcg_at_10 0.69244 at step 500 of 'out'.*0.78471"
    ):
        send(runs_of(results), target)
    assert scalars(tmp_path) == before


@pytest.mark.slow
def test_results_are_printed_before_a_tracker_fails(
    tmp_path: Path, small_scifact: Path, bge_eval: CommandLine
) -> None:
    place = tmp_path / "file"
    place.write_text("no folder")
    run = ("run", "--model", "bm25", "--tasks", "SciFact", "--data-dir", small_scifact, "--offline")
    output = ("--output", tmp_path / "out", "--format", "csv", "--track")
    done = bge_eval(*run, *output, f"tensorboard={place}")
    assert done.returncode == 3 and "bm25" in done.stdout
    assert "TensorBoard has not taken the scores" in done.stderr
    later = f"bge-eval track {tmp_path / 'out'} --to tensorboard={place}"
    assert later in " ".join(done.stderr.split())
    place.unlink()
    words = later.split()[1:]
    assert bge_eval(*words).returncode == 0
    sent = scalars(place)
    done = bge_eval(*run, *output, f"tensorboard={place}")
    assert done.returncode == 0 and "0 values" in done.stderr and scalars(place) == sent


@pytest.mark.parametrize(
    ("options", "code", "expected"),
    [
        ([], 2, "Say where to send"),
        (["--to", "tensorbord"], 2, "is no tracker. Did you mean tensorboard?"),
        (["--to", "tensorboard="], 2, "has no folder or address behind it"),
        (["--to", "tensorboard=http://host:6006"], 2, "has no server that takes scores"),
        (
            ["--to", "mlflow=https://me:hush-hush@host"],
            2,
            "has a password or a token in it",
        ),  # pragma: allowlist secret
        (["--to", "trackio=https://host?write_token=hush-hush"], 2, "a password or a token"),
        (["--to", "tensorboard", "--project", "../up"], 2, "cannot be named so"),
        (["--to", "tensorboard", "--name", " "], 2, "must be a line of text"),
        (["--to", "tensorboard", "--tasks", "Mone"], 2, "No suite or task is called 'Mone'"),
    ],
)
def test_wrong_options_are_refused(
    results: Path, bge_eval: CommandLine, options: list[str], code: int, expected: str
) -> None:
    done = bge_eval("track", results, *options)
    assert done.returncode == code and expected in done.stderr, done.stderr
    assert "hush-hush" not in done.stderr + done.stdout


def test_an_experiment_states_its_trackers_for_all_settings(tmp_path: Path) -> None:
    text = "tasks = ['demo']\ntrack = ['tensorboard', 'mlflow=./ml']\nmodels = ['bm25', 'a']\n"
    (tmp_path / "x.toml").write_text(text)
    experiment = read_experiment(tmp_path / "x.toml", repeating_options(), {})
    flags = [parsed.data.tracking for parsed in parse_settings(experiment).values()]
    assert [each.track for each in flags] == [["tensorboard", "mlflow=./ml"]] * 2
    (tmp_path / "x.toml").write_text(text + "[grid]\ntrack-project = ['a', 'b']\n")
    with pytest.raises(UsageError, match="'track-project' is the same in all settings"):
        read_experiment(tmp_path / "x.toml", repeating_options(), {})


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--track-name", "mine"], "--track-name has no effect without --track"),
        (["--track-project", "mine"], "--track-project has no effect without --track"),
        (["--track", "tensorbord"], "Did you mean tensorboard?"),
    ],
)
def test_a_run_refuses_them_before_it_computes(
    bge_eval: CommandLine, options: list[str], expected: str
) -> None:
    done = bge_eval("run", "--model", "bm25", "--tasks", "demo", *options)
    assert done.returncode == 2 and expected in done.stderr and "data from" not in done.stderr


# ── clients in an environment of their own ────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def python() -> Path:
    """Python with the clients of MLflow, Weights & Biases and Trackio."""
    return CLIENTS.program("python")


def in_environment(
    python: Path, *arguments: str | Path, cwd: Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    source = Path(__file__).parent.parent / "evaluation"
    clean = {
        k: v for k, v in os.environ.items() if not k.startswith(("WANDB", "MLFLOW", "TRACKIO"))
    }
    cwd.mkdir(exist_ok=True)
    return subprocess.run(
        [python, *map(str, arguments)],
        cwd=cwd,
        env={**clean, "PYTHONPATH": str(source), "HOME": str(cwd), **(env or {})},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


READERS = {
    "mlflow": """
import json, sys
from mlflow import MlflowClient
client = MlflowClient(tracking_uri=sys.argv[1])
[experiment] = [e for e in client.search_experiments() if e.name == "mine"]
for run in client.search_runs([experiment.experiment_id]):
    values = [[m.key, m.step, m.value] for key in run.data.metrics
              for m in client.get_metric_history(run.info.run_id, key)]
    print(json.dumps([run.info.run_name, run.data.params, values]))
""",
    "trackio": """
import json, os, sys
os.environ["TRACKIO_DIR"] = sys.argv[1]
import trackio
from trackio.sqlite_storage import SQLiteStorage
for run in trackio.Api().runs("mine"):
    rows = SQLiteStorage.get_logs("mine", run.name)
    values = [[k, row["step"], v] for row in rows for k, v in row.items()
              if k not in ("step", "timestamp")]
    print(json.dumps([run.name, run.config, values]))
""",
    # The client's own reader is a program that sends; its messages are those of the files.
    "wandb": """
import json, sys
from pathlib import Path
from wandb.proto import wandb_internal_pb2 as messages
runs = {}
for path in sorted(Path(sys.argv[1]).rglob("*.wandb")):
    data, whole, place = path.read_bytes(), b"", 7
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
        size, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        whole += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):
            record, whole = messages.Record.FromString(whole), b""
            if record.HasField("run"):
                run = runs.setdefault(record.run.run_id, [record.run.display_name, {}, []])
                assert record.run.project == "mine"
                run[1] |= {u.key: json.loads(u.value_json) for u in record.run.config.update}
            if record.HasField("history"):
                row = {"/".join(i.nested_key) or i.key: json.loads(i.value_json)
                       for i in record.history.item}
                run[2] += [[k, row["step"], v] for k, v in row.items()
                           if k != "step" and not k.startswith("_")]
for run in runs.values():
    print(json.dumps(run))
""",
}
"""Tracker → a program that prints a JSON line for each run: name, settings, values."""


def read_back(python: Path, tracker: str, place: str, cwd: Path) -> dict[str, tuple[Any, Any]]:
    """Return the name of each run → its settings and its values, sorted."""
    done = in_environment(python, "-c", READERS[tracker], place, cwd=cwd)
    assert done.returncode == 0, done.stderr
    runs = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    return {name.partition(" (")[0]: (settings, sorted(values)) for name, settings, values in runs}


def expected_values(folder: Path) -> dict[str, list[list[Any]]]:
    return {
        run.name: sorted(
            [name, point.step, pytest.approx(value)]
            for point in run.points
            for name, value in point.metrics.items()
        )
        for run in runs_of(folder)
    }


@pytest.mark.slow
@pytest.mark.parametrize("tracker", sorted(READERS))
def test_a_client_reads_every_value_once(
    tracker: str, python: Path, results: Path, tmp_path: Path
) -> None:
    place = tmp_path / "place"
    command = ("-m", "bge_eval", "track", results, "--to", f"{tracker}={place}", "--offline")
    cwd = tmp_path / "cwd"
    for added in (24, 0):
        done = in_environment(python, *command, "--project", "mine", cwd=cwd)
        assert done.returncode == 0 and done.stdout == "", done.stderr
        assert f"{added - 12 if added else 0} values of out" in done.stderr
    save_run(results, "out/checkpoint-2000", ranking(12), QRELS, task="Mine")
    done = in_environment(python, *command, "--project", "mine", cwd=cwd)
    assert "4 values of out; 12 were there already" in done.stderr
    store = f"sqlite:///{place}/mlflow.db" if tracker == "mlflow" else str(place)
    content = read_back(python, tracker, store, cwd)
    assert {name: values for name, (_, values) in content.items()} == expected_values(results)
    settings, _ = content["org/model"]
    assert settings["model.pooling"] == "mean" and settings["mean_of_2_tasks"] == "Mine, Other"
    assert not [path.name for path in cwd.iterdir() if path.name in ("mlruns", "wandb", "runs")]


@pytest.fixture
def mlflow_server(python: Path, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A real tracking server, and its database."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    database = tmp_path / "server.db"
    command = [str(python), "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    store = ["--backend-store-uri", f"sqlite:///{database}"]
    files = ["--artifacts-destination", str(tmp_path / "files")]
    with (tmp_path / "server.log").open("wb") as log:
        server = subprocess.Popen(
            [*command, *store, *files], cwd=tmp_path, stdout=log, stderr=log, start_new_session=True
        )
        try:
            for _ in range(1200):
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                    break
                except OSError:
                    assert server.poll() is None, (tmp_path / "server.log").read_text()
                    time.sleep(0.1)
            yield f"http://127.0.0.1:{port}", database
        finally:
            os.killpg(server.pid, 15)
            server.wait(30)


@pytest.mark.slow
def test_a_server_of_mlflow(
    python: Path, results: Path, tmp_path: Path, mlflow_server: tuple[str, Path]
) -> None:
    address, database = mlflow_server
    command = ("-m", "bge_eval", "track", results, "--project", "mine", "--to", f"mlflow={address}")
    for _ in range(2):
        done = in_environment(python, *command, cwd=tmp_path / "cwd")
        assert done.returncode == 0, done.stderr
    content = read_back(python, "mlflow", address, tmp_path / "cwd")
    assert {name: values for name, (_, values) in content.items()} == expected_values(results)
    with sqlite3.connect(database) as connection:
        [(rows,)] = connection.execute("select count(*) from metrics").fetchall()
    assert rows == 24
    refused = in_environment(python, *command, "--offline", cwd=tmp_path / "cwd")
    assert refused.returncode == 2 and "--offline forbids it" in refused.stderr


@pytest.mark.slow
def test_a_client_that_fails_or_is_missing(python: Path, results: Path, tmp_path: Path) -> None:
    cwd = tmp_path / "cwd"
    track = ("-m", "bge_eval", "track", results, "--to")
    secret = {"MLFLOW_TRACKING_TOKEN": "hush-hush-hush", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    done = in_environment(python, *track, "mlflow=http://127.0.0.1:9", cwd=cwd, env=secret)
    assert done.returncode == 3 and "MLflow has not taken the scores" in done.stderr
    assert "hush" not in done.stderr and "Traceback" not in done.stderr
    done = in_environment(python, *track, "tensorboard", cwd=cwd)
    assert done.returncode == 3 and "pip install 'bge-eval[tensorboard]'" in done.stderr
    done = in_environment(python, *track, "wandb", cwd=cwd)
    assert done.returncode == 3 and "has no key here" in done.stderr
    done = in_environment(python, *track, "trackio", cwd=cwd, env={"TRACKIO_SPACE_ID": "me/space"})
    assert done.returncode == 2 and "TRACKIO_SPACE_ID is set" in done.stderr


def test_every_tracker_has_an_extra() -> None:
    import tomllib

    text = (Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8")
    extras = tomllib.loads(text)["project"]["optional-dependencies"]
    for name, kind in TRACKERS.items():
        [requirement] = extras[name]
        assert requirement.startswith(kind.package)


def test_two_trainings_in_one_folder_are_two_runs(tmp_path: Path) -> None:
    for name in ("out/a-checkpoint-500", "out/b-checkpoint-500", "out/b-checkpoint-1000"):
        save_run(tmp_path, name, ranking(5), QRELS, task="Mine")
    found = {run.name: [point.step for point in run.points] for run in runs_of(tmp_path)}
    assert found == {"out/a": [500], "out/b": [500, 1000]}


def test_a_call_in_python_sends_what_it_saves(tmp_path: Path) -> None:
    board = tmp_path / "board"
    to = f"tensorboard={board}"
    done = bge_eval.evaluate("bm25", "demo", output=tmp_path / "out", offline=True, track=to)
    [values] = scalars(board).values()
    assert values["BgeEvalDemo/ndcg_at_10", 0] == [pytest.approx(done.score("BgeEvalDemo"))]
    with pytest.raises(bge_eval.UsageError, match="is no tracker"):
        bge_eval.evaluate("bm25", "demo", output=tmp_path / "none", offline=True, track="excel")
    assert not (tmp_path / "none").exists()
    (tmp_path / "file").write_text("")
    to = f"tensorboard={tmp_path / 'file'}"
    with pytest.warns(UserWarning, match=r"TensorBoard has not taken.* send it later"):
        again = bge_eval.evaluate("bm25", "demo", output=tmp_path / "out", offline=True, track=to)
    assert again.scores() == done.scores()
