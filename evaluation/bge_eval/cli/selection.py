"""The options by which every command that reads saved results says which."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DEFAULT_RUNS = Path("results/runs")

ResultFolders = Annotated[
    list[Path] | None,
    typer.Argument(help="Result folders. Default: results/runs.", show_default=False),
]
OnlyModels = Annotated[
    list[str] | None,
    typer.Option(help="Only rows whose name contains this; repeat for several."),
]
