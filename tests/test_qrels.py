"""Judgements are read by one rule, and those outside the corpus are accepted where published."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mteb
import pytest
from mteb.abstasks.clustering_legacy import AbsTaskClusteringLegacy

from bge_eval.data.fetch import verify
from bge_eval.data.layouts import recognise_source
from bge_eval.data.plausibility import counts, is_sample, other_counts
from bge_eval.data.retrieval_folder import BEIR, RetrievalFolder
from bge_eval.errors import DamagedError
from bge_eval.progress import Progress
from bge_eval.records import Qrels
from bge_eval.results.trec import read_qrels
from bge_eval.suites.catalogue import plan
from conftest import write_beir

CORPUS = [{"_id": f"d{number}", "title": "", "text": "text"} for number in range(3)]


def loaded(folder: Path, text: str) -> Qrels:
    """Read judgements as those of a collection, and as a file of ``--qrels``: alike."""
    write_beir(folder / "set", CORPUS, {"q1": "one", "q2": "two"}, [("q1", "d0", 1)])
    path = folder / "set" / "qrels" / "test.tsv"
    path.write_text(text)
    (folder / "scratch").mkdir(exist_ok=True)
    splits = RetrievalFolder(folder / "set", BEIR).load(["test"], folder / "scratch", Progress())
    assert splits["test"].qrels == read_qrels(path)
    return splits["test"].qrels


@pytest.mark.parametrize(
    "text",
    [
        "query-id\tcorpus-id\tscore\nq1\td0\t2\nq2\td1\t0\n",
        "q1\td0\t2\nq2\td1\t0\n",
        "q1 0 d0 2\nq2 0 d1 0\n",
        "q1\t0\td0\t2\nq2\t0\td1\t0\n",
        "query\tdocument\trelevance\nq1\td0\t2.0\nq2\td1\t0.0\n",
        "qid iter docid Rel\nq1 Q0 d0 2\n\nq2 Q0 d1 0\n",
        "query-id\tcorpus-id\tscore\r\nq1\td0\t2\r\nq2\td1\t0\r\n",
    ],
    ids=["beir", "no header", "trec", "trec with tabs", "other words", "trec header", "crlf"],
)
def test_every_form_is_read_alike(tmp_path: Path, text: str) -> None:
    assert loaded(tmp_path, text) == {"q1": {"d0": 2}, "q2": {"d1": 0}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q1\td0\tyes\n", "line 1: the grade 'yes' is not a whole number"),
        ("query-id\tcorpus-id\tscore\nq1\td0\t1.5\n", "line 2: the grade '1.5'"),
        ("q1\td0\t1\nq2\td1\tnan\n", "line 2: the grade 'nan'"),
        ("q1\td0\t1\nq2\t0\td1\t1\n", "line 2: expected 3 columns, as above"),
        ("q1\td0\n", "line 1: expected three columns or four"),
        ("corpus-id\tquery-id\tscore\nd0\tq1\t1\n", "line 1: the header names the columns"),
        ("q1\td0\t1\nq1\td0\t2\n", "line 2: 'q1' and 'd0' were already judged 1, now 2"),
    ],
)
def test_what_is_no_judgement_is_refused_with_its_line(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(DamagedError, match=message):
        loaded(tmp_path, text)
    with pytest.raises(DamagedError, match=message):
        read_qrels(tmp_path / "set" / "qrels" / "test.tsv")


class Notes(Progress):
    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def arguana(folder: Path, documents: int, missing: int) -> Path:
    """Write data of ArguAna's size: mteb counts 8,674 documents, and 5 judged ones outside."""
    corpus = [{"_id": f"d{number}", "title": "", "text": "a text"} for number in range(documents)]
    queries = {f"q{number}": "a text" for number in range(1406)}
    outside = [f"x{number}" for number in range(missing)]
    judged = [*outside, *(f"d{number}" for number in range(1406 - missing))]
    qrels = [(query, document, 1) for query, document in zip(queries, judged, strict=True)]
    return write_beir(folder / "arguana", corpus, queries, qrels)


@pytest.mark.parametrize(
    ("documents", "missing", "accepted"),
    [(8674, 5, True), (8674, 4, False), (8674, 6, False), (8673, 5, False)],
)
def test_arguana_has_the_five_gaps_of_the_published_copy(
    tmp_path: Path, documents: int, missing: int, accepted: bool
) -> None:
    [planned] = plan(["ArguAna"])
    source = recognise_source(planned.task, arguana(tmp_path, documents, missing))
    progress = Notes()
    problems = verify(planned.task, source, progress).problems
    assert (problems == ()) is accepted, problems
    expected = "5 judged documents are not in the corpus, as in the published copy"
    assert any(expected in note for note in progress.notes) is accepted
    if not accepted:
        assert "--allow-dangling-qrels" in problems[0]


def legacy(sets: list[list[str]]) -> Any:
    """Return MasakhaNEWS's task with some sets of sentences as its English data."""
    from datasets import Dataset, DatasetDict

    task: Any = mteb.get_task("MasakhaNEWSClusteringS2S", languages=["eng"])
    assert isinstance(task, AbsTaskClusteringLegacy)
    labels = [["label"] * len(sentences) for sentences in sets]
    rows = Dataset.from_dict({"sentences": sets, "labels": labels})
    task.dataset = {"eng": DatasetDict({"test": rows})}
    task.data_loaded = True
    return task


def test_sentences_of_older_clustering_sets_are_counted() -> None:
    task = legacy([["a sentence"] * 190] * 4 + [["a sentence"] * 188])
    statistics = task.metadata.descriptive_stats["test"]["hf_subset_descriptive_stats"]["eng"]
    assert statistics["num_samples"] == 948
    assert counts(task) == {"test samples": 948}
    assert other_counts(task) == [] and not is_sample(task)


def test_a_few_sentences_are_a_sample_and_some_a_damaged_copy() -> None:
    assert is_sample(legacy([["a sentence"] * 2] * 3))
    cut = legacy([["a sentence"] * 100] * 5)
    assert not is_sample(cut)
    assert other_counts(cut) == ["test samples: 500 here, 948 as published."]


def test_flagembedding_grades_follow_the_same_rule(tmp_path: Path) -> None:
    from bge_eval.data.qrels import jsonl_judgements

    path = tmp_path / "test_qrels.jsonl"
    path.write_text(json.dumps({"qid": "q1", "docid": "d1", "relevance": 1.0}) + "\n")
    assert [(each.query, each.grade) for each in jsonl_judgements(path)] == [("q1", 1)]
    path.write_text(json.dumps({"qid": "q1", "docid": "d1", "relevance": True}) + "\n")
    with pytest.raises(DamagedError, match="line 1: the grade 'true'"):
        list(jsonl_judgements(path))
