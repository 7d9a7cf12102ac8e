"""Runs that are killed within a task go on where they stopped, with equal results."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bge_eval.encode.calls import CallRecords, CallScores
from bge_eval.encode.locate import locate
from bge_eval.encode.store import EmbeddingStore
from bge_eval.errors import BgeEvalError
from bge_eval.evaluation.evaluate import evaluate
from bge_eval.evaluation.options import Options
from bge_eval.models.kinds import ModelOptions
from bge_eval.models.opening import open_model
from bge_eval.models.served import ServedModel
from bge_eval.remote.apis import Api
from bge_eval.rerank import multi_vector
from bge_eval.rerank.families import load_reranker
from bge_eval.rerank.kinds import RerankerKind
from bge_eval.rerank.remembered import RememberedScores
from bge_eval.rerank.reranker import RerankerOptions
from bge_eval.rerank.served import ServedReranker
from bge_eval.results.unfinished import FOLDER
from bge_eval.suites.catalogue import plan
from interrupted import assert_same, stopped_after
from model_server import ModelServer, changed
from parity.tiny_rerankers import layerwise
from torture import TASK, make_data


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / TASK
    make_data(folder, 40, 4)
    for name in ("corpus.jsonl", "queries.jsonl"):  # the model server counts letters
        path = folder / name
        spelt = re.sub(r"\bw(\d+)", lambda word: _spelt(word[1]), path.read_text())
        path.write_text(spelt)
    return folder


def _spelt(digits: str) -> str:
    return "".join(chr(ord("a") + int(digit)) for digit in digits)


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer() as running:
        yield running


def run(output: Path, data: Path, model: Any, reranker: Any = None, depth: int = 10) -> Any:
    options = Options(output, offline=True, rerank_top_k=depth)
    report = evaluate(model, plan([str(data)]), options, reranker=reranker)
    assert not report.failed, report.failed
    return report


def test_scores_and_records_come_back_to_the_last_bit(tmp_path: Path) -> None:
    pairs = [(f"q{row % 3}", f"d{row}") for row in range(9)] + [("q0", "d0")]
    rng = np.random.default_rng(0)
    values = rng.standard_normal(10) * 10.0 ** rng.integers(-300, 300, 10)
    store = EmbeddingStore(tmp_path)
    scores = CallScores(store, pairs)
    scores.put([0, 3, 9], values[[0, 3, 9]])
    scores.put([4], np.nan)  # computed again another time
    texts = [f"text {row}" for row in range(4)]
    arrays = [
        [
            rng.standard_normal((tokens, 16)).astype(np.float32),
            np.arange(tokens, dtype=np.int32),
            np.empty((0, 0), np.float32),
        ]
        for tokens in (0, 1, 40, 300)
    ]
    CallRecords(store, "tokens", "", texts).put([0, 1, 3], [arrays[0], arrays[1], arrays[3]])
    store.flush()

    again = CallScores(EmbeddingStore(tmp_path), pairs)
    assert np.flatnonzero(again.known).tolist() == [0, 3, 9]
    assert np.array_equal(again.values[[0, 3, 9]], values[[0, 3, 9]])
    assert not CallScores(EmbeddingStore(tmp_path), pairs[::-1]).known.any(), "another call"
    found = CallRecords(EmbeddingStore(tmp_path), "tokens", "", texts).get()
    assert sorted(found) == [0, 1, 3]
    for row, read in found.items():
        assert np.array_equal(read[0], arrays[row][0])
        assert np.array_equal(read[1].view(np.int32), arrays[row][1])
        assert read[2].shape == (0, 0)
    assert not CallRecords(EmbeddingStore(tmp_path), "tokens", "query: ", texts).get()


def _reranker(name: str, folders: dict[str, Path]) -> Any:
    kind = RerankerKind.LATE if name in ("late", "multi-vector") else None
    options = RerankerOptions(kind=kind, batch_tokens=400, device="cpu", backend="torch")
    return load_reranker(locate(str(folders[name])), options)


def _multi_vector(folder: Path, plain: Path) -> Path:
    """A tiny ColBERT with a random projection."""
    from sentence_transformers import MultiVectorEncoder

    shutil.copytree(plain, folder.with_name("body"))
    (folder.with_name("body") / "modules.json").unlink()
    body: Any = MultiVectorEncoder(str(folder.with_name("body")), device="cpu")
    body.save(str(folder))
    return folder


@pytest.mark.parametrize("name", ["cross-encoder", "late", "layerwise", "multi-vector"])
def test_a_killed_reranking_goes_on(
    tmp_path: Path,
    data: Path,
    tiny_cross_encoder: Path,
    tiny_bge: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    folders = {"cross-encoder": tiny_cross_encoder, "late": tiny_bge}
    if name == "layerwise":
        folders[name] = layerwise(tmp_path / "layerwise")
    if name == "multi-vector":
        folders[name] = _multi_vector(tmp_path / "colbert", tiny_bge)
        monkeypatch.setattr(multi_vector, "_BATCH", 4)

    def rerank(output: Path, reranker: Any = None) -> None:
        run(output, data, open_model("bm25", ModelOptions()), reranker or _reranker(name, folders))

    left = stopped_after(rerank, tmp_path / "whole", 3, monkeypatch)
    rest = _reranker(name, folders)
    rerank(left, RememberedScores(rest))
    assert_same(left, tmp_path / "whole")
    assert rest.progress.profile.counts["store"] > 0
    assert rest.unfinished is None


def test_a_killed_run_on_servers_goes_on(
    tmp_path: Path, data: Path, server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def serve(output: Path) -> None:
        options = ModelOptions(api=Api.OPENAI, batch_tokens=200)
        reranker = ServedReranker(server.url, Api.TEI, batch_tokens=200)
        run(output, data, ServedModel(server.url, options), reranker)

    def texts() -> int:
        asked = sum(len(body["input"]) for body in server.asked("/v1/embeddings"))
        return asked + sum(len(body["texts"]) for body in server.asked("/rerank"))

    left = stopped_after(serve, tmp_path / "whole", 6, monkeypatch)
    whole = texts()
    server.requests.clear()
    serve(left)
    assert_same(left, tmp_path / "whole")
    assert texts() < whole - 3, "the texts of six answers are not sent again; one is, to compare"


def test_a_server_that_has_changed_is_asked_for_everything(
    tmp_path: Path, data: Path, server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def serve(output: Path) -> None:
        run(output, data, ServedModel(server.url, ModelOptions(api=Api.OPENAI, batch_tokens=200)))

    left = stopped_after(serve, tmp_path / "before", 6, monkeypatch)

    def turned(rows: list[Any]) -> None:
        for row in rows:
            row["embedding"] = row["embedding"][::-1]

    server.always = changed(turned)
    serve(tmp_path / "after")
    serve(left)
    assert_same(left, tmp_path / "after")


def test_a_failed_task_goes_on_in_the_same_process(
    tmp_path: Path, data: Path, server: ModelServer
) -> None:
    options = ModelOptions(api=Api.OPENAI, batch_tokens=200)
    model = ServedModel(server.url, options)
    encode = model._vectors
    calls = 0

    def broken(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        vectors = encode(*args, **kwargs)
        if calls == 2:
            raise BgeEvalError("the network is gone")
        return vectors

    model._vectors = broken  # type: ignore[method-assign]
    report = evaluate(model, plan([str(data)]), Options(tmp_path, offline=True))
    assert "the network is gone" in str(report.failed[TASK])
    [folder] = (tmp_path / FOLDER).iterdir()
    assert list(folder.glob("*/*.shard")) and not list(folder.glob("*/*.journal"))
    server.requests.clear()
    run(tmp_path, data, model)
    assert sum(len(body["input"]) for body in server.asked("/v1/embeddings")) <= 2, "compared"
    assert not (tmp_path / FOLDER).exists()


def test_no_store_keeps_no_vectors(
    tmp_path: Path, data: Path, server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def append(*args: Any) -> None:
        raise AssertionError("a vector is written")

    monkeypatch.setattr("bge_eval.encode.journal.Journal.append", append)
    run(tmp_path, data, ServedModel(server.url, ModelOptions(api=Api.OPENAI, store=False)))


def test_a_reranker_of_the_user_needs_no_place_for_its_work(tmp_path: Path, data: Path) -> None:
    class Length:
        name, packages = "me/length", ()

        def identity(self) -> dict[str, Any]:
            return {"name": "me/length", "revision": "1", "dtype": "float32", "max_length": None}

        def score(self, pairs: Any) -> Any:
            return np.array([float(len(document)) for _, document in pairs])

    run(tmp_path, data, open_model("bm25", ModelOptions()), Length())
    assert not (tmp_path / FOLDER).exists()
