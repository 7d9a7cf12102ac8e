"""BGE-M3: dense, sparse and multi-vector retrieval by one forward pass, and their weighted mean.

The heads are the files that FlagEmbedding reads: ``sparse_linear.pt`` gives every token a
weight (a text's weight of a word piece is the largest of its tokens), ``colbert_linear.pt`` a
vector. Dense and sparse scores are computed for the whole corpus; the multi-vector score, as in
BGE-M3's own evaluations, for the best documents of the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from bge_eval.data.texts import document_texts, query_texts
from bge_eval.encode.calls import CallRecords, CallScores
from bge_eval.encode.prompts import Role
from bge_eval.encode.settings import Backend, Similarity
from bge_eval.errors import DamagedError, MissingError, UsageError, did_you_mean
from bge_eval.models.base import Model
from bge_eval.models.decoder import is_decoder, open_decoder
from bge_eval.models.kinds import ENCODER_OPTIONS, Kind, ModelOptions
from bge_eval.models.m3_vectors import M3Vectors, Mode, compared, joined, text_weights
from bge_eval.models.transformer import EncoderModel
from bge_eval.progress import Progress
from bge_eval.records import Run, Vectors
from bge_eval.rerank.second_stage import with_tail
from bge_eval.runtime.devices import first_device
from bge_eval.runtime.token_states import (
    TokenStates,
    documents_per_group,
    late_interaction,
    linear_head,
    read_states,
    token_vectors,
)
from bge_eval.search.ranking import best, ranked

if TYPE_CHECKING:
    from datasets import Dataset
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.models import ModelMeta

DEPTH = 200
"""Documents of each query that get the multi-vector score."""

_CHUNK = 4096
"""Documents encoded and compared together."""


_WEIGHTS = {Mode.DENSE: 1.0, Mode.SPARSE: 0.3, Mode.COLBERT: 1.0}
"""The weights of BGE-M3's evaluation on MIRACL."""
_HEADS = {Mode.SPARSE: "sparse_linear.pt", Mode.COLBERT: "colbert_linear.pt"}


def parse_modes(modes: str, weights: str | None) -> dict[Mode, float]:
    """Read ``dense,sparse,colbert`` and ``1,0.3,1`` into weights by mode.

    Raises:
        UsageError: there is no such mode, or not one weight for each.
    """
    names = [name.strip() for name in modes.split(",")]
    for name in names:
        if name not in list(Mode):
            raise UsageError(
                f"--m3-mode {modes}: '{name}' is none of {', '.join(Mode)}."
                + did_you_mean(name, Mode)
            )
    chosen = [Mode(name) for name in names]
    if len(set(chosen)) != len(chosen):
        raise UsageError(f"--m3-mode {modes} names a mode twice.")
    if weights is None:
        return {mode: _WEIGHTS[mode] for mode in chosen}
    try:
        values = [float(part) for part in weights.split(",")]
    except ValueError as error:
        raise UsageError(f"--m3-weights takes numbers such as 1,0.3,1, not '{weights}'.") from error
    if len(values) != len(chosen) or min(values) < 0 or not sum(values):
        raise UsageError(
            f"--m3-weights {weights}: {len(chosen)} modes ({modes}) need as many weights, none"
            " below 0 and not all 0."
        )
    return dict(zip(chosen, values, strict=True))


class M3Model(Model):
    """mteb's SearchProtocol over BGE-M3."""

    def __init__(self, model: EncoderModel, weights: Mapping[Mode, float]) -> None:
        """Take the encoder, whose files must hold the heads.

        Args:
            model: the dense encoder.
            weights: weight of each mode.

        Raises:
            MissingError: a head's file is not there.
        """
        super().__init__(model.progress)
        self.task_prompts = model.task_prompts
        self.encoder_model = model
        self._weights = dict(weights)
        for mode in weights:
            if mode in _HEADS and not (model.files.folder / _HEADS[mode]).is_file():
                raise MissingError(
                    f"{model.files.name} has no {_HEADS[mode]}, which --m3-mode {mode} needs; only"
                    " BGE-M3 and models trained from it have one."
                )
        self._loaded: dict[Mode, Any] | None = None

    @property
    def mteb_model_meta(self) -> ModelMeta:
        """Return the encoder's record; the modes name the results' folder."""
        meta = self.encoder_model.mteb_model_meta
        experiment = dict(meta.experiment_kwargs or {})
        experiment["m3_mode"] = "+".join(self._weights)
        if any(value != _WEIGHTS[mode] for mode, value in self._weights.items()):
            experiment["m3_weights"] = "+".join(f"{value:g}" for value in self._weights.values())
        return meta.model_copy(update={"experiment_kwargs": experiment})

    def identity(self, task: TaskMetadata) -> dict[str, Any]:
        """Return everything about this model that the scores of one task depend on."""
        m3 = {str(mode): weight for mode, weight in self._weights.items()}
        depth = {"depth": DEPTH} if Mode.COLBERT in self._weights else {}
        return {**self.encoder_model.identity(task), "m3": {**m3, **depth}}

    def introduction(self) -> tuple[str, ...]:
        """Return the modes with their weights, and the length."""
        files = self.encoder_model.files
        modes = " + ".join(f"{weight:g} {mode}" for mode, weight in self._weights.items())
        below = f" (multi-vector for the first {DEPTH})" if Mode.COLBERT in self._weights else ""
        length = self.encoder_model.settings.max_length
        return (f"{files.name} at {files.revision[:12]}: {modes}{below}, {length} tokens",)

    def machine_settings(self) -> dict[str, Any]:
        """Return the encoder's settings."""
        return self.encoder_model.machine_settings()

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
        """Search the corpus, or score candidates; see `Model.search`.

        Scores are the weighted mean of the modes' scores. With the multi-vector mode, documents
        below its depth keep their order, as after a reranker.
        """
        corpus = self._take_corpus()
        query_ids = list(queries["id"])
        prompt = self.encoder_model.prompt(task_metadata, Role.QUERY)
        asked = self.vectors(query_texts(queries), prompt, "encode queries", set(self._weights))
        prompt = self.encoder_model.prompt(task_metadata, Role.DOCUMENT)
        if top_ranked is not None:
            candidates = {query: list(top_ranked.get(query, ())) for query in query_ids}
            return self._score(corpus, prompt, query_ids, asked, candidates)
        run = self._search(corpus, prompt, query_ids, asked, top_k)
        if Mode.COLBERT not in self._weights:
            return run
        candidates = {query: ranked(run[query], DEPTH) for query in query_ids}
        heads = self._score(corpus, prompt, query_ids, asked, candidates)
        return {query: with_tail(heads[query], run[query]) for query in query_ids}

    # ── the three modes ─────────────────────────────────────────────────────────────────────

    def vectors(self, texts: list[str], prompt: str, phase: str, modes: set[Mode]) -> M3Vectors:
        """Encode texts in several modes by one forward pass.

        Args:
            texts: the inputs.
            prompt: put before each.
            phase: the step's name on the screen.
            modes: the modes besides dense, which is always computed.
        """
        records = CallRecords(
            self.unfinished if self.encoder_model.store is not None else None,
            f"{self.encoder_model.files.name} {'+'.join(sorted(modes))}",
            prompt,
            texts,
            self.progress,
        )
        arrays = records.get()
        wanted = np.array([row not in arrays for row in range(len(texts))], np.bool_)
        for rows, batch in self._batches(texts, prompt, phase, modes, wanted):
            of_texts = list(batch.arrays())
            records.put(rows, of_texts)
            arrays |= zip(rows, of_texts, strict=True)
        dimension = self.encoder_model.encoder.dimension
        vocabulary = self._transformer().config.vocab_size if Mode.SPARSE in modes else None
        return joined([arrays[row] for row in range(len(texts))], vocabulary, dimension)

    def _batches(
        self,
        texts: list[str],
        prompt: str,
        phase: str,
        modes: set[Mode],
        wanted: npt.NDArray[np.bool_],
    ) -> Iterator[tuple[list[int], M3Vectors]]:
        """Encode the batches that have a wanted text; yield the texts' places with their vectors.

        Raises:
            DamagedError: a vector is not finite.
        """
        encoder = self.encoder_model.encoder
        self._transformer()  # refuses a backend without hidden states
        forward: Any = encoder.forward
        with self.progress.step(phase, len(texts), "texts") as step:
            step.advance(int((~wanted).sum()))
            for part in read_states(
                encoder.tokenizer,
                forward.hidden,
                [prompt + text for text in texts],
                lambda states: self._read(states, modes),
                forward.fitting,
                max_length=self.encoder_model.settings.max_length,
                batch_tokens=encoder.batch_tokens,
                wanted=wanted,
            ):
                yield part.rows.tolist(), part.result
                step.advance(len(part.rows), part.tokens)

    def _read(self, states: TokenStates, modes: set[Mode]) -> M3Vectors:
        """Return the representations of texts from their hidden states.

        Raises:
            DamagedError: a vector is not finite.
        """
        import torch

        from bge_eval.runtime.torch_forward import pool

        encoder, settings = self.encoder_model.encoder, self.encoder_model.settings
        heads = self._heads()
        pooled = pool(states.hidden, states.mask, settings.pooling)[:, : encoder.dimension]
        # The cosine needs unit vectors, even where the model's files do not normalise.
        if settings.normalize or settings.similarity is Similarity.COSINE:
            pooled = torch.nn.functional.normalize(pooled, dim=-1)
        dense = pooled.cpu().numpy().astype(np.float32, copy=False)
        if not np.isfinite(dense).all():
            raise DamagedError(
                f"The model gave vectors that are not finite in {settings.dtype}."
                " Use --dtype float32 or bfloat16."
            )
        sparse = None
        if Mode.SPARSE in modes:
            of_token = torch.relu(heads[Mode.SPARSE](states.hidden))[..., 0].cpu().numpy()
            names = ("cls", "eos", "pad", "unk")
            unused = {getattr(encoder.tokenizer, f"{name}_token_id") for name in names}
            vocabulary = int(self._transformer().config.vocab_size)
            sparse = text_weights(states.ids, of_token, unused, vocabulary)
        tokens = token_vectors(states, heads[Mode.COLBERT]) if Mode.COLBERT in modes else []
        return M3Vectors(dense, sparse, tokens)

    def _transformer(self) -> Any:
        forward = self.encoder_model.encoder.forward
        if not hasattr(forward, "hidden"):
            raise UsageError(
                f"--m3-mode needs torch on one device, not {forward.backend} on {forward.device}."
                " Add --backend torch, or --device cuda:0."
            )
        transformer: Any = forward.model  # type: ignore[attr-defined]
        return transformer

    def _heads(self) -> dict[Mode, Any]:
        if self._loaded is None:
            folder, device = self.encoder_model.files.folder, self._transformer().device
            self._loaded = {
                mode: linear_head(folder / _HEADS[mode], device)
                for mode in self._weights
                if mode in _HEADS
            }
        return self._loaded

    def _single(self) -> dict[Mode, float]:
        """Return the modes that search the whole corpus; dense if no other does."""
        single: dict[Mode, float] = {
            mode: weight
            for mode, weight in self._weights.items()
            if mode is not Mode.COLBERT and weight > 0
        }
        return single or {Mode.DENSE: 1.0}

    def _search(
        self, corpus: Dataset, prompt: str, query_ids: list[str], asked: M3Vectors, top_k: int
    ) -> Run:
        single = self._single()
        ids: list[str] = list(corpus["id"])
        count = len(query_ids)
        scores = np.empty((count, 0), np.float32)
        rows = np.empty((count, 0), np.int64)
        start = 0
        for texts in document_texts(corpus, None, _CHUNK):
            documents = self.vectors(texts, prompt, "encode corpus", set(single))
            new = compared(asked, documents, single)
            scores = np.concatenate([scores, new], axis=1)
            place = np.arange(start, start + len(texts))
            rows = np.concatenate([rows, np.broadcast_to(place, new.shape)], axis=1)
            if scores.shape[1] > top_k:
                kept = np.argpartition(-scores, top_k - 1, axis=1)[:, :top_k]
                scores = np.take_along_axis(scores, kept, axis=1)
                rows = np.take_along_axis(rows, kept, axis=1)
            start += len(texts)
        return {
            query: best({ids[row]: score for row, score in zip(at, values, strict=True)})
            for query, at, values in zip(query_ids, rows.tolist(), scores.tolist(), strict=True)
        }

    def _score(
        self,
        corpus: Dataset,
        prompt: str,
        query_ids: list[str],
        asked: M3Vectors,
        candidates: Mapping[str, Sequence[str]],
    ) -> Run:
        """Score candidates in all modes."""
        askers: dict[str, list[int]] = {}
        for index, query in enumerate(query_ids):
            for document in candidates[query]:
                askers.setdefault(document, []).append(index)
        rows = np.array([i for i, doc in enumerate(corpus["id"]) if doc in askers], np.int64)
        start = 0
        ids = list(corpus[rows]["id"])
        pairs = [(query_ids[query], document) for document in ids for query in askers[document]]
        scores = CallScores(self.unfinished, pairs, self.progress)
        # The pairs of a document follow each other.
        ends = np.cumsum([0, *(len(askers[document]) for document in ids)]).tolist()
        dimension = self.encoder_model.encoder.forward.dimension
        together = documents_per_group(self.encoder_model.settings.max_length, dimension, _CHUNK)
        for texts in document_texts(corpus, rows, together):
            places = [range(ends[n], ends[n + 1]) for n in range(start, start + len(texts))]
            wanted = np.array([scores.lacks(list(own)) for own in places], np.bool_)
            modes = set(self._weights)
            for batch, vectors in self._batches(texts, prompt, "encode candidates", modes, wanted):
                made = [
                    self._pair_scores(asked, askers[ids[start + text]], vectors, index)
                    for index, text in enumerate(batch)
                ]
                scores.put([at for text in batch for at in places[text]], np.concatenate(made))
            start += len(texts)
        scored: list[dict[str, float]] = [{} for _ in query_ids]
        for (_, document), asker, score in zip(
            pairs, (q for d in ids for q in askers[d]), scores.values.tolist(), strict=True
        ):
            scored[asker][document] = score
        return {query: best(scores) for query, scores in zip(query_ids, scored, strict=True)}

    def _pair_scores(
        self, asked: M3Vectors, who: list[int], vectors: M3Vectors, index: int
    ) -> npt.NDArray[np.float64]:
        """Return the scores of some queries with one document, ``(queries,)``, in all modes."""
        total = np.zeros(len(who))
        if dense := self._weights.get(Mode.DENSE, 0.0):
            total += dense * (asked.dense[who] @ vectors.dense[index])
        if sparse := self._weights.get(Mode.SPARSE, 0.0):
            products = asked.sparse[who] @ vectors.sparse[index].T
            total += sparse * products.toarray()[:, 0]
        if colbert := self._weights.get(Mode.COLBERT, 0.0):
            total += colbert * np.array(
                [late_interaction(asked.tokens[q], vectors.tokens[index]) for q in who]
            )
        return total / sum(self._weights.values())


class DenseM3Model(M3Model):
    """BGE-M3 with the dense mode alone, which has one vector for a text and so encodes too."""

    encodes: ClassVar[bool] = True

    def encode(self, inputs: Any, **kwargs: Any) -> Vectors:
        """Return the encoder's vectors; see `bge_eval.models.dense.DenseModel.encode`."""
        return self.encoder_model.encode(inputs, **kwargs)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Compare all with all, as the encoder does."""
        return self.encoder_model.similarity(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Compare row with row, as the encoder does."""
        return self.encoder_model.similarity_pairwise(embeddings1, embeddings2)


def _open(name: str, options: ModelOptions, progress: Progress | None) -> M3Model:
    if options.m3_mode is None:
        raise UsageError("--m3-weights needs --m3-mode, such as dense,sparse,colbert.")
    # The heads need the hidden states, which only torch gives.
    backend = Backend.TORCH if options.backend is Backend.AUTO else options.backend
    weights = parse_modes(options.m3_mode, options.m3_weights)
    options = replace(options, backend=backend, device=first_device(options.device))
    kind = DenseM3Model if weights.keys() == {Mode.DENSE} else M3Model
    if is_decoder(name, options):
        return kind(open_decoder(name, options, progress), weights)
    return kind(EncoderModel(name, options, progress=progress), weights)


KIND = Kind(
    "BGE-M3",
    recognises=lambda name, options: options.m3_mode is not None or options.m3_weights is not None,
    open=_open,
    supported=ENCODER_OPTIONS | {"m3_mode", "m3_weights", "examples", "adapter"},
)
