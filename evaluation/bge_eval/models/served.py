"""Embedders behind an HTTP interface."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bge_eval.encode.prompts import Prompts
from bge_eval.encode.settings import Similarity, registered_prompts
from bge_eval.encode.shards import Keys, text_keys
from bge_eval.errors import UsageError, quoted
from bge_eval.models.base import registered_meta
from bge_eval.models.dense import DenseModel
from bge_eval.models.form import Form
from bge_eval.models.kinds import Kind, ModelOptions
from bge_eval.progress import Progress
from bge_eval.records import Vectors
from bge_eval.remote.apis import Api, Served, Wire, WrongAnswerError, address, wire
from bge_eval.remote.client import Client, TooLargeError, damaged, is_address, without_secrets
from bge_eval.remote.naming import SERVER_TOLERANCE, estimated_tokens, served_files, server_identity
from bge_eval.runtime.batches import BATCH_TOKENS, request_batches
from bge_eval.runtime.text_encoder import Distinct
from bge_eval.search.exact import unit_rows

if TYPE_CHECKING:
    from bge_eval.encode.store import Space
    from bge_eval.progress import Step

KEY_VARIABLE = "BGE_EVAL_API_KEY"
"""The environment variable with the key of the server of ``--model``."""


@dataclass(frozen=True, slots=True)
class ServedSettings:
    """How a server's vectors are used."""

    similarity: Similarity
    """How vectors are compared."""
    normalize: bool = False
    """Whether they are scaled to unit L2 norm here, even if the server has scaled them."""
    truncate_dim: int | None = None
    """Keep only the first dimensions; None keeps all."""


class ServedEncoder:
    """Sends texts to a server and returns its vectors, checked and in order."""

    device = "remote"

    def __init__(
        self,
        client: Client,
        form: Wire,
        served: Served,
        settings: ServedSettings,
        batch_tokens: int | None = None,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Ask for one vector, which gives the dimension and proves that the model embeds.

        Args:
            client: the server.
            form: its interface.
            served: the model.
            settings: how the vectors are used.
            batch_tokens: most tokens of a request, estimated from the characters.
            note: receives a message if the server has changed during an interruption.

        Raises:
            NotReadyError: the server cannot be used.
            UsageError: it refuses, or has fewer dimensions than ``truncate_dim``.
        """
        self.batch_tokens = min(batch_tokens or BATCH_TOKENS["server"], served.most_tokens or 10**9)
        self._batch_texts = min(form.most_texts, served.most_texts or 10**9)
        self._client = client
        self._note = note
        self._form = form
        self._served = served
        self._settings = settings
        self._full: int | None = None
        self._compared: set[Path] = set()
        probe = next(iter(form.input_types.values()), "")
        self._full = self._ask([self._first_words()], probe)[0].shape[1]
        self.dimension = settings.truncate_dim or self._full
        if self.dimension > self._full:
            raise UsageError(
                f"--truncate-dim {self.dimension} is more than the model's {self._full} dimensions."
            )

    def encode(
        self,
        texts: Sequence[str],
        prompt: str = "",
        step: Step | None = None,
        *,
        normalize: bool | None = None,
        kept: Space | None = None,
    ) -> Vectors:
        """Encode texts in their order.

        Equal texts are sent once, texts of similar length together. Where the interface refuses
        empty texts (all but infinity's), their vector is zero, as in mteb's wrapper of OpenAI.

        Args:
            texts: the inputs.
            prompt: put before every text; with Cohere the kind of the input.
            step: receives every answer (texts, tokens).
            normalize: scale vectors to unit length; None as the settings say.
            kept: takes every answer, and has those of an interrupted run.

        Returns:
            ``(n_texts, dim)`` float32.

        Raises:
            NotReadyError: the server cannot be used, or its answer is wrong.
            UsageError: it refuses the texts.
        """
        distinct = Distinct(texts)
        vectors = np.zeros((len(distinct.texts), self.dimension), np.float32)
        known = np.zeros(len(vectors), np.bool_)
        if kept is not None:
            keys = text_keys(distinct.texts)
            known = self._take_kept(kept, keys, distinct.texts, prompt, vectors)
            if step is not None:
                step.advance(int(distinct.copies[known].sum()))
        # The requests are those of an undisturbed run, without what is known.
        jobs = [
            left
            for rows in self._batches(distinct.texts, prompt)
            if (left := [row for row in rows if not known[row]])
        ]
        for rows, (answer, tokens) in self._client.each(
            jobs, lambda rows: self._ask([distinct.texts[row] for row in rows], prompt)
        ):
            vectors[rows] = answer[:, : self.dimension]
            if kept is not None:
                kept.put(keys[rows], vectors[rows])
            if step is not None:
                step.advance(int(distinct.copies[rows].sum()), tokens)
        if self._settings.normalize if normalize is None else normalize:
            vectors = unit_rows(vectors)
        return distinct.spread(vectors)

    def _take_kept(
        self, kept: Space, keys: Keys, texts: Sequence[str], prompt: str, vectors: Vectors
    ) -> npt.NDArray[np.bool_]:
        """Fill in the vectors that are known, and return which are; none if the server changed."""
        known, stored = kept.get(keys)
        if stored is None:
            return known
        if kept.is_continued and kept.folder not in self._compared:
            self._compared.add(kept.folder)
            place = int(known.argmax())
            now = self._ask([texts[place]], prompt)[0][0, : self.dimension]
            if np.linalg.norm(now - stored[0]) > SERVER_TOLERANCE * np.linalg.norm(stored[0]):
                self._note(
                    f"The server at {self._client.url} gives {quoted(texts[place])} another vector"
                    " than before the interruption: all texts are encoded again."
                )
                kept.clear()
                return np.zeros_like(known)
        vectors[known] = stored
        return known

    def _batches(self, texts: Sequence[str], prompt: str) -> list[list[int]]:
        """Return row numbers for each request, longest texts first."""
        extra = 0 if self._form.input_types else estimated_tokens(prompt)
        sizes = [estimated_tokens(text) + extra for text in texts]
        takes_empty = self._form.takes_empty
        rows = [row for row, text in enumerate(texts) if takes_empty or (prompt + text).strip()]
        rows.sort(key=lambda row: -sizes[row])
        return request_batches(
            sizes, rows, batch_tokens=self.batch_tokens, max_texts=self._batch_texts
        )

    def _ask(self, texts: Sequence[str], prompt: str) -> tuple[Vectors, int]:
        """Send one request, or two halves of it if the server refuses it as too large."""
        path, body = self._form.embed(texts, self._served, prompt)
        try:
            answer = self._client.post(path, body)
        except TooLargeError:
            if len(texts) == 1:
                raise
            middle = len(texts) // 2
            left, some = self._ask(texts[:middle], prompt)
            right, others = self._ask(texts[middle:], prompt)
            return np.concatenate([left, right]), some + others
        try:
            rows, tokens = self._form.vectors(answer, len(texts))
            return self._checked(rows, texts), tokens
        except WrongAnswerError as error:
            raise damaged(self._client, str(error)) from None
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            what = f"an answer that is not of the interface '{self._form.api}'"
            raise damaged(self._client, what) from error

    def _checked(self, rows: list[Any], texts: Sequence[str]) -> Vectors:
        dimension = self._full or max(map(len, rows), default=0)
        if not dimension:
            raise WrongAnswerError(f"an empty vector of the text {quoted(texts[0])}")
        for row, text in zip(rows, texts, strict=True):
            if len(row) != dimension:
                raise WrongAnswerError(
                    f"a vector of {len(row)} dimensions where others have {dimension}, of the text"
                    f" {quoted(text)}"
                )
            if any(isinstance(value, list | dict) for value in row):
                raise WrongAnswerError(
                    f"a vector that is no list of numbers, of the text {quoted(text)}"
                )
            if None in row:
                raise WrongAnswerError(
                    "a vector that is not finite (null in place of a number), of the text"
                    f" {quoted(text)}"
                )
        vectors = np.asarray(rows, np.float32)
        finite = np.isfinite(vectors).all(axis=1)
        if not finite.all():
            text = quoted(texts[int(finite.argmin())])
            raise WrongAnswerError(f"a vector that is not finite, of the text {text}")
        return vectors

    def _first_words(self) -> str:
        return "bge-eval asks how long a vector is."


class ServedModel(DenseModel):
    """An encoder whose vectors come from a server."""

    def __init__(
        self, url: str, options: ModelOptions, *, progress: Progress | None = None
    ) -> None:
        """Ask the server which model it serves.

        Args:
            url: ``http://host:port``, perhaps with a path.
            options: the server's API (required), the model's name there, the revision under which
                its results are filed, settings, limits of requests, tokens of a request
                (estimated from the characters). Offline, only a server on this machine is asked.
            progress: reports encoding and searching.

        Raises:
            UsageError: the address or the name is wrong, or the API is not named.
            MissingError: the server cannot be reached.
        """
        if options.api is None:
            raise UsageError(
                f"--model {without_secrets(url)} is a server: name its interface,"
                f" --api {', '.join(Api)}."
            )
        progress = progress or Progress()
        overrides = options.overrides
        self.api = options.api
        self._form = wire(self.api)
        self._client = Client(
            address(url, self.api),
            limits=options.limits,
            key_variable=KEY_VARIABLE,
            offline=options.offline,
            note=progress.note,
        )
        with progress.step("ask the server"):
            self.served = self._form.served(self._client, options.api_model)
        files = served_files(self._client, self.served, options.revision)
        prompts, stated = registered_prompts(files.name)
        if self._form.input_types:
            prompts = Prompts(self._form.input_types, "other", f"input types of {self.api}")
        self._settings = ServedSettings(
            overrides.similarity or stated or Similarity.COSINE,
            bool(overrides.normalize),
            overrides.truncate_dim,
        )
        super().__init__(
            files,
            prompts,
            overrides,
            comparison=self._settings.similarity,
            normalize=self._settings.normalize,
            index=options.index,
            progress=progress,
        )
        self._batch_tokens = options.batch_tokens
        self._stores = options.store is not False
        self._encoder: ServedEncoder | None = None
        registered = registered_meta(files.name)
        api_model = registered is not None and "API" in registered.framework
        if not self._form.input_types and not api_model:
            self._refuse_own_loader()
        self._meta = self._make_meta(self._experiment(), framework=["API"])

    def introduction(self) -> tuple[str, ...]:
        """Return the server, its model and the settings."""
        parts = [str(self._settings.similarity)]
        if self._settings.truncate_dim:
            parts.append(f"first {self._settings.truncate_dim} dimensions")
        override = self.overrides.query_prompt
        query = self.prompts.texts.get("query", "") if override is None else override
        source = self.prompts.source if override is None else "--query-prompt"
        parts.append(f"query prompt {query!r} ({source})" if query else "no query prompt")
        return (
            f"{self.files.name} ({self.files.revision}) served at {self._client.url},"
            f" {self.api}: {', '.join(parts)}",
        )

    def identity(self, task: Any) -> dict[str, Any]:
        """Return everything that the server tells about its model, the settings and the prompts."""
        dtype = self.served.details.get("model_dtype")
        return {
            "name": self.files.name,
            "revision": self.files.revision,
            **asdict(self._settings),
            **({"dtype": dtype} if dtype else {}),
            "server": server_identity(self._client, self.api, self.served),
            "prompts": self._prompts(task),
        }

    def machine_settings(self) -> dict[str, Any]:
        """Return interface, batch size, dimension and concurrency, once the server was asked."""
        if self._encoder is None:
            return {}
        return {
            "backend": str(self.api),
            "batch_tokens": self._encoder.batch_tokens,
            "dimension": self._encoder.dimension,
            "concurrency": self._client.limits.concurrency,
        }

    @property
    def encoder(self) -> ServedEncoder:
        """Return the encoder, asking the server for a first vector the first time."""
        if self._encoder is None:
            with self.progress.step("ask the server"):
                self._encoder = ServedEncoder(
                    self._client,
                    self._form,
                    self.served,
                    self._settings,
                    self._batch_tokens,
                    self.progress.note,
                )
        return self._encoder

    def _vectors(
        self, texts: list[str], form: Form, step: Step, *, normalize: bool | None = None
    ) -> Vectors:
        # A server's model can change without notice, so its vectors are kept for this task alone.
        kept = None
        if self.unfinished is not None and self._stores:
            facts = {"of": "texts", "prompt": form.prompt}
            kept = self.unfinished.space(self.files.name, facts)
        encoder = self.encoder
        return encoder.encode(texts, form.prompt, step, normalize=normalize, kept=kept)

    def _experiment(self) -> dict[str, str | int | bool]:
        """Return the interface, which tells it from a local model, and the user's settings."""
        own = asdict(ServedSettings(self._settings.similarity))
        changed: dict[str, str | int | bool] = {"api": str(self.api)}
        if self.overrides.similarity is not None:
            changed["similarity"] = str(self.overrides.similarity)
        return changed | self._changed(own, asdict(self._settings))


def _open(url: str, options: ModelOptions, progress: Progress | None) -> ServedModel:
    return ServedModel(url, options, progress=progress)


KIND = Kind(
    "a server",
    recognises=lambda name, options: is_address(name),
    open=_open,
    supported=frozenset(
        (
            *("revision", "similarity", "normalize", "truncate_dim", "query_prompt"),
            *("document_prompt", "prompts", "api", "api_model", "index"),
        )
    ),
)
