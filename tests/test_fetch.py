"""Fetching and verifying: the real download code against servers on loopback."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bge_eval.data.fetch import fetch_dataset
from bge_eval.data.manifest import NAME, damaged_files
from bge_eval.data.zips import PublishedZip, fetch_zip
from bge_eval.errors import DamagedError, MissingError
from bge_eval.progress import Progress
from bge_eval.suites.catalogue import plan
from bge_eval.suites.suite_files import suites
from conftest import BUILTIN, CommandLine
from hub_server import HubServer
from test_layouts import as_zip, readme
from test_own_suites import flag_folder


def reranking_rows(folder: Path) -> Path:
    (folder / "data").mkdir(parents=True)
    rows = [{"query": "骨骼 bones", "positive": ["bones"], "negative": ["sleep", "bees"]}]
    pd.DataFrame(rows).to_parquet(folder / "data" / "dev-00000-of-00001-780e.parquet")
    readme(folder, {"default": {"dev": "data/dev-*"}})
    return folder


@pytest.mark.slow
def test_own_collection_from_the_hub(
    hub: HubServer, online: dict[str, str], tmp_path: Path, bge_eval: CommandLine
) -> None:
    """Without a data folder it comes into the hub's cache, and is read from there offline."""
    commit = hub.add_dataset("C-MTEB/T2Reranking_zh2en", reranking_rows(tmp_path / "zh2en"))
    run = ["run", "--model", BUILTIN, "--tasks", "T2RerankingZh2En", "--output", tmp_path / "out"]
    done = bge_eval(*run, env=online)
    assert done.returncode == 0, done.stderr
    before = len(hub.requests)
    again = bge_eval(*run, "--offline", env=online)
    assert again.returncode == 0, again.stderr
    assert commit in again.stderr and "already done with this identity" in again.stderr
    assert len(hub.requests) == before


@pytest.mark.slow
def test_fetch_then_check(
    hub: HubServer,
    online: dict[str, str],
    tmp_path: Path,
    bge_eval: CommandLine,
    bge_eval_here: CommandLine,
) -> None:
    """Two suites' own collections: one repository with a large file, and two put together."""
    hub.add_dataset("C-MTEB/T2Reranking_zh2en", reranking_rows(tmp_path / "zh2en"))
    for version in ("AIR-Bench_24.04", "AIR-Bench_24.05"):
        flag_folder(tmp_path / "wiki" / version / "default", "dev")
    judgements = tmp_path / "wiki" / "AIR-Bench_24.05" / "default" / "dev_qrels.jsonl"
    target = tmp_path / "qrels" / "AIR-Bench_24.05" / "default" / "dev_qrels.jsonl"
    target.parent.mkdir(parents=True)
    judgements.rename(target)
    hub.add_dataset("AIR-Bench/qa_wiki_en", tmp_path / "wiki")
    hub.add_dataset("AIR-Bench/qrels-qa_wiki_en-dev", tmp_path / "qrels")

    names = "T2RerankingZh2En,AIRBenchQAWikiEn"
    data = tmp_path / "data"
    done = bge_eval("data", "fetch", "--tasks", names, "--data-dir", data, env=online)
    assert done.returncode == 0, done.stderr
    assert not (data / "qa_wiki_en" / "AIR-Bench_24.04").exists()
    listed = json.loads((data / "qa_wiki_en" / NAME).read_text())
    assert set(listed["repositories"]) == {
        "AIR-Bench/qa_wiki_en",
        "AIR-Bench/qrels-qa_wiki_en-dev",
    }
    assert len(listed["files"]) == 3
    run = ["run", "--model", BUILTIN, "--tasks", names, "--data-dir", data, "--offline"]
    ran = bge_eval_here(*run)
    assert ran.returncode == 0, ran.stderr

    check = ["data", "check", "--tasks", names, "--data-dir", data]
    assert bge_eval_here(*check).returncode == 0
    parquet = next(data.rglob("*.parquet"))
    content = bytearray(parquet.read_bytes())
    content[len(content) // 2] ^= 1
    parquet.write_bytes(content)
    (data / "qa_wiki_en/AIR-Bench_24.05/default/dev_queries.jsonl").unlink()
    bad = bge_eval_here(*check)
    assert bad.returncode == 3
    assert "its SHA-256 differs" in bad.stdout
    assert "dev_queries.jsonl is missing." in bad.stdout

    # Fetching again mends both, the file that only looks right too, and nothing else is sent.
    before = len(hub.requests)
    again = bge_eval("data", "fetch", "--tasks", names, "--data-dir", data, env=online)
    assert again.returncode == 0, again.stderr
    sent = [r.rsplit("/", 1)[-1] for r in hub.requests[before:] if r.startswith("GET /datasets")]
    assert sorted(sent) == ["dev-00000-of-00001-780e.parquet", "dev_queries.jsonl"]
    assert bge_eval_here(*check).returncode == 0


def test_manifest_names_what_is_wrong(tmp_path: Path) -> None:
    known = {"a.jsonl": {"size": 2, "sha256": hashlib.sha256(b"{}").hexdigest()}}
    known |= {"b.jsonl": {"size": 2, "sha256": ""}, "c.jsonl": {"size": 9, "sha256": ""}}
    (tmp_path / NAME).write_text(json.dumps({"repositories": {}, "files": known}))
    for name in ("a.jsonl", "c.jsonl"):
        (tmp_path / name).write_bytes(b"{}")
    said = damaged_files(tmp_path, [tmp_path.parent])
    assert [text.split(" ", 1)[1] for text in said] == [
        "is missing.",
        "has 2 bytes, expected 9.",
    ]
    (tmp_path / NAME).write_text("[]")
    with pytest.raises(DamagedError, match="is no manifest of downloaded files"):
        damaged_files(tmp_path, [tmp_path.parent])
    (tmp_path / "below").mkdir()
    assert damaged_files(tmp_path / "below", [tmp_path / "below"]) == []  # none above a data folder


def test_task_without_a_repository(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="BioASQ names no public repository"):
        fetch_dataset(plan(["BioASQ"])[0].task, tmp_path)


# ── BEIR's zips ─────────────────────────────────────────────────────────────────────────────


class ZipServer:
    """Serves one file, in parts if asked; hangs up after some bytes of the first reply."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.hang_up_after: int | None = None
        self.parts = True
        self.sent = 0
        handler = partial(_Sender, self)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> ZipServer:
        serve = partial(self._server.serve_forever, poll_interval=0.05)
        threading.Thread(target=serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Sender(BaseHTTPRequestHandler):
    def __init__(self, served: ZipServer, *connection: Any) -> None:
        self._served = served
        super().__init__(*connection)

    def do_GET(self) -> None:
        served = self._served
        if not self.path.endswith("/scifact.zip"):
            self.send_error(404)
            return
        asked = self.headers.get("Range") if served.parts else None
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        if start >= len(served.content):
            self.send_error(416)
            return
        body = served.content[start:]
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        stop, served.hang_up_after = served.hang_up_after, None
        served.sent += len(body[:stop])  # before the client can have read them
        self.wfile.write(body[:stop])

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def zips(small_scifact: Path) -> Iterator[ZipServer]:
    folder = small_scifact / "scifact"
    with (folder / "corpus.jsonl").open("a", encoding="utf-8") as file:
        for n in range(3000):  # so that a part of it is worth keeping
            text = hashlib.sha256(str(n).encode()).hexdigest()
            file.write(json.dumps({"_id": f"x{n}", "title": "", "text": text}) + "\n")
    as_zip(folder)
    with ZipServer(Path(f"{folder}.zip").read_bytes()) as server:
        yield server


def published(server: ZipServer) -> PublishedZip:
    md5 = hashlib.md5(server.content).hexdigest()
    return PublishedZip("scifact", f"{server.url}/scifact.zip", md5)


@pytest.mark.parametrize("parts", [True, False])
def test_zip_goes_on_where_it_stopped(zips: ZipServer, tmp_path: Path, parts: bool) -> None:
    data, size = tmp_path / "got", len(zips.content)
    zips.parts, zips.hang_up_after = parts, size // 2
    with pytest.raises(MissingError, match="What arrived is kept"):
        fetch_zip(published(zips), data, Progress())
    assert [path.name for path in data.iterdir()] == ["scifact.zip.part"]
    path = fetch_zip(published(zips), data, Progress())
    assert path.read_bytes() == zips.content
    assert zips.sent == (size if parts else size // 2 + size)
    assert fetch_zip(published(zips), data, Progress()) == path
    assert zips.sent <= size // 2 + size  # not sent again
    assert [path.name for path in data.iterdir()] == ["scifact.zip"]


def test_other_content_is_refused(zips: ZipServer, tmp_path: Path) -> None:
    wrong = published(zips)
    zips.content = b"<html>We have moved.</html>"
    with pytest.raises(DamagedError, match=r"is not the published file.*and it is no zip"):
        fetch_zip(wrong, tmp_path / "got", Progress())
    assert list((tmp_path / "got").iterdir()) == []
    gone = PublishedZip("scifact", f"{zips.url}/gone.zip", wrong.md5)
    with pytest.raises(MissingError, match="404"):
        fetch_zip(gone, tmp_path / "got", Progress())


def test_fetch_from_beir(
    bge_eval_here: CommandLine,
    zips: ZipServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from dataclasses import replace

    data = tmp_path / "got"
    fetch = ["data", "fetch", "--tasks", "SciFact", "--data-dir", data]
    assert bge_eval_here(*fetch, "--mirror", zips.url).returncode == 2
    fetch += ["--from", "beir", "--mirror", zips.url]
    other = bge_eval_here(*fetch)  # the small set is not the one whose checksum BEIR publishes
    assert other.returncode == 3
    assert "expected 5f7d1de60b170fc8027bb7898e2efca1" in other.stderr
    assert list(data.iterdir()) == []

    known = suites()
    beir = replace(known["beir"], zips={"scifact": published(zips)})
    monkeypatch.setattr("bge_eval.suites.catalogue.suites", lambda: {**known, "beir": beir})
    done = bge_eval_here(*fetch)
    assert done.returncode == 0, done.stderr
    found = bge_eval_here("tasks", "SciFact", "--data-dir", data, "--json")
    assert json.loads(found.stdout)[0]["origin"].startswith(str(data / "scifact.zip"))

    check = ["data", "check", "--tasks", "SciFact", "--data-dir", data]
    assert "3,005 test documents, 3 test queries" in bge_eval_here(*check).stdout
    with (data / "scifact.zip").open("ab") as file:
        file.write(b"\0")
    assert "its MD5 is" in bge_eval_here(*check).stdout
    nothing = bge_eval_here(*fetch[:3], "LCQMC", *fetch[4:])
    assert nothing.returncode == 3
    assert "BEIR publishes no zip of LCQMC" in nothing.stderr


@pytest.mark.filterwarnings("ignore")
def test_the_zip_is_what_beir_reads(zips: ZipServer, tmp_path: Path) -> None:
    """beir's own download and loader, from the same server, give the same data."""
    from beir.datasets.data_loader import GenericDataLoader
    from beir.util import download_and_unzip

    folder = download_and_unzip(f"{zips.url}/scifact.zip", str(tmp_path / "beir"))
    corpus, queries, qrels = GenericDataLoader(folder).load(split="test")
    fetch_zip(published(zips), tmp_path / "got", Progress())
    planned = plan(["SciFact"])[0]
    with planned.source([tmp_path / "got"], offline=True).loaded(planned.task, Progress()):
        data: Any = planned.task.dataset["default"]["test"]  # type: ignore[index]
        assert data["relevant_docs"] == qrels
        assert dict(zip(data["queries"]["id"], data["queries"]["text"], strict=True)) == queries
        ours = {row["id"]: (row["title"], row["text"]) for row in data["corpus"]}
    assert ours == {key: (doc["title"] or "", doc["text"]) for key, doc in corpus.items()}


def test_every_beir_folder_has_its_zip() -> None:
    suite = suites()["beir"]
    assert {folder.partition("/")[0] for folder in suite.folders.values()} == set(suite.zips)
    assert all(len(each.md5) == 32 for each in suite.zips.values())
    assert len({each.md5 for each in suite.zips.values()}) == 15
