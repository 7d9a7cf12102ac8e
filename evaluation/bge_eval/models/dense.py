"""Models that give one vector per text: their prompts, mteb's protocols, the search.

Subclasses compute the vectors: `bge_eval.models.transformer`, `bge_eval.models.served`.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bge_eval.data.texts import document_texts, query_texts
from bge_eval.encode.prompts import Role, names_of, resolve_instruction, resolve_prompt
from bge_eval.encode.protocol import Protocol, ProtocolName, read_protocol
from bge_eval.encode.settings import Overrides, Prompts, Similarity
from bge_eval.errors import UsageError
from bge_eval.progress import Progress
from bge_eval.records import ModelFiles, Run, Vectors
from bge_eval.search.exact import ExactSearch, Rows, chunk_rows, unit_rows
from bge_eval.search.ranking import best

if TYPE_CHECKING:
    from datasets import Dataset
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.models import ModelMeta
    from mteb.types import PromptType

    from bge_eval.progress import Step

_TYPES_WITH_ROLES = {"Retrieval", "Reranking", "InstructionRetrieval", "InstructionReranking"}
"""Task types whose texts are queries and documents; in the others mteb gives no role."""

# Loaders of mteb's registry whose prompts or instructions are text before the input, as here.
_PLAIN_LOADERS = {
    "SentenceTransformerEncoderWrapper",
    "sentence_transformers_loader",
    "InstructSentenceTransformerModel",
    "q3e_instruct_loader",
}


class DenseModel(ABC):
    """A model that gives one vector a text, behind mteb's protocols."""

    packages: tuple[str, ...] = ()
    """Packages, beside those of every run, whose version can change a score."""

    def __init__(
        self,
        files: ModelFiles,
        prompts: Prompts,
        overrides: Overrides,
        *,
        comparison: Similarity,
        normalize: bool,
        protocol: Protocol | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Keep what is the same wherever the vectors come from.

        Args:
            files: the model's name and revision, and where it lies.
            prompts: what the model or mteb says goes before a text.
            overrides: what the user says instead.
            comparison: how vectors are compared.
            normalize: whether vectors are scaled to unit length.
            protocol: whose rules for prompts; None for the leaderboard's.
            progress: told of encoding and searching.
        """
        self.files = files
        self.prompts = prompts
        self.overrides = overrides
        self.comparison = comparison
        self.normalize = normalize
        self.protocol = protocol or read_protocol(ProtocolName.LEADERBOARD)
        self.progress = progress or Progress()
        self.task_prompts: dict[str, Mapping[str, str]] = {}
        """Task → role → prompt, for collections that state their own; the user's still wins."""
        self._corpus: Dataset | None = None
        self._meta: ModelMeta  # made by the subclass, once it knows its settings

    # ── what each kind of model says of itself ──────────────────────────────────────────────

    @abstractmethod
    def identity(self, task: TaskMetadata) -> dict[str, Any]:
        """Return everything about this model that the scores of one task depend on."""

    @abstractmethod
    def machine_settings(self) -> dict[str, Any]:
        """Return what changes the time but not the score, as far as it is known by now."""

    @abstractmethod
    def _make_meta(self) -> ModelMeta:
        """Return mteb's record of the model."""

    @abstractmethod
    def _vectors(
        self, texts: list[str], prompt: str, step: Step, *, normalize: bool | None = None
    ) -> Vectors:
        """Encode texts: ``(n_texts, dim)`` float32."""

    # ── prompts and identity ────────────────────────────────────────────────────────────────

    def prompt(self, task: TaskMetadata, role: Role | None) -> str:
        """Return the prompt that texts of one role get in one task ("" for none)."""
        of_task = self.task_prompts.get(task.name, {})
        names = names_of(task.name, str(task.type), role)
        listed = any(name in (self.overrides.prompts or {}) for name in names)
        if role is not None and role.value in of_task and self._unsaid(role) and not listed:
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

    def _normalizes(self, task: TaskMetadata) -> bool:
        return self.normalize and not self.protocol.drops_normalization(task)

    def _stated_protocol(self) -> dict[str, str]:
        """Return the protocol if it is another than mteb's, whose results name none."""
        name = self.protocol.name
        return {} if name is ProtocolName.LEADERBOARD else {"protocol": str(name)}

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

        compare = cos_sim if self.comparison is Similarity.COSINE else dot_score
        return compare(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Compare row with row: two ``(n, dim)`` to ``(n,)``, by mteb's functions."""
        from mteb.similarity_functions import pairwise_cos_sim, pairwise_dot_score

        cosine = self.comparison is Similarity.COSINE
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
            query: _ordered([id_by_row[row] for row in rows.tolist()], scores.tolist())
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
            # In float64: in float32 copies of a document would differ by where they stand.
            found = vectors[[position[doc] for doc in candidates]].astype(np.float64)
            scores = (found @ vector.astype(np.float64)).astype(np.float32)
            run[query] = _ordered(candidates, scores.tolist())
        return run

    # ── encoding ────────────────────────────────────────────────────────────────────────────

    def _encode(
        self, texts: list[str], prompt: str, phase: str, *, normalize: bool | None = None
    ) -> Vectors:
        with self.progress.step(phase, len(texts), "texts") as step:
            return self._vectors(texts, prompt, step, normalize=normalize)

    def _comparable(self, vectors: Vectors) -> Vectors:
        """Prepare vectors so that their inner product is the model's similarity."""
        return unit_rows(vectors) if self.comparison is Similarity.COSINE else vectors

    def _changed(self, own: Mapping[str, Any], used: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings that are not the model's own; they name the results' folder."""
        changed = {name: value for name, value in used.items() if value != own[name]}
        for name in ("query_prompt", "document_prompt", "instruction_format"):
            text = getattr(self.overrides, name)
            if text is not None:
                changed[name] = _digest(text) if text else "none"
        changed |= self._stated_protocol()
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


def _ordered(documents: list[str], scores: list[float]) -> dict[str, float]:
    return best(dict(zip(documents, scores, strict=True)))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
