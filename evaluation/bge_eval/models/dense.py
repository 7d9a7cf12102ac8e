"""Models that compute one vector per text: prompts, mteb's protocols, the search.

Subclasses compute the vectors: `bge_eval.models.transformer`, `bge_eval.models.served`.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from bge_eval.data.texts import document_texts, query_texts
from bge_eval.encode.cache import cache_folder
from bge_eval.encode.files import ModelFiles
from bge_eval.encode.prompts import Prompts, Role, names_of, resolve_prompt
from bge_eval.encode.protocol import Protocol, ProtocolName, read_protocol
from bge_eval.encode.registry import refuse_other_loader, registry_entry
from bge_eval.encode.settings import Overrides, Similarity
from bge_eval.errors import DamagedError, quoted
from bge_eval.models.base import Model, model_meta
from bge_eval.models.form import Form
from bge_eval.progress import Progress
from bge_eval.records import Run, Vectors
from bge_eval.runtime.checks import Spread, refuse_misshapen, refuse_unusable
from bge_eval.search.engines import EXACT, engine
from bge_eval.search.exact import chunk_rows, unit_rows
from bge_eval.search.index import Engine, IdsOf, IndexOptions, Rows
from bge_eval.search.ranking import best

if TYPE_CHECKING:
    from datasets import Dataset
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.models import ModelMeta
    from mteb.types import PromptType

    from bge_eval.progress import Step

_TYPES_WITH_ROLES = {"Retrieval", "Reranking", "InstructionRetrieval", "InstructionReranking"}
"""Task types whose texts are queries and documents; in the others mteb gives no role."""


class DenseModel(Model):
    """A model that computes one vector per text, behind mteb's protocols."""

    encodes: ClassVar[bool] = True

    def __init__(
        self,
        files: ModelFiles,
        prompts: Prompts,
        overrides: Overrides,
        *,
        comparison: Similarity,
        normalize: bool,
        protocol: Protocol | None = None,
        index: IndexOptions = EXACT,
        progress: Progress | None = None,
    ) -> None:
        """Keep the settings that do not depend on how vectors are computed.

        Args:
            files: the model's name, revision and folder.
            prompts: prompts of the model's files or of mteb.
            overrides: the user's settings and prompts.
            comparison: how vectors are compared.
            normalize: whether vectors are scaled to unit length.
            protocol: the rules for prompts and normalisation; None for the leaderboard's.
            index: the index that searches.
            progress: receives the steps of encoding and searching.

        Raises:
            UsageError: there is no such index.
            MissingError: faiss is not installed, and the index needs it.
        """
        super().__init__(progress)
        self._index = index
        self._engine: Engine = engine(
            index, cache_folder() / "indexes", self.progress.note, files.name
        )
        self.files = files
        self.prompts = prompts
        self.overrides = overrides
        self.comparison = comparison
        self.normalize = normalize
        self.protocol = protocol or read_protocol(ProtocolName.LEADERBOARD)
        self._meta: ModelMeta  # set by the subclass, which knows its settings

    @property
    def index_options(self) -> IndexOptions:
        """Return the index that searches."""
        return self._index

    @property
    def index_facts(self) -> Mapping[str, Any]:
        """Return the index, its parameters and the representation of the vectors."""
        return self._index.identity()

    @property
    def searches_exactly(self) -> bool:
        """Return whether the search is exact over float32 vectors."""
        return self._index.is_exact

    @property
    def mteb_model_meta(self) -> ModelMeta:
        """Return mteb's record; settings that are not the model's own are its experiment."""
        return self._meta

    @abstractmethod
    def _vectors(
        self, texts: list[str], form: Form, step: Step, *, normalize: bool | None = None
    ) -> Vectors:
        """Encode texts: ``(n_texts, dim)`` float32.

        Args:
            texts: the inputs.
            form: what is put around each.
            step: receives the progress.
            normalize: scale rows to unit L2 norm; None does as the settings say.
        """

    def form(self, task: TaskMetadata, role: Role | None) -> Form:
        """Return what is put around the texts of one role in one task."""
        return Form(self.prompt(task, role))

    def search_by(self, start: Engine) -> None:
        """Search by another engine from now on, which must give the named index's results.

        Args:
            start: the engine; see `bge_eval.search.index.Engine`.
        """
        self._engine = start

    # ── prompts and identity ────────────────────────────────────────────────────────────────

    def prompt(self, task: TaskMetadata, role: Role | None) -> str:
        """Return the prompt that texts of one role get in one task ("" for none)."""
        of_task = self.task_prompts.get(task.name, {})
        names = names_of(task.name, str(task.type), role)
        listed = any(name in (self.overrides.prompts or {}) for name in names)
        if role is not None and role.value in of_task and not listed and not self._overrides(role):
            return of_task[role.value]
        if role is Role.QUERY and self.protocol.drops_query_prompt(task):
            own = self.overrides.prompts or {}
            return own.get(f"{task.name}-{role}", own.get(task.name, ""))
        return resolve_prompt(self.prompts, self.overrides, task, role)

    def _overrides(self, role: Role) -> bool:
        """Return whether the user gives a prompt of a role."""
        overrides = self.overrides
        prompt = overrides.query_prompt if role is Role.QUERY else overrides.document_prompt
        return prompt is not None

    def _normalizes(self, task: TaskMetadata) -> bool:
        return self.normalize and not self.protocol.drops_normalization(task)

    def _stated_protocol(self) -> dict[str, str]:
        """Return the protocol, unless it is the leaderboard's, which results do not name."""
        name = self.protocol.name
        return {} if name is ProtocolName.LEADERBOARD else {"protocol": str(name)}

    def _prompts(self, task: TaskMetadata) -> dict[str, str]:
        """Return role → prompt of a task, "text" → prompt where it has no roles."""
        if task.type in _TYPES_WITH_ROLES:
            return {role.value: self.prompt(task, role) for role in Role}
        return {"text": self.prompt(task, None)}

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
        form = self.form(task_metadata, role)
        return self._encode(texts, form, "encode", normalize=self._normalizes(task_metadata))

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
        """Search the corpus, encoding it chunk by chunk; see `Model.search`.

        Where ``top_ranked`` gives candidates, only those are encoded and scored.
        """
        corpus = self._take_corpus()
        query_ids: list[str] = list(queries["id"])
        query_vectors = self._comparable(
            self._encode(
                query_texts(queries), self.form(task_metadata, Role.QUERY), "encode queries"
            )
        )
        form = self.form(task_metadata, Role.DOCUMENT)
        if top_ranked is not None:
            return self._score_candidates(corpus, form, query_ids, query_vectors, top_ranked)
        return self._search_corpus(corpus, form, query_ids, query_vectors, top_k)

    def _search_corpus(
        self, corpus: Dataset, form: Form, query_ids: list[str], queries: Vectors, top_k: int
    ) -> Run:
        ids = corpus.select_columns(["id"])

        def ids_of(rows: Rows) -> list[str]:
            return list(ids[rows]["id"])

        results = self._found(corpus, form, queries, top_k, ids_of)
        _check_found(self._index.name, results, len(corpus), query_ids)
        rows = np.unique(np.concatenate([rows for rows, _ in results]))
        id_by_row = dict(zip(rows.tolist(), ids_of(rows), strict=True))
        return {
            query: _ordered([id_by_row[row] for row in rows.tolist()], scores.tolist())
            for query, (rows, scores) in zip(query_ids, results, strict=True)
        }

    def _found(
        self, corpus: Dataset, form: Form, queries: Vectors, k: int, ids_of: IdsOf
    ) -> list[tuple[Rows, Vectors]]:
        """Search the corpus and return for each query the rows and scores of its best k."""
        row, whole = 0, len(corpus)
        index = self._engine(queries, k, ids_of, whole)
        spread = Spread(self.files.name)
        with self.progress.step("search", whole, "documents") as searched:
            for texts in document_texts(corpus, None, chunk_rows(queries.shape[1])):
                with self.progress.step("encode corpus", whole, "documents") as encoded:
                    vectors = self._vectors(texts, form, encoded)
                    refuse_misshapen(vectors, len(texts), queries.shape[1], self.files.name)
                    refuse_unusable(vectors, texts)
                    spread.add(vectors, texts)
                    vectors = self._comparable(vectors)
                index.add(vectors, row)
                searched.advance(len(texts))
                row += len(texts)
        spread.refuse_constant()
        with self.progress.step("search"):
            return index.results()

    def _score_candidates(
        self,
        corpus: Dataset,
        form: Form,
        query_ids: list[str],
        queries: Vectors,
        top_ranked: Mapping[str, Sequence[str]],
    ) -> Run:
        rows = candidate_rows(corpus, query_ids, top_ranked)
        position = {doc: index for index, doc in enumerate(corpus[rows]["id"])} if len(rows) else {}
        vectors = np.zeros((len(rows), queries.shape[1]), np.float32)
        start = 0
        with self.progress.step("encode corpus", len(rows), "documents") as step:
            for texts in document_texts(corpus, rows, chunk_rows(queries.shape[1])):
                encoded = self._vectors(texts, form, step)
                refuse_misshapen(encoded, len(texts), queries.shape[1], self.files.name)
                refuse_unusable(encoded, texts)
                vectors[start : start + len(texts)] = self._comparable(encoded)
                start += len(texts)
        run: Run = {}
        for query, vector in zip(query_ids, queries, strict=True):
            candidates = list(top_ranked.get(query, ()))
            # In float32, scores of identical documents would depend on their place.
            rows_of_query = vectors[[position[doc] for doc in candidates]].astype(np.float64)
            scores = (rows_of_query @ vector.astype(np.float64)).astype(np.float32)
            run[query] = _ordered(candidates, scores.tolist())
        return run

    # ── encoding ────────────────────────────────────────────────────────────────────────────

    def _encode(
        self, texts: list[str], form: Form, phase: str, *, normalize: bool | None = None
    ) -> Vectors:
        with self.progress.step(phase, len(texts), "texts") as step:
            vectors = self._vectors(texts, form, step, normalize=normalize)
        refuse_misshapen(vectors, len(texts), None, self.files.name)
        refuse_unusable(vectors, texts)
        spread = Spread(self.files.name)
        spread.add(vectors, texts)
        spread.refuse_constant()
        return vectors

    def _comparable(self, vectors: Vectors) -> Vectors:
        """Prepare vectors so that their inner product is the model's similarity."""
        return unit_rows(vectors) if self.comparison is Similarity.COSINE else vectors

    def _changed(self, own: Mapping[str, Any], used: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings that are not the model's own, which name the results' folder.

        Args:
            own: setting → value, as the model's files state it.
            used: setting → value, as it is used.
        """
        changed = {name: value for name, value in used.items() if value != own.get(name)}
        for name in ("query_prompt", "document_prompt", "instruction_format"):
            text = getattr(self.overrides, name)
            if text is not None:
                changed[name] = _digest(text) if text else "none"
        if self.overrides.known_as is not None:
            changed["known_as"] = self.overrides.known_as
        changed |= self._stated_protocol()
        if self.overrides.prompts:
            changed["prompts"] = _digest(repr(sorted(self.overrides.prompts.items())))
        return {
            name: str(value) if isinstance(value, str) else value for name, value in changed.items()
        }

    def _make_meta(self, experiment: Mapping[str, Any] | None, **unregistered: Any) -> ModelMeta:
        """Return mteb's record of this model; the arguments are those of `model_meta`."""
        from mteb.models.model_meta import ScoringFunction

        scoring = {
            Similarity.COSINE: ScoringFunction.COSINE,
            Similarity.DOT: ScoringFunction.DOT_PRODUCT,
        }
        own = {
            "name": self.files.name,
            "revision": self.files.revision,
            "similarity_fn_name": scoring[self.comparison],
            "experiment_kwargs": {**(experiment or {}), **self._index.experiment()} or None,
        }
        return model_meta(own, **unregistered)

    def _refuse_own_loader(self) -> None:
        """Refuse a model that mteb runs with a loader of its own.

        Raises:
            UsageError: the loader formats instructions, and the user gives no query prompt.
        """
        if self.overrides.query_prompt is None:
            refuse_other_loader(self.files.name, registry_entry(self.files.name))


def candidate_rows(
    corpus: Dataset, query_ids: Sequence[str], candidates: Mapping[str, Sequence[str]]
) -> Rows:
    """Return the rows of a corpus that are a candidate of some query, in their order.

    Args:
        corpus: with a column ``id``.
        query_ids: the queries that are searched.
        candidates: query id → candidate ids; a query without any has none.
    """
    wanted = {document for query in query_ids for document in candidates.get(query, ())}
    return np.array(
        [row for row, document in enumerate(corpus["id"]) if document in wanted], dtype=np.int64
    )


def _check_found(
    engine: str, results: Sequence[tuple[Rows, Vectors]], documents: int, queries: Sequence[str]
) -> None:
    """Refuse rows that are no documents, and scores that are no numbers.

    Raises:
        DamagedError: the index returned something impossible; the message names the query.
    """
    if len(results) != len(queries):
        raise DamagedError(
            f"The index '{engine}' gave results of {len(results)} queries, not of {len(queries)}."
        )
    for query, (rows, scores) in zip(queries, results, strict=True):
        outside = rows[(rows < 0) | (rows >= documents)]
        problem = ""
        if len(outside):
            problem = f"row {int(outside[0])}, which is none of the corpus's {documents} documents"
        elif len(scores) != len(rows) or not np.isfinite(scores).all():
            problem = "a score that is missing or not finite"
        elif len(np.unique(rows)) != len(rows):
            problem = "one document twice"
        if problem:
            raise DamagedError(
                f"The index '{engine}' gave {problem}, for the query {quoted(query)}. No score is"
                " made from such a list."
            )


def _ordered(documents: list[str], scores: list[float]) -> dict[str, float]:
    return best(dict(zip(documents, scores, strict=True)))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
