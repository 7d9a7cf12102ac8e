"""Options of ``bge-eval run`` about models behind an HTTP interface."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from bge_eval.remote.apis import Api

_PANEL = "Served models"


@dataclass(frozen=True, slots=True)
class ServerFlags:
    """The interfaces of the servers and the limits of requests."""

    api: Annotated[
        Api | None,
        typer.Option(
            help="Interface of the server at the address in --model. Its key, if it needs one, is"
            " read from BGE_EVAL_API_KEY.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    api_model: Annotated[
        str | None,
        typer.Option(
            help="The model's name on the server. Default: the only one.", rich_help_panel=_PANEL
        ),
    ] = None
    api_concurrency: Annotated[
        int, typer.Option(min=1, max=256, help="Requests at once.", rich_help_panel=_PANEL)
    ] = 8
    api_timeout: Annotated[
        float, typer.Option(min=1, help="Seconds to wait for an answer.", rich_help_panel=_PANEL)
    ] = 600.0
    reranker_api: Annotated[
        Api | None,
        typer.Option(
            help="Interface of the server at the address in --reranker; its key is read from"
            " BGE_EVAL_RERANKER_API_KEY.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    reranker_api_model: Annotated[
        str | None,
        typer.Option(help="The reranker's name on its server.", rich_help_panel=_PANEL),
    ] = None
