"""The options of ``bge-eval run`` about models behind an HTTP interface."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from bge_eval.errors import UsageError
from bge_eval.remote.apis import Api

if TYPE_CHECKING:
    from bge_eval.progress import Progress
    from bge_eval.remote.client import Limits
    from bge_eval.rerank.reranker import Reranker

_PANEL = "Served models"

ApiKind = Annotated[
    Api | None,
    typer.Option(
        "--api",
        help="Interface of the server at the address in --model. Its key, if it needs one, is"
        " read from BGE_EVAL_API_KEY.",
        rich_help_panel=_PANEL,
    ),
]
ApiModel = Annotated[
    str | None,
    typer.Option(
        help="The model's name on the server. Default: the only one.", rich_help_panel=_PANEL
    ),
]
ApiConcurrency = Annotated[
    int, typer.Option(min=1, max=256, help="Requests at once.", rich_help_panel=_PANEL)
]
ApiTimeout = Annotated[
    float, typer.Option(min=1, help="Seconds to wait for an answer.", rich_help_panel=_PANEL)
]
RerankerApi = Annotated[
    Api | None,
    typer.Option(
        help="Interface of the server at the address in --reranker; its key is read from"
        " BGE_EVAL_RERANKER_API_KEY.",
        rich_help_panel=_PANEL,
    ),
]
RerankerApiModel = Annotated[
    str | None,
    typer.Option(help="The reranker's name on its server.", rich_help_panel=_PANEL),
]


def served_reranker(
    url: str,
    api: Api | None,
    model: str | None,
    limits: Limits,
    batch_tokens: int | None,
    *,
    offline: bool,
    progress: Progress,
) -> Reranker:
    """Ask a server about its reranker and say what it is.

    Raises:
        UsageError: it is not said what the server speaks.
    """
    from bge_eval.rerank.served import ServedReranker

    if api is None:
        raise UsageError(
            f"--reranker {url} is a server: say what it speaks, --reranker-api"
            f" {', '.join(kind for kind in Api if kind is not Api.OPENAI)}."
        )
    reranker = ServedReranker(
        url,
        api,
        model=model,
        limits=limits,
        batch_tokens=batch_tokens,
        offline=offline,
        progress=progress,
    )
    progress.note(str(reranker))
    return reranker
