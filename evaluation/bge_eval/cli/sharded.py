"""``bge-eval run --shard``: encode one part, and say what comes next."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bge_eval.cli.evaluating import Evaluation
from bge_eval.cli.opening import introduce
from bge_eval.cli.outcome import exit_with
from bge_eval.encode.part import Part
from bge_eval.encode.store import default_store
from bge_eval.errors import BgeEvalError, UsageError
from bge_eval.evaluation.options import Options
from bge_eval.models.base import Model
from bge_eval.models.transformer import EncoderModel
from bge_eval.progress import Progress
from bge_eval.scale.sharded import encode_part
from bge_eval.suites.catalogue import PlannedTask


def in_parts(
    models: Sequence[Model], evaluation: Evaluation, part: Part | None, *, searches: bool
) -> bool:
    """Encode one part, or let the models merge the searches of the parts.

    Args:
        models: the models of ``--model``.
        evaluation: the tasks, and how they are evaluated.
        part: the part of ``--shard``, None without it.
        searches: whether ``--search-shards`` is set.

    Returns:
        Whether this was all: a part scores nothing.
    """
    if searches:
        merge_searches(models)
    if part is None:
        return False
    tasks, options, progress = evaluation.tasks, evaluation.options, evaluation.progress
    run_part(models, tasks, options, part, progress, searches=searches)
    return True


def run_part(
    models: Sequence[Model],
    tasks: Sequence[PlannedTask],
    options: Options,
    part: Part,
    progress: Progress,
    *,
    searches: bool,
) -> None:
    """Encode one part with every model that encodes.

    Args:
        models: the models of ``--model``; of several, those without vectors are left out.
        tasks: the tasks.
        options: data folders and output folder.
        part: the part.
        progress: told what is done and what comes next.
        searches: search each part too.

    Raises:
        UsageError: none of the models has stored vectors.
        typer.Exit: a task failed.
    """
    encoders = [model for model in models if isinstance(model, EncoderModel)]
    for model in models:
        if model not in encoders:
            progress.note(f"{model}: has no stored vectors; the run without --shard evaluates it.")
    if not encoders:
        raise UsageError(
            "--shard divides the encoding of texts whose vectors are stored. This model stores no"
            " vectors: run it without --shard."
        )
    failed: dict[str, BgeEvalError] = {}
    store: Path = default_store()
    for model in encoders:
        introduce(model, progress)
        report = encode_part(model, tasks, options, part, progress, searches=searches)
        failed |= report.failed
        store = model.store.root if model.store is not None else store
        if report.evaluated:
            progress.note(f"Evaluated whole by this part: {', '.join(report.evaluated)}")
    exit_with(failed.items())
    progress.note(_next(part, store))


def merge_searches(models: Sequence[Model]) -> None:
    """Let models merge the searches of the parts instead of searching.

    Raises:
        UsageError: a model has no stored vectors, or no exact search.
    """
    for model in models:
        if not isinstance(model, EncoderModel) or not model.searches_exactly:
            raise UsageError(
                "--search-shards merges exact searches of stored vectors, and"
                f" {model.mteb_model_meta.name} has none: leave it out, or --index and --vectors."
            )
        model.merges_searches = True


def _next(part: Part, store: Path) -> str:
    """Return what to do after a part."""
    option = "" if store == default_store() else f" --store {store}"
    return (
        f"Part {part} is done; its vectors are in {store}. Next: bge-eval shards{option} shows what"
        f" is missing; bge-eval store merge DIR{option} adds the store of another machine; the same"
        " command without --shard then finds everything encoded."
    )
