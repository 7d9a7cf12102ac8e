"""Data, archives and answers that are made to do harm: each is refused in one sentence."""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from audit import verdict
from bge_eval.data.files import NotPlainError, lines, plain_records, read_through, records
from bge_eval.data.repository_files import configured_files
from bge_eval.data.snapshot import Snapshot
from bge_eval.encode.config import read_object
from bge_eval.encode.locate import locate
from bge_eval.encode.settings import Overrides, read_model_config
from bge_eval.encode.weights import check_weights
from bge_eval.errors import DamagedError
from bge_eval.remote import client as remote_client
from bge_eval.remote.client import Client, Limits
from bge_eval.results import unpacked
from bge_eval.results.trec import read_excerpts, read_per_query, read_qrels, read_run
from bge_eval.results.unpacked import unpack
from bge_eval.runtime.text_encoder import load_tokenizer
from bge_eval.training.checkpoints import Checkpoint
from conftest import CommandLine
from hub_server import HubServer
from model_server import ModelServer, Reply

_LINE = b'{"_id": "d1", "text": "the same words again"}\n'


@pytest.fixture(autouse=True)
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits of a megabyte, that the tests need not pass 64."""
    monkeypatch.setattr(unpacked, "ALWAYS", 2**20)
    monkeypatch.setattr(unpacked, "LONGEST_LINE", 2**20)
    monkeypatch.setattr(remote_client, "LARGEST_ANSWER", 2**20)


def gzip_bomb(path: Path, line: bytes = _LINE) -> Path:
    """Pack 16 MiB of one line into less than 160 KiB."""
    with gzip.open(path, "wb") as file:
        file.write(line * (2**24 // len(line) + 1))
    assert path.stat().st_size < 2**24 / unpacked.MOST_TIMES
    return path


# ── archives ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("read", "line"),
    [
        (lambda path: list(records(path)), _LINE),
        (lambda path: list(plain_records(path, ["_id", "text"])), _LINE),
        (read_through, _LINE),
        (read_run, b"\n"),
        (read_qrels, b"q1\t0\td1\t1\n"),
        (read_per_query, b"q1\t0.5\n"),
        (read_excerpts, b'{"query": "q1", "text": "t"}\n'),
    ],
)
def test_a_gzip_bomb(tmp_path: Path, read: Callable[[Path], object], line: bytes) -> None:
    path = gzip_bomb(tmp_path / "corpus.jsonl.gz", line)
    with pytest.raises(DamagedError, match=r"corpus.jsonl.gz unpacks to more than .* MiB from"):
        read(path)


def test_a_zip_bomb(bge_eval: CommandLine, small_scifact: Path, tmp_path: Path) -> None:
    folder = small_scifact / "scifact"
    with zipfile.ZipFile(tmp_path / "scifact.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        for name in ("queries.jsonl", "qrels/test.tsv"):
            packed.write(folder / name, f"scifact/{name}")
        with packed.open("scifact/corpus.jsonl", "w", force_zip64=True) as file:
            file.write(_LINE * (2**24 // len(_LINE) + 1))
    command = ["run", "--model", "bm25", "--tasks", "SciFact", "--offline"]
    done = bge_eval(*command, "--data-dir", str(tmp_path), "--output", str(tmp_path / "out"))
    assert done.returncode != 0
    assert "corpus.jsonl unpacks to more than" in " ".join(done.stderr.split()), done.stderr


def test_a_bomb_in_a_baseline() -> None:
    packed = gzip.compress(bytes(2**21))
    with pytest.raises(ValueError, match="unpacks to more than 1 MiB"):
        unpack(base64.b64decode(base64.b64encode(packed)))
    assert unpack(gzip.compress(b"a table")) == b"a table"


def test_members_outside_their_folder_are_written_nowhere(
    bge_eval: CommandLine, small_scifact: Path, tmp_path: Path
) -> None:
    """A zip is read in place: a member that leads elsewhere, and one that is a link, do nothing."""
    folder, place = small_scifact / "scifact", tmp_path / "zips" / "deep"
    place.mkdir(parents=True)
    link = zipfile.ZipInfo("scifact/link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(place / "scifact.zip", "w") as packed:
        for name in ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv"):
            packed.write(folder / name, f"scifact/{name}")
        for name in ("../evil.txt", "/evil.txt", "scifact/../../evil.txt", "scifact\\..\\evil.txt"):
            packed.writestr(name, "evil")
        packed.writestr(link, "/etc/passwd")
    command = ["run", "--model", "bm25", "--tasks", "SciFact", "--offline"]
    done = bge_eval(*command, "--data-dir", str(place), "--output", str(tmp_path / "out"))
    assert not list(tmp_path.rglob("*evil*")) and not Path("/evil.txt").exists()
    if done.returncode:
        assert "scifact.zip" in done.stderr and "Traceback" not in done.stderr


def test_a_corpus_that_is_a_link_in_a_zip(
    bge_eval: CommandLine, small_scifact: Path, tmp_path: Path
) -> None:
    """The content of such a member is the path it leads to, which is no JSON; it is not opened."""
    secret = tmp_path / "secret.jsonl"
    secret.write_text('{"_id": "d1", "text": "a secret"}\n')
    link = zipfile.ZipInfo("scifact/corpus.jsonl")
    link.external_attr = 0o120777 << 16
    place = tmp_path / "zips"
    place.mkdir()
    with zipfile.ZipFile(place / "scifact.zip", "w") as packed:
        for name in ("queries.jsonl", "qrels/test.tsv"):
            packed.write(small_scifact / "scifact" / name, f"scifact/{name}")
        packed.writestr(link, str(secret))
    command = ["run", "--model", "bm25", "--tasks", "SciFact", "--offline"]
    done = bge_eval(*command, "--data-dir", str(place), "--output", str(tmp_path / "out"))
    assert done.returncode == 3 and "line 1: not JSON" in " ".join(done.stderr.split())


def test_an_encrypted_zip(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        packed.writestr("corpus.jsonl", _LINE)
    raw = bytearray(buffer.getvalue())
    raw[6] |= 1  # the flag of encryption, in the local header and in the directory
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    path = tmp_path / "data.zip"
    path.write_bytes(raw)
    with pytest.raises(DamagedError, match=r"corpus.jsonl cannot be unpacked .*encrypted"):
        list(records(zipfile.Path(path) / "corpus.jsonl"))


@pytest.mark.parametrize(
    ("code", "output", "exit_code", "sentence"),
    [
        (0, "No known vulnerabilities found", 0, "No dependency has a known"),
        (1, "Found 2 known vulnerabilities in 1 package\nName …", 1, "Found 2 known"),
        (1, "ERROR: Dependency not found on PyPI: absl-py", 3, "NOTHING is known"),
        (1, "Could not connect to PyPI's vulnerability feed", 3, "NOTHING is known"),
        (1, "", 3, "NOTHING is known"),
    ],
)
def test_an_audit_without_advisories_is_no_audit(
    code: int, output: str, exit_code: int, sentence: str
) -> None:
    ended, told = verdict(code, output)
    assert ended == exit_code and sentence in told


# ── files that are larger than they seem ────────────────────────────────────────────────────


def test_a_line_without_an_end(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_bytes(_LINE + b'{"_id": "d2", "text": "' + bytes(2**22))
    with pytest.raises(DamagedError, match=r"holds a line of more than 1 MiB, at byte 46;"):
        list(lines(path))
    with pytest.raises((NotPlainError, DamagedError)):  # the first is read line by line
        list(plain_records(path, ["_id"]))
    with pytest.raises(DamagedError, match="holds a line of more than"):
        Snapshot(tmp_path, {"corpus": {"corpus": [path]}}).load("corpus", "corpus", tmp_path)


@pytest.mark.parametrize("name", ["corpus.jsonl.zst", "corpus.json.zst", "corpus.json.gz"])
def test_a_packed_file_of_a_repository(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith(".gz"):
        gzip_bomb(path)
    else:
        with pa.OSFile(str(path), "wb") as raw, pa.CompressedOutputStream(raw, "zstd") as file:
            file.write(_LINE * (2**24 // len(_LINE)))
    with pytest.raises(DamagedError, match=rf"{name} unpacks to more than .* MiB from"):
        Snapshot(tmp_path, {"corpus": {"corpus": [path]}}).load("corpus", "corpus", tmp_path)


def test_parquet_of_more_rows_than_bytes(tmp_path: Path) -> None:
    path = tmp_path / "corpus.parquet"
    rows = pa.table({"_id": pa.array(["d"] * 5_000_000).dictionary_encode()})
    pq.write_table(rows, path, compression="zstd")
    snapshot = Snapshot(tmp_path, {"corpus": {"corpus": [path]}})
    with pytest.raises(DamagedError, match="says that it holds 5,000,000 rows"):
        snapshot.load("corpus", "corpus", tmp_path)


def test_parquet_that_unpacks_to_far_more(tmp_path: Path) -> None:
    path = tmp_path / "corpus.parquet"
    pq.write_table(pa.table({"text": ["x" * 2**22]}), path, compression="zstd")
    snapshot = Snapshot(tmp_path, {"corpus": {"corpus": [path]}})
    with pytest.raises(DamagedError, match="made to fill memory or disk"):
        snapshot.load("corpus", "corpus", tmp_path)


def test_yaml_that_grows(tmp_path: Path) -> None:
    """A head of a few lines whose references would be 10**9 words as text."""
    levels = ["a0: &a0 [lol,lol,lol,lol,lol,lol,lol,lol,lol,lol]"]
    levels += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    head = "\n".join([*levels, "configs:", "- config_name: *a8", "  data_files: x.jsonl"])
    (tmp_path / "README.md").write_text(f"---\n{head}\n---\n")
    with pytest.raises(DamagedError, match="no config_name in text"):
        configured_files(tmp_path)


def test_toml_that_is_deeply_nested(bge_eval: CommandLine, tmp_path: Path) -> None:
    suite = tmp_path / "deep.toml"
    suite.write_text("tasks = " + "[" * 100_000 + "]" * 100_000)
    done = bge_eval("run", "--model", "bm25", "--tasks", str(suite), "--offline")
    assert done.returncode in (2, 3) and "deep.toml" in done.stderr, done.stderr
    assert "not foreseen" not in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="needs files with holes")
def test_settings_of_gigabytes(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.touch()
    os.truncate(path, 8 * 2**30)
    with pytest.raises(DamagedError, match=r"config.json has 8,589,934,592 bytes; no settings"):
        read_object(path)


@pytest.mark.skipif(sys.platform == "win32", reason="needs files with holes")
def test_weights_and_vocabularies_of_gigabytes(tmp_path: Path, tiny_bge: Path) -> None:
    """A header is as long as the file says, and both are as long as somebody likes."""
    model = shutil.copytree(tiny_bge, tmp_path / "model")
    files = locate(str(model), offline=True)
    settings = read_model_config(files, Overrides()).settings
    weights = model / "model.safetensors"
    weights.write_bytes((2**33).to_bytes(8, "little") + b'{"a":')
    os.truncate(weights, 2**33 + 8)
    with pytest.raises(DamagedError, match=r"has a header of 8,589,934,592 bytes; no model has"):
        check_weights(model)
    assert not Checkpoint(1, model).is_complete()
    os.truncate(model / "tokenizer.json", 2**33)
    with pytest.raises(DamagedError, match=r"tokenizer.json has 8,589,934,592 bytes; no tokenizer"):
        load_tokenizer(files, settings)


# ── servers ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_an_answer_without_an_end(packed: bool) -> None:
    body = json.dumps({"data": " " * 2**22}).encode()
    headers = {"Content-Encoding": "gzip"} if packed else {}
    with ModelServer() as server:
        server.always = lambda answer: Reply(gzip.compress(body) if packed else body, 200, headers)
        client = Client(server.url, limits=Limits(tries=2, pause=0.01))
        with pytest.raises(DamagedError, match="an answer of more than 1 MiB") as raised:
            client.post("/v1/embeddings", {"input": ["a"], "model": "letters"})
        assert server.url in str(raised.value)
        assert len(server.requests) == 1, "not asked again"


@pytest.mark.slow
def test_a_hub_that_names_files_outside_the_folder(tmp_path: Path, bge_eval: CommandLine) -> None:
    """A mirror lists ``../evil.jsonl``: nothing is written beside the task's folder."""
    for name in ("evil.jsonl", "data/train.jsonl"):
        path = tmp_path / "repository" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_LINE)
    with HubServer() as hub:
        hub.add_dataset("C-MTEB/T2Reranking_zh2en", tmp_path / "repository")
        [repository] = hub._repositories.values()
        entry = repository.entries["evil.jsonl"]
        for name in ("../evil.jsonl", "../../evil.jsonl"):
            repository.entries[name] = {**entry, "path": name}  # type: ignore[index]
        online = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0"}
        online |= {"HF_DATASETS_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
        data = tmp_path / "a" / "b" / "data"
        done = bge_eval(
            *("data", "fetch", "--tasks", "T2RerankingZh2En", "--data-dir", str(data)), env=online
        )
    assert done.returncode == 3, done.stderr
    assert "outside" in " ".join(done.stderr.split()), done.stderr
    assert not [path for path in (tmp_path / "a").rglob("evil.jsonl") if data not in path.parents]
