"""Results for others: mteb reads what is exported, and nothing else leaves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bge_eval.errors import DamagedError, MissingError, UsageError
from bge_eval.results.export import describe, export, model_index
from bge_eval.results.saved import SavedResult, find_results
from conftest import CommandLine
from saved import save_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real results as mteb saves them: with the model's own settings and with others."""
    import mteb
    from mteb.cache import ResultCache
    from mteb.results import TaskResult

    root = tmp_path_factory.mktemp("runs")
    scores = {"cosine_spearman": 0.82, "main_score": 0.82, "hf_subset": "default"}
    scores |= {"languages": ["eng-Latn"]}
    for task in ("STSBenchmark", "STS12"):
        metadata = mteb.get_task(task).metadata
        result = TaskResult(
            dataset_revision=metadata.dataset["revision"],
            task_name=task,
            mteb_version=mteb.__version__,
            evaluation_time=1.0,
            scores={"test": [scores]},
        )
        for settings in (None, {"dtype": "bfloat16"}):
            meta = mteb.get_model_meta("BAAI/bge-base-en-v1.5").model_copy(
                update={"experiment_kwargs": settings}
            )
            ResultCache(root).save_to_cache(result, meta)
            place = ResultCache(root).get_task_result_path(task_name=task, model_name=meta)
            (place.parent / task).mkdir()
            (place.parent / task / "run.json").write_text(json.dumps({"data_origin": "/home/me"}))
            place.with_name(f"{task}.run.tsv.gz").write_bytes(b"")
    return root


def saved(root: Path) -> list[SavedResult]:
    return [SavedResult(path) for path in find_results([root])]


def test_mteb_reads_what_is_exported(runs: Path, tmp_path: Path) -> None:
    from mteb.cache import ResultCache

    report = export(saved(runs), tmp_path / "out")
    assert len(report.done) == 2
    assert "not the model's own settings" in " ".join(describe(report))
    loaded = ResultCache(tmp_path / "out").load_results(include_remote=False)
    assert [m.model_name for m in loaded.model_results] == ["BAAI/bge-base-en-v1.5"]
    scores = {r.task_name: r.get_score() for r in loaded.model_results[0].task_results}
    assert scores == {"STS12": pytest.approx(0.82), "STSBenchmark": pytest.approx(0.82)}
    files = {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert files <= {"STSBenchmark.json", "STS12.json", "model_meta.json", "run_settings.jsonl"}


def test_experiments_go_along_when_asked_for(runs: Path, tmp_path: Path) -> None:
    report = export(saved(runs), tmp_path / "out", experiments=True)
    assert len(report.done) == 4
    assert sum("experiments" in path.parts for path in report.done) == 2


def test_model_index(runs: Path) -> None:
    import yaml

    own = [result for result in saved(runs) if not result.experiment]
    index = yaml.safe_load(model_index(own))["model-index"][0]
    assert index["name"] == "bge-base-en-v1.5"
    first = index["results"][0]
    assert first["task"] == {"type": "sentence-similarity", "name": "STS"}
    assert first["dataset"]["name"] == "STS12 (default)"
    assert first["metrics"][0]["value"] == 0.82
    with pytest.raises(UsageError, match="A model card has one model"):
        model_index(saved(runs))


def test_damaged_result_exports_nothing(runs: Path, tmp_path: Path) -> None:
    path = tmp_path / "bad" / "STS12.json"
    path.parent.mkdir()
    path.write_text('{"task_name": "STS12", "scores": 7}')
    (path.parent / "model_meta.json").write_text('{"name": "a/b", "revision": "r"}')
    with pytest.raises(DamagedError, match="mteb cannot read"):
        export([*saved(runs), SavedResult(path)], tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.json"))


@pytest.mark.slow
def test_own_collections_stay_here(bge_eval: CommandLine, runs: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    save_run(mine, "a/b", {"q1": {"d1": 1.0}}, {"q1": {"d1": 1}}, task="Tickets")
    with pytest.raises(MissingError, match="mteb has no such task: Tickets"):
        export(saved(mine), tmp_path / "out")
    done = bge_eval("export", mine, runs, "-o", "public")
    assert done.returncode == 0, done.stderr
    assert "Left out, mteb has no such task: Tickets" in done.stderr
    assert len(done.stdout.splitlines()) == 2
    assert not list((tmp_path / "cwd" / "public").rglob("*Tickets*"))
    done = bge_eval("export", runs, "--model-index", "-")
    assert done.returncode == 0 and done.stdout.startswith("model-index:\n- name: bge-base-en-v1.5")
    done = bge_eval("export", runs)
    assert done.returncode == 2 and "Say what to write" in done.stderr
