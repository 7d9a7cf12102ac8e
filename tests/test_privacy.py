"""What tells who the user is or what ran: no output names the home folder, identities name code."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from bge_eval.encode.locate import locate
from bge_eval.errors import UsageError, without_home
from bge_eval.models.kinds import Loader, ModelOptions
from bge_eval.models.opening import open_model
from bge_eval.rerank.families import load_reranker
from bge_eval.rerank.filing import own_experiment
from bge_eval.rerank.kinds import RerankerKind
from bge_eval.rerank.reranker import RerankerOptions
from bge_eval.suites.catalogue import plan
from conftest import CommandLine
from torture import make_data


def test_the_home_folder_becomes_a_tilde(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/alice")
    assert without_home("in /home/alice/data and '/home/alice'.") == "in ~/data and '~'."
    for other in ("/home/alice2/data", "/mnt/home/alice/data", "/home/alice.bak", "http://x"):
        assert without_home(other) == other
    for home in ("/", ""):
        monkeypatch.setenv("HOME", home)
        assert without_home("/home/alice/data") == "/home/alice/data"


def test_no_output_names_the_home_folder(
    bge_eval: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home" / "alice"
    make_data(home / "data" / "Torture", 30, 4)
    monkeypatch.setenv("HOME", str(home))
    results, base = str(home / "results"), str(home / "base.json")
    commands = [
        ("run", "--model", "bm25", "--tasks", str(home / "data" / "Torture"), "--output", results),
        ("table", results, "--format", "json"),
        ("table", str(home / "nowhere")),
        ("check", results, "--update", "--baseline", base),
        ("check", results, "--baseline", base, "--junit", str(home / "junit.xml")),
        ("report", results, "--output", str(home / "report.html")),
        ("store", "--store", str(home / "nowhere")),
    ]
    codes = []
    for words in commands:
        done = bge_eval(*words)
        codes.append(done.returncode)
        assert str(home) not in done.stdout + done.stderr, words
    assert codes == [0, 0, 3, 0, 0, 0, 3]
    files = [path for path in home.rglob("*") if path.is_file() and "data" not in path.parts]
    assert len(files) > 8
    for path in files:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
        assert str(home).encode() not in content, path
    [record] = home.rglob("run.json")
    assert '"data_origin": "~/data/Torture"' in record.read_text()


def test_a_reranker_s_code_is_in_its_identity(tiny_cross_encoder: Path) -> None:
    files = locate(str(tiny_cross_encoder))
    for kind in (RerankerKind.CROSS_ENCODER, RerankerKind.LATE, RerankerKind.LLM):
        plain = load_reranker(files, RerankerOptions(kind)).identity()
        allowed = load_reranker(files, RerankerOptions(kind, trust_remote_code=True)).identity()
        assert allowed == {**plain, "remote_code": True}
        assert own_experiment(allowed) == own_experiment(plain), "it names no folder"


def test_mteb_s_loader_runs_no_code_of_a_model_unasked() -> None:
    """mteb's registry allows it for 132 models and asks nobody."""
    task = plan(["demo"])[0].task.metadata
    by_entry, by_loader = "naver/v-splade-efficient", "jinaai/jina-clip-v1"
    for name in (by_entry, by_loader):
        with pytest.raises(UsageError, match=rf"code that comes with {name}.*--trust-remote-code"):
            open_model(name, ModelOptions(loader=Loader.MTEB))
        allowed = open_model(name, ModelOptions(loader=Loader.MTEB, trust_remote_code=True))
        assert allowed.identity(task)["remote_code"] is True
    plain = open_model("intfloat/e5-small", ModelOptions(loader=Loader.MTEB))
    assert "remote_code" not in plain.identity(task)
