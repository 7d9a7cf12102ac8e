"""A real server, infinity_emb: the vectors and scores of the local models."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import mteb
import numpy as np
import pytest

from bge_eval.evaluation.evaluate import evaluate
from bge_eval.evaluation.options import Options
from bge_eval.models.kinds import ModelOptions
from bge_eval.models.served import ServedModel
from bge_eval.remote.apis import Api
from bge_eval.remote.client import Limits
from bge_eval.rerank.reranker import RerankerOptions
from bge_eval.rerank.served import ServedReranker
from bge_eval.results.trec import read_run
from bge_eval.suites.catalogue import plan
from test_served import PAIRS


@pytest.fixture(scope="session")
def infinity(
    minilm_folder: Path, tiny_cross_encoder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """infinity_emb, in an environment of its own, serving MiniLM and a tiny cross-encoder."""
    program = _infinity_program()
    port = _free_port()
    log = tmp_path_factory.mktemp("infinity") / "log"
    command = [str(program), "v2", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--model-id", str(minilm_folder), "--served-model-name", "minilm"]
    command += ["--model-id", str(tiny_cross_encoder), "--served-model-name", "cross"]
    command += ["--engine", "torch", "--device", "cpu", "--dtype", "float32"]
    quiet = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "INFINITY_ANONYMOUS_USAGE_STATS": "0"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--no-bettertransformer"],
            env={**os.environ, **quiet},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait_until_it_answers(f"http://127.0.0.1:{port}/health", process, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def _infinity_program() -> Path:
    """Return the command of infinity_emb's own environment, made first if it is not there."""
    from environments import INFINITY, EnvironmentError

    try:
        return INFINITY.program("infinity_emb")
    except EnvironmentError as error:
        pytest.skip(str(error))


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_it_answers(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    import urllib.request

    for _ in range(240):
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    text = log.read_text(encoding="utf-8", errors="replace")[-2000:]
    raise AssertionError(f"infinity_emb does not answer: {text}")


@pytest.mark.slow
def test_infinity_gives_the_vectors_of_the_local_model(infinity: str, real_data: Path) -> None:
    from bge_eval.models.transformer import EncoderModel
    from conftest import BUILTIN

    lines = (real_data / "SciFact" / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["text"] for line in lines[:60]]
    texts += ["", " ", "糖尿病的原因", "word " * 900]
    local = EncoderModel(BUILTIN, ModelOptions(device="cpu")).encoder.encode(texts)
    served = ServedModel(
        infinity, ModelOptions(api=Api.INFINITY, api_model="minilm", batch_tokens=2000)
    )
    np.testing.assert_allclose(served.encoder.encode(texts), local, atol=1e-5)
    assert served.files.revision == "0.0.78"


@pytest.mark.slow
def test_infinity_gives_the_scores_of_the_local_reranker(
    infinity: str, tiny_cross_encoder: Path
) -> None:
    from bge_eval.encode.locate import locate
    from bge_eval.rerank.cross_encoder import CrossEncoderReranker

    pairs = [*PAIRS, ("糖尿病的原因", "二型糖尿病与体重有关。"), ("bones", "word " * 900)]
    local = CrossEncoderReranker(
        locate(str(tiny_cross_encoder)), RerankerOptions(device="cpu")
    ).score(pairs)
    served = ServedReranker(infinity, Api.INFINITY, model="cross").score(pairs)
    raw = np.log(local / (1 - local)) if (local > 0).all() and (local < 1).all() else local
    np.testing.assert_allclose(served, raw, atol=1e-4)


@pytest.mark.slow
def test_infinity_gives_the_score_of_the_local_model(
    infinity: str, real_data: Path, tmp_path: Path
) -> None:
    """On a part of SciFact; tests/parity has the local model's published score of the whole."""
    from bge_eval.models.transformer import EncoderModel
    from conftest import BUILTIN

    options = ModelOptions(api=Api.INFINITY, api_model="minilm", limits=Limits(concurrency=2))
    runs, scores = [], []
    for model in (ServedModel(infinity, options), EncoderModel(BUILTIN)):
        planned = plan(["SciFact@limit=60+lite=200"])
        report = evaluate(model, planned, Options(tmp_path, (real_data,), offline=True))
        path = report.done[planned[0].name][0]
        runs.append(read_run(path.with_name(f"{path.stem}.run.tsv.gz")))
        scores.append(mteb.TaskResult.from_disk(path).get_score())
    served, local = runs
    assert len(served) == 60 and served.keys() == local.keys()
    for query, found in served.items():
        assert len(found) > 250 and found == pytest.approx(local[query], abs=1e-5), query
    assert 0.5 < scores[0] < 1 and abs(scores[0] - scores[1]) < 1e-4
