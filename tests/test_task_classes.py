"""Task classes of the user's own, and mteb's mock tasks of every type, by the command line."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import mteb
import pytest
from mteb.mocks import MOCK_TASK_TEST_GRID

from bge_eval.cli.quiet import DEBUG
from conftest import BUILTIN, CommandLine

CLASSES = list(dict.fromkeys(type(task) for task in MOCK_TASK_TEST_GRID))
LISTED = {
    "Retrieval",
    "Reranking",
    "STS",
    "PairClassification",
    "Classification",
    "MultilabelClassification",
    "Clustering",
    "Summarization",
    "BitextMining",
    "InstructionRetrieval",
}


@pytest.mark.slow
def test_mock_tasks_score_as_in_mteb(
    bge_eval: CommandLine, minilm_folder: Path, tmp_path: Path
) -> None:
    from sentence_transformers import SentenceTransformer

    names = [f"{kind.__module__}:{kind.__name__}" for kind in CLASSES]
    run = ["run", "--model", BUILTIN, "--offline", "--format", "json", "--output"]
    done = bge_eval(*run, tmp_path / "out", "--tasks", *names)
    assert done.returncode == 0, done.stderr
    scores = json.loads(done.stdout)["rows"][0]["scores"]
    assert {kind.metadata.type for kind in CLASSES} >= LISTED
    model = SentenceTransformer(str(minilm_folder), device="cpu")
    for kind in CLASSES:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = mteb.evaluate(model, kind(), cache=None, show_progress_bar=False)
        theirs = result.task_results[0].get_score()
        assert scores[kind.metadata.name] == pytest.approx(theirs, abs=1e-5), kind.__name__


TASK = """
from datasets import Dataset
from mteb.abstasks.sts import AbsTaskSTS
from mteb.abstasks.task_metadata import TaskMetadata

PAIRS = [("a cat", "a feline", 4.5), ("a dog", "a car", 0.5), ("tea", "coffee", 2.0)]

class Phrases(AbsTaskSTS):
    metadata = TaskMetadata(
        name="Phrases", description="Pairs of phrases.", reference=None,
        dataset={"path": "none/none", "revision": "1"}, type="STS", category="t2t",
        modalities=["text"], eval_splits=["test"], eval_langs=["eng-Latn"],
        main_score="cosine_spearman", date=None, domains=None, task_subtypes=None, license=None,
        annotations_creators=None, dialect=None, sample_creation=None, bibtex_citation=None,
    )

    def load_data(self, **kwargs):
        rows = [dict(zip(("sentence1", "sentence2", "score"), pair)) for pair in PAIRS]
        self.dataset = {"test": Dataset.from_list(rows)}
        self.data_loaded = True

class Broken(Phrases):
    metadata = Phrases.metadata.model_copy(update={"name": "Broken"})

    def load_data(self, **kwargs):
        raise OSError("the drive is gone")

class Faulty(Phrases):
    metadata = Phrases.metadata.model_copy(update={"name": "Faulty"})

    def evaluate(self, *args, **kwargs):
        return 1 / 0

def helper():
    pass
"""


@pytest.fixture
def own_module(tmp_path: Path) -> Iterator[Path]:
    """A module with task classes, in the folder where the command is called."""
    (tmp_path / "cwd").mkdir(exist_ok=True)
    path = tmp_path / "cwd" / "own_tasks.py"
    path.write_text(TASK, encoding="utf-8")
    yield path
    sys.modules.pop("own_tasks", None)


def test_own_class_is_run_again_when_its_data_change(
    bge_eval_here: CommandLine, own_module: Path
) -> None:
    run = ["run", "--model", BUILTIN, "--tasks", "own_tasks:Phrases", "--offline"]
    first = bge_eval_here(*run)
    assert first.returncode == 0, first.stderr
    assert "Phrases" in first.stdout
    assert "already done" in bge_eval_here(*run).stderr
    own_module.write_text(TASK.replace("4.5", "-1.5"), encoding="utf-8")
    del sys.modules["own_tasks"]  # another call of the command imports it anew
    assert "another data.fingerprint" in " ".join(bge_eval_here(*run).stderr.split())
    listed = bge_eval_here("tasks", "own_tasks:Phrases", "--json")
    assert json.loads(listed.stdout)[0]["origin"] == "own_tasks:Phrases"


def test_what_nobody_thought_of_costs_one_task(
    bge_eval_here: CommandLine, own_module: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DEBUG, "")  # which --debug sets
    run = ["run", "--model", BUILTIN, "--offline", "--tasks"]
    done = bge_eval_here(*run, "own_tasks:Faulty", "own_tasks:Phrases")
    assert done.returncode == 1
    assert "1.00000" in done.stdout and "no average, 1 missing: Faulty" in done.stdout
    assert "Faulty was not evaluated" in done.stderr
    assert "ZeroDivisionError: division by zero" in " ".join(done.stdout.split())
    assert "Traceback" not in done.stderr
    debugged = bge_eval_here("--debug", *run, "own_tasks:Faulty")
    assert "return 1 / 0" in debugged.stderr


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("own_tasks:Phrase", 2, "has no task class 'Phrase'. Did you mean Phrases"),
        ("own_tasks:helper", 2, "has no task class 'helper'"),
        ("no_such_module:Phrases", 2, "module no_such_module cannot be imported"),
        ("own_tasks:Broken", 3, "could not load its data (OSError: the drive is gone)"),
    ],
)
def test_wrong_class(
    bge_eval_here: CommandLine, own_module: Path, name: str, code: int, message: str
) -> None:
    done = bge_eval_here("run", "--model", BUILTIN, "--tasks", name, "--offline")
    assert done.returncode == code, done.stderr
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert not list(own_module.parent.rglob("*.json"))
