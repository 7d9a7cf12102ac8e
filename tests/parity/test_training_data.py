"""FlagEmbedding's own data set class reads the files of hard negatives."""

from __future__ import annotations

from pathlib import Path

import pytest

from bge_eval.mistakes.negatives import Miner, write_training
from bge_eval.records import Qrels, Run
from parity.flagembedding import FlagEmbedding

pytestmark = pytest.mark.slow


def test_flagembedding_reads_the_lines(tmp_path: Path, flagembedding: FlagEmbedding) -> None:
    run: Run = {f"q{n}": {"good": 0.8, "near": 0.79, "far": 0.3, "further": 0.2} for n in range(3)}
    qrels: Qrels = {query: {"good": 1} for query in run}
    texts = {name: f"text of {name}" for name in ("good", "near", "far", "further")}
    path = tmp_path / "train.jsonl"
    write_training(path, Miner().hard_negatives(run, qrels), {q: f"ask {q}" for q in run}, texts)
    rows = flagembedding.ask(
        "training_rows", path=str(path), cache=str(tmp_path / "cache"), group_size=3
    )
    assert [row["query"] for row in rows] == ["ask q0", "ask q1", "ask q2"]
    for row in rows:
        assert row["passages"][0] == "text of good" and row["scores"][0] == 0.8
        # The document near the positive is suspected, so it is no negative.
        assert dict(zip(row["passages"][1:], row["scores"][1:], strict=True)) == {
            "text of far": 0.3,
            "text of further": 0.2,
        }
