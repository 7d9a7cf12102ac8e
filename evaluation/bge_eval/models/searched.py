"""Searches of the parts of a corpus, kept in the store until all are there to be merged.

::

    <store>/parts/searches/<key>/2-of-3.npz     rows, scores and fingerprints of the best k

The key is a hash of everything that a search depends on: the vectors of the queries, the space of
the documents' vectors, the ids and texts of the corpus in their order, and k.
"""

from __future__ import annotations

import hashlib
import secrets
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import BadZipFile

import numpy as np

from bge_eval.data.tables import batches
from bge_eval.data.texts import document_texts
from bge_eval.encode.part import Part
from bge_eval.encode.shards import text_keys
from bge_eval.encode.store import Space
from bge_eval.errors import DamagedError, MissingError, one_line
from bge_eval.records import Vectors
from bge_eval.search.exact import Kept, merged
from bge_eval.search.index import IdsOf, Rows

if TYPE_CHECKING:
    from datasets import Dataset

_HASHED_AT_ONCE = 4096


class SearchedParts:
    """The searches of the parts of one corpus for the same queries."""

    def __init__(self, space: Space, corpus: Dataset, queries: Vectors, k: int) -> None:
        """Read the corpus once, to know it again.

        Args:
            space: the documents' vectors.
            corpus: the documents.
            queries: ``(n_queries, dim)`` float32, as they are compared.
            k: documents to keep for each query.
        """
        self._k = k
        digest = hashlib.sha256(f"{space.folder.name} {k} {queries.shape}".encode())
        digest.update(np.ascontiguousarray(queries).tobytes())
        for texts in document_texts(corpus, None, _HASHED_AT_ONCE):
            digest.update(text_keys(texts).tobytes())
        for batch in batches(corpus, ["id"]):
            digest.update("\0".join(map(str, batch.column("id").to_pylist())).encode())
        self._folder = space.folder.parent / "parts" / "searches" / digest.hexdigest()[:20]

    def save(self, part: Part, kept: list[Kept]) -> None:
        """Keep the search of one part, in one go."""
        self._folder.mkdir(parents=True, exist_ok=True)
        staged = self._folder / f".{secrets.token_hex(4)}.npz"
        try:
            with staged.open("wb") as file:
                np.savez(
                    file,
                    counts=np.array([len(each.rows) for each in kept], np.int64),
                    rows=np.concatenate([each.rows for each in kept]),
                    scores=np.concatenate([each.scores for each in kept]),
                    prints=np.concatenate([each.prints for each in kept]),
                )
            staged.replace(self._folder / f"{part.number}-of-{part.count}.npz")
        finally:
            staged.unlink(missing_ok=True)

    def merged(self, ids_of: IdsOf) -> list[tuple[Rows, Vectors]]:
        """Return for each query the rows and scores of its best documents.

        Args:
            ids_of: gives document ids for row numbers.

        Raises:
            MissingError: some parts are not searched; the message names them.
            DamagedError: a file cannot be read.
        """
        parts: dict[int, list[int]] = {}
        for path in self._folder.glob("[0-9]*-of-*.npz"):
            place, _, total = path.stem.partition("-of-")
            parts.setdefault(int(total), []).append(int(place))
        whole = [count for count, numbers in parts.items() if len(numbers) == count]
        if not whole:
            searched = "; ".join(
                f"of {count} parts only {', '.join(map(str, sorted(numbers)))}"
                for count, numbers in sorted(parts.items())
            )
            raise MissingError(
                f"--search-shards merges the searches of all parts, and here are"
                f" {searched or 'none'} of this model, these queries and this corpus (in"
                f" {self._folder.parent}). Run the other parts with --shard I/N --search-shards, or"
                " leave --search-shards out to search here."
            )
        count = min(whole)
        paths = [self._folder / f"{number}-of-{count}.npz" for number in range(1, count + 1)]
        return merged([_read(path) for path in paths], self._k, ids_of)


def _read(path: Path) -> list[Kept]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
            ends = np.cumsum(content["counts"])[:-1]
            columns = [np.split(content[name], ends) for name in ("rows", "scores", "prints")]
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise DamagedError(
            f"The search of a part, {path}, cannot be read ({one_line(error)}). Remove it and run"
            " the part again."
        ) from error
    return [Kept(*each) for each in zip(*columns, strict=True)]
