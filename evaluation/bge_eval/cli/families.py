"""The options of ``bge-eval run`` that only some families of models follow."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bge_eval.models.opening import Loader

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
Examples = Annotated[
    Path | None,
    typer.Option(
        help="JSON file of in-context examples (bge-en-icl): query, response, instruct.",
        rich_help_panel=_PANEL,
    ),
]
InstructionFormat = Annotated[
    str | None,
    typer.Option(
        help="How a task's instruction goes before queries: '<instruct>{instruction}\\n<query>'.",
        rich_help_panel=_PANEL,
    ),
]
Adapter = Annotated[
    Path | None,
    typer.Option(help="Folder of a PEFT adapter, merged before the run.", rich_help_panel=_PANEL),
]
LoadedBy = Annotated[
    Loader | None,
    typer.Option(
        "--loader",
        help="mteb: let mteb load and run the model by its registry.",
        rich_help_panel=_PANEL,
    ),
]
