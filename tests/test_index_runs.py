"""Runs with an index: their names and identities, and the options that are refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from bge_eval.errors import UsageError
from bge_eval.search.index import IndexOptions, Precision
from conftest import BUILTIN, CommandLine


def test_an_approximate_run_never_passes_for_an_exact_one(
    bge_eval: CommandLine, tmp_path: Path
) -> None:
    command = ("run", "demo", "-m", BUILTIN, "-o", tmp_path, "--offline", "--format", "json")
    approximate = ("--index", "HNSW16", "--index-param", "efSearch=300")
    compressed = ("--vectors", "int8", "--rescore-top", "50")
    scores = {}
    for options in ((), approximate, compressed, ("--vectors", "binary")):
        done = bge_eval(*command, *options)
        assert done.returncode == 0, done.stderr
        (row,) = json.loads(done.stdout)["rows"]
        scores[" ".join(options)] = row["scores"]["BgeEvalDemo"]
    exact, graph, rescored, binary = scores.values()
    assert graph == pytest.approx(exact, abs=0.02)
    assert rescored == pytest.approx(exact, abs=0.02)
    assert 0.3 < binary < exact
    shown = bge_eval("table", tmp_path, "--format", "csv").stdout
    for text in ("index=HNSW16", "efSearch=300", "vectors=int8", "rescore_top=50"):
        assert text in shown
    digests = {
        json.loads(path.read_text())["identity_digest"] for path in tmp_path.rglob("run.json")
    }
    assert len(digests) == 4
    again = bge_eval(*command, *approximate)
    assert "already done" in again.stderr
    _is_told_from_exact(bge_eval, tmp_path)


def _is_told_from_exact(bge_eval: CommandLine, folder: Path) -> None:
    """Check that gate, model card, fusion and saved runs name or refuse the indexes' results."""
    results = {path.parent.name: path for path in folder.rglob("BgeEvalDemo.json")}
    exact = next(path for path in results.values() if "experiments" not in path.parts)
    graph = next(path for name, path in results.items() if "HNSW16" in name)
    baseline = folder / "baseline.json"
    assert bge_eval("check", exact, "--update", "--baseline", baseline).returncode == 0
    checked = bge_eval("check", graph, "--baseline", baseline)
    assert checked.returncode == 3
    told = " ".join((checked.stdout + checked.stderr).split())
    assert "searched differently (baseline flat, run HNSW16, efSearch=300" in told
    assert bge_eval("check", graph, "--baseline", baseline, "--other-data").returncode in (0, 1)
    card = bge_eval("export", graph, "--experiments", "--model-index", "-")
    assert card.returncode == 2 and "a model card states exact scores" in card.stderr
    exported = bge_eval("export", graph, "--experiments", "-o", folder / "exported")
    assert exported.returncode == 3
    parts = ("-m", f"run:{graph.parent}", "-m", f"run:{exact.parent}")
    command = ("run", "demo", "--offline", "-q", "-o", folder / "again", "--format", "json")
    fused = json.loads(bge_eval(*command, "--fuse", "rrf", *parts).stdout)["rows"]
    assert "HNSW16" in fused[0]["settings"] and "fusion" in fused[0]["model"]
    bge_eval(*command, "-m", f"run:{graph.parent}")
    for path in (folder / "again").rglob("run.json"):
        assert "HNSW16" in json.loads(path.read_text())["identity"]["search"]["index"]


def test_an_identity_tells_whether_its_search_is_exact() -> None:
    from bge_eval.results.identity import Identity, index_name

    for facts, name in (
        (IndexOptions(), ""),
        (IndexOptions(precision=Precision.INT8), "flat, vectors=int8"),
        (IndexOptions("SQ8", rescore=9), "SQ8, rescore_top=9"),
    ):
        search = {**facts.identity(), "top_k": 1000, "drop_identical_ids": False}
        identity = Identity("T", "", {}, {}, search)
        assert identity.is_exact is not bool(name)
        assert index_name(search) == (name or "flat")


def test_models_without_an_index_refuse_one(bge_eval: CommandLine, tmp_path: Path) -> None:
    done = bge_eval("run", "demo", "-m", "bm25", "-o", tmp_path, "--index", "HNSW16")
    assert done.returncode == 2
    assert "--index cannot be used with --model bm25" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-m", "minilm"), "No model 'minilm': it is neither a folder"),
        (("-m", "builtin:nothing"), "No embedded model 'builtin:nothing'"),
        (("-m", "bm25", "--index", "HNSW16"), "--index cannot be used with --model bm25"),
        (("-m", "bm25", "--vectors", "int8"), "--vectors cannot be used with --model bm25"),
        (("-m", BUILTIN, "--reranker", "nothing"), "No model 'nothing'"),
        (("-m", BUILTIN, "--index", "hnsw32"), "Did you mean 'HNSW32'?"),
        (("-m", BUILTIN, "--rescore-top", "10"), "--rescore-top has no effect"),
    ],
)
def test_wrong_names_are_refused_before_torch_is_loaded(
    arguments: tuple[str, ...],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from bge_eval.cli.app import application

    for package in ("torch", "mteb"):
        monkeypatch.setitem(sys.modules, package, None)  # an import of it raises ImportError
    with pytest.raises(SystemExit) as end:
        application("run")(["run", "demo", "-o", str(tmp_path), *arguments])
    told = " ".join(capsys.readouterr().err.split())
    assert end.value.code == 2
    assert message in told and "Loading mteb" not in told


def test_a_parameter_that_is_given_twice_is_refused() -> None:
    from bge_eval.cli.options.index import parse_params

    with pytest.raises(UsageError, match="--index-param efSearch is given twice, 'efSearch=65'"):
        parse_params(["efSearch=64", "efSearch=65"], "--index-param")
