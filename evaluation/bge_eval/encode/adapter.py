"""The object that mteb evaluates, over any Hugging Face encoder.

It encodes (mteb's EncoderProtocol) and searches (SearchProtocol). It works in
``mteb.evaluate(bge_eval.load_model("BAAI/bge-base-en-v1.5"), tasks)`` as well as under
bge-eval's own command line.
"""

from __future__ import annotations

import atexit
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bge_eval.encode.backends import choose_backend
from bge_eval.encode.locate import locate
from bge_eval.encode.prompts import Role, resolve_instruction, resolve_prompt
from bge_eval.encode.protocol import Protocol, ProtocolName, read_protocol
from bge_eval.encode.settings import (
    Backend,
    Overrides,
    Prompts,
    Similarity,
    apply_overrides,
    read_model_config,
)
from bge_eval.encode.store import EmbeddingStore, default_store, text_keys
from bge_eval.encode.text_encoder import Distinct, finished
from bge_eval.errors import UsageError
from bge_eval.progress import Progress
from bge_eval.records import Run, Vectors
from bge_eval.search.exact import ExactSearch, Rows, chunk_rows, unit_rows
from bge_eval.texts import document_texts, query_texts

if TYPE_CHECKING:
    from datasets import Dataset
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.models import ModelMeta
    from mteb.types import PromptType

    from bge_eval.encode.store import Space
    from bge_eval.encode.text_encoder import TextEncoder
    from bge_eval.progress import Step

_VECTOR_PACKAGES = ("tokenizers", "torch", "transformers")
"""Packages whose version may change a vector."""

_TYPES_WITH_ROLES = {"Retrieval", "Reranking", "InstructionRetrieval", "InstructionReranking"}
"""Task types whose texts are queries and documents; in the others mteb gives no role."""

# Loaders of mteb's registry whose prompts or instructions are text before the input, as here.
_PLAIN_LOADERS = {
    "SentenceTransformerEncoderWrapper",
    "sentence_transformers_loader",
    "InstructSentenceTransformerModel",
    "q3e_instruct_loader",
}


class EncoderModel:
    """A Hugging Face encoder behind mteb's protocols.

    Settings are read at once; weights are loaded when the first text must be encoded, so that a
    run whose results are all there costs nothing.
    """

    packages: tuple[str, ...] = ()
    """Packages, beside those of every run, whose version can change a score."""

    def __init__(
        self,
        model_name: str,
        revision: str | None = None,
        *,
        device: str | None = None,
        overrides: Overrides | None = None,
        batch_tokens: int | None = None,
        backend: str = "auto",
        store: bool | Path = True,
        trust_remote_code: bool = False,
        offline: bool = False,
        progress: Progress | None = None,
    ) -> None:
        """Find the model and read its settings.

        Args:
            model_name: hub id, local folder or ``builtin:all-MiniLM-L6-v2``.
            revision: hub revision.
            device: "cpu", "cuda:0" …; None takes a GPU when there is one.
            overrides: values to use in place of the model's own.
            batch_tokens: tokens of a batch, padding included; None chooses by device.
            backend: "torch", "openvino", "onnx", or "auto" for the fastest that gives torch's
                vectors.
            store: the folder of the embedding store; True for the usual one, False for none.
            trust_remote_code: run Python code that comes with the model.
            offline: open no connection.
            progress: told of encoding and searching.

        Raises:
            UsageError: an option does not fit the model.
            MissingError: the model is not to be had.
            DamagedError: its files cannot be used.
        """
        self.files = locate(model_name, revision=revision, offline=offline)
        self.overrides = overrides or Overrides()
        config = read_model_config(self.files, self.overrides)
        self.prompts: Prompts = config.prompts
        self.settings = apply_overrides(config.settings, self.overrides)
        self.protocol: Protocol = read_protocol(self.overrides.protocol or ProtocolName.LEADERBOARD)
        one_prompt = self.prompts.instructions is None or self.overrides.query_prompt is not None
        if self._stated_protocol() and not one_prompt:
            raise UsageError(
                f"--protocol {self.protocol.name} holds the rules of BGE, whose models have one"
                f" query prompt; {self.files.name} gets an instruction for each task. Leave the"
                " option out, or give one prompt with --query-prompt."
            )
        self.progress = progress or Progress()
        self.task_prompts: dict[str, Mapping[str, str]] = {}
        """Task → role → prompt, for collections that state their own; the user's still wins."""
        self._own_settings = config.settings
        self._device = device
        self._batch_tokens = batch_tokens
        self._trust_remote_code = trust_remote_code
        self._backend = Backend(backend)
        self._chosen_backend = str(
            choose_backend(self._backend, self.files, self.settings, self._device)
        )
        self._store = _open_store(store, self.progress)
        self._encoder: TextEncoder | None = None
        self._corpus: Dataset | None = None
        self._meta = self._make_meta()

    # ── what a run's identity is made of ────────────────────────────────────────────────────

    def prompt(self, task: TaskMetadata, role: Role | None) -> str:
        """Return the prompt that texts of one role get in one task ("" for none)."""
        of_task = self.task_prompts.get(task.name, {})
        if role is not None and role.value in of_task and self._unsaid(role):
            return of_task[role.value]
        if role is Role.QUERY and self.protocol.drops_query_prompt(task):
            own = self.overrides.prompts or {}
            return own.get(f"{task.name}-{role}", own.get(task.name, ""))
        said = resolve_prompt(
            self.prompts, self.overrides, task=task.name, task_type=task.type, role=role
        )
        instructions = self.prompts.instructions
        if instructions is None or said or (role is not None and not self._unsaid(role)):
            return said
        return resolve_instruction(instructions, task, role)

    def _unsaid(self, role: Role) -> bool:
        said = self.overrides
        return (said.query_prompt if role is Role.QUERY else said.document_prompt) is None

    def identity(self, task: TaskMetadata) -> dict[str, Any]:
        """Return everything about this model that the scores of one task depend on."""
        return {
            "name": self.files.name,
            "revision": self.files.revision,
            **asdict(self.settings),
            "normalize": self._normalizes(task),
            "prompts": self._prompts(task),
            **self._stated_protocol(),
            **self._backend_identity(),
        }

    def _normalizes(self, task: TaskMetadata) -> bool:
        return self.settings.normalize and not self.protocol.drops_normalization(task)

    def _stated_protocol(self) -> dict[str, str]:
        """Return the protocol if it is another than mteb's, whose results name none."""
        name = self.protocol.name
        return {} if name is ProtocolName.LEADERBOARD else {"protocol": str(name)}

    def unnamed_twin(self) -> str | None:
        """Return the registered model that a local folder is named like, if it lacks its prompt.

        Someone who copied ``bge-base-en-v1.5`` to a machine without a network gets no query
        instruction from the folder: the hub's repository does not hold it either.
        """
        from mteb.models.model_implementations import MODEL_REGISTRY

        if self.files.from_hub or self.prompts.texts or self.overrides.query_prompt is not None:
            return None
        name = self.files.name.rsplit("/", 1)[-1]
        for known, meta in MODEL_REGISTRY.items():
            if known.rsplit("/", 1)[-1] == name and meta.loader_kwargs.get("model_prompts"):
                return str(known)
        return None

    def machine_settings(self) -> dict[str, Any]:
        """Return what changes the time but not the score, as far as it is known by now."""
        if self._encoder is None:
            return {}
        return {
            "backend": self._encoder.forward.backend,
            "device": self._encoder.device,
            "batch_tokens": self._encoder.batch_tokens,
            "dimension": self._encoder.dimension,
            "parameters": self._encoder.parameters,
        }

    def _prompts(self, task: TaskMetadata) -> dict[str, str]:
        if task.type in _TYPES_WITH_ROLES:
            return {role.value: self.prompt(task, role) for role in Role}
        return {"text": self.prompt(task, None)}

    @property
    def mteb_model_meta(self) -> ModelMeta:
        """Return mteb's record of the model; non-default settings are its experiment."""
        return self._meta

    # ── mteb's EncoderProtocol ──────────────────────────────────────────────────────────────

    def encode(
        self,
        inputs: Any,
        *,
        task_metadata: TaskMetadata,
        hf_split: str,
        hf_subset: str,
        prompt_type: PromptType | None = None,
        **kwargs: Any,
    ) -> Vectors:
        """Encode the texts of a dataloader.

        Args:
            inputs: mteb's dataloader of batches with a ``text`` list.
            task_metadata: the task, which decides the prompt.
            hf_split: unused; part of the protocol.
            hf_subset: unused; part of the protocol.
            prompt_type: query, document, or None where the task has no roles.
            **kwargs: mteb's encode arguments; batches are made by tokens here, so unused.

        Returns:
            ``(n_texts, dim)`` float32.
        """
        texts = [text for batch in inputs for text in batch["text"]]
        role = Role(prompt_type.value) if prompt_type is not None else None
        prompt = self.prompt(task_metadata, role)
        return self._encode(texts, prompt, "encode", normalize=self._normalizes(task_metadata))

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Compare all with all: ``(n, dim)``, ``(m, dim)`` to ``(n, m)``, by mteb's functions."""
        from mteb.similarity_functions import cos_sim, dot_score

        compare = cos_sim if self.settings.similarity is Similarity.COSINE else dot_score
        return compare(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Compare row with row: two ``(n, dim)`` to ``(n,)``, by mteb's functions."""
        from mteb.similarity_functions import pairwise_cos_sim, pairwise_dot_score

        cosine = self.settings.similarity is Similarity.COSINE
        compare = pairwise_cos_sim if cosine else pairwise_dot_score
        return compare(embeddings1, embeddings2)

    # ── mteb's SearchProtocol ───────────────────────────────────────────────────────────────

    def index(self, corpus: Dataset, **kwargs: Any) -> None:
        """Take the corpus; it is encoded while it is searched, chunk by chunk."""
        self._corpus = corpus

    def search(
        self,
        queries: Dataset,
        *,
        task_metadata: TaskMetadata,
        hf_split: str,
        hf_subset: str,
        top_k: int,
        top_ranked: Mapping[str, Sequence[str]] | None = None,
        **kwargs: Any,
    ) -> Run:
        """Search the indexed corpus, or score given candidates.

        Args:
            queries: with columns ``id``, ``text`` and perhaps ``instruction``.
            task_metadata: the task, which decides the prompts.
            hf_split: unused; part of the protocol.
            hf_subset: unused; part of the protocol.
            top_k: documents to return for each query.
            top_ranked: query id → candidate ids, in reranking tasks; only those are scored.
            **kwargs: the protocol's other arguments.

        Returns:
            Query id → document id → score, best first, equal scores by descending id.
        """
        if self._corpus is None:
            raise UsageError("search() was called before index(): there is no corpus to search.")
        corpus, self._corpus = self._corpus, None
        query_ids: list[str] = list(queries["id"])
        query_vectors = self._comparable(
            self._encode(
                query_texts(queries), self.prompt(task_metadata, Role.QUERY), "encode queries"
            )
        )
        prompt = self.prompt(task_metadata, Role.DOCUMENT)
        if top_ranked is not None:
            return self._score_candidates(corpus, prompt, query_ids, query_vectors, top_ranked)
        return self._search_corpus(corpus, prompt, query_ids, query_vectors, top_k)

    def _search_corpus(
        self, corpus: Dataset, prompt: str, query_ids: list[str], queries: Vectors, top_k: int
    ) -> Run:
        ids = corpus.select_columns(["id"])

        def ids_of(rows: Rows) -> list[str]:
            return list(ids[rows]["id"])

        search = ExactSearch(queries, top_k, ids_of)
        row, whole = 0, len(corpus)
        with self.progress.step("search", whole, "documents") as searched:
            for texts in document_texts(corpus, None, chunk_rows(queries.shape[1])):
                with self.progress.step("encode corpus", whole, "documents") as encoded:
                    vectors = self._comparable(self._vectors(texts, prompt, encoded))
                search.add(vectors, row)
                searched.advance(len(texts))
                row += len(texts)
        found = search.results()
        rows = np.unique(np.concatenate([rows for rows, _ in found]))
        id_by_row = dict(zip(rows.tolist(), ids_of(rows), strict=True))
        return {
            query: _ranked([id_by_row[row] for row in rows.tolist()], scores.tolist())
            for query, (rows, scores) in zip(query_ids, found, strict=True)
        }

    def _score_candidates(
        self,
        corpus: Dataset,
        prompt: str,
        query_ids: list[str],
        queries: Vectors,
        top_ranked: Mapping[str, Sequence[str]],
    ) -> Run:
        wanted = {doc for query in query_ids for doc in top_ranked.get(query, ())}
        rows = np.array(
            [row for row, doc in enumerate(corpus["id"]) if doc in wanted], dtype=np.int64
        )
        position = {doc: index for index, doc in enumerate(corpus[rows]["id"])} if len(rows) else {}
        vectors = np.zeros((len(rows), queries.shape[1]), np.float32)
        start = 0
        with self.progress.step("encode corpus", len(rows), "documents") as step:
            for texts in document_texts(corpus, rows, chunk_rows(queries.shape[1])):
                vectors[start : start + len(texts)] = self._comparable(
                    self._vectors(texts, prompt, step)
                )
                start += len(texts)
        run: Run = {}
        for query, vector in zip(query_ids, queries, strict=True):
            candidates = list(top_ranked.get(query, ()))
            scores = vectors[[position[doc] for doc in candidates]] @ vector
            run[query] = _ranked(candidates, scores.tolist())
        return run

    # ── encoding ────────────────────────────────────────────────────────────────────────────

    @property
    def encoder(self) -> TextEncoder:
        """Return the loaded encoder, loading it the first time."""
        if self._encoder is None:
            from bge_eval.encode.backends import load_encoder

            with self.progress.step("load model"):
                self._encoder = load_encoder(
                    self.files,
                    self.settings,
                    backend=self._backend,
                    device=self._device,
                    batch_tokens=self._batch_tokens,
                    trust_remote_code=self._trust_remote_code,
                    note=self.progress.note,
                )
        return self._encoder

    def flush(self) -> None:
        """Write the vectors that are not yet in the embedding store."""
        if self._store is not None:
            self._store.flush()

    def _encode(
        self, texts: list[str], prompt: str, phase: str, *, normalize: bool | None = None
    ) -> Vectors:
        with self.progress.step(phase, len(texts), "texts") as step:
            return self._vectors(texts, prompt, step, normalize=normalize)

    def _vectors(
        self, texts: list[str], prompt: str, step: Step, *, normalize: bool | None = None
    ) -> Vectors:
        """Encode texts, those that are stored excepted; equal texts have equal vectors."""
        space = self._space(prompt)
        if space is None:
            return self.encoder.encode(texts, prompt, step, normalize=normalize)
        distinct = Distinct(texts)
        with self.progress.step("store") as stored:
            keys = text_keys(distinct.texts)
            known, vectors = space.get(keys)
            # Counted apart: what was read again took no model's time.
            stored.advance(int(distinct.copies[known].sum()))
        step.advance(int(distinct.copies[known].sum()))
        missing = np.flatnonzero(~known)
        if vectors is None or len(missing):
            dimension = self.encoder.forward.dimension
            found, vectors = vectors, np.empty((len(keys), dimension), np.float32)
            if found is not None:
                vectors[known] = found
            rest = [distinct.texts[index] for index in missing.tolist()]
            copies = distinct.copies[missing]
            for window, pooled in self.encoder.windows(rest, prompt, step, copies):
                vectors[missing[window]] = pooled
                with self.progress.step("store"):
                    space.put(keys[missing[window]], pooled)
        return distinct.spread(finished(vectors, self.settings, normalize))

    def _space(self, prompt: str) -> Space | None:
        """Return the store's space of this model with a prompt: what decides its vectors."""
        if self._store is None:
            return None
        settings = asdict(self.settings)
        # What is stored is neither normalised nor cut nor compared.
        for name in ("normalize", "truncate_dim", "similarity"):
            del settings[name]
        facts = {
            "revision": self.files.revision,
            **settings,
            **self._backend_identity(),
            "prompt": prompt,
            "packages": {name: version(name) for name in _VECTOR_PACKAGES},
        }
        return self._store.space(self.files.name, facts)

    def _backend_identity(self) -> dict[str, str]:
        """Name the backend where it may change a vector by more than float32's rounding."""
        chosen = self._chosen_backend
        plain = chosen == "torch" or (chosen == "openvino" and self.settings.dtype == "float32")
        return {} if plain else {"backend": chosen}

    def _comparable(self, vectors: Vectors) -> Vectors:
        """Prepare vectors so that their inner product is the model's similarity."""
        return unit_rows(vectors) if self.settings.similarity is Similarity.COSINE else vectors

    def _make_meta(self) -> ModelMeta:
        from mteb.models import ModelMeta
        from mteb.models.model_implementations import MODEL_REGISTRY
        from mteb.models.model_meta import ScoringFunction

        registered = MODEL_REGISTRY.get(self.files.name)
        if registered is not None:
            self._refuse_foreign_prompts(registered)
        own: dict[str, Any] = {
            "name": self.files.name,
            "revision": self.files.revision,
            "max_tokens": self.settings.max_length,
            "similarity_fn_name": {
                Similarity.COSINE: ScoringFunction.COSINE,
                Similarity.DOT: ScoringFunction.DOT_PRODUCT,
            }[self.settings.similarity],
            "experiment_kwargs": self._experiment() or None,
        }
        if registered is not None:
            return registered.model_copy(update=own, deep=True)
        own["use_instructions"] = bool(self.prompts.texts)
        return ModelMeta.create_empty(overwrites={**own, "framework": ["PyTorch"]})

    def _experiment(self) -> dict[str, str | int | bool]:
        """Return the settings that are not the model's own; they name the results' folder."""
        own, used = asdict(self._own_settings), asdict(self.settings)
        changed = {name: value for name, value in used.items() if value != own[name]}
        for name in ("query_prompt", "document_prompt", "instruction_format"):
            text = getattr(self.overrides, name)
            if text is not None:
                changed[name] = _digest(text) if text else "none"
        changed |= self._stated_protocol() | self._backend_identity()
        if self.overrides.prompts:
            changed["prompts"] = _digest(repr(sorted(self.overrides.prompts.items())))
        return {
            name: str(value) if isinstance(value, str) else value for name, value in changed.items()
        }

    def _refuse_foreign_prompts(self, registered: ModelMeta) -> None:
        loader = registered.loader
        name = getattr(getattr(loader, "func", loader), "__name__", None)
        prompts_given = self.overrides.query_prompt is not None
        if name is None or name in _PLAIN_LOADERS or prompts_given:
            return
        raise UsageError(
            f"mteb runs {self.files.name} through a loader of its own ({name}), which formats"
            " instructions in a way that bge-eval does not do yet; without them the score would"
            " not be this model's. Give the instruction with --query-prompt to run it all the same."
        )


def _open_store(store: bool | Path, progress: Progress) -> EmbeddingStore | None:
    if store is False:
        return None
    root = default_store() if store is True else store
    opened = EmbeddingStore(root, progress.note)
    atexit.register(opened.flush)
    return opened


def _ranked(documents: list[str], scores: list[float]) -> dict[str, float]:
    pairs = sorted(zip(scores, documents, strict=True), reverse=True)
    return {document: score for score, document in pairs}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
