"""Options about models behind an HTTP interface."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import typer

from bge_eval.errors import UsageError
from bge_eval.remote.apis import Api
from bge_eval.remote.client import is_address

_PANEL = "Served models"


@dataclass(frozen=True, slots=True)
class ApiFlags:
    """The interface of an embedder's server, and the limits of requests."""

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
        int | None,
        typer.Option(min=1, max=256, help="Requests at once. Default: 8.", rich_help_panel=_PANEL),
    ] = None
    api_timeout: Annotated[
        float | None,
        typer.Option(
            min=1, help="Seconds to wait for an answer. Default: 600.", rich_help_panel=_PANEL
        ),
    ] = None

    def check_requests(self, names: Sequence[str]) -> None:
        """Refuse limits of requests where no server is asked.

        Args:
            names: the models, and the reranker if there is one.

        Raises:
            UsageError: such an option is set, and none of the names is an address.
        """
        for name in ("concurrency", "timeout"):
            if getattr(self, f"api_{name}") is not None:
                _refuse_without_address(f"--api-{name}", names)


@dataclass(frozen=True, slots=True)
class ServerFlags(ApiFlags):
    """The same, with the interface of a reranker's server."""

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

    def check(self, models: Sequence[str], reranker: str | None) -> None:
        """Refuse options of requests where no server is asked.

        Raises:
            UsageError: such an option is set, and neither a model nor the reranker is an address.
        """
        if self.reranker_api_model is not None:
            _refuse_without_address("--reranker-api-model", [reranker or ""])
        self.check_requests([*models, reranker or ""])


def _refuse_without_address(flag: str, names: Sequence[str]) -> None:
    if not any(map(is_address, names)):
        raise UsageError(
            f"{flag} is for a server's address, such as http://host:port, and"
            f" {' and '.join(filter(None, names)) or 'no --reranker'} is none."
        )
