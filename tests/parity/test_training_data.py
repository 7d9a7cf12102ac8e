"""FlagEmbedding's own data set class reads the files of hard negatives."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bge_eval.mistakes.negatives import Miner, write_training
from bge_eval.records import Qrels, Run

pytestmark = pytest.mark.slow


def flagembeddings_training() -> Any:
    """Import the module of the data set alone: the whole package needs an older transformers."""
    spec = importlib.util.find_spec("FlagEmbedding")
    if spec is None or spec.origin is None:
        pytest.skip("the reference is FlagEmbedding itself")
    package = ModuleType("flagembeddings_training")
    package.__path__ = [str(Path(spec.origin).parent / "abc" / "finetune" / "embedder")]
    sys.modules[package.__name__] = package
    return importlib.import_module(f"{package.__name__}.AbsDataset")


@pytest.mark.filterwarnings("ignore")
def test_flagembedding_reads_the_lines(tmp_path: Path) -> None:
    training = flagembeddings_training()
    run: Run = {f"q{n}": {"good": 0.8, "near": 0.79, "far": 0.3, "further": 0.2} for n in range(3)}
    qrels: Qrels = {query: {"good": 1} for query in run}
    texts = {name: f"text of {name}" for name in ("good", "near", "far", "further")}
    path = tmp_path / "train.jsonl"
    write_training(path, Miner().hard_negatives(run, qrels), {q: f"ask {q}" for q in run}, texts)
    arguments = training.AbsEmbedderDataArguments(
        train_data=[str(path)],
        cache_path=str(tmp_path / "cache"),
        train_group_size=3,
        knowledge_distillation=True,
    )
    tokenizer: Any = None
    dataset = training.AbsEmbedderTrainDataset(arguments, tokenizer)
    assert len(dataset) == 3
    query, passages, scores = dataset[0]
    assert query == "ask q0"
    assert passages[0] == "text of good" and sorted(passages[1:]) == [
        "text of far",
        "text of further",
    ]
    assert scores[0] == 0.8 and sorted(scores[1:]) == [0.2, 0.3]
