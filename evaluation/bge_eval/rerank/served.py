"""A reranker behind an HTTP API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bge_eval.encode.calls import CallScores
from bge_eval.encode.files import ModelFiles
from bge_eval.errors import quoted
from bge_eval.progress import Progress
from bge_eval.remote.apis import Api, Served, WrongAnswerError, address, wire
from bge_eval.remote.client import Client, Limits, TooLargeError, damaged
from bge_eval.remote.naming import SERVER_TOLERANCE, estimated_tokens, served_files, server_identity
from bge_eval.rerank.reranker import Resumable
from bge_eval.runtime.batches import BATCH_TOKENS, request_batches

KEY_VARIABLE = "BGE_EVAL_RERANKER_API_KEY"
"""The environment variable with the API key of the ``--reranker`` server."""


class ServedReranker(Resumable):
    """A reranker that sends pairs to a server and checks the scores."""

    packages: tuple[str, ...] = ()

    def __init__(
        self,
        url: str,
        api: Api,
        *,
        model: str | None = None,
        limits: Limits | None = None,
        batch_tokens: int | None = None,
        offline: bool = False,
        progress: Progress | None = None,
    ) -> None:
        """Ask the server what it serves.

        Args:
            url: ``http://host:port``, optionally with a path.
            api: the server's API.
            model: the reranker's name on the server; None if the server has only one.
            limits: concurrency, time limit, tries.
            batch_tokens: approximate tokens per request.
            offline: allow only a server on this machine.
            progress: reports the server query and scoring.

        Raises:
            UsageError: the address, the API or the model's name is wrong.
            MissingError: the server cannot be reached.
        """
        self.progress = progress or Progress()
        self.api = api
        self._wire = wire(api)
        self._wire.rerank("", [""], Served("", ""))  # raises if the API has no reranking
        self._client = Client(
            address(url, api),
            limits=limits,
            key_variable=KEY_VARIABLE,
            offline=offline,
            note=self.progress.note,
        )
        with self.progress.step("ask the server"):
            self.served = self._wire.served(self._client, model)
        self.files: ModelFiles = served_files(self._client, self.served, None)
        self._batch_tokens = min(
            batch_tokens or BATCH_TOKENS["server"], self.served.most_tokens or 10**9
        )
        self._batch_texts = min(self._wire.most_texts, self.served.most_texts or 10**9)

    def __str__(self) -> str:
        """Describe the reranker and its server in one line."""
        return (
            f"Reranker {self.files.name} ({self.files.revision}) served at {self._client.url},"
            f" {self.api}"
        )

    @property
    def name(self) -> str:
        """Return the model's name in results."""
        return self.files.name

    def identity(self) -> dict[str, Any]:
        """Return everything that the server reports and scores depend on."""
        return {
            "name": self.files.name,
            "revision": self.files.revision,
            "dtype": str(self.served.details.get("model_dtype", "float32")),
            "max_length": None,
            "api": str(self.api),
            "server": server_identity(self._client, self.api, self.served),
        }

    def score(self, pairs: Sequence[tuple[str, str]]) -> npt.NDArray[np.float64]:
        """Score pairs with concurrent requests; a request has one query.

        Args:
            pairs: (query, document) texts.

        Returns:
            ``(n_pairs,)`` float64, higher is more relevant.

        Raises:
            NotReadyError: the server cannot be used, or its answer is wrong.
            UsageError: the server refuses the pairs.
        """
        scores = CallScores(self.unfinished, pairs, self.progress)
        with self.progress.step("rerank", len(pairs), "pairs") as step:
            if scores.is_continued:
                self._refuse_changed(pairs, scores)
            jobs = [rows for rows in self._batches(pairs) if scores.lacks(rows)]
            step.advance(int(scores.known.sum()))
            for rows, part in self._client.each(
                jobs, lambda rows: self._request([pairs[row] for row in rows])
            ):
                scores.put(rows, part)
                step.advance(len(rows))
        return scores.values

    def _refuse_changed(self, pairs: Sequence[tuple[str, str]], scores: CallScores) -> None:
        """Drop the scores of an interrupted run if the server now scores otherwise."""
        row = int(scores.known.argmax())
        [now] = self._request([pairs[row]])
        before = float(scores.values[row])
        if not np.isclose(now, before, rtol=SERVER_TOLERANCE, atol=SERVER_TOLERANCE / 10):
            self.progress.note(
                f"The server at {self._client.url} gives a pair the score {now:.6g}, and gave it"
                f" {before:.6g} before the interruption: all pairs are scored again."
            )
            scores.forget()

    def _batches(self, pairs: Sequence[tuple[str, str]]) -> list[list[int]]:
        """Return the rows of each request: pairs of one query, within the limits."""
        by_query: dict[str, list[int]] = {}
        for row, (query, _) in enumerate(pairs):
            by_query.setdefault(query, []).append(row)
        sizes = [estimated_tokens(query) + estimated_tokens(text) for query, text in pairs]
        return [
            batch
            for rows in by_query.values()
            for batch in request_batches(
                sizes, rows, batch_tokens=self._batch_tokens, max_texts=self._batch_texts
            )
        ]

    def _request(self, pairs: Sequence[tuple[str, str]]) -> npt.NDArray[np.float64]:
        documents = [document for _, document in pairs]
        path, body = self._wire.rerank(pairs[0][0], documents, self.served)
        try:
            answer = self._client.post(path, body)
        except TooLargeError:
            if len(pairs) == 1:
                raise
            middle = len(pairs) // 2
            return np.concatenate([self._request(pairs[:middle]), self._request(pairs[middle:])])
        try:
            scores = np.array(self._wire.scores(answer, len(pairs)), np.float64)
            if scores.ndim != 1 or not np.isfinite(scores).all():
                wrong = documents[int(np.isfinite(scores).argmin())]
                raise WrongAnswerError(f"a score that is not finite, of the text {quoted(wrong)}")
            return scores
        except WrongAnswerError as error:
            raise damaged(self._client, str(error)) from None
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            problem = f"an answer that is not of the interface '{self._wire.api}'"
            raise damaged(self._client, problem) from error
