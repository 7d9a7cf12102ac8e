"""A server on loopback that speaks as much of the Hugging Face hub's protocol as a download needs.

Repositories are plain folders. Clients find it through ``HF_ENDPOINT``; what they then do
(look up a repository, list it, fetch files by commit) is their real code.
"""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit


@dataclass(frozen=True)
class Repository:
    """One model or dataset repository with a single commit."""

    kind: str
    name: str
    folder: Path
    commit: str
    names: tuple[str, ...] = ("main",)

    def knows(self, revision: str) -> bool:
        return revision in (*self.names, self.commit)

    def files(self) -> list[str]:
        inside = (path for path in self.folder.rglob("*") if path.is_file())
        return sorted(path.relative_to(self.folder).as_posix() for path in inside)

    def info(self) -> dict[str, Any]:
        return {
            "id": self.name,
            "sha": self.commit,
            "private": False,
            "gated": False,
            "disabled": False,
            "tags": [],
            "downloads": 0,
            "likes": 0,
            "siblings": [{"rfilename": name} for name in self.files()],
        }

    def entries(self, below: str = "") -> list[dict[str, Any]]:
        """The tree as the hub lists it, folders too."""
        files = [name for name in self.files() if name.startswith(below)]
        folders = {parent for name in files for parent in Path(name).parents} - {Path()}
        listed = [
            {"type": "directory", "oid": "0" * 40, "size": 0, "path": p.as_posix()}
            for p in sorted(folders)
        ]
        for name in files:
            content = (self.folder / name).read_bytes()
            oid = hashlib.sha1(content).hexdigest()
            listed.append({"type": "file", "oid": oid, "size": len(content), "path": name})
        return listed


class LocalHub:
    """Serves repositories while the context is open; remembers every request."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self._repositories: dict[tuple[str, str], Repository] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def add(self, kind: str, name: str, folder: Path) -> str:
        """Serve a folder as ``models`` or ``datasets`` repository; return its commit."""
        content = hashlib.sha1()
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            content.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
        self._repositories[kind, name] = Repository(kind, name, folder, content.hexdigest())
        return content.hexdigest()

    def alias(self, kind: str, name: str, revision: str) -> None:
        """Let a repository answer to one more revision."""
        known = self._repositories[kind, name]
        self._repositories[kind, name] = replace(known, names=(*known.names, revision))

    def __enter__(self) -> LocalHub:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body for a path."""
        parts = [unquote(part) for part in urlsplit(path).path.strip("/").split("/")]
        if parts[0] == "api":
            return self._api(parts[1], parts[2:])
        kind = "datasets" if parts[0] == "datasets" else "models"
        parts = parts[1:] if kind == "datasets" else parts
        repository = self._repositories.get((kind, "/".join(parts[:2])))
        if repository is None or len(parts) < 5 or parts[2] != "resolve":
            return self._error(404, "RepoNotFound")
        if not repository.knows(parts[3]):
            return self._error(404, "RevisionNotFound")
        file = repository.folder / "/".join(parts[4:])
        commit = {"X-Repo-Commit": repository.commit}
        if not file.is_file():
            status, headers, body = self._error(404, "EntryNotFound")
            return status, {**headers, **commit}, body
        content = file.read_bytes()
        etag = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "Accept-Ranges": "bytes"}
        return 200, {**commit, **etag, "Content-Type": "application/octet-stream"}, content

    def _api(self, kind: str, parts: list[str]) -> tuple[int, dict[str, str], bytes]:
        repository = self._repositories.get((kind, "/".join(parts[:2])))
        if repository is None:
            return self._error(404, "RepoNotFound")
        action, revision = ([*parts[2:], "", "main"])[:2] if len(parts) > 2 else ("", "main")
        if not repository.knows(revision):
            return self._error(404, "RevisionNotFound")
        if action in ("", "revision"):
            return self._json(repository.info())
        if action in ("tree", "paths-info"):
            below = "/".join(parts[4:])
            entries = repository.entries(below)
            if action == "tree" and below and not entries:
                return self._error(404, "EntryNotFound")
            return self._json(entries)
        return self._error(404, "EntryNotFound")

    @staticmethod
    def _json(content: Any) -> tuple[int, dict[str, str], bytes]:
        return 200, {"Content-Type": "application/json"}, json.dumps(content).encode()

    @staticmethod
    def _error(status: int, code: str) -> tuple[int, dict[str, str], bytes]:
        headers = {"X-Error-Code": code, "X-Error-Message": code, "Content-Type": "text/plain"}
        return status, headers, code.encode()

    def _handler(hub) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self, *, body_wanted: bool) -> None:
                hub.requests.append(f"{self.command} {self.path}")
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status, headers, body = hub.answer(self.path)
                asked = self.headers.get("Range", "")
                if status == 200 and asked.startswith("bytes="):
                    first, _, last = asked.removeprefix("bytes=").partition("-")
                    end = min(int(last) if last else len(body) - 1, len(body) - 1)
                    headers["Content-Range"] = f"bytes {first}-{end}/{len(body)}"
                    status, body = 206, body[int(first) : end + 1]
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                if body_wanted:
                    self.wfile.write(body)

            def do_GET(self) -> None:
                self._serve(body_wanted=True)

            def do_POST(self) -> None:
                self._serve(body_wanted=True)

            def do_HEAD(self) -> None:
                self._serve(body_wanted=False)

            def log_message(self, *_: object) -> None:
                pass

        return Handler
