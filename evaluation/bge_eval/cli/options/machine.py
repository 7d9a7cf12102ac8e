"""Options about the machine: devices, library, stored embeddings; of ``run``: other machines."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from bge_eval.cli.options.scale import ScaleFlags
from bge_eval.encode.settings import Backend
from bge_eval.errors import UsageError

_PANEL = "Machine"


@dataclass(frozen=True, slots=True)
class MachineFlags:
    """Where and by what the model is computed."""

    device: Annotated[
        str | None,
        typer.Option(
            help="cpu, cuda, cuda:1, mps, or several: cuda:0,cuda:1. Default: every GPU."
            " A reranker takes the first.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    batch_tokens: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Most tokens of a batch, padding included. Default: by device.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    backend: Annotated[
        Backend,
        typer.Option(
            help="Library of the forward pass; auto takes the fastest that gives torch's vectors.",
            rich_help_panel=_PANEL,
        ),
    ] = Backend.AUTO
    store: Annotated[
        Path | None,
        typer.Option(
            help="Folder of stored embeddings. Default: in the user's cache folder.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    no_store: Annotated[
        bool,
        typer.Option(
            "--no-store",
            help="Encode everything, and store no embedding.",
            rich_help_panel=_PANEL,
        ),
    ] = False

    def check(self) -> None:
        """Refuse options that contradict each other.

        Raises:
            UsageError: --store and --no-store are both set, or --store is a file.
        """
        if self.store is not None and self.store.is_file():
            raise UsageError(f"--store {self.store} is a file; give a folder.")
        if self.store is not None and self.no_store:
            raise UsageError("--store and --no-store contradict each other: leave one of them out.")

    @property
    def store_folder(self) -> Path | bool:
        """The folder of the embedding store; True for the usual one, False for none."""
        return self.store or not self.no_store


@dataclass(frozen=True, slots=True)
class RunMachineFlags(MachineFlags):
    """The machine, and the others that share the work."""

    scale: ScaleFlags = field(default_factory=ScaleFlags)
