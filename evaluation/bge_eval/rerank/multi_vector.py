"""Rerank with a multi-vector model, as sentence-transformers runs it.

PyLate's models, ColBERT's own layout and sentence-transformers' MultiVectorEncoder: their
projection, masks, query expansion, lengths, prompts and similarity.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bge_eval.encode.calls import CallScores
from bge_eval.errors import UsageError
from bge_eval.rerank.reranker import LocalReranker, checked
from bge_eval.runtime.devices import first_device
from bge_eval.runtime.library import library_positions, load_library, refuse_foreign_modules

_WINDOW = 512
"""Documents that are sorted by length together."""
_BATCH = 32
"""Documents of a forward pass: sentence-transformers' default."""


class MultiVectorReranker(LocalReranker):
    """Late interaction by a multi-vector model; weights are loaded with the first pair."""

    _model: Any = None

    def _check_options(self) -> None:
        """Refuse a maximum length, and remote code that was not allowed."""
        if self._options.max_length is not None:
            raise UsageError(
                f"--reranker-max-length does not apply to {self.files.name}, whose files state the"
                " lengths of queries and documents. Leave it out."
            )
        refuse_foreign_modules(self.files, trust_remote_code=self._options.trust_remote_code)

    @property
    def packages(self) -> tuple[str, ...]:
        """Return the package that runs the model."""
        return ("sentence-transformers",)

    def _settings(self) -> Mapping[str, Any]:
        return {"kind": "late", "library": "MultiVectorEncoder", **library_positions(self.files)}

    def score(self, pairs: Sequence[tuple[str, str]]) -> npt.NDArray[np.float64]:
        """Score pairs: ``(n_pairs,)`` float64, higher is more relevant.

        Raises:
            MissingError: the model cannot be loaded.
            DamagedError: its files are damaged, or a score is not finite.
        """
        model = self._load()
        queries = {query: place for place, query in enumerate(dict(pairs))}
        rows_by_document: dict[str, list[int]] = {}
        for row, (_, document) in enumerate(pairs):
            rows_by_document.setdefault(document, []).append(row)
        scores = CallScores(self.unfinished, pairs, self.progress)
        with self.progress.step("rerank", len(pairs), "pairs") as step:
            of_query = (
                list(model.encode_query(list(queries), show_progress_bar=False)) if pairs else []
            )
            for part in _batches(list(rows_by_document)):
                rows = [row for document in part for row in rows_by_document[document]]
                if not scores.lacks(rows):
                    step.advance(len(rows))
                    continue
                of_document = model.encode_document(
                    part, batch_size=_BATCH, show_progress_bar=False
                )
                left = [of_query[queries[pairs[row][0]]] for row in rows]
                right = [
                    vectors
                    for document, vectors in zip(part, of_document, strict=True)
                    for _ in rows_by_document[document]
                ]
                scored = model.similarity_pairwise(left, right)
                scores.put(rows, scored.float().cpu().numpy())
                step.advance(len(rows))
        return checked(scores.values, self.files.name, self._options.dtype)

    def _load(self) -> Any:
        if self._model is None:
            with self.progress.step("load reranker"):
                self._model = load_library(
                    self.files,
                    device=first_device(self._options.device),
                    dtype=self._options.dtype,
                    trust_remote_code=self._options.trust_remote_code,
                    note=self.progress.note,
                )
        return self._model


def _batches(documents: Sequence[str]) -> Iterator[list[str]]:
    """Yield the documents of each forward pass, of similar length."""
    for start in range(0, len(documents), _WINDOW):
        window = sorted(documents[start : start + _WINDOW], key=len, reverse=True)
        for first in range(0, len(window), _BATCH):
            yield window[first : first + _BATCH]
