"""Request and response formats of the four server APIs.

- ``openai``: OpenAI's embeddings (https://platform.openai.com/docs/api-reference/embeddings), also
  served by vLLM, Ollama, llama.cpp and others. It has no reranking.
- ``infinity``: infinity_emb (https://github.com/michaelfeil/infinity).
- ``tei``: Hugging Face's Text Embeddings Inference
  (https://huggingface.co/docs/text-embeddings-inference).
- ``cohere``: Cohere's version 2 (https://docs.cohere.com/reference/embed); vLLM and others
  serve its reranking format too.

Responses are put into the order of the inputs by their indices. A response that does not hold
each index exactly once is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, Protocol
from urllib.parse import urlsplit

from bge_eval.errors import BgeEvalError, MissingError, UsageError
from bge_eval.remote.client import Client


class Api(StrEnum):
    """API of a model server."""

    OPENAI = "openai"
    INFINITY = "infinity"
    TEI = "tei"
    COHERE = "cohere"


@dataclass(frozen=True, slots=True)
class Served:
    """A served model, as its server describes it."""

    model: str
    """Model name in requests."""
    version: str
    """Commit of the model if the server reports it, else the server's version."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """Further settings that the scores may depend on, for the identity."""
    most_texts: int | None = None
    """Largest number of inputs in a request; None if the server does not report it."""
    most_tokens: int | None = None
    """Largest number of tokens in a request; None if the server does not report it."""


class Wire(Protocol):
    """The request and response format of an API."""

    api: ClassVar[Api]
    """The API."""
    root: ClassVar[str]
    """Path added to an address that has none."""
    most_texts: ClassVar[int]
    """Largest number of inputs in a request, unless the server reports another."""
    takes_empty: ClassVar[bool]
    """Whether the API accepts an empty text."""
    input_types: ClassVar[Mapping[str, str]]
    """mteb's prompt name → input type, for an API without prompts; {} where prompts are text."""

    def served(self, client: Client, model: str | None) -> Served:
        """Return the named model, or the server's only one.

        Raises:
            UsageError: the server does not serve the model, or serves several.
        """

    def embed(
        self, texts: Sequence[str], served: Served, prompt: str
    ) -> tuple[str, dict[str, Any]]:
        """Return the path and the body of a request for embeddings."""

    def vectors(self, answer: Any, count: int) -> tuple[list[Any], int]:
        """Return the vectors in the order of the texts, and the number of tokens (0 if unknown)."""

    def rerank(
        self, query: str, documents: Sequence[str], served: Served
    ) -> tuple[str, dict[str, Any]]:
        """Return the path and the body of a request for scores."""

    def scores(self, answer: Any, count: int) -> list[Any]:
        """Return the scores in the order of the documents."""


class OpenAi:
    """OpenAI's embeddings."""

    api: ClassVar[Api] = Api.OPENAI
    root: ClassVar[str] = "/v1"
    most_texts: ClassVar[int] = 256
    takes_empty: ClassVar[bool] = False
    input_types: ClassVar[Mapping[str, str]] = {}

    def served(self, client: Client, model: str | None) -> Served:
        """Ask the server which model it serves.

        Raises:
            UsageError: the server does not serve the model, or serves several.
        """
        entries = _model_entries(client.get("/models"))
        entry = _select(client, entries, model)
        details = {
            key: entry[key] for key in ("root", "owned_by") if isinstance(entry.get(key), str)
        }
        version = self._version(client)
        return Served(entry["id"], version or "unknown", details)

    def _version(self, client: Client) -> str:
        """Return the version that vLLM and others report at ``/version``, or ""."""
        parts = urlsplit(client.url)
        try:
            root = Client(f"{parts.scheme}://{parts.netloc}", limits=client.limits)
            answer = root.get("/version", tries=1)
        except BgeEvalError:
            return ""
        return str(answer.get("version", "")) if isinstance(answer, dict) else ""

    def embed(
        self, texts: Sequence[str], served: Served, prompt: str
    ) -> tuple[str, dict[str, Any]]:
        """Return the path and the body of a request for embeddings."""
        inputs = [prompt + text for text in texts]
        body = {"model": served.model, "input": inputs, "encoding_format": "float"}
        return "/embeddings", body

    def vectors(self, answer: Any, count: int) -> tuple[list[Any], int]:
        """Return the vectors in the order of the texts, and the number of tokens (0 if unknown)."""
        rows = in_order(answer["data"], "embedding", count)
        usage = answer.get("usage") or {}
        return rows, int(usage.get("prompt_tokens") or usage.get("total_tokens") or 0)

    def rerank(
        self, query: str, documents: Sequence[str], served: Served
    ) -> tuple[str, dict[str, Any]]:
        """Raise `UsageError`: OpenAI's API has no reranking."""
        raise UsageError(
            "OpenAI's API has no reranking. Most servers of it also serve Cohere's API: pass"
            " --reranker-api cohere."
        )

    def scores(self, answer: Any, count: int) -> list[Any]:
        """Return the scores in the order of the documents."""
        return in_order(answer["results"], "relevance_score", count)


class Infinity(OpenAi):
    """infinity_emb: OpenAI's embeddings, and Cohere's reranking with raw scores."""

    api = Api.INFINITY
    root = ""
    takes_empty = True

    def _version(self, client: Client) -> str:
        info = client.get("/openapi.json").get("info", {})
        return str(info.get("version", ""))

    def rerank(
        self, query: str, documents: Sequence[str], served: Served
    ) -> tuple[str, dict[str, Any]]:
        """Return the path and the body of a request for scores."""
        body = {"model": served.model, "query": query, "documents": list(documents)}
        return "/rerank", {**body, "raw_scores": True, "return_documents": False}


class Tei:
    """Text Embeddings Inference."""

    api: ClassVar[Api] = Api.TEI
    root: ClassVar[str] = ""
    most_texts: ClassVar[int] = 32
    takes_empty: ClassVar[bool] = False
    input_types: ClassVar[Mapping[str, str]] = {}

    def served(self, client: Client, model: str | None) -> Served:
        """Ask the server which model it serves.

        Raises:
            UsageError: the server does not serve the model, or serves several.
        """
        info = client.get("/info")
        if not isinstance(info, dict) or "model_id" not in info:
            raise MissingError(
                f"{client.url}/info is not a response of Text Embeddings Inference. Pass the --api"
                " that this server offers."
            )
        if model is not None and model != info["model_id"]:
            raise UsageError(
                f"The server at {client.url} serves {info['model_id']}, not {model} (--api-model)."
            )
        names = ("model_dtype", "version", "max_input_length", "auto_truncate")
        return Served(
            str(info["model_id"]),
            str(info.get("model_sha") or info.get("version") or "unknown"),
            {key: info[key] for key in names if info.get(key) is not None},
            info.get("max_client_batch_size"),
            info.get("max_batch_tokens"),
        )

    def embed(
        self, texts: Sequence[str], served: Served, prompt: str
    ) -> tuple[str, dict[str, Any]]:
        """Return the path and the body of a request for embeddings; long texts are cut."""
        return "/embed", {"inputs": [prompt + text for text in texts], "truncate": True}

    def vectors(self, answer: Any, count: int) -> tuple[list[Any], int]:
        """Return the vectors, which come in the order of the texts, and the number of tokens."""
        if not isinstance(answer, list) or len(answer) != count:
            raise WrongAnswerError(f"{_size(answer)} vectors for {count} texts")
        return answer, 0

    def rerank(
        self, query: str, documents: Sequence[str], served: Served
    ) -> tuple[str, dict[str, Any]]:
        """Return the path and the body of a request for scores."""
        body = {"query": query, "texts": list(documents), "raw_scores": True, "truncate": True}
        return "/rerank", body

    def scores(self, answer: Any, count: int) -> list[Any]:
        """Return the scores in the order of the documents."""
        return in_order(answer, "score", count)


class Cohere:
    """Cohere's API, version 2. It takes an input type in place of a prompt."""

    api: ClassVar[Api] = Api.COHERE
    root: ClassVar[str] = "/v2"
    most_texts: ClassVar[int] = 96
    takes_empty: ClassVar[bool] = False
    input_types: ClassVar[Mapping[str, str]] = {
        "query": "search_query",
        "document": "search_document",
        "Classification": "classification",
        "MultilabelClassification": "classification",
        "Clustering": "clustering",
        "other": "search_document",
    }
    """The input types of mteb's Cohere models."""

    def served(self, client: Client, model: str | None) -> Served:
        """Return the model of this name; the API reports nothing more about it.

        Raises:
            UsageError: no model is named.
        """
        if model is None:
            raise UsageError("--api cohere needs --api-model, such as embed-v4.0.")
        return Served(model, "v2")

    def embed(
        self, texts: Sequence[str], served: Served, prompt: str
    ) -> tuple[str, dict[str, Any]]:
        """Return the path and the body of a request for embeddings."""
        if prompt not in self.input_types.values():
            kinds = ", ".join(dict.fromkeys(self.input_types.values()))
            raise UsageError(
                f"Cohere's API takes no prompt {prompt!r}. Give one of its input types as"
                f" the prompt: {kinds}."
            )
        body = {"model": served.model, "texts": list(texts), "input_type": prompt}
        return "/embed", {**body, "embedding_types": ["float"], "truncate": "END"}

    def vectors(self, answer: Any, count: int) -> tuple[list[Any], int]:
        """Return the vectors, which come in the order of the texts, and the number of tokens."""
        rows = answer["embeddings"]["float"]
        if len(rows) != count:
            raise WrongAnswerError(f"{len(rows)} vectors for {count} texts")
        billed = (answer.get("meta") or {}).get("billed_units") or {}
        return rows, int(billed.get("input_tokens") or 0)

    def rerank(
        self, query: str, documents: Sequence[str], served: Served
    ) -> tuple[str, dict[str, Any]]:
        """Return the path and the body of a request for scores."""
        return "/rerank", {"model": served.model, "query": query, "documents": list(documents)}

    def scores(self, answer: Any, count: int) -> list[Any]:
        """Return the scores in the order of the documents."""
        return in_order(answer["results"], "relevance_score", count)


_WIRES: dict[Api, type[Wire]] = {
    Api.OPENAI: OpenAi,
    Api.INFINITY: Infinity,
    Api.TEI: Tei,
    Api.COHERE: Cohere,
}
"""The format of every API."""


class WrongAnswerError(Exception):
    """A response is complete JSON but cannot be right; the message says why."""


def wire(api: Api) -> Wire:
    """Return the format of an API."""
    return _WIRES[api]()


def address(url: str, api: Api) -> str:
    """Add the API's default path to an address that has none."""
    bare = urlsplit(url).path in ("", "/")
    return url.rstrip("/") + (wire(api).root if bare else "")


def in_order(parts: Any, key: str, count: int) -> list[Any]:
    """Return a response's values, ordered by their ``index``.

    Raises:
        WrongAnswerError: the indices are not 0 to ``count`` - 1, each once.
    """
    if not isinstance(parts, list) or len(parts) != count:
        raise WrongAnswerError(f"{_size(parts)} results for {count} inputs")
    by_index = {part["index"]: part[key] for part in parts}
    if by_index.keys() != set(range(count)):
        raise WrongAnswerError(f"results with other numbers than 0 to {count - 1}, each once")
    return [by_index[index] for index in range(count)]


def _size(parts: Any) -> str:
    return str(len(parts)) if isinstance(parts, list) else "no list of"


def _model_entries(answer: Any) -> list[dict[str, Any]]:
    entries = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(entries, list):
        return []
    return [entry for entry in entries if isinstance(entry, dict) and "id" in entry]


def _select(client: Client, served: list[dict[str, Any]], model: str | None) -> dict[str, Any]:
    """Return the named model, or the only one."""
    names = [str(entry["id"]) for entry in served]
    if model is None and len(served) == 1:
        return served[0]
    if model in names:
        return served[names.index(model)]
    some = ", ".join(names[:8]) + (" …" if len(names) > 8 else "")
    if model is None:
        raise UsageError(
            f"The server at {client.url} serves {some or 'no listed model'}. Name one with"
            " --api-model."
        )
    raise UsageError(f"The server at {client.url} does not serve {model}; it serves {some}.")
