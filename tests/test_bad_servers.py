"""Answers of model servers that cannot be right: none becomes a score, each is refused by name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bad_inputs import refused
from conftest import CommandLine, write_beir
from model_server import Fault, ModelServer, Reply, changed, status

KEY = "sk-test-0123456789abcdef"


def body(content: str | bytes, code: int = 200) -> Fault:
    data = content.encode() if isinstance(content, str) else content
    return lambda answer: Reply(data, code)


def vector(value: Any) -> Fault:
    """Give one vector in place of the first."""

    def change(rows: list[Any]) -> None:
        rows[-1] = {**rows[-1], "embedding": value}

    return changed(change)


def every(value: Any) -> Fault:
    return changed(lambda rows: [{**row, "embedding": value} for row in rows])


ANSWERS: dict[str, tuple[Fault, int, str]] = {
    "a list": (body("[]"), 3, "The server at"),
    "null": (body("null"), 3, "The server at"),
    "a number": (body("5"), 3, "The server at"),
    "a text": (body('"ok"'), 3, "The server at"),
    "an empty object": (body("{}"), 3, "The server at"),
    "no data": (body('{"data": null}'), 3, "The server at"),
    "data of a text": (body('{"data": "x"}'), 3, "The server at"),
    "data of numbers": (body('{"data": [1, 2, 3]}'), 3, "The server at"),
    "data in an object": (body('{"data": {"0": [1]}}'), 3, "The server at"),
    "an empty vector": (vector([]), 3, "The server at"),
    "empty vectors": (every([]), 3, "The server at"),
    "a vector of null": (vector(None), 3, "The server at"),
    "a vector of words": (vector(["a"] * 26), 3, "The server at"),
    "a vector of lists": (vector([[1.0]] * 26), 3, "The server at"),
    "a vector of nulls": (vector([None] * 26), 3, "The server at"),
    "a vector of NaN": (vector([float("nan")] * 26), 3, "The server at|not finite"),
    "a vector of infinity": (vector([float("inf")] * 26), 3, "The server at|not finite"),
    "a vector of 1e39": (vector([1e39] * 26), 3, "The server at|not finite"),
    "a vector of a number": (vector(1.0), 3, "The server at"),
    "a vector in an object": (vector({"0": 1.0}), 3, "The server at"),
    "a vector of zeros": (vector([0.0] * 26), 3, "is zero"),
    "vectors of zeros": (every([0.0] * 26), 3, "is zero"),
    "one vector for all": (every([1.0, 2.0]), 3, "the same vector to all texts"),
    "a vector of text": (vector("AAAA"), 3, "The server at"),
    "a vector of another dimension": (vector([1.0] * 25), 3, "The server at|dimensions"),
    "one too few": (changed(lambda rows: rows[1:]), 3, "The server at"),
    "one too many": (changed(lambda rows: [*rows, rows[0]]), 3, "The server at"),
    "one number twice": (
        changed(lambda rows: [{**row, "index": 0} for row in rows]), 3, "The server at",
    ),
    "numbers in words": (
        changed(lambda rows: [{**row, "index": str(row["index"])} for row in rows]),
        3, "The server at",
    ),
    "numbers in lists": (
        changed(lambda rows: [{**row, "index": [row["index"]]} for row in rows]),
        3, "The server at",
    ),
    "no numbers": (
        changed(lambda rows: [{"embedding": row["embedding"]} for row in rows]), 3, "The server at",
    ),
    "no JSON": (body("<html>"), 3, "no complete JSON"),
    "nothing": (body(""), 3, "no complete JSON"),
    "deep JSON": (body("[" * 100_000), 3, "no complete JSON"),
    "bytes": (body(b"\xff\xfe\x00"), 3, "no complete JSON"),
    "a huge number": (body(f'{{"data": {"9" * 5000}}}'), 3, "no complete JSON"),
    "400": (status(400, "bad"), 2, "refuses the request: 400"),
    "401": (status(401, "who"), 3, "refuses the key"),
    "403": (status(403, "no"), 3, "refuses the key"),
    "404": (status(404, "gone"), 3, "has no such path or model"),
    "422": (status(422, "bad"), 2, "refuses the request: 422"),
    "301": (body("", 301), 2, "has moved"),
    "a deep error": (body("[" * 100_000, 400), 2, "refuses the request"),
    "an error of bytes": (body(b"\xff\x1b[31m\x07", 400), 2, "refuses the request"),
    "an error with escapes": (status(400, "\x1b[31mred\x1b[0m \x9b31m"), 2, "refuses the request"),
    "an error that repeats the key": (status(401, f"wrong key {KEY}"), 3, r"wrong key \*\*\*"),
    "a long error": (status(400, "word " * 100_000), 2, "refuses the request"),
}  # fmt: skip


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelServer]:

    from bge_eval.remote import client

    monkeypatch.setenv("BGE_EVAL_API_KEY", KEY)
    monkeypatch.setattr(client.Client, "_pause", lambda self, attempt: 0.001)
    with ModelServer() as running:
        yield running


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    words = ("bees dance", "vitamins help", "sleep is long")
    documents = [{"_id": f"d{n}", "title": "", "text": text} for n, text in enumerate(words)]
    folder = tmp_path_factory.mktemp("data") / "own"
    return write_beir(folder, documents, {"q": "bees"}, [("q", "d1", 1)])


@pytest.mark.parametrize("case", ANSWERS)
def test_a_wrong_answer(
    bge_eval: CommandLine, server: ModelServer, own: Path, tmp_path: Path, case: str
) -> None:
    server.always, code, message = ANSWERS[case]
    done = bge_eval("run", "-m", server.url, "--api", "openai", "-t", own, "-o", tmp_path / "out")
    assert KEY not in done.stderr + done.stdout
    refused(done, code, message)
    assert not list((tmp_path / "out").rglob("own.json"))


MODELS: dict[str, tuple[str, int, str]] = {
    "a list": ("[]", 2, "no listed model"),
    "null": ("null", 2, "no listed model"),
    "data of a text": ('{"data": "x"}', 2, "no listed model"),
    "models of numbers": ('{"data": [1]}', 2, "no listed model"),
    "models without an id": ('{"data": [{}]}', 2, "no listed model"),
    "two models": ('{"data": [{"id": "a"}, {"id": "b"}]}', 2, "serves a, b. Name one"),
    "deep": ("[" * 100_000, 3, "no complete JSON"),
    "no JSON": ("<html>", 3, "no complete JSON"),
}


@pytest.mark.parametrize("case", MODELS)
def test_a_wrong_list_of_models(
    bge_eval: CommandLine, server: ModelServer, own: Path, case: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    content, code, message = MODELS[case]
    right = server.answer
    monkeypatch.setattr(
        server,
        "answer",
        lambda path, asked: (
            Reply(content.encode()) if path.endswith("/models") else right(path, asked)
        ),
    )
    refused(bge_eval("run", "-m", server.url, "--api", "openai", "-t", own), code, message)


def score(value: Any) -> Fault:
    key = "relevance_score"
    return changed(lambda rows: [{**row, key: value} for row in rows], "results")


SCORES: dict[str, tuple[Fault, int, str]] = {
    "null": (score(None), 3, "The server at"),
    "a word": (score("high"), 3, "The server at"),
    "NaN": (score(float("nan")), 3, "The server at|not finite"),
    "a list": (score([1]), 3, "The server at"),
    "an object": (body("{}"), 3, "The server at"),
    "no list": (body('{"results": 5}'), 3, "The server at"),
    "one too few": (changed(lambda rows: rows[1:], "results"), 3, "The server at"),
}


@pytest.mark.parametrize("case", SCORES)
def test_wrong_scores_of_a_reranker(
    bge_eval: CommandLine, server: ModelServer, own: Path, tmp_path: Path, case: str
) -> None:
    server.always, code, message = SCORES[case]
    done = bge_eval(
        *("run", "-m", "bm25", "--reranker", server.url, "--reranker-api", "infinity"),
        *("-t", own, "-o", tmp_path / "out"),
    )
    refused(done, code, message)


def test_the_sound_server_is_accepted(
    bge_eval: CommandLine, server: ModelServer, own: Path, tmp_path: Path
) -> None:
    done = bge_eval("run", "-m", server.url, "--api", "openai", "-t", own, "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes()
    assert json.loads(next(tmp_path.rglob("own/run.json")).read_text())["identity"]
