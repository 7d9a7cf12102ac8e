"""``bge-eval run``: evaluate, save, print the table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bge_eval.cli.grouped import grouped
from bge_eval.cli.options.data import DataFlags
from bge_eval.cli.options.machine import MachineFlags
from bge_eval.cli.options.model import ModelFlags
from bge_eval.cli.options.printed import PrintFlags
from bge_eval.cli.options.reranker import RerankerFlags
from bge_eval.cli.options.served import ServerFlags
from bge_eval.cli.options.tasks import TaskFlags
from bge_eval.cli.quiet import prepare

if TYPE_CHECKING:
    from bge_eval.cli.evaluating import Evaluation
    from bge_eval.evaluation import Preview
    from bge_eval.models.base import Model


@grouped
def run(
    tasks: TaskFlags,
    model: ModelFlags,
    reranker: RerankerFlags,
    server: ServerFlags,
    data: DataFlags,
    printed: PrintFlags,
    machine: MachineFlags,
) -> None:
    """Evaluate a model on tasks, save the results, print the table.

    Examples:
      bge-eval run --model builtin:all-MiniLM-L6-v2 --tasks demo

      bge-eval run --model BAAI/bge-base-en-v1.5 --tasks beir

      bge-eval run --model ./my-model --tasks SciFact --data-dir ./datasets --offline

      bge-eval run --model BAAI/bge-base-en-v1.5 --reranker BAAI/bge-reranker-base --tasks SciFact

      bge-eval run --model http://localhost:7997 --api infinity --tasks ./tickets

      bge-eval run --fuse rrf --model bm25 --model BAAI/bge-base-en-v1.5 --tasks SciFact
    """
    prepare(offline=data.offline)
    from bge_eval.cli.columns import measure_and_key
    from bge_eval.cli.console import TerminalProgress

    machine.check()
    measure_and_key(printed.metric)
    progress = TerminalProgress(quiet=printed.quiet)
    progress.note("Loading mteb and torch …")

    from bge_eval.cli.evaluating import Evaluation
    from bge_eval.cli.opening import Opener, blend
    from bge_eval.cli.outcome import Outcome
    from bge_eval.cli.records import evaluate_options
    from bge_eval.suites.catalogue import plan

    planned = plan(tasks.names, tasks.subset or [], tasks.lang or [])
    fusion = blend(model)
    opener = Opener(model, reranker, server, machine, data.offline, progress)
    models, second = opener.open()
    evaluation = Evaluation(planned, evaluate_options(data, reranker), second, progress)
    if data.dry_run:
        _print_previews(evaluation, models)
        return
    reports = evaluation.run(models, fusion)
    outcome = Outcome(reports, planned, tasks.names, data.output)
    outcome.show(printed, progress, profile=machine.profile)


def _print_previews(evaluation: Evaluation, models: Sequence[Model]) -> None:
    """Print what each model would run."""
    from bge_eval.cli.console import stdout
    from bge_eval.cli.formats.terminal import terminal_table
    from bge_eval.cli.opening import introduce

    for model in models:
        introduce(model, evaluation.progress)
        rows = [(task.task, _state(task), task.origin or "–") for task in evaluation.preview(model)]
        stdout.print(terminal_table(("task", "state", "data"), rows, left=(0, 1, 2)))


def _state(task: Preview) -> str:
    if not task.stages:
        return "data missing"
    if task.saved == task.stages:
        return "done"
    return f"to run ({task.saved} of {task.stages} parts done)" if task.saved else "to run"
