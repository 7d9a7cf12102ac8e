"""Options of ``bge-eval run`` about work on several machines."""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

import typer

from bge_eval.encode.part import Part, parse_part
from bge_eval.errors import UsageError
from bge_eval.scale.cluster import ClusterOptions

_PANEL = "Several machines"


class Engine(StrEnum):
    """What runs the workers."""

    RAY = "ray"


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

    engine: Annotated[
        Engine | None,
        typer.Option(
            help="Spread the work over the workers of a cluster: ray (pip install"
            " 'bge-eval[ray]').",
            rich_help_panel=_PANEL,
        ),
    ] = None
    ray_address: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="The cluster's head, or auto for the one that runs here. Default: open one on"
            " this machine, which no other machine reaches.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Workers of --engine. Default: one for each GPU, or for each node without any.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    gpus_per_worker: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="GPUs of each worker. Default: 1 where the cluster has GPUs; 0 computes on CPUs.",
            rich_help_panel=_PANEL,
        ),
    ] = None

    def cluster(self, *, estimates: bool, device: str | None) -> ClusterOptions | None:
        """Return the cluster to work on, None without ``--engine``.

        Args:
            estimates: whether ``--estimate`` is set.
            device: ``--device``.

        Raises:
            UsageError: an option needs ``--engine``, or contradicts it.
        """
        own = {
            "--ray-address": self.ray_address,
            "--workers": self.workers,
            "--gpus-per-worker": self.gpus_per_worker,
        }
        if self.engine is None:
            if given := [name for name, value in own.items() if value is not None]:
                raise UsageError(f"{given[0]} is for a cluster: add --engine ray.")
            return None
        if self.shard is not None or self.search_shards:
            raise UsageError(
                "--engine deals the work by itself, and --shard and --search-shards are for other"
                " schedulers: leave one of them out."
            )
        if estimates:
            raise UsageError("--estimate measures this machine alone: leave --engine out.")
        return ClusterOptions(self.ray_address, self.workers, self.gpus_per_worker).on(device)

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
