"""The options of ``bge-eval run`` that only some families of models follow."""

from __future__ import annotations

from typing import Annotated

import typer

_PANEL = "Families of models"

M3Mode = Annotated[
    str | None,
    typer.Option(
        help="BGE-M3: dense, sparse, colbert, or several with commas. Default: dense.",
        rich_help_panel=_PANEL,
    ),
]
M3Weights = Annotated[
    str | None,
    typer.Option(
        help="Weights of these modes. Default: 1 dense, 0.3 sparse, 1 colbert.",
        rich_help_panel=_PANEL,
    ),
]
