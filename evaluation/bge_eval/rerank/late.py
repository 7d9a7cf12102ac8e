"""Late interaction: rerank with an embedder's token vectors.

Every distinct text is encoded once. The token vectors are the last hidden states of all tokens but
the first, scaled to unit norm; with ``colbert_linear.pt`` (BGE-M3) they pass through that layer. A
pair's score is BGE-M3's: the mean over the query tokens of the largest inner product with a
document token. Folders of multi-vector models run as `bge_eval.rerank.multi_vector` does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bge_eval.encode.calls import CallRecords, CallScores
from bge_eval.encode.files import ModelFiles
from bge_eval.encode.modules import is_multi_vector
from bge_eval.encode.positions import token_positions
from bge_eval.errors import MissingError, UsageError, one_line
from bge_eval.progress import Progress, quiet_transformers
from bge_eval.rerank.multi_vector import MultiVectorReranker
from bge_eval.rerank.reranker import (
    Family,
    LocalReranker,
    Reranker,
    RerankerOptions,
    checked,
)
from bge_eval.runtime.batches import default_batch_tokens
from bge_eval.runtime.devices import first_device
from bge_eval.runtime.token_states import (
    documents_per_group,
    hidden_states,
    late_interaction,
    linear_head,
    read_states,
    token_vectors,
)

if TYPE_CHECKING:
    from bge_eval.runtime.fitting import Fitting

MAX_LENGTH = 512
"""Default of the longest text, in tokens; longer texts are truncated."""

_HEAD = "colbert_linear.pt"
_CHUNK = 2048
"""Largest number of documents whose token vectors are in memory at a time."""


class LateInteractionReranker(LocalReranker):
    """Late interaction of a transformer's token vectors; weights are loaded with the first pair."""

    _loaded: tuple[Any, Any, Any] | None = None
    _fitting: Fitting | None = None

    def _settings(self) -> Mapping[str, Any]:
        return {"kind": "late"}

    def score(self, pairs: Sequence[tuple[str, str]]) -> npt.NDArray[np.float64]:
        """Score pairs: ``(n_pairs,)`` float64 in [-1, 1], higher is more relevant.

        Raises:
            MissingError: the model cannot be loaded.
            DamagedError: a score is not finite.
        """
        queries = list(dict.fromkeys(query for query, _ in pairs))
        rows_by_document: dict[str, list[int]] = {}
        for row, (_, document) in enumerate(pairs):
            rows_by_document.setdefault(document, []).append(row)
        query_vectors = dict(zip(queries, self._query_vectors(queries), strict=True))
        scores = CallScores(self.unfinished, pairs, self.progress)
        documents = list(rows_by_document)
        with self.progress.step("rerank", len(pairs), "pairs") as step:
            dimension = int(self._load()[1].config.hidden_size)
            group = documents_per_group(self._length(), dimension, _CHUNK)
            for start in range(0, len(documents), group):
                part = documents[start : start + group]
                wanted = np.array([scores.lacks(rows_by_document[text]) for text in part])
                step.advance(
                    sum(
                        len(rows_by_document[text])
                        for text, is_wanted in zip(part, wanted, strict=True)
                        if not is_wanted
                    )
                )
                for places, batch in self._vectors(part, wanted):
                    pairs_of = [rows_by_document[part[place]] for place in places]
                    made = [
                        late_interaction(query_vectors[pairs[row][0]], vectors)
                        for rows, vectors in zip(pairs_of, batch, strict=True)
                        for row in rows
                    ]
                    scores.put([row for rows in pairs_of for row in rows], made)
                    step.advance(len(made))
        return checked(scores.values, self.files.name, self._options.dtype)

    def _query_vectors(self, queries: list[str]) -> list[npt.NDArray[np.float32]]:
        """Return each query's token vectors, those that an interrupted run made among them."""
        records = CallRecords(self.unfinished, "query tokens", "", queries, self.progress)
        vectors = {row: arrays[0] for row, arrays in records.get().items()}
        wanted = np.array([row not in vectors for row in range(len(queries))], np.bool_)
        for rows, batch in self._vectors(queries, wanted):
            records.put(rows, [[each] for each in batch])
            vectors |= zip(rows, batch, strict=True)
        return [vectors[row] for row in range(len(queries))]

    def _vectors(
        self, texts: list[str], wanted: npt.NDArray[np.bool_]
    ) -> Iterator[tuple[list[int], list[npt.NDArray[np.float32]]]]:
        """Yield the places and the token vectors of each batch that has a wanted text."""
        tokenizer, model, head = self._load()
        if self._fitting is None:
            from bge_eval.runtime.fitting import Fitting

            self._fitting = Fitting(self.files.name, self.progress.note)
        for part in read_states(
            tokenizer,
            hidden_states(model),
            texts,
            lambda states: token_vectors(states, head),
            self._fitting,
            max_length=self._length(),
            batch_tokens=self._options.batch_tokens or default_batch_tokens(model.device.type),
            wanted=wanted,
        ):
            yield part.rows.tolist(), part.result

    def _length(self) -> int:
        """Return the longest text in tokens: the user's, or 512 or the model's positions.

        Raises:
            UsageError: the user's is more than the model has positions for, or holds no token of a
                text.
        """
        tokenizer, model, _ = self._load()
        positions = token_positions(model.config.to_dict())
        stated = self._options.max_length
        special = max(tokenizer.num_special_tokens_to_add(pair=False), 1)  # the first is not read
        if stated is not None and stated <= special:
            raise UsageError(
                f"--reranker-max-length {stated} leaves no room for a text. Use {special + 1} or"
                " more."
            )
        if stated is not None and positions is not None and stated > positions:
            raise UsageError(
                f"--reranker-max-length {stated} exceeds the {positions} positions of"
                f" {self.files.name}."
            )
        return stated or min(MAX_LENGTH, positions or MAX_LENGTH)

    def _load(self) -> tuple[Any, Any, Any]:
        if self._loaded is not None:
            return self._loaded
        import torch
        from transformers import AutoModel, AutoTokenizer

        from bge_eval.runtime.loading import refuse_other_weights
        from bge_eval.runtime.unpadded import run_unpadded, skips_padding

        device = torch.device(first_device(self._options.device))
        common: dict[str, Any] = {
            "trust_remote_code": self._options.trust_remote_code,
            "local_files_only": True,
        }
        with self.progress.step("load reranker"), quiet_transformers():
            try:
                tokenizer = AutoTokenizer.from_pretrained(self.files.folder, **common)
                loaded: Any = AutoModel.from_pretrained(
                    self.files.folder,
                    dtype=getattr(torch, self._options.dtype),
                    output_loading_info=True,
                    **common,
                )
            except (OSError, ValueError, KeyError, RuntimeError) as error:
                reason = one_line(error)
                raise MissingError(
                    f"The reranker {self.files.name} could not be loaded from {self.files.folder}:"
                    f" {reason}"
                ) from error
        model, info = loaded
        refuse_other_weights(model, info, self.files.name)
        path = self.files.folder / _HEAD
        head = linear_head(path, device) if path.is_file() else None
        model = model.to(device).eval()
        if skips_padding(device):
            run_unpadded(model, self.progress.note)
        self._loaded = tokenizer, model, head
        return self._loaded


def _recognises(files: ModelFiles) -> bool:
    """Return whether the folder has BGE-M3's ``colbert_linear.pt``, or is a multi-vector model."""
    return (files.folder / _HEAD).is_file() or is_multi_vector(files.folder)


def _open(files: ModelFiles, options: RerankerOptions, progress: Progress | None) -> Reranker:
    if is_multi_vector(files.folder):
        return MultiVectorReranker(files, options, progress)
    return LateInteractionReranker(files, options, progress)


FAMILY = Family(_recognises, _open)
"""Late interaction of token vectors."""
