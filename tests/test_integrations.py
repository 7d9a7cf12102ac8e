"""Callbacks in real trainings of a tiny model: the same loss curve, the score of the checkpoint."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers.base.evaluation import BaseEvaluator

import bge_eval
from bge_eval.errors import UsageError
from bge_eval.integrations import SentenceTransformerEvaluator, TrainerCallback
from bge_eval.integrations.during import random_states
from test_tracking import scalars
from trainings import losses, train_sentence_transformer, train_transformer

EVERY = {"eval_strategy": "steps", "eval_steps": 2}
BEST = {"load_best_model_at_end": True, "metric_for_best_model": "eval_bge_mean"}


class _Idle(BaseEvaluator):
    """An evaluator that does nothing."""

    def __call__(self, model: Any, *arguments: Any, **others: Any) -> float:
        return 0.0


def logged(trainer: Any) -> dict[int, float]:
    """Return step → the mean that the callback logged."""
    history = trainer.state.log_history
    return {entry["step"]: entry["eval_bge_mean"] for entry in history if "eval_bge_mean" in entry}


def scores_of_run(checkpoints: Path, data: Path, **settings: Any) -> dict[int, float]:
    """Return step → the score that `run` gives the saved checkpoint."""
    folders = {int(path.name.split("-")[1]): path for path in checkpoints.glob("checkpoint-*")}
    return {
        step: bge_eval.evaluate(
            *(str(folder), "SciFact"),
            data_dir=data,
            output=checkpoints.parent / "run",
            store=False,
            **settings,
        ).score("SciFact")
        for step, folder in sorted(folders.items())
    }


def test_an_evaluator_changes_no_loss_and_gives_the_checkpoints_score(
    tmp_path: Path, tiny_bge: Path, small_scifact: Path
) -> None:
    # The trainer's own evaluation draws random numbers, whatever evaluator it has.
    idle = _Idle()  # type: ignore[no-untyped-call]
    plain = train_sentence_transformer(tiny_bge, tmp_path / "plain", evaluator=idle, **EVERY)
    evaluator = SentenceTransformerEvaluator("SciFact", data_dir=small_scifact)
    trainer = train_sentence_transformer(
        tiny_bge, tmp_path / "evaluated", evaluator=evaluator, **EVERY, **BEST
    )
    assert len(losses(plain)) == 6 and losses(trainer) == losses(plain)
    scores = scores_of_run(tmp_path / "evaluated", small_scifact)
    assert logged(trainer) == scores and sorted(scores) == [2, 4, 6]
    best = max(scores, key=lambda step: (scores[step], -step))
    assert trainer.state.best_model_checkpoint.endswith(f"checkpoint-{best}")
    # The result is filed as the checkpoint's own: running the checkpoint finds it done.
    again = bge_eval.evaluate(
        *(str(tmp_path / "evaluated" / "checkpoint-4"), "SciFact"),
        data_dir=small_scifact,
        output=tmp_path / "evaluated" / "bge-eval",
    )
    assert again.reused == ("SciFact",)


def test_the_callback_changes_no_loss_and_gives_the_checkpoints_score(
    tmp_path: Path, tiny_bge: Path, small_scifact: Path
) -> None:
    plain = train_transformer(tiny_bge, tmp_path / "plain", **EVERY)
    told: list[tuple[dict[str, float], int]] = []
    callback = TrainerCallback(
        ["SciFact"],
        data_dir=[small_scifact],
        output=tmp_path / "results",
        log=lambda metrics, step: told.append((metrics, step)),
        track=f"tensorboard={tmp_path / 'tracked'}",
        pooling="mean",
    )
    trainer = train_transformer(
        tiny_bge, tmp_path / "evaluated", callbacks=[callback], **EVERY, **BEST
    )
    assert len(losses(plain)) == 6 and losses(trainer) == losses(plain)
    scores = scores_of_run(tmp_path / "evaluated", small_scifact, pooling="mean")
    assert logged(trainer) == scores and sorted(scores) == [2, 4, 6]
    assert [step for _, step in told] == [2, 4, 6]
    assert told[0][0] == {"eval_bge_SciFact": scores[2], "eval_bge_mean": scores[2]}
    best = max(scores, key=lambda step: (scores[step], -step))
    assert trainer.state.best_model_checkpoint.endswith(f"checkpoint-{best}")
    assert (tmp_path / "results" / "results").is_dir()
    [values] = scalars(tmp_path / "tracked").values()
    tracked = {step: value for (name, step), [value] in values.items() if "ndcg" in name}
    assert tracked == pytest.approx(scores, rel=1e-6)


@pytest.mark.slow
def test_a_trainer_that_never_evaluates_has_its_checkpoints_evaluated(
    tmp_path: Path, tiny_bge: Path, small_scifact: Path
) -> None:
    plain = train_sentence_transformer(tiny_bge, tmp_path / "plain")
    callback = TrainerCallback("SciFact", data_dir=small_scifact, prefix="ours")
    trainer = train_sentence_transformer(tiny_bge, tmp_path / "saved", callbacks=[callback])
    assert len(losses(plain)) == 6 and losses(trainer) == losses(plain)
    history = trainer.state.log_history
    found = {e["step"]: e["eval_ours_mean"] for e in history if "eval_ours_mean" in e}
    assert found == scores_of_run(tmp_path / "saved", small_scifact)


def test_a_wrong_task_is_refused_before_the_training(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="SciFakt"):
        TrainerCallback("SciFakt")
    with pytest.raises(UsageError, match="SciFakt"):
        SentenceTransformerEvaluator(["SciFact", "SciFakt"])


def test_a_failed_task_ends_the_training_with_its_reason(
    tmp_path: Path, tiny_bge: Path, small_scifact: Path
) -> None:
    evaluator = SentenceTransformerEvaluator("NFCorpus", data_dir=small_scifact, max_length=0)
    with pytest.raises(UsageError, match="max-length must be at least 1"):
        train_sentence_transformer(tiny_bge, tmp_path / "out", evaluator=evaluator, **EVERY)


def test_the_signal_of_watch_ends_the_training(
    tmp_path: Path, tiny_bge: Path, small_scifact: Path
) -> None:
    signal = tmp_path / "stop-training"
    callback = TrainerCallback(
        "SciFact",
        data_dir=small_scifact,
        log=lambda metrics, step: signal.touch(),
        stop_file=signal,
    )
    trainer = train_sentence_transformer(tiny_bge, tmp_path / "stopped", callbacks=[callback])
    assert trainer.state.global_step == 3  # the file was written after the second step


def test_random_states_are_as_they_were() -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.random()), float(torch.rand(1))

    with random_states():
        inside = draw()
    assert draw() == inside
