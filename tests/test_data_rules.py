"""Oddities of a collection: mteb's rule in every layout, or a refusal where mteb would guess.

The rules are those of docs/data.md. mteb itself reads the same data and scores the same model.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mteb
import pytest

from bge_eval.evaluation.evaluate import evaluate
from bge_eval.evaluation.options import Options
from bge_eval.models.transformer import EncoderModel
from bge_eval.results.finished import Report
from bge_eval.suites.catalogue import plan
from conftest import BUILTIN, write_beir
from test_layouts import as_parquet_repository, readme

pytestmark = pytest.mark.filterwarnings("ignore")

LAYOUTS = ("beir", "repository")


@dataclass
class Data:
    """A small collection in its regular state."""

    corpus: list[tuple[str, str]] = field(
        default_factory=lambda: [
            ("d1", "Vitamin D strengthens bones."),
            ("d2", "Sleep loss weakens memory."),
            ("d3", "Aspirin thins the blood."),
            ("d4", "Honey bees dance to point at flowers."),
            ("d5", "Calcium and sunlight keep bones strong."),
            ("d6", "Memory is formed in the hippocampus."),
        ]
    )
    queries: list[tuple[str, str]] = field(
        default_factory=lambda: [
            ("q1", "what makes bones strong"),
            ("q2", "memory and sleep"),
            ("q3", "how do bees talk"),
        ]
    )
    qrels: list[tuple[str, str, int]] = field(
        default_factory=lambda: [
            *(("q1", "d1", 1), ("q1", "d5", 1), ("q2", "d6", 1), ("q3", "d4", 1)),
        ]
    )

    def write(self, folder: Path, layout: str) -> Path:
        """Write it in a layout; returns the folder."""
        documents = [{"_id": name, "title": "", "text": text} for name, text in self.corpus]
        write_beir(folder, documents, dict(self.queries), self.qrels)
        if layout == "repository":
            as_parquet_repository(folder)
            for name in ("corpus", "queries"):
                shutil.copy(folder / name / f"{name}-00000-of-00001.parquet", folder / f"{name}.pq")
                shutil.rmtree(folder / name)
                (folder / f"{name}.pq").rename(folder / f"{name}.parquet")
            (folder / "qrels" / "test-00000-of-00001.parquet").rename(folder / "qrels.parquet")
            readme(
                folder,
                {
                    "corpus": {"corpus": "corpus.parquet"},
                    "queries": {"queries": "queries.parquet"},
                    "default": {"test": "qrels.parquet"},
                },
            )
        return folder


def empty_documents(data: Data) -> None:
    data.corpus += [("d7", ""), ("d8", "  ")]
    data.qrels += [("q2", "d7", 1)]


def query_without_positive(data: Data) -> None:
    data.queries += [("q4", "aspirin and blood")]
    data.qrels += [("q4", "d3", 0)]


def query_without_judgement(data: Data) -> None:
    data.queries += [("q4", "aspirin and blood")]


def graded(data: Data) -> None:
    data.qrels[:2] = [("q1", "d1", 3), ("q1", "d5", 1), ("q1", "d6", 2)]


def negative(data: Data) -> None:
    data.qrels += [("q1", "d6", -1), ("q2", "d2", -2)]


def same_judgement_twice(data: Data) -> None:
    data.qrels += [data.qrels[0]]


def unknown_document(data: Data) -> None:
    data.qrels += [("q1", "d99", 1)]


def unknown_query(data: Data) -> None:
    data.qrels += [("q99", "d1", 1)]


def contradiction(data: Data) -> None:
    data.qrels += [("q1", "d5", 0)]


def same_document_twice(data: Data) -> None:
    data.corpus += [data.corpus[0]]


def same_id_twice(data: Data) -> None:
    data.corpus += [("d1", "Trains are late.")]


AS_MTEB = [
    *(empty_documents, query_without_positive, query_without_judgement, graded, negative),
    same_judgement_twice,
]
REFUSED: dict[Callable[[Data], None], str] = {
    unknown_document: "d99",
    unknown_query: "q99",
    contradiction: "d5",
    same_document_twice: "d1",
    same_id_twice: "d1",
}


@pytest.fixture(scope="module")
def encoder() -> EncoderModel:
    return EncoderModel(BUILTIN)


@pytest.fixture(scope="module")
def reference(minilm_folder: Path) -> Iterator[Any]:
    from sentence_transformers import SentenceTransformer

    yield SentenceTransformer(str(minilm_folder), device="cpu")


def ours(encoder: EncoderModel, folder: Path, **options: Any) -> Report:
    planned = plan(["SciFact"])
    place = Options(folder.parent / "output", (folder.parent,), offline=True, **options)
    return evaluate(encoder, planned, place)


def scores(report: Report) -> Any:
    assert not report.failed
    return mteb.TaskResult.from_disk(report.done["SciFact"][0]).scores["test"][0]


def mteb_scores(model: Any, folder: Path) -> Any:
    """Let mteb read a dataset repository, and score the model on it."""
    task: Any = plan(["SciFact"])[0].task
    local = {"path": str(folder), "revision": "1"}
    task.metadata = task.metadata.model_copy(update={"dataset": local})
    done = mteb.evaluate(model, task, cache=None, show_progress_bar=False)
    return done.task_results[0].scores["test"][0]


def assert_same(mine: Any, theirs: Any) -> None:
    assert mine.keys() == theirs.keys()
    for key, value in theirs.items():
        if isinstance(value, float):
            assert mine[key] == pytest.approx(value, abs=1e-5, nan_ok=True), key


@pytest.fixture
def local_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What mteb's reader converts is no business of other tests."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")


@pytest.mark.usefixtures("local_cache")
@pytest.mark.parametrize("change", AS_MTEB, ids=lambda change: change.__name__)
def test_as_mteb(
    encoder: EncoderModel, reference: Any, tmp_path: Path, change: Callable[[Data], None]
) -> None:
    data = Data()
    change(data)
    theirs = mteb_scores(reference, data.write(tmp_path / "mteb" / "scifact", "repository"))
    for layout in LAYOUTS:
        folder = data.write(tmp_path / layout / "scifact", layout)
        assert_same(scores(ours(encoder, folder)), theirs)


@pytest.mark.usefixtures("local_cache")
def test_unknown_documents_that_are_accepted(
    encoder: EncoderModel, reference: Any, tmp_path: Path
) -> None:
    """They cannot be retrieved: recall and nDCG of their query fall."""
    whole, data = Data(), Data()
    unknown_document(data)
    theirs = mteb_scores(reference, data.write(tmp_path / "mteb" / "scifact", "repository"))
    before = scores(ours(encoder, whole.write(tmp_path / "whole" / "scifact", "beir")))
    for layout in LAYOUTS:
        folder = data.write(tmp_path / layout / "scifact", layout)
        mine = scores(ours(encoder, folder, dangling=True))
        assert_same(mine, theirs)
        assert mine["recall_at_1000"] < before["recall_at_1000"]


@pytest.mark.usefixtures("local_cache")
def test_contradictions_of_a_repository_are_told(
    encoder: EncoderModel,
    reference: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """mteb's published scores count the last grade."""
    told: list[str] = []
    monkeypatch.setattr(encoder.progress, "note", told.append)
    data = Data()
    contradiction(data)
    folder = data.write(tmp_path / "repository" / "scifact", "repository")
    assert_same(scores(ours(encoder, folder)), mteb_scores(reference, folder))
    assert [text for text in told if "1 judgements are contradicted" in text and "'d5'" in text]


@pytest.mark.parametrize(
    ("change", "layout"),
    [
        (change, layout)
        for change in REFUSED
        for layout in LAYOUTS
        if (change, layout) != (contradiction, "repository")
    ],
)
def test_refused(
    encoder: EncoderModel, tmp_path: Path, change: Callable[[Data], None], layout: str
) -> None:
    data = Data()
    change(data)
    report = ours(encoder, data.write(tmp_path / "scifact", layout))
    assert REFUSED[change] in str(report.failed["SciFact"])
    assert not list((tmp_path / "output").rglob("SciFact.json"))
