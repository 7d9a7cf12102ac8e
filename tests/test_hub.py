"""The hub path is real: a model and a data set are downloaded from a server that speaks its
protocol, by the real command in a process of its own."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from bge_eval.results.trec import read_run
from conftest import CommandLine
from hub_server import HubServer

INSTRUCTION = "Represent this sentence for searching relevant passages: "


@pytest.mark.slow
def test_bge_from_the_hub(
    hub: HubServer,
    online: dict[str, str],
    tiny_bge: Path,
    small_scifact: Path,
    tmp_path: Path,
    bge_eval: CommandLine,
) -> None:
    from sentence_transformers import SentenceTransformer

    (tiny_bge / "onnx").mkdir(exist_ok=True)
    (tiny_bge / "onnx" / "model.onnx").write_bytes(b"not needed")
    (tiny_bge / "pytorch_model.bin").write_bytes(b"not needed beside safetensors")
    commit = hub.add_model("BAAI/bge-base-en-v1.5", tiny_bge)
    arguments = ["run", "--model", "BAAI/bge-base-en-v1.5", "--tasks", "SciFact"]
    arguments += ["--data-dir", str(small_scifact), "--output", str(tmp_path / "out")]
    done = bge_eval(*arguments, env=online)
    assert done.returncode == 0, done.stderr
    assert "BAAI/bge-base-en-v1.5" in done.stdout

    place = tmp_path / "out" / "results" / "BAAI__bge-base-en-v1.5" / commit
    identity = json.loads((place / "SciFact" / "run.json").read_text())["identity"]
    assert identity["model"]["prompts"] == {"query": INSTRUCTION, "document": ""}
    assert identity["model"]["pooling"] == "cls"
    assert identity["model"]["max_length"] == 512
    fetched = [request for request in hub.requests if request.startswith("GET /BAAI")]
    assert not [request for request in fetched if "onnx" in request or request.endswith(".bin")]

    reference = SentenceTransformer(str(tiny_bge), device="cpu")
    queries = ["what makes bones strong", "memory and sleep", "糖尿病的原因"]
    documents = {
        "d1": "Vitamin D Vitamin D strengthens bones.",
        "d2": "Sleep loss weakens memory.",
        "d3": "糖尿病 二型糖尿病与体重有关。",
        "d4": "Aspirin thins the blood.",
        "d5": "Bees Honey bees dance to point at flowers.",
    }
    expected = reference.similarity(
        reference.encode(queries, prompt=INSTRUCTION), reference.encode(list(documents.values()))
    )
    run = read_run(place / "SciFact.run.tsv.gz")
    for query, row in zip(("q1", "q2", "q3"), expected.tolist(), strict=True):
        assert run[query] == pytest.approx(dict(zip(documents, row, strict=True)), abs=1e-5)

    # What is in the cache now runs without a connection, and without doing anything twice.
    before = len(hub.requests)
    again = bge_eval(*arguments, "--offline", env=online)
    assert again.returncode == 0, again.stderr
    assert "already done with this identity" in again.stderr
    assert len(hub.requests) == before


@pytest.mark.slow
def test_dataset_from_the_hub(
    hub: HubServer, online: dict[str, str], tmp_path: Path, bge_eval: CommandLine
) -> None:
    """Without a data folder, mteb's own loading fetches the data set."""
    import mteb

    folder = tmp_path / "dataset"
    folder.mkdir()
    configs = []
    rows: dict[str, list[dict[str, Any]]] = {
        "corpus": [
            {"_id": f"d{i}", "title": "", "text": text}
            for i, text in enumerate(["bones", "sleep"], 1)
        ],
        "queries": [{"_id": "q1", "text": "strong bones"}],
        "default": [{"query-id": "q1", "corpus-id": "d1", "score": 1}],
    }
    for name, records in rows.items():
        split = "test" if name == "default" else name
        (folder / f"{name}.jsonl").write_text("\n".join(json.dumps(r) for r in records) + "\n")
        configs.append(
            f"- config_name: {name}\n  data_files:\n  - split: {split}\n    path: {name}.jsonl\n"
        )
    (folder / "README.md").write_text("---\nconfigs:\n" + "".join(configs) + "---\n")
    pinned = mteb.get_task("SciFact").metadata.dataset["revision"]
    hub.add_dataset("mteb/scifact", folder, commit=pinned)
    arguments = ["run", "--model", "builtin:all-MiniLM-L6-v2", "--tasks", "SciFact"]
    done = bge_eval(*arguments, "--output", str(tmp_path / "out"), env=online)
    assert done.returncode == 0, done.stderr
    assert "SciFact: data from mteb/scifact (Hugging Face)" in done.stderr
    record = next((tmp_path / "out").rglob("run.json"))
    identity = json.loads(record.read_text())["identity"]
    assert identity["data"]["fingerprint"] == f"mteb/scifact@{pinned}"
    run = read_run(record.parent.with_name("SciFact.run.tsv.gz"))
    assert set(run["q1"]) == {"d1", "d2"}


@pytest.mark.slow
def test_data_fetch(
    hub: HubServer, online: dict[str, str], tmp_path: Path, bge_eval: CommandLine
) -> None:
    """What fetch brings can be run offline, and is not fetched twice."""
    import mteb

    folder = tmp_path / "dataset"
    rows = [{"sentence1": "a cat", "sentence2": f"cat {i}", "score": i} for i in range(4)]
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "test.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: test\n"
        "    path: data/test.jsonl\n---\n"
    )
    pinned = mteb.get_task("STSBenchmark").metadata.dataset
    hub.add_dataset(pinned["path"], folder, commit=pinned["revision"])
    place = tmp_path / "datasets"
    fetch = ["data", "fetch", "--tasks", "STSBenchmark", "--data-dir", str(place)]
    done = bge_eval(*fetch, env=online)
    assert done.returncode == 0, done.stderr
    assert (place / "STSBenchmark" / "data" / "test.jsonl").is_file()
    sent = [request for request in hub.requests if request.startswith("GET /datasets")]
    assert bge_eval(*fetch, env=online).returncode == 0
    assert [r for r in hub.requests if r.startswith("GET /datasets")] == sent
    run = ["run", "--model", "builtin:all-MiniLM-L6-v2", "--tasks", "STSBenchmark", "--offline"]
    done = bge_eval(*run, "--data-dir", place, "--output", tmp_path / "out", env=online)
    assert done.returncode == 0, done.stderr

    both = bge_eval(
        "data", "fetch", "--tasks", "STS12,STSBenchmark", "--data-dir", place, env=online
    )
    assert both.returncode == 3
    assert "STS12 (mteb/sts12-sts" in both.stderr and "1 of 2 data sets" in both.stderr
    assert "Traceback" not in both.stderr


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("BAAI/no-such-model", "The hub has no model BAAI/no-such-model"),
        ("BAAI/no-weights", "is no Hugging Face model"),
    ],
)
def test_wrong_model(
    hub: HubServer,
    online: dict[str, str],
    tmp_path: Path,
    bge_eval: CommandLine,
    model: str,
    message: str,
) -> None:
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo" / "README.md").write_text("nothing here")
    hub.add_model("BAAI/no-weights", tmp_path / "repo")
    done = bge_eval("run", "--model", model, "--tasks", "demo", env=online)
    assert done.returncode == 3
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_hub_out_of_reach(tmp_path: Path, bge_eval: CommandLine) -> None:
    env = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "hf")}
    env |= {"HF_HUB_OFFLINE": "0", "HF_HUB_DOWNLOAD_TIMEOUT": "1"}
    done = bge_eval("run", "--model", "BAAI/bge-base-en-v1.5", "--tasks", "demo", env=env)
    assert done.returncode == 3
    assert "could not be downloaded" in done.stderr
    assert "Traceback" not in done.stderr
    assert os.environ["HF_HUB_OFFLINE"] == "1"
