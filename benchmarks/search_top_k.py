"""Exact search: the best 1,000 of N random unit vectors for 2,000 queries."""

from __future__ import annotations

import hashlib
import time
from typing import Any

DIMENSION = 384
_UNIT = 10_000
"""Documents generated from one seed; every contender gets the same documents."""


def _vectors(seed: int, count: int) -> Any:
    import numpy as np

    made = np.random.default_rng(seed).standard_normal((count, DIMENSION), np.float32)
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    return made


def _documents(start: int, stop: int) -> Any:
    import numpy as np

    units = range(start // _UNIT, -(-stop // _UNIT))
    return np.concatenate([_vectors(unit + 1, _UNIT) for unit in units])[: stop - start]


def _digest(ranked: list[Any]) -> str:
    """Return a fingerprint of the rankings, rows in order of score."""
    import numpy as np

    return hashlib.sha256(np.asarray(ranked, np.int64).tobytes()).hexdigest()[:12]


def _result(seconds: float, ranked: list[Any], keep: str) -> dict[str, Any]:
    import numpy as np

    np.save(keep, np.asarray(ranked, np.int64))
    return {"seconds": seconds, "rankings": _digest(ranked)}


def ours(documents: int, queries: int, k: int, folder: str) -> dict[str, Any]:
    import numpy as np

    from bge_eval.search.exact import ExactSearch

    asked = _vectors(0, queries)
    start = time.perf_counter()
    search = ExactSearch(asked, k, lambda rows: [f"{row:09d}" for row in rows])
    seconds = time.perf_counter() - start
    step = 4 * _UNIT
    for first in range(0, documents, step):
        chunk = _documents(first, min(first + step, documents))
        start = time.perf_counter()
        search.add(chunk, first)
        seconds += time.perf_counter() - start
    start = time.perf_counter()
    found = search.results()
    ranked = [rows[np.lexsort((-rows, -scores))] for rows, scores in found]
    seconds += time.perf_counter() - start
    return _result(seconds, ranked, f"{folder}/ours.npy")


def faiss_knn(documents: int, queries: int, k: int, folder: str) -> dict[str, Any]:
    import faiss

    asked, corpus = _vectors(0, queries), _documents(0, documents)
    start = time.perf_counter()
    _, rows = faiss.knn(asked, corpus, k, faiss.METRIC_INNER_PRODUCT)
    return _result(time.perf_counter() - start, list(rows), f"{folder}/faiss.npy")


def mteb_chunked(documents: int, queries: int, k: int, folder: str) -> dict[str, Any]:
    import mteb
    import torch
    from datasets import Dataset
    from mteb.models.search_wrappers import chunked_full_corpus_search

    asked = torch.from_numpy(_vectors(0, queries))
    names = [f"{row:09d}" for row in range(documents)]
    corpus = Dataset.from_dict({"id": names, "text": [""] * documents})
    making = 0.0
    done = 0

    def encode(*_: Any, **__: Any) -> Any:
        nonlocal making, done
        start = time.perf_counter()
        chunk = torch.from_numpy(_documents(done, min(done + 50_000, documents)))
        done += len(chunk)
        making += time.perf_counter() - start
        return chunk

    metadata = mteb.get_task("SciFact").metadata
    start = time.perf_counter()
    heaps = chunked_full_corpus_search(
        task_corpus=corpus,
        corpus_chunk_size=50_000,
        query_idx_to_id={row: str(row) for row in range(queries)},
        query_embeddings=asked,
        task_metadata=metadata,
        hf_subset="default",
        hf_split="test",
        top_k=k,
        encode_kwargs={"show_progress_bar": False},
        encode_fn=encode,
        similarity_fn=lambda one, other: one @ other.T,
        search_k_offset=1,
    )
    ranked = [[int(name) for _, name in sorted(heap, reverse=True)] for heap in heaps.values()]
    seconds = time.perf_counter() - start - making
    return _result(seconds, ranked, f"{folder}/mteb.npy")


def agreement(one: str, other: str) -> dict[str, Any]:
    """Return the share of all ranks at which two rankings have the same document."""
    import numpy as np

    first, second = np.load(one), np.load(other)
    sets = [set(a) == set(b) for a, b in zip(first.tolist(), second.tolist(), strict=True)]
    return {"places": float((first == second).mean()), "sets": sum(sets) / len(sets)}


OURS = "bge-eval"
FILES = {"bge-eval": "ours", "faiss.knn": "faiss", "mteb, chunked": "mteb"}
CONTENDERS = {
    OURS: ours,
    "faiss.knn": faiss_knn,
    "mteb, chunked": mteb_chunked,
    "agreement": agreement,
}
