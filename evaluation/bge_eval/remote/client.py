"""Requests to a model server: limited concurrency, retries with back-off, plain errors.

Transient failures are retried: a refused or broken connection, a truncated response, status 429
and the statuses of an overloaded server. The pause is that of ``Retry-After``, or else grows
exponentially with random jitter (RFC 9110, sections 10.2.3 and 15). Any other 4xx is an error in
the request and ends the run.

The API key comes from the environment, is sent in one header, and is removed from all messages.
"""

from __future__ import annotations

import json
import os
import random
import re
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from bge_eval.errors import BgeEvalError, DamagedError, MissingError, NotReadyError, UsageError

if TYPE_CHECKING:
    import ssl

_TRANSIENT = {408, 425, 429, 500, 502, 503, 504, 529}
_LONGEST_PAUSE = 60.0
"""Longest pause between two tries, seconds."""
_LONGEST_RETRY_AFTER = 300.0
"""Longest pause accepted from ``Retry-After``, seconds."""
LARGEST_ANSWER = 2**29
"""Bytes of the largest answer: 2,048 vectors of 8,192 numbers in text take 350 MB."""
_LONG_PAUSE = 5.0
"""Pauses of this many seconds or more are shown to the user."""
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_OWN_KEYS = {
    "api.openai.com": "OPENAI_API_KEY",
    "api.cohere.com": "CO_API_KEY",
    "api.cohere.ai": "CO_API_KEY",
}
"""Host → variable with its key; the key is sent to no other host."""

_Job = TypeVar("_Job")
_Answer = TypeVar("_Answer")


class TooLargeError(NotReadyError):
    """The request is too large for the server (413); the caller sends fewer inputs."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits on requests to a server."""

    concurrency: int = 8
    """Largest number of concurrent requests."""
    timeout: float = 600.0
    """Longest wait for a response to begin, seconds."""
    tries: int = 6
    """Largest number of times that a request is sent."""
    pause: float = 0.5
    """Pause before the second try, seconds; it doubles with each try."""
    patience: float = 300.0
    """Longest that the pauses of one request may be together, seconds."""

    def __post_init__(self) -> None:
        """Refuse limits under which no request is sent, or none is answered.

        Raises:
            UsageError: fewer than one request at once, or no time to wait.
        """
        if not isinstance(self.concurrency, int) or self.concurrency < 1:
            raise UsageError(
                f"--api-concurrency is {self.concurrency!r}; expected a whole number, 1 or more."
            )
        if not isinstance(self.timeout, int | float) or not self.timeout > 0:
            raise UsageError(
                f"--api-timeout is {self.timeout!r}; expected a number of seconds above 0."
            )


class Client:
    """Sends requests to one server and reads the responses."""

    def __init__(
        self,
        url: str,
        *,
        limits: Limits | None = None,
        key_variable: str = "",
        offline: bool = False,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Check the address and read the key; no request is sent.

        Args:
            url: ``http://host:port`` with or without a path.
            limits: concurrency, timeout and tries.
            key_variable: environment variable that holds the API key; "" for none.
            offline: accept only a server on this machine.
            note: receives a message when the server asks for a long pause.

        Raises:
            UsageError: the address is invalid, holds a password or a query, or is not on this
                machine although ``offline`` is set.
        """
        self.url = _checked(url, offline=offline)
        self.limits = limits or Limits()
        self.host = urlsplit(self.url).hostname or ""
        self._key = _key(self.host, self.url, key_variable)
        self._key_variable = key_variable
        self._http: Any = None
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._resume_at = 0.0
        self._note = note

    def get(self, path: str, *, tries: int = 2) -> Any:
        """Request a path and return its JSON.

        Raises:
            MissingError: no server answers, or it has no such path.
        """
        return self._ask("GET", path, None, tries)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """Send JSON and return the JSON of the response, with retries.

        Raises:
            TooLargeError: the request is too large for the server.
            UsageError: the server refuses the request as invalid.
            MissingError: the server cannot be reached, refuses access, or fails on every try.
        """
        return self._ask("POST", path, body, self.limits.tries)

    def each(
        self, jobs: Sequence[_Job], work: Callable[[_Job], _Answer]
    ) -> Iterator[tuple[_Job, _Answer]]:
        """Run jobs concurrently and yield each with its result, in order of completion.

        The first error is raised; jobs that have not begun are cancelled, and pauses end.
        """
        self._stopped.clear()
        with ThreadPoolExecutor(self.limits.concurrency, "remote") as pool:
            running = {pool.submit(work, job): job for job in jobs}
            try:
                for done in as_completed(running):
                    yield running[done], done.result()
            finally:
                self._stopped.set()
                pool.shutdown(wait=True, cancel_futures=True)
                self._stopped.clear()

    def _ask(self, method: str, path: str, body: dict[str, Any] | None, tries: int) -> Any:
        import httpx2

        http = self._connection()
        problem, waited = "", 0.0
        for attempt in range(1, tries + 1):
            waited += self._wait_for_turn()
            wait: float | None = None
            try:
                with http.stream(method, f"{self.url}{path}", json=body) as answer:
                    content = self._content(answer)
                if answer.status_code < 300:
                    return _read(content)
                problem = self._problem(answer, content)
                if answer.status_code not in _TRANSIENT:
                    raise self._refusal(answer.status_code, path, problem)
                wait = _retry_after(answer.headers.get("Retry-After"))
                if waited + (wait or 0.0) > self.limits.patience:
                    raise self._exhausted(path, problem, attempt)
                if answer.status_code == 429:
                    wait = wait if wait is not None else self._pause(attempt)
                    self._slow_down(wait, problem)
            except (httpx2.TransportError, httpx2.DecodingError, _IncompleteError) as error:
                problem = self._clean(str(error) or type(error).__name__)
                if isinstance(error, httpx2.ReadTimeout):
                    problem = (
                        f"no answer within {self.limits.timeout:g} s. It may be asked for too much"
                        " at once: see --api-concurrency, --batch-tokens and --api-timeout"
                    )
            if attempt == tries or self._stopped.is_set():
                break
            wait = wait if wait is not None else self._pause(attempt)
            waited += wait
            self._stopped.wait(wait)
        raise MissingError(
            f"The server at {self.url}{path} could not be used: {problem}"
            + (f" ({tries} tries)." if tries > 2 else ". Is it running, and is this its address?")
        )

    def _connection(self) -> Any:
        with self._lock:
            if self._http is None:
                import httpx2

                headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
                limit = self.limits.concurrency
                self._http = httpx2.Client(
                    headers=headers,
                    timeout=httpx2.Timeout(self.limits.timeout, connect=10.0),
                    limits=httpx2.Limits(max_connections=limit, max_keepalive_connections=limit),
                    verify=_certificates(),
                )
                weakref.finalize(self, self._http.close)
            return self._http

    def _wait_for_turn(self) -> float:
        """Wait out the pause that a response with status 429 asked for; return its seconds."""
        start = time.monotonic()
        while (left := self._resume_at - time.monotonic()) > 0:
            if self._stopped.wait(left):
                break
        return time.monotonic() - start

    def _slow_down(self, wait: float, problem: str) -> None:
        """Keep all requests back for some seconds, because the server asks for it."""
        now = time.monotonic()
        with self._lock:
            told = self._resume_at > now
            self._resume_at = max(self._resume_at, now + wait)
        if wait >= _LONG_PAUSE and not told:
            self._note(
                f"The server at {self.url} asks for a pause of {wait:.0f} s ({problem}). A request"
                f" waits {self.limits.patience:.0f} s at most."
            )

    def _exhausted(self, path: str, problem: str, tries: int) -> MissingError:
        return MissingError(
            f"The server at {self.url}{path} still refuses after {tries} tries ({problem}), and a"
            f" request waits {self.limits.patience:.0f} s at most. Wait until its limit is lifted,"
            " or send less at once with --api-concurrency; the same command continues."
        )

    def _pause(self, attempt: int) -> float:
        longest = min(self.limits.pause * 2.0 ** (attempt - 1), _LONGEST_PAUSE)
        return longest * random.uniform(0.5, 1.0)

    def _content(self, answer: Any) -> bytes:
        """Return the answer's content, unpacked.

        Raises:
            DamagedError: it is larger than any answer to such a request.
        """
        parts, size = [], 0
        for part in answer.iter_bytes():
            parts.append(part)
            size += len(part)
            if size > LARGEST_ANSWER:
                raise damaged(
                    self,
                    f"an answer of more than {LARGEST_ANSWER // 2**20} MiB, which is read no"
                    " further; --batch-tokens asks for less at once",
                )
        return b"".join(parts)

    def _problem(self, answer: Any, content: bytes) -> str:
        text = self._clean(_message(content))
        return f"{answer.status_code} {answer.reason_phrase}".strip() + (
            f", {text}" if text else ""
        )

    def _refusal(self, status: int, path: str, problem: str) -> BgeEvalError:
        where = f"The server at {self.url}{path}"
        if status == 413:
            return TooLargeError(f"{where} takes less at once: {problem}.")
        if status in (401, 403):
            names = " or ".join(filter(None, [self._key_variable, _OWN_KEYS.get(self.host)]))
            access = "the key that it was given" if self._key else "access without a key"
            return MissingError(f"{where} refuses {access} ({problem}). Set a key in {names}.")
        if status == 404:
            return MissingError(
                f"{where} has no such path or model ({problem}). Check the address, --api and"
                " --api-model."
            )
        if 300 <= status < 400:
            return UsageError(f"{where} has moved ({problem}). Pass its new address.")
        return UsageError(f"{where} refuses the request: {problem}.")

    def _clean(self, text: str) -> str:
        """Return a server's message on one line, at most 300 characters, without the key."""
        flat = " ".join(text.split())
        if self._key:
            flat = flat.replace(self._key, "***")
        return flat[:300].rstrip(".")


class _IncompleteError(Exception):
    """The response is not JSON: it is truncated, or not from the model server."""


@cache
def _certificates() -> ssl.SSLContext:
    """Return the context of encrypted connections: the system's certificates are read once."""
    import httpx2

    return httpx2.create_ssl_context()


def _read(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _IncompleteError(f"its answer is no complete JSON ({error})") from error


def _message(content: bytes) -> str:
    """Return the message in an error response: a string, or JSON with a message inside."""
    text = content.decode("utf-8", "replace")
    try:
        problem = json.loads(text)
    except (ValueError, RecursionError):
        return text
    while isinstance(problem, dict):
        inner = next(
            (problem[key] for key in ("error", "message", "detail") if key in problem), None
        )
        if inner is None:
            break
        problem = inner
    return problem if isinstance(problem, str) else json.dumps(problem, ensure_ascii=False)


def _retry_after(header: str | None) -> float | None:
    """Return the seconds that a ``Retry-After`` header asks to wait, at most five minutes."""
    if not header:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            moment = parsedate_to_datetime(header)
        except ValueError:
            return None
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        seconds = (moment - datetime.now(UTC)).total_seconds()
    return min(max(seconds, 0.0), _LONGEST_RETRY_AFTER)


def _checked(url: str, *, offline: bool) -> str:
    parts = urlsplit(url)
    if parts.username or parts.password or parts.query or parts.fragment:
        # The message leaves the address out, because it may hold a password.
        raise UsageError(
            "A server's address must hold no user name, password or query: keys come from the"
            " environment. Expected http://host:port or https://host/path."
        )
    try:
        known = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:  # a port beyond 65535, or in words
        known = False
    if parts.scheme not in ("http", "https") or not known:
        raise UsageError(f"'{url}' is not a server's address; expected http://host:port.")
    if offline and parts.hostname not in _LOOPBACK:
        raise UsageError(
            f"--offline opens no connection, and {parts.hostname} is not this machine. To keep"
            " data and models offline and still ask this server, set HF_HUB_OFFLINE=1 in its place."
        )
    return url.rstrip("/")


def _key(host: str, url: str, variable: str) -> str:
    names = [variable]
    if url.startswith("https://") and host in _OWN_KEYS:
        names.append(_OWN_KEYS[host])
    for name in filter(None, names):
        key = os.environ.get(name, "").strip()
        if not key:
            continue
        if not (key.isascii() and key.isprintable()) or " " in key:
            raise UsageError(
                f"The key in {name} holds spaces or non-ASCII characters; set it again."
            )
        return key
    return ""


def without_secrets(url: str) -> str:
    """Return an address for a message, without user name, password, query and fragment."""
    head, _, rest = url.partition("://")
    host, slash, path = re.split("[?#]", rest, maxsplit=1)[0].partition("/")
    return f"{head}://{host.rpartition('@')[2]}{slash}{path}"


def is_address(name: str) -> bool:
    """Return whether a model's name is a server's address."""
    return name.startswith(("http://", "https://"))


def damaged(client: Client, what: str) -> DamagedError:
    """Return the error for a response that cannot be used."""
    return DamagedError(
        f"The server at {client.url} gave {what}. No score is made from such an answer; see what"
        " the server's own log says."
    )
