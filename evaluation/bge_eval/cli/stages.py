"""The options of ``bge-eval run`` about the second stage, and what they name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bge_eval.errors import UsageError
from bge_eval.rerank.kinds import RerankerKind

if TYPE_CHECKING:
    from bge_eval.models.base import Model
    from bge_eval.progress import Progress
    from bge_eval.rerank.families import RerankerOptions
    from bge_eval.rerank.reranker import Reranker

_PANEL = "Second stage"

RerankerName = Annotated[
    str | None,
    typer.Option(
        help="A reranker that re-orders the first documents; without --model it runs alone, on"
        " the candidates of reranking tasks.",
        rich_help_panel=_PANEL,
    ),
]
RerankTopK = Annotated[
    int,
    typer.Option(
        min=1,
        max=1000,
        help="How many of each query's first documents it re-orders.",
        rich_help_panel=_PANEL,
    ),
]
FirstStage = Annotated[
    Path | None,
    typer.Option(
        help="In place of --model: a TREC run of any tool, or a folder of runs named by task"
        " (SciFact.run), such as a model's folder of saved runs.",
        rich_help_panel=_PANEL,
    ),
]
RerankerMaxLength = Annotated[
    int | None,
    typer.Option(
        min=8, help="Cut pairs at this many tokens. Default: its own.", rich_help_panel=_PANEL
    ),
]
RerankerKindOption = Annotated[
    RerankerKind | None,
    typer.Option(help="How it scores. Default: by its files.", rich_help_panel=_PANEL),
]
RerankerLayers = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Score after so many layers (layerwise and lightweight rerankers). Default: all.",
        rich_help_panel=_PANEL,
    ),
]
RerankerCompress = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=8,
        help="Merge so many token vectors of the passage into one (lightweight rerankers)."
        " Default: none are merged.",
        rich_help_panel=_PANEL,
    ),
]
RerankerCompressLayers = Annotated[
    str | None,
    typer.Option(
        help="Layers before which that happens, such as 24,40. Default: 8.", rich_help_panel=_PANEL
    ),
]


def layer_list(text: str | None) -> tuple[int, ...] | None:
    """Read ``24,40``.

    Raises:
        UsageError: it is no list of layers.
    """
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() for part in parts):
        raise UsageError(f"--reranker-compress-layers takes layers such as 24,40, not '{text}'.")
    return tuple(map(int, parts))


def second_stage(
    name: str, options: RerankerOptions, *, offline: bool, progress: Progress
) -> Reranker:
    """Find a reranker's files and say what it is."""
    from bge_eval.encode.locate import locate
    from bge_eval.rerank.families import load_reranker

    files = locate(name, offline=offline, onnx=options.backend == "onnx")
    reranker = load_reranker(files, options, progress)
    said = reranker.identity()
    own = ("name", "revision", "dtype")
    parts = [
        f"{key} {value}" for key, value in said.items() if value is not None and key not in own
    ]
    progress.note(
        f"Reranker {files.name} at {files.revision[:12]}: {', '.join([*parts, said['dtype']])}"
    )
    return reranker


def without_model(
    first_stage: Path | None, reranker: Reranker | None, progress: Progress
) -> tuple[Model, Reranker | None]:
    """Return what is evaluated when no ``--model`` is given, and its second stage.

    Raises:
        UsageError: nothing is given to evaluate.
        MissingError: the first stage is not there.
    """
    if first_stage is not None:
        from bge_eval.models.saved_runs import given_runs

        return given_runs(first_stage.expanduser(), progress), reranker
    if reranker is None:
        raise UsageError(
            "Nothing to evaluate: give --model, or --reranker for reranking tasks alone, or"
            " --first-stage with a run."
        )
    from bge_eval.models.reranker_alone import RerankerAlone

    return RerankerAlone(reranker, progress), None
