"""Options of ``bge-eval run`` about work on several machines."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Annotated

import typer

from bge_eval.encode.part import Part, parse_part
from bge_eval.errors import UsageError

_PANEL = "Several machines"


@dataclass(frozen=True, slots=True)
class ScaleFlags:
    """Which part of the work is done here."""

    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            help="Encode only the I-th of N parts of every corpus into the store, for a later run"
            " without this option; slurm takes the part from the job array.",
            rich_help_panel=_PANEL,
        ),
    ] = None

    search_shards: Annotated[
        bool,
        typer.Option(
            "--search-shards",
            help="With --shard, search the part where it is encoded; without, merge those searches"
            " instead of searching here.",
            rich_help_panel=_PANEL,
        ),
    ] = False

    def part(self, *, reranks: bool, overwrites: bool, stores: bool) -> Part | None:
        """Return the part to encode, None without ``--shard``.

        Args:
            reranks: whether ``--reranker`` is set.
            overwrites: whether ``--overwrite`` is set.
            stores: whether vectors are stored.

        Raises:
            UsageError: the part is wrong, or contradicts another option.
        """
        if self.shard is None:
            return None
        part = parse_part(self.shard, os.environ)
        if reranks:
            raise UsageError(
                "--shard encodes and scores nothing, so there is nothing to rerank: give --reranker"
                " to the later run without --shard."
            )
        if overwrites:
            raise UsageError(
                "--shard looks at no result: give --overwrite to the later run without --shard."
            )
        if not stores:
            raise UsageError(
                "--shard leaves vectors in the store for a later run, and --no-store keeps none:"
                " leave one of them out."
            )
        return part
