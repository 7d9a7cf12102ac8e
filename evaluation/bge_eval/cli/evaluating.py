"""The evaluation of the models of ``bge-eval run``, one after another, and of their fusion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bge_eval.cli.opening import Blend, introduce
from bge_eval.errors import UsageError
from bge_eval.evaluation.evaluate import Preview, evaluate, preview
from bge_eval.evaluation.options import Options
from bge_eval.models.base import Model
from bge_eval.models.saved_runs import open_runs
from bge_eval.progress import Progress
from bge_eval.rerank.reranker import Reranker
from bge_eval.results.finished import Report
from bge_eval.suites.catalogue import PlannedTask


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The tasks that every model is evaluated on, and how."""

    tasks: Sequence[PlannedTask]
    options: Options
    reranker: Reranker | None
    progress: Progress

    def run(self, models: Sequence[Model], fusion: Blend | None) -> list[Report]:
        """Evaluate the models one after another, then their fusion; the last is reranked."""
        if fusion is None and self.options.label and len(models) > 1:
            raise UsageError("--label names one row, and several --model make one row each.")
        if fusion is None:
            return [self._one(model, self.reranker) for model in models]
        reports = [self._part(model) for model in models]
        runs = [self._saved(model, report) for model, report in zip(models, reports, strict=True)]
        fused = self._one(fusion.model(runs, self.progress), self.reranker)
        return [report for report in (*reports, fused) if report is not None]

    def preview(self, model: Model) -> list[Preview]:
        """Return what one model would run."""
        return preview(
            model, self.tasks, self.options, reranker=self.reranker, progress=self.progress
        )

    def _part(self, model: Model) -> Report | None:
        """Evaluate one part of a fusion; None for saved runs, whose results exist."""
        if model.is_saved:
            introduce(model, self.progress)
            return None
        unnamed = replace(self, options=replace(self.options, label=""))
        return unnamed._one(model, None)

    def _saved(self, model: Model, report: Report | None) -> Model:
        """Return the runs that a part has left."""
        if report is None:
            return model
        paths = _files(report)
        if not paths:
            raise next(iter(report.failed.values()))
        return open_runs(paths[0].parent, self.progress)

    def _one(self, model: Model, reranker: Reranker | None) -> Report:
        introduce(model, self.progress)
        return evaluate(model, self.tasks, self.options, reranker=reranker, progress=self.progress)


def _files(report: Report) -> list[Path]:
    """Return the result files of a report, tasks in order."""
    return [path for paths in report.done.values() for path in paths]
