"""A callback for the Trainer of transformers and the trainers that build on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import TrainerControl, TrainerState, TrainingArguments

from bge_eval.errors import UsageError
from bge_eval.integrations.during import Metrics, as_targets, as_tasks, device_of


class TrainerCallback(transformers.TrainerCallback):
    """Evaluates a model on tasks whenever the trainer evaluates, or saves if it never evaluates.

    The metrics are ``eval_bge_<task>`` for each task and ``eval_bge_mean``. Where the trainer
    evaluates, they join its own, so ``metric_for_best_model="eval_bge_mean"`` chooses the
    checkpoint that ``load_best_model_at_end`` loads. They are in ``trainer.state.log_history``.
    The first rank evaluates, the others wait and get the same metrics.
    """

    def __init__(
        self,
        tasks: str | Path | Sequence[str | Path],
        *,
        data_dir: str | Path | Sequence[str | Path] = (),
        output: str | Path | None = None,
        prefix: str = "bge",
        track: str | Sequence[str] = (),
        track_project: str = "bge-eval",
        log: Callable[[Metrics, int], None] | None = None,
        stop_file: str | Path | None = None,
        **settings: Any,
    ) -> None:
        """Check the names of the tasks.

        Args:
            tasks: suites, tasks and folders, as ``--tasks`` takes them.
            data_dir: your folders of data sets.
            output: the folder of results. Default: ``bge-eval`` in the trainer's output folder.
            prefix: what the names of metrics begin with.
            track: trackers that get the scores with their intervals, as ``--track`` takes them,
                such as ``"mlflow=http://localhost:5000"``. A tracker that fails is a warning.
            track_project: the trackers' project.
            log: is called with the metrics and the step, on the first rank.
            stop_file: the training ends after the step at which this file exists, such as the one
                of ``bge-eval watch --signal``.
            **settings: settings of the model in place of its own, such as ``pooling="cls"`` where
                the model's files do not say; see `bge_eval.ModelSettings`. ``limit=50``
                takes the first queries of every task alone, and the metric is then
                ``eval_bge_SciFact_limit_50``; ``lite=bge_eval.Lite(…)`` cuts every corpus.

        Raises:
            UsageError: a name is unknown.
            MissingError: a tracker's client is not installed.
        """
        self._tasks = as_tasks(
            tasks, data_dir, output, prefix, settings, as_targets(track, track_project)
        )
        self._log = log
        self._stop_file = None if stop_file is None else Path(stop_file)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """End the training if the file that asks for it exists."""
        if self._stop_file is not None and self._stop_file.exists():
            control.should_training_stop = True

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Metrics | None = None,
        model: Any = None,
        processing_class: Any = None,
        **kwargs: Any,
    ) -> None:
        """Evaluate the model as it is, and add its scores to the trainer's metrics.

        Raises:
            UsageError: the model cannot be saved from here.
            BgeEvalError: a task could not be evaluated.
        """

        def save(folder: Path) -> None:
            model.save_pretrained(str(folder))
            if processing_class is not None:
                processing_class.save_pretrained(str(folder))

        def scores() -> Metrics:
            _refuse_unsavable(model)
            folder = Path(args.output_dir or ".")
            return self._tasks.scores_of_model(save, folder, state.global_step, device_of(model))

        self._report(scores, state, metrics)

    def on_save(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **kwargs: Any,
    ) -> None:
        """Evaluate the checkpoint that was saved, if the trainer evaluates nothing itself.

        Raises:
            BgeEvalError: a task could not be evaluated.
        """
        if args.eval_strategy != "no":
            return
        output = Path(args.output_dir or ".")
        folder = output / f"checkpoint-{state.global_step}"
        self._report(
            lambda: self._tasks.scores_of_folder(folder, output / "bge-eval", device_of(model)),
            state,
            None,
        )

    def _report(
        self, scores: Callable[[], Metrics], state: TrainerState, metrics: Metrics | None
    ) -> None:
        """Compute the scores on the first rank, and tell all ranks, the trainer and the log."""
        found = _on_first_rank(scores, is_first=state.is_world_process_zero)
        named = {f"eval_{name}": score for name, score in found.items()}
        if metrics is not None:
            metrics.update(named)
        state.log_history.append({**named, "step": state.global_step, "epoch": state.epoch or 0.0})
        if self._log is not None and state.is_world_process_zero:
            self._log(named, state.global_step)


def _refuse_unsavable(model: Any) -> None:
    """Refuse a model that has no ``save_pretrained``, or whose weights are spread over ranks."""
    if not hasattr(model, "save_pretrained"):
        raise UsageError(
            f"The callback cannot save a {type(model).__name__}, which has no save_pretrained. Let"
            ' the trainer save and not evaluate (eval_strategy="no"): its checkpoints are'
            " evaluated. Or run `bge-eval watch` beside the training."
        )
    if any(parameter.numel() == 0 or _is_spread(parameter) for parameter in model.parameters()):
        raise UsageError(
            "The weights are spread over several processes (FSDP, DeepSpeed), so the callback"
            " cannot save them. Run `bge-eval watch` beside the training."
        )


def _is_spread(parameter: Any) -> bool:
    return hasattr(parameter, "ds_id") or type(parameter.data).__name__ == "DTensor"


def _on_first_rank(scores: Callable[[], Metrics], *, is_first: bool) -> Metrics:
    """Call a function on the first rank and return its result on all of them.

    Raises:
        BaseException: what the function raised, on the first rank; a UsageError on the others.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return scores()
    shared: list[Any] = [None]
    failure: Exception | None = None
    if is_first:
        try:
            shared = [scores()]
        except Exception as error:  # the other ranks wait for an answer
            failure = error
    torch.distributed.broadcast_object_list(shared, src=0)
    if failure is not None:
        raise failure
    if shared[0] is None:
        raise UsageError("The evaluation failed on the first rank, which says why.")
    result: Metrics = shared[0]
    return result
