"""Models behind HTTP interfaces: what is sent, what is refused, what is tried again."""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bge_eval as bge_eval_package
from bge_eval.encode.settings import Overrides, Similarity
from bge_eval.errors import BgeEvalError, DamagedError, MissingError, NotReadyError, UsageError
from bge_eval.evaluation.evaluate import evaluate
from bge_eval.evaluation.options import Options
from bge_eval.models.kinds import ModelOptions
from bge_eval.models.opening import open_model
from bge_eval.models.served import ServedEncoder, ServedModel, ServedSettings
from bge_eval.records import Vectors
from bge_eval.remote.apis import Api, address, wire
from bge_eval.remote.client import Client, Limits
from bge_eval.remote.naming import estimated_tokens
from bge_eval.rerank.served import ServedReranker
from bge_eval.search.index import IndexOptions
from bge_eval.suites.catalogue import plan
from conftest import CommandLine
from model_server import (
    DIMENSION,
    Fault,
    ModelServer,
    changed,
    half,
    letters,
    no_json,
    shared_words,
    slow,
    status,
)

QUICK = Limits(pause=0.01, timeout=5.0)
PLAIN = ServedSettings(Similarity.COSINE)
KEY = "sk-test-0123456789abcdef"
TEXTS = ["a bee", "Zebra", "a bee", "糖尿病 and bones", "x" * 40, "abc def"]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelServer]:
    for name in ("BGE_EVAL_API_KEY", "BGE_EVAL_RERANKER_API_KEY", "OPENAI_API_KEY", "CO_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with ModelServer() as running:
        yield running


def encoder(
    server: ModelServer,
    api: Api = Api.OPENAI,
    limits: Limits = QUICK,
    batch_tokens: int | None = None,
    settings: ServedSettings = PLAIN,
) -> ServedEncoder:
    model = "letters" if api is Api.COHERE else None
    client = Client(address(server.url, api), limits=limits, key_variable="BGE_EVAL_API_KEY")
    form = wire(api)
    return ServedEncoder(client, form, form.served(client, model), settings, batch_tokens)


def prompt_of(api: Api) -> str:
    return "search_document" if api is Api.COHERE else ""


def expected(texts: list[str]) -> Vectors:
    return np.array([letters(text) for text in texts], np.float32)


# ── what is sent ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("api", Api)
def test_vectors_in_the_order_of_the_texts(server: ModelServer, api: Api) -> None:
    served = encoder(server, api, batch_tokens=20)
    server.requests.clear()
    np.testing.assert_array_equal(served.encode(TEXTS, prompt_of(api)), expected(TEXTS))
    sent = [text for _, body, _ in server.requests for text in _texts(body)]
    assert sorted(sent) == sorted(set(TEXTS)), "equal texts are sent once"
    assert len(server.requests) > 1
    assert served.encode([], prompt_of(api)).shape == (0, DIMENSION)


def _texts(body: dict[str, Any]) -> list[str]:
    for name in ("input", "inputs", "texts"):
        if name in body:
            return list(body[name])
    return []


def test_prompts_go_before_the_texts(server: ModelServer) -> None:
    served = encoder(server)
    found = served.encode(["bee"], "zzz: ")
    assert server.requests[-1][1]["input"] == ["zzz: bee"]
    np.testing.assert_array_equal(found, expected(["zzz: bee"]))


def test_cohere_is_told_the_kind_of_input(server: ModelServer) -> None:
    served = encoder(server, Api.COHERE)
    served.encode(["bee"], "search_query")
    assert server.requests[-1][1]["input_type"] == "search_query"
    with pytest.raises(UsageError, match=r"no prompt 'query: '.*search_document"):
        served.encode(["bee"], "query: ")


@pytest.mark.parametrize(("api", "sent"), [(Api.INFINITY, 1), (Api.OPENAI, 0), (Api.TEI, 0)])
def test_empty_texts(server: ModelServer, api: Api, sent: int) -> None:
    served = encoder(server, api)
    server.requests.clear()
    found = served.encode(["", "bee", ""])
    assert sum(text == "" for _, body, _ in server.requests for text in _texts(body)) == sent
    np.testing.assert_array_equal(found[1], letters("bee"))
    np.testing.assert_array_equal(found[0], letters("") if sent else np.zeros(DIMENSION))
    np.testing.assert_array_equal(found[0], found[2])


def test_batches_by_tokens(server: ModelServer) -> None:
    rng = random.Random(5)
    texts = [f"{n} " + "word " * rng.randrange(60) for n in range(300)]
    served = encoder(server, batch_tokens=300)
    server.requests.clear()
    np.testing.assert_array_equal(served.encode(texts), expected(texts))
    sizes = [[estimated_tokens(text) for text in body["input"]] for _, body, _ in server.requests]
    assert all(sum(batch) <= 300 for batch in sizes)
    assert len(sizes) < 1.3 * sum(map(sum, sizes)) / 300, "batches are filled"


def test_one_long_text_is_a_batch(server: ModelServer) -> None:
    texts = ["a", "b " * 500, "c"]
    served = encoder(server, batch_tokens=10)
    np.testing.assert_array_equal(served.encode(texts), expected(texts))


@pytest.mark.parametrize("limit", [1, 3])
def test_no_more_requests_at_once_than_allowed(server: ModelServer, limit: int) -> None:
    served = encoder(server, limits=Limits(concurrency=limit), batch_tokens=4)
    server.delay = 0.05
    served.encode([f"text {n}" for n in range(9)])
    assert server.most_at_once == limit


def test_server_that_wants_less_gets_less(server: ModelServer) -> None:
    server.most_texts = 3
    texts = [f"text {chr(97 + n)}" for n in range(20)]
    np.testing.assert_array_equal(encoder(server).encode(texts), expected(texts))
    server.most_texts = 0
    with pytest.raises(NotReadyError, match="takes less at once: 413") as caught:
        encoder(server)
    assert caught.value.exit_code == 3


def test_limits_that_the_server_tells(server: ModelServer) -> None:
    served = encoder(server, Api.TEI)
    server.requests.clear()
    served.encode([f"text {n}" for n in range(10)])
    assert sorted(len(body["inputs"]) for _, body, _ in server.requests) == [2, 4, 4]


def test_dimensions_and_length(server: ModelServer) -> None:
    settings = ServedSettings(Similarity.DOT, normalize=True, truncate_dim=8)
    found = encoder(server, settings=settings).encode(["bee", "zebra"])
    short = expected(["bee", "zebra"])[:, :8]
    short /= np.linalg.norm(short, axis=1, keepdims=True)
    np.testing.assert_allclose(found, short, atol=1e-6)
    with pytest.raises(UsageError, match="--truncate-dim 99 is more than the model's 26"):
        encoder(server, settings=ServedSettings(Similarity.DOT, truncate_dim=99))


# ── what passes by itself ───────────────────────────────────────────────────────────────────

PASSING: dict[str, Fault] = {
    "429": status(429),
    "500": status(500),
    "502": status(502),
    "503": status(503),
    "half an answer": half,
    "a proxy's page": no_json,
    "too slow": slow(1.5),
}


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
def test_tried_again(server: ModelServer, fault: Fault) -> None:
    served = encoder(server, limits=Limits(pause=0.01, timeout=0.7), batch_tokens=8)
    server.requests.clear()
    server.faults.extend([fault, fault])
    np.testing.assert_array_equal(served.encode(TEXTS), expected(TEXTS))
    assert not server.faults
    batches = {json.dumps(body) for _, body, _ in server.requests}
    assert len(server.requests) == len(batches) + 2


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_waits_as_long_as_it_is_told(server: ModelServer, form: str) -> None:
    from email.utils import formatdate

    served = encoder(server, limits=Limits(pause=0.0, concurrency=4), batch_tokens=4)
    # A date has whole seconds, so the wait for it is a second shorter at most; one more second is
    # for a slow machine that takes that long to ask.
    said = "1" if form == "seconds" else formatdate(time.time() + 3, usegmt=True)
    server.faults.append(status(429, Retry_After=said))
    start = time.monotonic()
    np.testing.assert_array_equal(served.encode(TEXTS), expected(TEXTS))
    assert time.monotonic() - start > 0.9


def test_pauses_grow(server: ModelServer) -> None:
    served = encoder(server, limits=Limits(pause=0.1))
    server.faults.extend([status(503)] * 3)
    start = time.monotonic()
    served.encode(["bee"])
    assert time.monotonic() - start >= 0.5 * (0.1 + 0.2 + 0.4)


def test_gives_up(server: ModelServer) -> None:
    served = encoder(server, limits=Limits(pause=0.001, tries=4), batch_tokens=4)
    server.requests.clear()
    server.always = status(500, "out of memory")
    with pytest.raises(MissingError, match=r"500 .*out of memory \(4 tries\)"):
        served.encode(["bee"])
    assert len(server.requests) == 4


def test_an_error_ends_the_others(server: ModelServer) -> None:
    served = encoder(server, limits=Limits(concurrency=2), batch_tokens=4)
    server.requests.clear()
    server.faults.extend([status(503, Retry_After="60"), status(400)])
    start = time.monotonic()
    with pytest.raises(UsageError, match="400"):
        served.encode([f"text {n}" for n in range(50)])
    assert time.monotonic() - start < 60, "the request that waits for 60 s is woken"
    # The free thread may begin a few before it sees the error, more on a busy machine.
    assert len(server.requests) < 25, "what has not begun is left"


def test_nobody_there() -> None:
    with ModelServer() as gone:
        pass
    with pytest.raises(MissingError, match=rf"{gone.url}/models .*refused.*Is it running"):
        ServedModel(gone.url, ModelOptions(api=Api.INFINITY))


# ── what is refused ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("code", "kind", "said"),
    [
        (400, UsageError, "refuses the request: 400 Bad Request, the text is too long"),
        (401, MissingError, "refuses access without a key .* BGE_EVAL_API_KEY"),
        (404, MissingError, "no such path or model .* --api-model"),
        (422, UsageError, "refuses the request: 422"),
        (307, UsageError, "has moved"),
    ],
)
def test_plain_refusals(
    server: ModelServer, code: int, kind: type[BgeEvalError], said: str
) -> None:
    served = encoder(server)
    server.requests.clear()
    server.always = status(code, "the text is too long")
    with pytest.raises(kind, match=said):
        served.encode(["bee"])
    assert len(server.requests) == 1, "asking again would not help"


def _set(row: int, value: Any) -> Callable[[list[Any]], None]:
    def change(rows: list[Any]) -> None:
        rows[row]["embedding"][3] = value

    return change


WRONG: dict[str, tuple[Fault, str]] = {
    "one too few": (changed(lambda rows: rows[:-1]), "1 results for 2 inputs"),
    "one too many": (changed(lambda rows: [*rows, rows[0]]), "3 results for 2 inputs"),
    "none": (changed(lambda rows: []), "0 results"),
    "the same twice": (changed(lambda rows: [rows[0], rows[0]]), "numbers than 0 to 1"),
    "other numbers": (changed(lambda rows: rows[0].update(index=7)), "numbers than 0 to 1"),
    "short vector": (changed(lambda rows: rows[1]["embedding"].pop() and None), "25 dimensions"),
    "long vectors": (
        changed(lambda rows: [row["embedding"].append(0.0) for row in rows] and None),
        "27 dimensions where others have 26",
    ),
    "NaN": (changed(_set(0, math.nan)), "not finite"),
    "infinity": (changed(_set(1, math.inf)), "not finite"),
    "null": (changed(_set(1, None)), "not finite"),
    "a word": (changed(_set(1, "one")), "not of the interface 'openai'"),
    "no vectors": (changed(lambda rows: [row.pop("embedding") for row in rows] and None), "not of"),
    "another answer": (changed(lambda rows: {"no": "list"}), "no list of results"),
}


@pytest.mark.parametrize(("fault", "said"), WRONG.values(), ids=WRONG)
def test_never_a_wrong_number(server: ModelServer, fault: Fault, said: str) -> None:
    served = encoder(server)
    server.always = fault
    with pytest.raises(DamagedError, match=said) as caught:
        served.encode(["bee", "zebra"])
    assert server.url in str(caught.value)


def test_wrong_numbers_of_the_other_interfaces(server: ModelServer) -> None:
    tei, cohere = encoder(server, Api.TEI), encoder(server, Api.COHERE)
    server.always = changed(lambda rows: rows[:1])
    with pytest.raises(DamagedError, match="1 vectors for 2 texts"):
        tei.encode(["bee", "zebra"])
    server.always = changed(lambda rows: {"float": rows["float"][:1]}, "embeddings")  # type: ignore[call-overload]
    with pytest.raises(DamagedError, match="1 vectors for 2 texts"):
        cohere.encode(["bee", "zebra"], "search_query")


def test_which_model(server: ModelServer) -> None:
    with pytest.raises(UsageError, match="does not serve lettres; it serves letters"):
        ServedModel(server.url, ModelOptions(api=Api.OPENAI, api_model="lettres"))
    with pytest.raises(UsageError, match="needs --api-model"):
        ServedModel(server.url, ModelOptions(api=Api.COHERE))
    with pytest.raises(UsageError, match="serves org/letters, not letters"):
        ServedModel(server.url, ModelOptions(api=Api.TEI, api_model="letters"))
    with pytest.raises(MissingError, match="no such path or model"):
        ServedModel(f"{server.url}/elsewhere", ModelOptions(api=Api.OPENAI))


@pytest.mark.parametrize(
    "url", ["http://me:secret@host:1", "http://host:1/?key=secret", "http://secret@host"]
)
def test_no_secrets_in_addresses(url: str) -> None:
    with pytest.raises(UsageError, match="no user name, password or query") as caught:
        ServedModel(url, ModelOptions(api=Api.OPENAI))
    assert "secret" not in str(caught.value)


def test_offline_asks_this_machine_only(server: ModelServer) -> None:
    assert (
        ServedModel(server.url, ModelOptions(api=Api.TEI, offline=True)).files.revision == "a" * 40
    )
    with pytest.raises(UsageError, match=r"--offline .* models\.example is not this machine"):
        ServedModel("http://models.example", ModelOptions(api=Api.TEI, offline=True))


def test_options_that_mean_nothing(server: ModelServer) -> None:
    with pytest.raises(UsageError, match="name its interface, --api openai, infinity, tei"):
        open_model(server.url, ModelOptions())
    with pytest.raises(UsageError, match="--max-length cannot be used"):
        overrides = Overrides(max_length=12)
        open_model(server.url, ModelOptions(api=Api.TEI, overrides=overrides))
    with pytest.raises(UsageError, match="--api is for a server's address"):
        open_model("org/model", ModelOptions(api=Api.TEI))
    with pytest.raises(UsageError, match=r"--api is for a server's address, .* not bm25"):
        open_model("bm25", ModelOptions(api=Api.TEI))
    with pytest.raises(UsageError, match="--api-model is for a server's address"):
        open_model("org/model", ModelOptions(api_model="served-name"))
    with pytest.raises(UsageError, match="--index cannot be used with --model bm25"):
        open_model("bm25", ModelOptions(index=IndexOptions("SQ8")))
    with pytest.raises(UsageError, match="no index of 'other'"):
        open_model(server.url, ModelOptions(api=Api.TEI, index=IndexOptions("other")))
    model = bge_eval_package.load_model(server.url, api="tei", similarity="dot")
    assert isinstance(model, ServedModel)
    assert model.comparison is Similarity.DOT


# ── keys ────────────────────────────────────────────────────────────────────────────────────


def test_key_goes_into_the_header_alone(
    server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BGE_EVAL_API_KEY", KEY)
    model = ServedModel(server.url, ModelOptions(api=Api.OPENAI, limits=QUICK))
    assert model.encoder.dimension == DIMENSION
    shown = {path: head.get("Authorization") for path, _, head in server.requests}
    # What a server's version is, is asked outside the interface, and so without the key.
    assert shown.pop("/version") is None
    assert set(shown.values()) == {f"Bearer {KEY}"}
    server.always = status(400, f"the key {KEY} is not worth it")
    with pytest.raises(UsageError, match=r"the key \*\*\* is not worth it") as caught:
        model.encoder.encode(["bee"])
    assert KEY not in repr(caught.value)
    server.always = status(401, f"Incorrect API key provided: {KEY}")
    with pytest.raises(MissingError, match="refuses the key that it was given") as refused:
        model.encoder.encode(["bee"])
    assert KEY not in str(refused.value)
    told = [str(model), repr(vars(model)), repr(model.mteb_model_meta), model.machine_settings()]
    assert KEY not in repr(told)


def test_a_company_key_goes_to_the_company_alone(
    server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    encoder(server)
    assert not any("Authorization" in head for _, _, head in server.requests)
    from bge_eval.remote.client import _key

    assert _key("api.openai.com", "https://api.openai.com/v1", "") == KEY
    assert _key("api.openai.com", "http://api.openai.com/v1", "") == ""
    assert _key("api.cohere.com", "https://api.cohere.com/v2", "") == ""


@pytest.mark.parametrize("key", ["sk-secret\nmore", "sk-secret more", "sk-secretß"])
def test_key_that_is_none(server: ModelServer, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("BGE_EVAL_API_KEY", key)
    with pytest.raises(UsageError, match="The key in BGE_EVAL_API_KEY") as caught:
        ServedModel(server.url, ModelOptions(api=Api.OPENAI))
    assert "secret" not in str(caught.value)


# ── rerankers ───────────────────────────────────────────────────────────────────────────────

PAIRS = [
    ("strong bones", "Vitamin D makes strong bones"),
    ("strong bones", "bees dance"),
    ("bees", "bees dance"),
    ("strong bones", "bones"),
    ("bees", ""),
]


@pytest.mark.parametrize("api", [Api.INFINITY, Api.TEI, Api.COHERE])
@pytest.mark.parametrize("batch_tokens", [None, 14])
def test_scores_in_the_order_of_the_pairs(
    server: ModelServer, api: Api, batch_tokens: int | None
) -> None:
    model = "letters" if api is Api.COHERE else None
    reranker = ServedReranker(server.url, api, model=model, limits=QUICK, batch_tokens=batch_tokens)
    server.requests.clear()
    server.faults.extend([status(429), half])
    np.testing.assert_array_equal(reranker.score(PAIRS), [shared_words(*pair) for pair in PAIRS])
    sent = len(server.requests) - 2
    assert sent == 2 if batch_tokens is None else 2 < sent <= len(PAIRS)
    assert reranker.identity()["server"]["url"] == address(server.url, api)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (changed(lambda rows: rows[1:], "results"), "1 results for 2 inputs"),
        (changed(lambda rows: rows[0].update(relevance_score=math.nan), "results"), "not finite"),
        (changed(lambda rows: rows[0].update(relevance_score=None), "results"), "not finite"),
        (changed(lambda rows: rows[0].update(index=1), "results"), "numbers than 0 to 1"),
        (changed(lambda rows: [0.3, 0.1], "results"), "not of the interface 'infinity'"),
    ],
)
def test_never_a_wrong_score(server: ModelServer, fault: Fault, said: str) -> None:
    reranker = ServedReranker(server.url, Api.INFINITY, limits=QUICK)
    server.always = fault
    with pytest.raises(DamagedError, match=said):
        reranker.score(PAIRS[:2])


def test_openai_has_no_reranking(server: ModelServer) -> None:
    with pytest.raises(UsageError, match=r"no reranking.*--reranker-api cohere"):
        ServedReranker(server.url, Api.OPENAI)


# ── the whole ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_command(
    bge_eval: CommandLine, server: ModelServer, small_scifact: Path, tmp_path: Path
) -> None:
    place = tmp_path / "results"
    arguments = ["run", "--model", server.url, "--api", "openai", "--tasks", "SciFact"]
    arguments += ["--data-dir", str(small_scifact), "--offline", "--output", str(place)]
    arguments += ["--query-prompt", "find ", "--reranker", server.url, "--reranker-api", "tei"]
    keys = {"BGE_EVAL_API_KEY": KEY, "BGE_EVAL_RERANKER_API_KEY": KEY[::-1]}
    server.faults.extend([status(503), half])
    done = bge_eval(*arguments, env=keys)
    assert done.returncode == 0, done.stderr
    assert f"served/letters (1.2.3) served at {server.url}/v1, openai: cosine" in done.stderr
    assert "Reranker org/letters" in done.stderr
    assert "served/letters [api openai" in done.stdout
    assert all(text.startswith("find ") for text in server.asked("/v1/embeddings")[-2]["input"])
    sent = {path: head.get("Authorization") for path, _, head in server.requests}
    assert (sent["/v1/embeddings"], sent["/rerank"]) == (f"Bearer {KEY}", f"Bearer {KEY[::-1]}")
    record = json.loads(next(place.rglob("SciFact/run.json")).read_text(encoding="utf-8"))
    assert record["identity"]["model"]["server"] == {
        "url": f"{server.url}/v1",
        "api": "openai",
        "model": "letters",
        "version": "1.2.3",
        "owned_by": "tests",
    }
    kept = [path for path in place.rglob("*") if path.is_file()]
    assert len(kept) >= 8
    assert not any(KEY.encode() in path.read_bytes() for path in kept)
    assert KEY not in done.stderr + done.stdout

    server.always = status(400, "no such luck")
    model = ServedModel(server.url, ModelOptions(api=Api.OPENAI))
    options = Options(place, (small_scifact,), offline=True)
    report = evaluate(model, plan(["SciFact"]), options)
    assert report.failed["SciFact"].exit_code == 2
    assert "no such luck" in str(report.failed["SciFact"])


def test_slow_server_is_named(server: ModelServer) -> None:
    served = encoder(server, limits=Limits(pause=0.01, timeout=0.2, tries=2))
    server.always = slow(0.6)
    with pytest.raises(MissingError, match=r"no answer within 0\.2 s.* --api-timeout"):
        served.encode(["bee"])
