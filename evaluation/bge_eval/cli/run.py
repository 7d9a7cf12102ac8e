"""``bge-eval run``: evaluate, save, print the table."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from bge_eval.cli.defaults import show_configuration
from bge_eval.cli.grouped import grouped
from bge_eval.cli.options.data import RunDataFlags
from bge_eval.cli.options.machine import RunMachineFlags
from bge_eval.cli.options.model import ModelFlags
from bge_eval.cli.options.printed import PrintFlags
from bge_eval.cli.options.reranker import RerankerFlags
from bge_eval.cli.options.served import ServerFlags
from bge_eval.cli.options.tasks import TaskFlags
from bge_eval.cli.quiet import prepare
from bge_eval.errors import UsageError

if TYPE_CHECKING:
    from bge_eval.cli.evaluating import Evaluation
    from bge_eval.cli.opening import Blend, Opener
    from bge_eval.cli.repetition import Command
    from bge_eval.cli.tracked import Trackers
    from bge_eval.encode.part import Part
    from bge_eval.models.base import Model
    from bge_eval.progress import Progress
    from bge_eval.scale.cluster import ClusterOptions


@grouped
def run(
    context: typer.Context,
    tasks: TaskFlags,
    model: ModelFlags,
    reranker: RerankerFlags,
    server: ServerFlags,
    data: RunDataFlags,
    printed: PrintFlags,
    machine: RunMachineFlags,
) -> None:
    """Evaluate a model on tasks, save the results, print the table.

    Examples:
      bge-eval run --model builtin:all-MiniLM-L6-v2 --tasks demo

      bge-eval run --model BAAI/bge-base-en-v1.5 --tasks beir

      bge-eval run --model ./my-model --tasks SciFact --data-dir ./datasets --offline

      bge-eval run --model BAAI/bge-base-en-v1.5 --reranker BAAI/bge-reranker-base --tasks SciFact

      bge-eval run --model bm25 --tasks ir:msmarco-passage/trec-dl-2019/judged

      bge-eval run --model http://localhost:7997 --api infinity --tasks ./tickets

      bge-eval run --fuse rrf --model bm25 --model BAAI/bge-base-en-v1.5 --tasks SciFact

      bge-eval run experiment.toml --dry-run

      bge-eval run --model BAAI/bge-base-en-v1.5 --tasks beir --shard 1/8 --store /shared/store

      bge-eval run --model BAAI/bge-base-en-v1.5 --tasks beir --engine ray --ray-address auto

      bge-eval run --model ./my-model --tasks SciFact --track mlflow=http://localhost:5000
    """
    if printed.show_config:
        show_configuration(context)
        return
    if tasks.experiment is not None:
        _run_experiment(tasks.experiment, context, printed, dry_run=data.dry_run)
        return
    prepare(offline=data.offline)
    from bge_eval.cli.columns import measure_and_key
    from bge_eval.cli.console import TerminalProgress
    from bge_eval.cli.repetition import Command

    machine.check()
    part = machine.scale.part(
        reranks=reranker.reranker is not None,
        overwrites=data.overwrite,
        stores=not machine.no_store,
    )
    cluster = machine.scale.cluster(estimates=data.estimate, device=machine.device)
    measure_and_key(printed.metric)
    data.check()
    _ = tasks.names  # raises where no task was named, before anything is loaded
    trackers = data.tracking.trackers(offline=data.offline)
    progress = TerminalProgress(quiet=printed.quiet)
    command = Command(tasks, model, reranker, server, data, machine)
    if _showed_finished(command, printed, progress):
        return
    from bge_eval.cli.opening import Opener, blend

    fusion = blend(model)
    opener = Opener(model, reranker, server, machine, data.offline, progress)
    opener.check()
    opener.check_names()
    progress.note("Loading mteb and torch …")
    _compute(_Checked(command, printed, part, cluster, trackers), opener, fusion)


@dataclass(frozen=True, slots=True)
class _Checked:
    """A command whose options fit each other; no heavy library is imported yet."""

    command: Command
    """What results depend on."""
    printed: PrintFlags
    """How they are shown."""
    part: Part | None
    """The part of ``--shard``."""
    cluster: ClusterOptions | None
    """The cluster of ``--engine``."""
    trackers: Trackers | None
    """The trackers of ``--track``."""


def _compute(checked: _Checked, opener: Opener, fusion: Blend | None) -> None:
    """Evaluate, save and print; or print what would be done, or encode one part."""
    from bge_eval.cli.clustered import opened
    from bge_eval.cli.evaluating import Evaluation
    from bge_eval.cli.outcome import planned_outcome
    from bge_eval.cli.records import evaluate_options
    from bge_eval.suites.catalogue import plan

    command = checked.command
    tasks, data, machine = command.tasks, command.data, command.machine
    progress = opener.progress
    planned = data.cut.apply(plan(tasks.names, tasks.subset or [], tasks.lang or []))
    with opened(opener, checked.cluster) as (models, second):
        options = evaluate_options(data, command.reranker)
        options = replace(options, label=data.label or "")
        evaluation = Evaluation(planned, options, second, progress)
        if data.dry_run or data.estimate:
            _print_ahead(evaluation, models, data)
            return
        if machine.scale.search_shards or checked.part is not None:
            from bge_eval.cli.sharded import in_parts

            if in_parts(models, evaluation, checked.part, searches=machine.scale.search_shards):
                return
        reports = evaluation.run(models, fusion)
    command.remember(reports, planned, models, second)
    outcome = planned_outcome(reports, planned, tasks.names, data.output, checked.trackers)
    outcome.show(checked.printed, progress)


def _showed_finished(command: Command, printed: PrintFlags, progress: Progress) -> bool:
    """Print the results of a command that was run before; return False if it was not."""
    receipt = command.finished()
    if receipt is None:
        return False
    from bge_eval.cli.outcome import Outcome

    for line in receipt.notes:
        progress.note(line)
    for task in receipt.tasks:
        progress.note(f"{task}: already done with this identity, not run again")
    names, output = command.tasks.names, command.data.output
    outcome = Outcome(receipt.reports(), receipt.tasks, names, output)
    outcome.show(printed, progress)
    return True


def _print_ahead(evaluation: Evaluation, models: Sequence[Model], data: RunDataFlags) -> None:
    """Print what each model would run, and what that would take."""
    if data.dry_run:
        _print_previews(evaluation, models)
    if data.estimate:
        from bge_eval.cli.estimated import show_estimates

        show_estimates(evaluation, models, data.price)


def _run_experiment(
    file: Path, context: typer.Context, printed: PrintFlags, *, dry_run: bool
) -> None:
    """Run or list the settings of a file; options of the command line hold for all of them."""
    from bge_eval.cli.columns import measure_and_key
    from bge_eval.cli.words import parse_settings, repeating_options, typed_options
    from bge_eval.experiment.file import PRINTING, read_experiment

    typed = typed_options(context)
    _refuse_beside_experiment(typed)
    typed = {name: value for name, value in typed.items() if name not in PRINTING}
    experiment = read_experiment(file, repeating_options(), typed)
    parsed = parse_settings(experiment)
    first = parsed[0]
    prepare(offline=first.data.offline)
    measure_and_key(printed.metric)

    from bge_eval.cli.console import TerminalProgress
    from bge_eval.cli.experiment import Sweep, show_preview
    from bge_eval.cli.outcome import planned_outcome
    from bge_eval.suites.catalogue import plan

    trackers = first.data.tracking.trackers(offline=first.data.offline)
    progress = TerminalProgress(quiet=printed.quiet)
    sweep = Sweep(experiment, parsed, progress)
    if dry_run:
        show_preview(sweep)
        return
    names = first.tasks.names
    planned = plan(names, first.tasks.subset or [], first.tasks.lang or [])
    planned = first.data.cut.apply(planned)
    reports = sweep.run()
    outcome = planned_outcome(reports, planned, names, first.data.output, trackers)
    outcome.show(printed, progress)


def _refuse_beside_experiment(typed: Collection[str]) -> None:
    """Refuse options of the command line that have no meaning for an experiment.

    Args:
        typed: the names of the options that were typed.

    Raises:
        UsageError: one of them is for one model and its tasks.
    """
    if "label" in typed:
        raise UsageError("--label names one row, and an experiment makes a row of each setting.")
    if parts := [name for name in ("shard", "search-shards") if name in typed]:
        raise UsageError(
            f"--{parts[0]} is for one model and its tasks, not for an experiment: encode the parts"
            " of each of its models, then run the experiment with the same --store."
        )
    for name in ("engine", "ray-address", "workers", "gpus-per-worker"):
        if name in typed:
            raise UsageError(f"--{name} is for one model and its tasks, not for an experiment.")
    if {"estimate", "price"}.intersection(typed):
        raise UsageError("--estimate is for one model and its tasks, not for an experiment.")
    for name in ("overwrite", "no-store"):
        if name in typed:
            raise UsageError(
                f"--{name} is not for an experiment, whose settings share what is computed."
                " Choose another --output or --store to begin anew."
            )


def _print_previews(evaluation: Evaluation, models: Sequence[Model]) -> None:
    """Print what each model would run."""
    from bge_eval.cli.console import stdout
    from bge_eval.cli.experiment import state
    from bge_eval.cli.formats.terminal import terminal_table
    from bge_eval.cli.opening import introduce

    for model in models:
        introduce(model, evaluation.progress)
        rows = [(task.task, state(task), task.origin or "–") for task in evaluation.preview(model)]
        stdout.print(terminal_table(("task", "state", "data"), rows, left=(0, 1, 2)))
