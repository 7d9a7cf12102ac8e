"""An evaluator for sentence-transformers' trainer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

try:
    from sentence_transformers.base.evaluation import BaseEvaluator
except ImportError:  # 5.1 has it under this name
    from sentence_transformers.evaluation import SentenceEvaluator as BaseEvaluator  # type: ignore

from bge_eval.integrations.during import Metrics, as_targets, as_tasks, device_of


class SentenceTransformerEvaluator(BaseEvaluator):
    """Evaluates a model on tasks whenever ``SentenceTransformerTrainer`` evaluates.

    The metrics are ``eval_bge_<task>`` for each task and ``eval_bge_mean``, so
    ``metric_for_best_model="eval_bge_mean"`` chooses the checkpoint that
    ``load_best_model_at_end`` loads. On several GPUs the trainer calls it once and shares the
    metrics.
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
            **settings: settings of the model in place of its own; see `bge_eval.ModelSettings`.
                ``limit=50`` takes the first queries of every task alone, and the metric is then
                ``eval_bge_SciFact_limit_50``; ``lite=bge_eval.Lite(…)`` cuts every corpus.

        Raises:
            UsageError: a name is unknown.
            MissingError: a tracker's client is not installed.
        """
        super().__init__()  # type: ignore[no-untyped-call]
        self._tasks = as_tasks(
            tasks, data_dir, output, prefix, settings, as_targets(track, track_project)
        )
        self.primary_metric: str = self._tasks.mean

    def __call__(
        self,
        model: Any,
        output_path: str | None = None,
        epoch: float = -1,
        steps: int = -1,
    ) -> Metrics:
        """Return every task's main score, 0 to 1, and their mean.

        Args:
            model: a ``SentenceTransformer``; it stays as it is.
            output_path: ``eval`` in the trainer's output folder; None for ``results/runs``.
            epoch: unused; part of the interface.
            steps: the trainer's step.

        Raises:
            BgeEvalError: a task could not be evaluated.
        """

        def save(folder: Path) -> None:
            model.save_pretrained(str(folder), create_model_card=False)

        trainer = Path(output_path).parent if output_path else Path("results/runs")
        return self._tasks.scores_of_model(save, trainer, steps, device_of(model))
