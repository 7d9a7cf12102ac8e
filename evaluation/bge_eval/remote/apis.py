"""What the four interfaces want to be sent, and how their answers are read.

- ``openai``: OpenAI's embeddings (https://platform.openai.com/docs/api-reference/embeddings), as
  vLLM, Ollama, llama.cpp and others speak it too. It has no reranking.
- ``infinity``: infinity_emb (https://github.com/michaelfeil/infinity).
- ``tei``: Hugging Face's Text Embeddings Inference
  (https://huggingface.co/docs/text-embeddings-inference).
- ``cohere``: Cohere's version 2 (https://docs.cohere.com/reference/embed); vLLM and others offer
  its reranking form.

Whatever numbers an answer gives its parts, they are put in the order of what was sent, and an
answer that does not have each part once is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar
from urllib.parse import urlsplit

from bge_eval.errors import BgeEvalError, MissingError, UsageError
from bge_eval.remote.client import Client


class Api(StrEnum):
    """The interface that a server speaks."""

    OPENAI = "openai"
    INFINITY = "infinity"
    TEI = "tei"
    COHERE = "cohere"


@dataclass(frozen=True, slots=True)
class Served:
    """What a server says about the model it serves."""

    model: str
    """The name by which requests ask for it."""
    version: str
    """The commit of the model if the server tells it, or else the server's version."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """What else the answers may depend on, for the identity."""
    most_texts: int | None = None
    """The most inputs in a request, if the server tells."""
    most_tokens: int | None = None
    """The most tokens in a request, if the server tells."""


class OpenAi:
    """OpenAI's embeddings."""

    api: ClassVar[Api] = Api.OPENAI
    root: ClassVar[str] = "/v1"
    """Path below which the interface lies, where the address has none."""
    most_texts: ClassVar[int] = 256
    takes_empty: ClassVar[bool] = False
    """Whether an empty text is a valid input."""

    def served(self, client: Client, model: str | None) -> Served:
        """Ask what is served."""
        listed = _listed(client.get("/models"))
        entry = _chosen(client, listed, model)
        details = {
            key: entry[key] for key in ("root", "owned_by") if isinstance(entry.get(key), str)
        }
        version = self._version(client)
        return Served(entry["id"], version or "unknown", details)

    def _version(self, client: Client) -> str:
        """Return what vLLM and others tell beside the interface, if it is told."""
        parts = urlsplit(client.url)
        try:
            beside = Client(f"{parts.scheme}://{parts.netloc}", limits=client.limits)
            answer = beside.get("/version", tries=1)
        except BgeEvalError:
            return ""
        return str(answer.get("version", "")) if isinstance(answer, dict) else ""

    def embed(
        self, texts: Sequence[str], served: Served, prompt: str
    ) -> tuple[str, dict[str, Any]]:
        """Return the path and the body that ask for vectors."""
        inputs = [prompt + text for text in texts]
        body = {"model": served.model, "input": inputs, "encoding_format": "float"}
        return "/embeddings", body

    def vectors(self, answer: Any, count: int) -> tuple[list[Any], int]:
        """Return the vectors in the order of the texts, and the tokens that were counted."""
        rows = in_order(answer["data"], "embedding", count)
        usage = answer.get("usage") or {}
        return rows, int(usage.get("prompt_tokens") or usage.get("total_tokens") or 0)

    def rerank(
        self, query: str, documents: Sequence[str], served: Served
    ) -> tuple[str, dict[str, Any]]:
        """Refuse: there is no such thing in OpenAI's interface."""
        raise UsageError(
            "OpenAI's interface has no reranking. Servers that speak it mostly offer Cohere's form"
            " too: --reranker-api cohere."
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
        """Return the path and the body that ask for scores."""
        body = {"model": served.model, "query": query, "documents": list(documents)}
        return "/rerank", {**body, "raw_scores": True, "return_documents": False}


class Tei:
    """Text Embeddings Inference."""

    api: ClassVar[Api] = Api.TEI
    root: ClassVar[str] = ""
    most_texts: ClassVar[int] = 32
    takes_empty: ClassVar[bool] = False

    def served(self, client: Client, model: str | None) -> Served:
        """Ask what is served."""
        info = client.get("/info")
        if not isinstance(info, dict) or "model_id" not in info:
            raise MissingError(
                f"{client.url}/info does not answer as Text Embeddings Inference does; which --api"
                " does this server speak?"
            )
        if model is not None and model != info["model_id"]:
            raise UsageError(
                f"The server at {client.url} serves {info['model_id']}, not {model} (--api-model)."
            )
        told = ("model_dtype", "version", "max_input_length", "auto_truncate")
        return Served(
            str(info["model_id"]),
            str(info.get("model_sha") or info.get("version") or "unknown"),
            {key: info[key] for key in told if info.get(key) is not None},
            info.get("max_client_batch_size"),
            info.get("max_batch_tokens"),
        )

    def embed(
        self, texts: Sequence[str], served: Served, prompt: str
    ) -> tuple[str, dict[str, Any]]:
        """Return the path and the body that ask for vectors; long texts are cut as locally."""
        return "/embed", {"inputs": [prompt + text for text in texts], "truncate": True}

    def vectors(self, answer: Any, count: int) -> tuple[list[Any], int]:
        """Return the vectors, which come without numbers, in the order of the texts."""
        if not isinstance(answer, list) or len(answer) != count:
            raise WrongAnswerError(f"{_size(answer)} vectors for {count} texts")
        return answer, 0

    def rerank(
        self, query: str, documents: Sequence[str], served: Served
    ) -> tuple[str, dict[str, Any]]:
        """Return the path and the body that ask for scores."""
        body = {"query": query, "texts": list(documents), "raw_scores": True, "truncate": True}
        return "/rerank", body

    def scores(self, answer: Any, count: int) -> list[Any]:
        """Return the scores in the order of the documents."""
        return in_order(answer, "score", count)


class Cohere:
    """Cohere's version 2. What it is told in place of a prompt is the kind of the input."""

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
    """mteb's prompt name → input type, as mteb's own Cohere models have it."""

    def served(self, client: Client, model: str | None) -> Served:
        """Take the name that was given; the interface does not tell what is behind it."""
        if model is None:
            raise UsageError("--api cohere needs --api-model, such as embed-v4.0.")
        return Served(model, "v2")

    def embed(
        self, texts: Sequence[str], served: Served, prompt: str
    ) -> tuple[str, dict[str, Any]]:
        """Return the path and the body that ask for vectors."""
        if prompt not in self.input_types.values():
            kinds = ", ".join(dict.fromkeys(self.input_types.values()))
            raise UsageError(
                f"Cohere's interface takes no prompt {prompt!r}; a prompt can be one of its input"
                f" types: {kinds}."
            )
        body = {"model": served.model, "texts": list(texts), "input_type": prompt}
        return "/embed", {**body, "embedding_types": ["float"], "truncate": "END"}

    def vectors(self, answer: Any, count: int) -> tuple[list[Any], int]:
        """Return the vectors, which come without numbers, in the order of the texts."""
        rows = answer["embeddings"]["float"]
        if len(rows) != count:
            raise WrongAnswerError(f"{len(rows)} vectors for {count} texts")
        billed = (answer.get("meta") or {}).get("billed_units") or {}
        return rows, int(billed.get("input_tokens") or 0)

    def rerank(
        self, query: str, documents: Sequence[str], served: Served
    ) -> tuple[str, dict[str, Any]]:
        """Return the path and the body that ask for scores."""
        return "/rerank", {"model": served.model, "query": query, "documents": list(documents)}

    def scores(self, answer: Any, count: int) -> list[Any]:
        """Return the scores in the order of the documents."""
        return in_order(answer["results"], "relevance_score", count)


Wire = OpenAi | Infinity | Tei | Cohere
"""Any of the four."""

_WIRES: dict[Api, type[Wire]] = {
    Api.OPENAI: OpenAi,
    Api.INFINITY: Infinity,
    Api.TEI: Tei,
    Api.COHERE: Cohere,
}


class WrongAnswerError(Exception):
    """An answer is complete but cannot be right; says what came."""


def wire(api: Api) -> Wire:
    """Return the form of an interface."""
    return _WIRES[api]()


def address(url: str, api: Api) -> str:
    """Add the interface's usual path to an address that has none."""
    bare = urlsplit(url).path in ("", "/")
    return url.rstrip("/") + (wire(api).root if bare else "")


def in_order(parts: Any, key: str, count: int) -> list[Any]:
    """Order an answer's parts by their ``index``.

    Raises:
        WrongAnswerError: they are not each number from 0 to ``count`` - 1 once.
    """
    if not isinstance(parts, list) or len(parts) != count:
        raise WrongAnswerError(f"{_size(parts)} results for {count} inputs")
    by_index = {part["index"]: part[key] for part in parts}
    if by_index.keys() != set(range(count)):
        raise WrongAnswerError(f"results with other numbers than 0 to {count - 1}, each once")
    return [by_index[index] for index in range(count)]


def _size(parts: Any) -> str:
    return str(len(parts)) if isinstance(parts, list) else "no list of"


def _listed(answer: Any) -> list[dict[str, Any]]:
    entries = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(entries, list):
        return []
    return [entry for entry in entries if isinstance(entry, dict) and "id" in entry]


def _chosen(client: Client, listed: list[dict[str, Any]], model: str | None) -> dict[str, Any]:
    """Choose the model that was named, or the only one."""
    names = [str(entry["id"]) for entry in listed]
    if model is None and len(listed) == 1:
        return listed[0]
    if model in names:
        return listed[names.index(model)]
    some = ", ".join(names[:8]) + (" …" if len(names) > 8 else "")
    if model is None:
        raise UsageError(
            f"The server at {client.url} serves {some or 'no model that it lists'}; say which with"
            " --api-model."
        )
    raise UsageError(f"The server at {client.url} does not serve {model}; it serves {some}.")
