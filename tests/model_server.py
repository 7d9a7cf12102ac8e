"""A model server on loopback that speaks the four interfaces and can be made to fail.

What it serves is real arithmetic that can be followed by eye: a text's vector counts its letters
(`letters`), a pair's score counts the words both share. Faults are given in advance, one for each
request that shall meet it, and every request is remembered.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

DIMENSION = 26

Answer = Any
Fault = Callable[[Answer], "Reply"]
"""What becomes of the right answer."""


@dataclass(frozen=True)
class Reply:
    """What is sent in place of the right answer."""

    body: bytes
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    length: int | None = None
    """The length that is announced, if it is not the body's own."""
    after: float = 0.0
    """Seconds of waiting before."""


def letters(text: str) -> list[float]:
    """Count a text's letters a to z, and one for the text itself."""
    lower = text.lower()
    return [1.0 + lower.count(chr(ord("a") + place)) for place in range(DIMENSION)]


def shared_words(query: str, document: str) -> float:
    """Count the words that two texts share."""
    return float(len(set(query.lower().split()) & set(document.lower().split())))


# ── faults ──────────────────────────────────────────────────────────────────────────────────


def status(code: int, text: str = "", **headers: str) -> Fault:
    body = json.dumps({"error": {"message": text or f"fault {code}"}}).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda answer: Reply(body, code, named)


def half(answer: Answer) -> Reply:
    """Break the connection in the middle of the answer."""
    whole = json.dumps(answer).encode()
    return Reply(whole[: len(whole) // 2], length=len(whole))


def no_json(answer: Answer) -> Reply:
    return Reply(b"<html>a proxy says hello</html>")


def slow(seconds: float) -> Fault:
    return lambda answer: Reply(json.dumps(answer).encode(), after=seconds)


def changed(change: Callable[[list[Any]], Any], key: str = "data") -> Fault:
    """Change the list of results, in place or by what is returned."""

    def fault(answer: Answer) -> Reply:
        rows = answer if isinstance(answer, list) else answer[key]
        replaced = change(rows)
        new = rows if replaced is None else replaced
        whole = new if isinstance(answer, list) else {**answer, key: new}
        return Reply(json.dumps(whole).encode())

    return fault


class ModelServer:
    """Serves while its context is open; `requests` holds (path, body, headers)."""

    def __init__(self, *, most_texts: int = 10**6) -> None:
        self.requests: list[tuple[str, Any, dict[str, str]]] = []
        self.faults: deque[Fault] = deque()
        self.always: Fault | None = None
        self.most_texts = most_texts
        """Texts beyond which a request is answered with 413."""
        self.most_at_once = 0
        """The most requests that were under way at the same time."""
        self.delay = 0.0
        """Seconds that every answer takes."""
        self.now = 0
        self.lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, self))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        serve = partial(self._server.serve_forever, poll_interval=0.05)
        threading.Thread(target=serve, name="model-server", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def asked(self, path: str) -> list[Any]:
        """Return the bodies that were sent to a path."""
        return [body for where, body, _ in self.requests if where == path]

    def answer(self, path: str, body: Any) -> Reply:
        right = _right(path, body)
        if right is None:
            return status(404, f"no {path}")(None)
        if body is None:
            return Reply(json.dumps(right).encode())
        texts = body.get("input") or body.get("inputs") or body.get("texts") or []
        if len(texts) > self.most_texts:
            return status(413, f"batch size {len(texts)} > {self.most_texts}")(None)
        with self.lock:
            fault = self.faults.popleft() if self.faults else self.always
        return fault(right) if fault else Reply(json.dumps(right).encode())


def _right(path: str, body: Any) -> Answer | None:
    """Return the right answer; parts with numbers come in another order than they were sent."""
    match path:
        case "/models" | "/v1/models":
            return {"data": [{"id": "letters", "object": "model", "owned_by": "tests"}]}
        case "/openapi.json" | "/version":
            return {"info": {"version": "1.2.3"}, "version": "1.2.3"}
        case "/info":
            told = {"model_id": "org/letters", "model_sha": "a" * 40, "model_dtype": "float16"}
            return {**told, "version": "1.7.0", "max_client_batch_size": 4}
        case "/embeddings" | "/v1/embeddings":
            rows = [{"index": i, "embedding": letters(t)} for i, t in enumerate(body["input"])]
            return {"data": rows[::-1], "model": "letters", "usage": {"prompt_tokens": 5}}
        case "/embed":
            return [letters(text) for text in body["inputs"]]
        case "/v2/embed":
            return {"embeddings": {"float": [letters(text) for text in body["texts"]]}}
        case "/rerank" | "/v2/rerank":
            documents = body.get("documents") or body["texts"]
            key = "score" if "texts" in body else "relevance_score"
            scored = [
                {"index": i, key: shared_words(body["query"], document)}
                for i, document in enumerate(documents)
            ]
            scored.sort(key=lambda part: -part[key])
            return scored if "texts" in body else {"results": scored}
        case "/v1/chat/completions":
            asked = body["messages"][-1]["content"]
            query, _, passage = asked.removeprefix("Query:\n").partition("\n\nPassage:\n")
            shared = shared_words(query, passage.removesuffix("\n\nGrade:"))
            return {"choices": [{"message": {"content": f"{min(int(shared) // 2, 1)}"}}]}
    return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 30

    def __init__(self, server: ModelServer, *connection: Any) -> None:
        self._models = server
        super().__init__(*connection)

    def handle(self) -> None:
        with suppress(ConnectionError):
            super().handle()

    def _answer(self) -> None:
        models = self._models
        sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = json.loads(sent) if sent else None
        with models.lock:
            models.requests.append((self.path, body, dict(self.headers)))
            models.now += 1
            models.most_at_once = max(models.most_at_once, models.now)
        try:
            reply = models.answer(self.path, body)
            time.sleep(reply.after + (models.delay if body else 0.0))
        finally:
            with models.lock:
                models.now -= 1
        self.send_response(reply.status)
        length = len(reply.body) if reply.length is None else reply.length
        for name, value in {"Content-Length": str(length), **reply.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(reply.body)
        if length != len(reply.body):
            self.close_connection = True

    do_GET = do_POST = _answer

    def log_message(self, *_: object) -> None:
        """Say nothing."""
