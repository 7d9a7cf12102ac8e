"""Options of ``bge-eval run`` about what is printed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from bge_eval.cli.formats.registry import Format


@dataclass(frozen=True, slots=True)
class PrintFlags:
    """What is printed, and in which format."""

    metric: Annotated[
        str,
        typer.Option(help="Measure of the table: main (each task's own), nDCG@10, RR@10, R@100 …"),
    ] = "main"
    form: Annotated[Format, typer.Option("--format", help="Format of the table.")] = Format.TERMINAL
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print no progress and no notes; errors stay.")
    ] = False
    profile: Annotated[
        bool, typer.Option("--profile", help="Print seconds and rates by phase.")
    ] = False
    show_config: Annotated[
        bool,
        typer.Option(
            "--show-config",
            help="Print every option, its value and where it comes from; compute nothing.",
        ),
    ] = False
