"""``bge-eval run --estimate``: print what a run will take."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from bge_eval.cli.console import stdout
from bge_eval.cli.evaluating import Evaluation
from bge_eval.cli.formats.terminal import terminal_table
from bge_eval.cli.opening import introduce
from bge_eval.errors import UsageError
from bge_eval.models.base import Model
from bge_eval.models.transformer import EncoderModel
from bge_eval.progress import duration
from bge_eval.rerank.served import ServedReranker
from bge_eval.scale.estimate import TaskEstimate, estimate
from bge_eval.scale.measuring import Cost


def show_estimates(evaluation: Evaluation, models: Sequence[Model], price: float | None) -> None:
    """Print what every model will take on every task.

    Args:
        evaluation: the tasks, and the reranker if there is one.
        models: the models of ``--model``.
        price: the price of an hour of this machine; None prints no cost.

    Raises:
        UsageError: a model is not an encoder whose weights bge-eval loads, or the reranker is
            served.
    """
    progress, reranker = evaluation.progress, evaluation.reranker
    for model in models:
        if not isinstance(model, EncoderModel):
            raise UsageError(
                f"--estimate measures encoders whose weights bge-eval loads, not {model}. Leave it"
                " out."
            )
        if isinstance(reranker, ServedReranker):
            raise UsageError(
                f"--estimate measures rerankers whose weights bge-eval loads, not {reranker.name}"
                " on a server. Leave one of them out."
            )
        introduce(model, progress)
        tasks, options = evaluation.tasks, evaluation.options
        show(estimate(model, tasks, options, progress, reranker), price)


def show(estimates: Sequence[TaskEstimate], price: float | None) -> None:
    """Print estimates, their sum, and what is left out of it.

    Args:
        estimates: one for each task.
        price: the price of an hour of this machine; None prints no cost.
    """
    counted = [each for each in estimates if not each.reason]
    head = ["task", "texts", "stored", "tokens", "pairs", "time", "disk", "memory"]
    body = [
        [
            each.task,
            f"{each.texts:,}",
            f"{each.stored:,}",
            f"{each.tokens:,.0f}",
            f"{each.pairs:,}",
            duration(each.seconds),
            _size(each.disk_bytes),
            _size(each.memory_bytes),
        ]
        for each in counted
    ]
    if body:
        stdout.print(terminal_table(head, body))
    for each in counted:
        if each.unmeasured:
            stdout.print(
                Text(
                    f"{each.task}: without building and searching {each.unmeasured}, which is too"
                    " large to be tried."
                )
            )
    for each in estimates:
        if each.reason:
            stdout.print(Text(f"{each.task}: no estimate, {each.reason}."))
    seconds = sum(each.seconds for each in counted)
    disk = _size(sum(each.disk_bytes for each in counted))
    memory = _size(max((each.memory_bytes for each in counted), default=0.0))
    text = f"In all {duration(seconds)} ({seconds:,.1f} s), {disk} of disk, {memory} of memory"
    if price is not None:
        text += f", {seconds / 3600 * price:,.4f} at {price:g} an hour"
    energy = sum((each.encode + each.rerank for each in counted), Cost()).joules
    for kind, joules in (energy or {}).items():
        text += f", {joules / 3600:,.2f} Wh of the {kind}"
    stdout.print(Text(f"{text}."))


def _size(size: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:,.0f} {unit}"
        size /= 1024
    return f"{size:,.1f} GiB"
