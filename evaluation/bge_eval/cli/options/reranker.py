"""Options about the second stage of ``bge-eval run``, and the first stage in a model's place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from bge_eval.errors import UsageError
from bge_eval.rerank.kinds import RerankerKind

_PANEL = "Second stage"


@dataclass(frozen=True, slots=True)
class RerankerFlags:
    """The reranker, how it scores, and what it re-orders."""

    reranker: Annotated[
        str | None,
        typer.Option(
            help="A reranker that re-orders the first documents; without --model it runs alone, on"
            " the candidates of reranking tasks.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    rerank_top_k: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=1000,
            help="How many of each query's first documents it re-orders. Default: 100.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    reranker_max_length: Annotated[
        int | None,
        typer.Option(
            min=8, help="Cut pairs at this many tokens. Default: its own.", rich_help_panel=_PANEL
        ),
    ] = None
    reranker_kind: Annotated[
        RerankerKind | None,
        typer.Option(help="How it scores. Default: by its files.", rich_help_panel=_PANEL),
    ] = None
    reranker_layers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Score after this many layers (layerwise and lightweight rerankers)."
            " Default: all.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    reranker_compress: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=8,
            help="Merge this many token vectors of the passage into one (lightweight rerankers)."
            " Default: none are merged.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    reranker_compress_layers: Annotated[
        str | None,
        typer.Option(
            help="Layers before which vectors are merged, such as 24,40. Default: 8.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    first_stage: Annotated[
        Path | None,
        typer.Option(
            help="In place of --model: a TREC run of any tool, or a folder of runs named by task"
            " (SciFact.run), such as a model's folder of saved runs.",
            rich_help_panel=_PANEL,
        ),
    ] = None

    def check(self) -> None:
        """Refuse options of a reranker where there is none.

        Raises:
            UsageError: such an option is set without ``--reranker``.
        """
        names = (
            *("rerank_top_k", "reranker_max_length", "reranker_kind", "reranker_layers"),
            *("reranker_compress", "reranker_compress_layers"),
        )
        unused = [name for name in names if getattr(self, name) is not None]
        if unused and self.reranker is None:
            flags = ", ".join("--" + name.replace("_", "-") for name in unused)
            raise UsageError(f"{flags} has no effect without --reranker. Add one or leave it out.")

    @property
    def depth(self) -> int:
        """How many of each query's first documents the reranker re-orders."""
        return 100 if self.rerank_top_k is None else self.rerank_top_k

    @property
    def compress_layers(self) -> tuple[int, ...] | None:
        """The layers of ``--reranker-compress-layers``.

        Raises:
            UsageError: the text is no list of layers.
        """
        if self.reranker_compress_layers is None:
            return None
        parts = [part.strip() for part in self.reranker_compress_layers.split(",")]
        if not all(part.isdigit() for part in parts):
            raise UsageError(
                "--reranker-compress-layers takes layers such as 24,40, not"
                f" '{self.reranker_compress_layers}'."
            )
        return tuple(map(int, parts))
