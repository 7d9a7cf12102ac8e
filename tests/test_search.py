"""Exact search against the obvious way: sort everything by (score, id)."""

from __future__ import annotations

import numpy as np
import pytest

from bge_eval.errors import UsageError
from bge_eval.records import Vectors
from bge_eval.search.engines import EXACT, engine
from bge_eval.search.exact import ExactSearch, chunk_rows, unit_rows
from bge_eval.search.index import IndexOptions, Rows


def obvious(queries: Vectors, documents: Vectors, ids: list[str], k: int) -> list[list[str]]:
    scores = queries @ documents.T
    return [
        [doc for _, doc in sorted(zip(row.tolist(), ids, strict=True), reverse=True)[:k]]
        for row in scores
    ]


def searched(
    queries: Vectors, documents: Vectors, ids: list[str], k: int, chunk: int
) -> list[list[str]]:
    def ids_of(rows: Rows) -> list[str]:
        return [ids[row] for row in rows]

    search = ExactSearch(queries, k, ids_of)
    for start in range(0, len(documents), chunk):
        search.add(documents[start : start + chunk], start)
    return [
        [doc for _, doc in sorted(zip(scores.tolist(), ids_of(rows), strict=True), reverse=True)]
        for rows, scores in search.results()
    ]


def small_integers(count: int, dimension: int, high: int, seed: int) -> Vectors:
    """Vectors whose inner products are exact, so that ties are ties in any order of adding up."""
    return np.random.default_rng(seed).integers(0, high, (count, dimension)).astype(np.float32)


@pytest.mark.parametrize("chunk", [1, 7, 64, 1000])
@pytest.mark.parametrize("k", [1, 5, 50, 400])
@pytest.mark.parametrize("high", [2, 100], ids=["mostly ties", "few ties"])
def test_equals_the_obvious_way(chunk: int, k: int, high: int) -> None:
    documents, queries = small_integers(300, 6, high, 1), small_integers(40, 6, high, 2)
    ids = [f"doc{(i * 37) % 300}" for i in range(300)]
    assert searched(queries, documents, ids, k, chunk) == obvious(queries, documents, ids, k)


def test_all_documents_tie() -> None:
    """Thousands of copies of one text: the k with the highest ids stay, whatever the chunks."""
    documents = np.ones((5000, 4), np.float32)
    ids = [f"{i:05d}" for i in np.random.default_rng(0).permutation(5000)]
    found = searched(np.ones((30, 4), np.float32), documents, ids, 1000, 777)
    assert found == [[f"{i:05d}" for i in range(4999, 3999, -1)]] * 30


@pytest.mark.parametrize("dimension", [100, 101, 384, 768])
@pytest.mark.parametrize("chunk", [1600, 700])
def test_copies_tie_wherever_they_stand(dimension: int, chunk: int) -> None:
    """BLAS adds up otherwise at the edges of its panels: in the last digit copies differ there."""
    rng = np.random.default_rng(dimension)
    documents = unit_rows(rng.standard_normal((1600, dimension), dtype=np.float32))
    places = rng.choice(1600, 40, replace=False)
    documents[places] = documents[places[0]]
    queries = unit_rows(rng.standard_normal((300, dimension), dtype=np.float32))
    queries += documents[places[0]] / 2
    ids = [f"{number:04d}" for number in range(1600)]
    search = ExactSearch(queries, 1000, lambda rows: [ids[row] for row in rows])
    for start in range(0, 1600, chunk):
        search.add(documents[start : start + chunk], start)
    for (rows, scores), exact in zip(search.results(), queries @ documents.T, strict=True):
        found = np.isin(rows, places)
        assert found.sum() == 40
        assert len(set(scores[found].tolist())) == 1
        np.testing.assert_allclose(scores, exact[rows], atol=1e-6)


def test_depth_beyond_the_corpus() -> None:
    documents = small_integers(3, 4, 9, 5)
    found = searched(small_integers(2, 4, 9, 6), documents, ["a", "b", "c"], 1000, 2)
    assert [sorted(docs) for docs in found] == [["a", "b", "c"]] * 2


def test_unit_rows() -> None:
    rows = unit_rows(np.array([[3, 4], [0, 0]], np.float32))
    np.testing.assert_allclose(rows, np.array([[0.6, 0.8], [0, 0]]), atol=1e-7)


def test_chunks_are_bounded() -> None:
    assert chunk_rows(384) * 384 * 4 <= 64 * 2**20
    assert chunk_rows(100_000) == 1024
    assert chunk_rows(8) == 65536


def test_the_usual_engine_is_the_exact_search() -> None:
    usual = engine(EXACT)(np.zeros((1, 8), np.float32), 1, lambda rows: [], 1)
    assert isinstance(usual, ExactSearch) and EXACT.name == ExactSearch.name == "flat"
    with pytest.raises(UsageError, match="faiss makes no index of 'flatt'"):
        engine(IndexOptions("flatt"))
