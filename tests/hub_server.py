"""A Hugging Face hub on loopback, serving plain folders as public repositories.

A process started with ``HF_ENDPOINT`` set to `HubServer.url` and a fresh ``HF_HOME`` looks up,
lists and downloads these repositories with the real client code of ``huggingface_hub`` and
``datasets``. Every repository has one commit, on ``main``; parquet files are LFS files, none is a
Xet file.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

_API = re.compile(
    r"/api/(?P<kind>models|datasets)/(?P<repo>[^/]+/[^/]+)"
    r"(/(?P<action>revision|tree|paths-info)/(?P<revision>[^/]+)(/(?P<path>.+))?)?"
)
_RESOLVE = re.compile(
    r"/((?P<kind>datasets)/)?(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)"
)
_RANGE = re.compile(r"bytes=(?P<first>\d*)-(?P<last>\d*)")


@dataclass(frozen=True)
class _Reply:
    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


class _Refusal(Exception):
    """A request that gets no content; the client picks its exception by the error code."""

    def __init__(self, status: int, code: str = "", **headers: str) -> None:
        super().__init__(code)
        coded = {"X-Error-Code": code, "X-Error-Message": code} if code else {}
        self.reply = _Reply(status, {**headers, **coded})


@dataclass(frozen=True)
class _Repository:
    """A folder as it was when it was added."""

    name: str
    folder: Path
    commit: str
    entries: Mapping[str, dict[str, Any]]  # by path, files and directories, as the API lists them

    @classmethod
    def of_folder(cls, name: str, folder: Path) -> Self:
        if not folder.is_dir():
            raise NotADirectoryError(folder)
        entries: dict[str, dict[str, Any]] = {}
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            content, size = file.read_bytes(), file.stat().st_size
            path = PurePosixPath(file.relative_to(folder).as_posix())
            for parent in reversed(path.parents[:-1]):
                listed = {"type": "directory", "oid": "0" * 40, "size": 0, "path": str(parent)}
                entries.setdefault(str(parent), listed)
            oid = hashlib.sha1(b"blob %d\0" % size + content).hexdigest()  # as git does
            entries[str(path)] = {"type": "file", "oid": oid, "size": size, "path": str(path)}
            if path.suffix == ".parquet":
                sha256 = hashlib.sha256(content).hexdigest()
                entries[str(path)]["lfs"] = {"oid": sha256, "size": size, "pointerSize": 134}
        commit = hashlib.sha1(json.dumps(entries, sort_keys=True).encode()).hexdigest()
        return cls(name, folder, commit, entries)

    def info(self) -> dict[str, Any]:
        """Describe the repository, as for `HfApi.repo_info`."""
        entries = self.entries.values()
        siblings = [{"rfilename": each["path"]} for each in entries if each["type"] == "file"]
        flags = {"private": False, "gated": False, "disabled": False, "tags": []}
        return {"id": self.name, "sha": self.commit, "siblings": siblings, **flags}

    def tree(self, path: str, *, recursive: bool) -> list[dict[str, Any]]:
        """List what is below a directory, or a file as itself."""
        if path and path not in self.entries:
            raise _Refusal(404, "EntryNotFound")
        if path and self.entries[path]["type"] == "file":
            return [self.entries[path]]
        top = PurePosixPath(path)
        parents = ((entry, PurePosixPath(entry["path"]).parents) for entry in self.entries.values())
        return [entry for entry, up in parents if top in (up if recursive else up[:1])]

    def file(self, path: str, wanted: str | None, *, with_body: bool) -> _Reply:
        """Send a file, or the wanted range of it."""
        entry = self.entries.get(path)
        if entry is None or entry["type"] != "file":
            raise _Refusal(404, "EntryNotFound", **{"X-Repo-Commit": self.commit})
        size = int(entry["size"])
        status, start, stop = 200, 0, size
        headers = {
            "Accept-Ranges": "bytes",
            "Content-Type": "application/octet-stream",
            "ETag": f'"{entry.get("lfs", entry)["oid"]}"',
            "X-Repo-Commit": self.commit,
        }
        asked = _RANGE.fullmatch(wanted or "")
        if asked and any(asked.groups()):
            first, last = asked.groups()
            start = int(first) if first else max(size - int(last), 0)
            stop = min(int(last) + 1, size) if first and last else size
            if start >= stop:
                raise _Refusal(416, **{"Content-Range": f"bytes */{size}"})
            status, headers["Content-Range"] = 206, f"bytes {start}-{stop - 1}/{size}"
        headers["Content-Length"] = str(stop - start)
        with (self.folder / path).open("rb") as stream:
            stream.seek(start)
            return _Reply(status, headers, stream.read(stop - start if with_body else 0))


class HubServer:
    """Serves the added folders while its context is open; remembers every request.

    A folder must stay as it is once added. `requests` holds "METHOD target", the target as it
    was sent: quoted, with its query.
    """

    def __init__(self) -> None:
        self.requests: list[str] = []
        self._repositories: dict[tuple[str, str], _Repository] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, self))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        serve = partial(self._server.serve_forever, poll_interval=0.05)
        threading.Thread(target=serve, name="hub-server", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def add_model(self, repo_id: str, folder: Path, commit: str | None = None) -> str:
        """Serve a folder as a model repository; return its commit."""
        return self._add("models", repo_id, folder, commit)

    def add_dataset(self, repo_id: str, folder: Path, commit: str | None = None) -> str:
        """Serve a folder as a dataset repository; return its commit.

        The commit is made from the content, unless the one that mteb pins is to be played.
        """
        return self._add("datasets", repo_id, folder, commit)

    def _add(self, kind: str, repo_id: str, folder: Path, commit: str | None) -> str:
        if repo_id.count("/") != 1:
            raise ValueError(f"not of the form organisation/name: {repo_id!r}")
        repository = _Repository.of_folder(repo_id, folder)
        repository = replace(repository, commit=commit or repository.commit)
        self._repositories[kind, repo_id] = repository
        return repository.commit

    def reply(self, method: str, target: str, wanted: str | None, form: str) -> _Reply:
        """Answer one request, which may want but a range and may post a form."""
        url = urlsplit(target)
        route = _API.fullmatch(url.path) or _RESOLVE.fullmatch(url.path)
        if route is None:
            raise _Refusal(404)
        asked = {name: unquote(value) for name, value in route.groupdict("").items()}
        repository = self._repositories.get((asked["kind"] or "models", asked["repo"]))
        if repository is None:
            raise _Refusal(404, "RepoNotFound")
        if asked["revision"] not in ("", "main", repository.commit):
            raise _Refusal(404, "RevisionNotFound")
        match method, asked.get("action"):
            case "GET", "" | "revision":
                return _as_json(repository.info())
            case "GET", "tree":
                recursive = "recursive=true" in url.query.lower()
                return _as_json(repository.tree(asked["path"], recursive=recursive))
            case "POST", "paths-info":
                paths = (path.strip("/") for path in parse_qs(form).get("paths", []))
                found = [repository.entries.get(path) for path in paths]
                return _as_json([entry for entry in found if entry])
            case "HEAD", None:
                return repository.file(asked["path"], None, with_body=False)
            case "GET", None:
                return repository.file(asked["path"], wanted, with_body=True)
        raise _Refusal(405)


def _as_json(content: object) -> _Reply:
    return _Reply(200, {"Content-Type": "application/json"}, json.dumps(content).encode())


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body are two writes
    timeout = 30  # of an idle connection

    def __init__(self, hub: HubServer, *connection: Any) -> None:
        self._hub = hub
        super().__init__(*connection)  # handles the whole connection

    def handle(self) -> None:
        with suppress(ConnectionError):  # a client may hang up
            super().handle()

    def _answer(self) -> None:
        self._hub.requests.append(f"{self.command} {self.path}")
        form = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        try:
            reply = self._hub.reply(self.command, self.path, self.headers.get("Range"), form)
        except _Refusal as refusal:
            reply = refusal.reply
        self.send_response(reply.status)
        for name, value in {"Content-Length": str(len(reply.body)), **reply.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body)

    do_GET = do_HEAD = do_POST = _answer

    def log_message(self, *_: object) -> None:
        """Say nothing."""
