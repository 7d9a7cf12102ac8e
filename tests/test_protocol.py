"""The leaderboard's rules and the BGE authors' own: where the prompt goes, what is normalised."""

from __future__ import annotations

import fnmatch
import json
from pathlib import Path

import mteb
import numpy as np
import pytest
from mteb.filter_tasks import filter_tasks
from mteb.get_tasks import TASK_LIST

from bge_eval.encode.prompts import Role
from bge_eval.encode.protocol import ProtocolName, read_protocol
from bge_eval.encode.settings import Overrides
from bge_eval.errors import UsageError
from bge_eval.models.kinds import ModelOptions
from bge_eval.models.transformer import EncoderModel
from bge_eval.suites.catalogue import plan
from conftest import BUILTIN, CommandLine
from test_layouts import write_rows

LEADERBOARD, CARD = ProtocolName.LEADERBOARD, ProtocolName.MODEL_CARD
EN, ZH = "Represent this: ", "为这个句子生成表示："

# In the words of the authors' scripts; what is not named goes without the instruction.
ENGLISH = ["Touche2020", "SciFact", "TRECCOVID", "NQ", "NFCorpus", "MSMARCO", "HotpotQA"]
ENGLISH += ["FiQA2018", "FEVER", "DBPedia", "ClimateFEVER", "SCIDOCS"]


def model(folder: Path, protocol: ProtocolName, prompt: str = EN) -> EncoderModel:
    return EncoderModel(
        str(folder), ModelOptions(overrides=Overrides(query_prompt=prompt, protocol=protocol))
    )


def instructed(suite: str, encoder: EncoderModel) -> set[str]:
    """The retrieval and reranking tasks of a suite whose queries get the prompt."""
    parts = [part for task in plan([suite]) for part in (task.parts or (task,))]
    tasks = [part.task.metadata for part in parts]
    ranked = [task for task in tasks if task.type in ("Retrieval", "Reranking")]
    return {task.name for task in ranked if encoder.prompt(task, Role.QUERY)}


def test_english_instruction(tiny_bge: Path) -> None:
    forums = {part.name for task in plan(["beir"]) for part in task.parts}
    assert len(forums) == 12
    assert instructed("mteb-en", model(tiny_bge, CARD)) == {*ENGLISH, *forums}
    left_out = instructed("mteb-en", model(tiny_bge, LEADERBOARD)) - {*ENGLISH, *forums}
    assert left_out == {
        "ArguAna",
        "QuoraRetrieval",
        "AskUbuntuDupQuestions",
        "MindSmallReranking",
        "SciDocsRR",
        "StackOverflowDupQuestions",
    }


def test_chinese_instruction(tiny_bge: Path) -> None:
    card, board = (model(tiny_bge, protocol, ZH) for protocol in (CARD, LEADERBOARD))
    assert instructed("c-mteb", card) == instructed("c-mteb", board)
    assert len(instructed("c-mteb", card)) == 8 + 4


@pytest.mark.parametrize(
    ("task", "normalised"),
    [
        ("Banking77Classification", False),
        ("STSBenchmark", True),
        ("TwitterSemEval2015", True),
        ("TNews", True),  # the authors normalise in Chinese
        ("XQuADRetrieval", True),
    ],
)
def test_normalisation(tiny_bge: Path, task: str, normalised: bool) -> None:
    metadata = mteb.get_task(task).metadata
    identity = model(tiny_bge, CARD).identity(metadata)
    assert identity["normalize"] is normalised
    assert identity["protocol"] == "model-card"
    assert model(tiny_bge, LEADERBOARD).identity(metadata)["normalize"] is True


def test_leaderboard_is_no_part_of_an_identity(tiny_bge: Path) -> None:
    """Results that were made before there were protocols stay valid."""
    metadata = mteb.get_task("SciFact").metadata
    encoder = model(tiny_bge, LEADERBOARD)
    assert "protocol" not in encoder.identity(metadata)
    assert encoder.identity(metadata) == model(tiny_bge, None).identity(metadata)  # type: ignore[arg-type]


def test_prompt_of_one_task_still_wins(tiny_bge: Path) -> None:
    said = Overrides(query_prompt=None, prompts={"ArguAna": "argue: "}, protocol=CARD)
    encoder = EncoderModel(str(tiny_bge), ModelOptions(overrides=said))
    assert encoder.prompt(mteb.get_task("ArguAna").metadata, Role.QUERY) == "argue: "


def test_own_collection_keeps_the_prompt(tiny_bge: Path, small_scifact: Path) -> None:
    task = plan([str(small_scifact / "scifact")])[0].task
    assert model(tiny_bge, CARD).prompt(task.metadata, Role.QUERY) == EN


def test_every_name_in_the_rules_is_a_task() -> None:
    # Classes are enough: to make a task of each takes seconds.
    listed = filter_tasks(TASK_LIST, exclude_private=True, exclude_beta=True)
    known = [task.metadata.name for task in listed]
    for rule in read_protocol(CARD).rules:
        for pattern in rule.query_prompt:
            assert fnmatch.filter(known, pattern), pattern


def test_classification_is_scored_on_raw_vectors(
    bge_eval_here: CommandLine, tiny_bge: Path, tmp_path: Path
) -> None:
    texts = [f"card number {i} is lost" for i in range(20)] + [f"rate {i} today" for i in range(20)]
    rows = [{"text": text, "label": int(i >= 20)} for i, text in enumerate(texts)]
    for split in ("train", "test"):
        write_rows(tmp_path / "data" / "Banking77Classification" / f"{split}.jsonl", rows)
    run = ["run", "--model", tiny_bge, "--tasks", "Banking77Classification", "--offline"]
    run += ["--data-dir", tmp_path / "data", "--output", tmp_path / "out", "--allow-other-data"]
    done = bge_eval_here(*run)
    assert done.returncode == 0, done.stderr
    done = bge_eval_here(*run, "--protocol", "model-card")
    assert done.returncode == 0, done.stderr
    assert "by the rules of model-card" in " ".join(done.stderr.split())
    records = [json.loads(path.read_text()) for path in (tmp_path / "out").rglob("run.json")]
    assert {record["identity"]["model"]["normalize"] for record in records} == {True, False}
    table = bge_eval_here("table", tmp_path / "out", "--format", "csv").stdout
    assert "protocol=model-card" in table and len(table.strip().splitlines()) == 3


def test_raw_vectors(tiny_bge: Path) -> None:
    encoder = model(tiny_bge, CARD)
    banking, sts = (mteb.get_task(name).metadata for name in ("Banking77Classification", "STS12"))
    batches = [{"text": ["a lost card", "the rate"]}]
    raw = encoder.encode(batches, task_metadata=banking, hf_split="test", hf_subset="default")
    unit = encoder.encode(batches, task_metadata=sts, hf_split="test", hf_subset="default")
    lengths = np.linalg.norm(raw, axis=1, keepdims=True)
    assert np.abs(lengths - 1).min() > 0.1
    np.testing.assert_allclose(raw / lengths, unit, atol=1e-6)


def test_instruction_tuned_models_are_refused(
    tiny_bge: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    import bge_eval.models.transformer as adapter
    from bge_eval.encode.prompts import Instructions
    from bge_eval.encode.settings import read_model_config

    def instructed_config(*arguments: object) -> object:
        config = read_model_config(*arguments)  # type: ignore[arg-type]
        return replace(
            config, prompts=replace(config.prompts, instructions=Instructions("{instruction} "))
        )

    monkeypatch.setattr(adapter, "read_model_config", instructed_config)
    with pytest.raises(UsageError, match="gets an instruction for each task"):
        EncoderModel(str(tiny_bge), ModelOptions(overrides=Overrides(protocol=CARD)))


def test_wrong_protocol(bge_eval_here: CommandLine) -> None:
    done = bge_eval_here("run", "--model", BUILTIN, "--tasks", "demo", "--protocol", "paper")
    assert done.returncode == 2
    assert "leaderboard" in done.stderr and "model-card" in done.stderr
