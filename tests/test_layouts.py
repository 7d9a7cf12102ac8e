"""The same data in every layout that people have, and task types that are no retrieval."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mteb
import pytest

from bge_eval.data.finding import find_source
from bge_eval.data.sources import DataSource
from bge_eval.errors import BgeEvalError, DamagedError, MissingError
from bge_eval.evaluation.evaluate import evaluate
from bge_eval.evaluation.options import Options
from bge_eval.models.transformer import EncoderModel
from bge_eval.progress import Progress
from bge_eval.reproduction.tables import Verdict, tables
from bge_eval.suites.catalogue import plan
from conftest import BUILTIN


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_rows(path: Path, content: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row, ensure_ascii=False) for row in content]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def readme(folder: Path, configs: dict[str, dict[str, str]]) -> None:
    lines = ["---", "configs:"]
    for name, splits in configs.items():
        lines += [f"- config_name: {name}", "  data_files:"]
        for split, path in splits.items():
            lines += [f"  - split: {split}", f"    path: {path}"]
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]), encoding="utf-8")


def as_zip(beir: Path) -> None:
    with zipfile.ZipFile(f"{beir}.zip", "w") as archive:
        for path in sorted(beir.rglob("*")):
            archive.write(path, path.relative_to(beir.parent))
    shutil.rmtree(beir)


def as_flagembedding(beir: Path) -> None:
    for name in ("corpus", "queries"):
        content = [
            {("id" if key == "_id" else key): value for key, value in row.items()}
            for row in rows(beir / f"{name}.jsonl")
        ]
        target = "corpus.jsonl" if name == "corpus" else "test_queries.jsonl"
        (beir / f"{name}.jsonl").unlink()
        write_rows(beir / target, content)
    cells = [line.split("\t") for line in (beir / "qrels/test.tsv").read_text().splitlines()[1:]]
    judged = [{"qid": q, "docid": d, "relevance": int(g)} for q, d, g in cells]
    write_rows(beir / "test_qrels.jsonl", judged)
    shutil.rmtree(beir / "qrels")


def as_repository(beir: Path) -> None:
    """jsonl beside tsv: datasets' own reading of such a folder breaks on the second kind."""
    configs = {"corpus": {"corpus": "corpus.jsonl"}, "queries": {"queries": "queries.jsonl"}}
    readme(beir, {**configs, "default": {"test": "qrels/test.tsv"}})


def as_parquet_repository(beir: Path) -> None:
    import pandas as pd

    for name in ("corpus", "queries"):
        (beir / name).mkdir()
        frame = pd.DataFrame(rows(beir / f"{name}.jsonl"))
        frame.to_parquet(beir / name / f"{name}-00000-of-00001.parquet")
        (beir / f"{name}.jsonl").unlink()
    judged = pd.read_csv(beir / "qrels/test.tsv", sep="\t")
    judged.to_parquet(beir / "qrels" / "test-00000-of-00001.parquet")
    (beir / "qrels/test.tsv").unlink()


LAYOUTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "beir": (lambda beir: None, "beir"),
    "zip": (as_zip, "beir"),
    "flagembedding": (as_flagembedding, "flagembedding"),
    "repository with a README": (as_repository, "snapshot"),
    "repository of parquet, without": (as_parquet_repository, "snapshot"),
}


def source_of(task: Any, data: Path, **options: Any) -> DataSource:
    return find_source(task.task, [data], task.folder_names, offline=True, **options)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_retrieval_layouts_give_the_same_data(small_scifact: Path, layout: str) -> None:
    change, name = LAYOUTS[layout]
    change(small_scifact / "scifact")
    planned = plan(["SciFact"])[0]
    source = source_of(planned, small_scifact)
    assert source.identity(planned.task).layout == name
    with source.loaded(planned.task, Progress()):
        data: Any = planned.task.dataset["default"]["test"]  # type: ignore[index]
        assert data["queries"]["text"][:] == [
            "what makes bones strong",
            "memory and sleep",
            "糖尿病的原因",
        ]
        assert data["corpus"]["id"][:] == ["d1", "d2", "d3", "d4", "d5"]
        assert data["corpus"]["title"][:] == ["Vitamin D", "", "糖尿病", "", "Bees"]
        assert data["relevant_docs"] == {"q1": {"d1": 2, "d4": 0}, "q2": {"d2": 1}, "q3": {"d3": 1}}
        assert data["top_ranked"] is None


def test_zip_and_folder_are_the_same_identity(small_scifact: Path) -> None:
    planned = plan(["SciFact"])[0]
    before = source_of(planned, small_scifact).identity(planned.task)
    as_zip(small_scifact / "scifact")
    assert source_of(planned, small_scifact).identity(planned.task) == before


def test_damaged_zip(small_scifact: Path) -> None:
    as_zip(small_scifact / "scifact")
    path = small_scifact / "scifact.zip"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DamagedError, match="no zip, or cut off"):
        source_of(plan(["SciFact"])[0], small_scifact)


def test_copied_hub_cache(
    small_scifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """datasets' own offline mode ignores snapshots that are there."""
    planned = plan(["SciFact"])[0]
    revision = planned.task.metadata.dataset["revision"]
    as_repository(small_scifact / "scifact")
    place = tmp_path / "cache" / "datasets--mteb--scifact" / "snapshots" / revision
    shutil.copytree(small_scifact / "scifact", place)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    source = find_source(planned.task, [], planned.folder_names, offline=True)
    assert source.origin == str(place)
    with source.loaded(planned.task, Progress()):
        data: Any = planned.task.dataset["default"]["test"]  # type: ignore[index]
        assert len(data["corpus"]) == 5


RERANKING: dict[str, list[dict[str, Any]]] = {
    "corpus.jsonl": [{"_id": f"d{i}", "title": "", "text": t} for i, t in enumerate("abc")],
    "queries.jsonl": [{"_id": "q", "text": "a"}],
    "qrels.jsonl": [{"query-id": "q", "corpus-id": "d0", "score": 1}],
    "top.jsonl": [{"query-id": "q", "corpus-ids": ["d0", "d2"]}],
}


def reranking_repository(folder: Path, *, candidates: bool) -> None:
    for name, content in RERANKING.items():
        write_rows(folder / name, content)
    configs = {
        "corpus": {"test": "corpus.jsonl"},
        "queries": {"test": "queries.jsonl"},
        "default": {"test": "qrels.jsonl"},
    }
    if candidates:
        configs["top_ranked"] = {"test": "top.jsonl"}
    readme(folder, configs)


def test_reranking_keeps_its_candidates(tmp_path: Path) -> None:
    reranking_repository(tmp_path / "AskUbuntuDupQuestions", candidates=True)
    planned = plan(["AskUbuntuDupQuestions"])[0]
    options = Options(tmp_path / "out", (tmp_path,), offline=True)
    report = evaluate(EncoderModel(BUILTIN), [planned], options)
    path = report.done[planned.name][0]
    from bge_eval.results.trec import read_run

    run = read_run(path.with_name(f"{planned.name}.run.tsv.gz"))
    assert set(run["q"]) == {"d0", "d2"}


def test_reranking_never_becomes_retrieval(tmp_path: Path) -> None:
    reranking_repository(tmp_path / "AskUbuntuDupQuestions", candidates=False)
    planned = plan(["AskUbuntuDupQuestions"])[0]
    source = source_of(planned, tmp_path)
    with (
        pytest.raises(MissingError, match="would be retrieval over the whole corpus"),
        source.loaded(planned.task, Progress()),
    ):
        pass


STS = [
    {"sentence1": "a cat", "sentence2": "a feline", "score": 4.5},
    {"sentence1": "a dog", "sentence2": "a car", "score": 0.5},
    {"sentence1": "一只猫", "sentence2": "猫", "score": 4.0},
]


def scores_of(task: str, data: Path, output: Path) -> dict[str, float]:
    planned = plan([task])[0]
    report = evaluate(EncoderModel(BUILTIN), [planned], Options(output, (data,), offline=True))
    assert not report.failed, report.failed
    entry = next(iter(mteb.TaskResult.from_disk(report.done[task][0]).scores.values()))[0]
    return dict(entry)


def test_rows_and_repository_of_sts(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows" / "STSBenchmark" / "test.jsonl", STS)
    plain = scores_of("STSBenchmark", tmp_path / "rows", tmp_path / "out1")
    folder = tmp_path / "repo" / "stsbenchmark-sts"
    write_rows(folder / "data" / "test.jsonl", STS)
    readme(folder, {"default": {"test": "data/test.jsonl"}})
    assert scores_of("STSBenchmark", tmp_path / "repo", tmp_path / "out2") == plain


def test_missing_split_lists_those_there(tmp_path: Path) -> None:
    write_rows(tmp_path / "STSBenchmark" / "validation.jsonl", STS)
    with pytest.raises(MissingError, match=r"no test\.jsonl.*Splits there: validation"):
        planned = plan(["STSBenchmark"])[0]
        source_of(planned, tmp_path).identity(planned.task)


def test_missing_column_is_named(tmp_path: Path) -> None:
    write_rows(tmp_path / "STSBenchmark" / "test.jsonl", [{"sentence1": "a", "score": 1}])
    planned = plan(["STSBenchmark"])[0]
    with (
        pytest.raises(DamagedError, match=r"test\.jsonl, line 1: no sentence2"),
        source_of(planned, tmp_path).loaded(planned.task, Progress()),
    ):
        pass


def test_folder_in_no_known_layout(tmp_path: Path) -> None:
    (tmp_path / "STSBenchmark").mkdir()
    (tmp_path / "STSBenchmark" / "notes.txt").write_text("x")
    with pytest.raises(BgeEvalError, match=r"has the name of STSBenchmark.*holds: notes\.txt"):
        source_of(plan(["STSBenchmark"])[0], tmp_path)


PUBLISHED = {
    claim.task: claim for claim in tables()["minilm"].claims if not claim.task.endswith("Retrieval")
}
del PUBLISHED["SciFact"]  # a search, as XQuADRetrieval: tests/parity compares every key of both


@pytest.mark.parametrize(
    "task",
    [pytest.param(task, marks=pytest.mark.slow) for task in PUBLISHED],
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_published_scores(real_data: Path, tmp_path: Path, task: str) -> None:
    score = scores_of(task, real_data, tmp_path)["main_score"]
    assert PUBLISHED[task].verdict(score) is Verdict.OK, (score, PUBLISHED[task])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_ocnli_equals_mteb(real_data: Path, minilm_folder: Path, tmp_path: Path) -> None:
    """No score of this model is published for Ocnli: mteb itself is the reference."""
    from sentence_transformers import SentenceTransformer

    ours = scores_of("Ocnli", real_data, tmp_path)
    planned = plan(["Ocnli"])[0]
    with source_of(planned, real_data).loaded(planned.task, Progress()):
        model = SentenceTransformer(str(minilm_folder), device="cpu")
        done = mteb.evaluate(model, planned.task, cache=None, show_progress_bar=False)
    for key, value in done.task_results[0].scores["validation"][0].items():
        if isinstance(value, float):
            assert ours[key] == pytest.approx(value, abs=1e-5), key
