"""Approximate indexes and compressed vectors against faiss and sentence-transformers by hand."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from bge_eval.errors import TemporaryError, UsageError
from bge_eval.records import Vectors
from bge_eval.search.engines import engine
from bge_eval.search.exact import ExactSearch, unit_rows
from bge_eval.search.index import IndexOptions, Precision, Rows
from bge_eval.search.kept import building, kept_indexes, part_of
from bge_eval.search.precisions import Quantiser
from bge_eval.search.ranking import ranked
from conftest import BUILTIN, CommandLine, file_limit

DIMENSION, DOCUMENTS, QUERIES = 64, 3000, 40


@pytest.fixture(scope="module")
def clustered() -> tuple[Vectors, Vectors]:
    """Documents in groups, as real embeddings are, and queries near them; unit length."""
    rng = np.random.default_rng(7)

    def normal(rows: int) -> Vectors:
        return rng.standard_normal((rows, DIMENSION), dtype=np.float32)

    documents: Vectors = normal(50)[rng.integers(0, 50, DOCUMENTS)] + normal(DOCUMENTS)
    near = documents[rng.choice(DOCUMENTS, QUERIES, replace=False)]
    queries: Vectors = near + normal(QUERIES) * np.float32(0.5)
    return unit_rows(documents), unit_rows(queries)


def searched(
    options: IndexOptions,
    vectors: tuple[Vectors, Vectors],
    k: int = 10,
    folder: Path | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> list[tuple[Rows, Vectors]]:
    """Search through the engine, the corpus in chunks of 700; rows are sorted by score."""
    documents, queries = vectors
    index = engine(options, folder, note)(
        queries, k, lambda rows: [f"{row:06d}" for row in rows], len(documents)
    )
    for start in range(0, len(documents), 700):
        index.add(documents[start : start + 700], start)
    ordered = []
    for rows, scores in index.results():
        order = np.lexsort((-rows, -scores))
        ordered.append((rows[order], scores[order]))
    return ordered


def recall(results: list[tuple[Rows, Vectors]], exact: list[tuple[Rows, Vectors]]) -> float:
    shared = [
        len(np.intersect1d(a, b)) / len(b) for (a, _), (b, _) in zip(results, exact, strict=True)
    ]
    return float(np.mean(shared))


@pytest.mark.parametrize(
    "name",
    [
        "IVF16,Flat",
        "IVF16,PQ8x4",
        "SQ8",
        "PQ8x4",
        "PCA32,Flat",
        "PCA32,IVF16,SQ4",
        "RR32,IVF16,SQ8",
        "IVF16_HNSW8,Flat",
        "IVF16,PQ8x4fs,RFlat",
        "Flat,RFlat",
        "PCAR32,SQ8,RFlat",
        "L2norm,IVF16,SQ4",
        "RaBitQ",
        "IVF16,RaBitQ4",
        "RQ2x4",
        "PRQ2x2x4",
        "IVF8(IVF4,Flat),Flat",
        "SQbf16",
        "IVF16,PQ8x4fs,Refine(SQ8)",
    ],
)
def test_equals_faiss_called_by_hand(name: str, clustered: tuple[Vectors, Vectors]) -> None:
    documents, queries = clustered
    params = (("nprobe", 4.0),) if "IVF" in name else ()
    by_hand = faiss.index_factory(DIMENSION, name, faiss.METRIC_INNER_PRODUCT)
    by_hand.train(documents)
    by_hand.add(documents)
    for key, value in params:
        faiss.ParameterSpace().set_index_parameter(by_hand, key, value)
    scores, rows = by_hand.search(queries, 10)
    results = searched(IndexOptions(name, params), clustered)
    for (found, values), expected, reference in zip(results, rows, scores, strict=True):
        np.testing.assert_allclose(values, np.sort(reference)[::-1], rtol=1e-5)
        assert len(np.intersect1d(found, expected)) >= 9  # near-equal scores may change places


@pytest.mark.parametrize("name", ["BIVF16", "BFlat"])
def test_a_binary_index_equals_faiss_called_by_hand(
    name: str, clustered: tuple[Vectors, Vectors]
) -> None:
    documents, queries = (np.packbits(part > 0, axis=1) for part in clustered)
    params = (("nprobe", 4.0),) if "IVF" in name else ()
    by_hand: Any = faiss.index_binary_factory(DIMENSION, name)
    by_hand.train(documents)
    by_hand.add(documents)
    if params:
        by_hand.nprobe = 4
    distances, _ = by_hand.search(queries, 10)
    for (_, values), expected in zip(
        searched(IndexOptions(name, params), clustered), distances, strict=True
    ):
        np.testing.assert_array_equal(values, DIMENSION - 2 * np.sort(expected))


def test_hnsw_finds_nearly_all_and_its_scores_are_inner_products(
    clustered: tuple[Vectors, Vectors],
) -> None:
    documents, queries = clustered
    exact = searched(IndexOptions(), clustered)
    results = searched(IndexOptions("HNSW32", (("efSearch", 200.0),)), clustered)
    assert recall(results, exact) > 0.95
    for query, (rows, scores) in zip(queries, results, strict=True):
        np.testing.assert_allclose(scores, documents[rows] @ query, rtol=1e-5)


def test_a_wider_search_finds_more(clustered: tuple[Vectors, Vectors]) -> None:
    exact = searched(IndexOptions(), clustered)
    narrow, wide = (
        recall(searched(IndexOptions("IVF50,Flat", (("nprobe", n),)), clustered), exact)
        for n in (1.0, 50.0)
    )
    assert narrow < wide == 1


def test_int8_equals_quantize_embeddings(clustered: tuple[Vectors, Vectors]) -> None:
    from sentence_transformers.util.quantization import quantize_embeddings

    documents, queries = clustered
    quantiser = Quantiser.fitted(Precision.INT8, documents)
    ranges = np.vstack([documents.min(axis=0), documents.max(axis=0)])
    for part in (documents, queries[np.abs(queries).max(axis=1) < np.abs(ranges).min()]):
        expected = quantize_embeddings(part, "int8", ranges=ranges)
        # A value on the border of two steps may fall to either.
        assert np.abs(quantiser.represent(part) - expected).max() <= 1
        assert np.mean(quantiser.represent(part) == expected) > 0.999


def test_binary_scores_are_hamming_distances(clustered: tuple[Vectors, Vectors]) -> None:
    documents, queries = clustered
    by_hand = faiss.IndexBinaryFlat(DIMENSION)
    by_hand.add(np.packbits(documents > 0, axis=1))
    distances, _ = by_hand.search(np.packbits(queries > 0, axis=1), 10)
    for options in (IndexOptions(precision=Precision.BINARY), IndexOptions("BFlat")):
        for (_, scores), expected in zip(searched(options, clustered), distances, strict=True):
            np.testing.assert_array_equal(scores, DIMENSION - 2 * expected)


@pytest.mark.parametrize("precision", [Precision.FLOAT16, Precision.INT8, Precision.BINARY])
def test_rescoring_brings_the_exact_order_back(
    precision: Precision, clustered: tuple[Vectors, Vectors]
) -> None:
    exact = searched(IndexOptions(), clustered)
    plain = searched(IndexOptions(precision=precision), clustered)
    rescored = searched(IndexOptions(precision=precision, rescore=DOCUMENTS), clustered)
    assert recall(plain, exact) <= recall(rescored, exact) == 1
    for (rows, scores), (best, reference) in zip(rescored, exact, strict=True):
        np.testing.assert_array_equal(rows, best)
        np.testing.assert_allclose(scores, reference, rtol=1e-5)


def test_rescoring_fewer_than_are_kept_leaves_the_rest_below(
    clustered: tuple[Vectors, Vectors],
) -> None:
    documents, queries = clustered
    options = IndexOptions(precision=Precision.BINARY, rescore=5)
    for query, (rows, scores) in zip(queries, searched(options, clustered, 20), strict=True):
        assert len(rows) == 20 and len(np.unique(scores)) == 20
        np.testing.assert_allclose(scores[:5], documents[rows[:5]] @ query, rtol=1e-5)


@pytest.mark.parametrize("k", [3, 20])
def test_what_is_rescored_does_not_depend_on_the_order_of_the_corpus(
    clustered: tuple[Vectors, Vectors], k: int
) -> None:
    documents, queries = clustered
    signs = np.sign(documents[:400, :8])  # many documents are equal
    start = engine(IndexOptions(precision=Precision.BINARY, rescore=5), None, lambda text: None)

    def ranking(places: Rows) -> list[list[str]]:
        def ids_of(rows: Rows) -> list[str]:
            return [f"{place:03d}" for place in places[rows]]

        index = start(queries[:, :8].copy(), k, ids_of, len(places))
        index.add(signs[places], 0)
        return [
            ranked(dict(zip(ids_of(rows), map(round, scores * 1e4), strict=True)), 5)
            for rows, scores in index.results()
        ]

    inverse = np.random.default_rng(1).permutation(len(signs))
    assert ranking(np.arange(len(signs))) == ranking(inverse)


def test_short_lists_have_no_row_minus_one_and_are_told(
    clustered: tuple[Vectors, Vectors],
) -> None:
    notes: list[str] = []
    results = searched(IndexOptions("IVF50,Flat"), clustered, 500, note=notes.append)
    assert all(rows.min() >= 0 for rows, _ in results)
    assert min(len(rows) for rows, _ in results) < 500
    assert "of 40 queries fewer than 500 documents" in notes[0]


class _Resources:
    """Stands in for faiss's GPU memory, which a build for CPUs lacks."""

    use_cuvs = False
    allowCpuCoarseQuantizer = False


@pytest.mark.parametrize(
    ("copied", "message"),
    [
        ("same", ""),
        ("not by cuVS", ""),
        ("other", "is searched on the CPU: on the GPU only"),
        ("none", "faiss has no such index on a GPU (This index type is not implemented)"),
    ],
)
def test_a_copy_on_a_gpu_is_used_where_it_finds_the_same(
    copied: str, message: str, clustered: tuple[Vectors, Vectors], monkeypatch: pytest.MonkeyPatch
) -> None:
    """faiss's wheel for CPUs has no GPU index: what is around it is tested."""
    documents, _ = clustered
    options = IndexOptions("IVF16,Flat", (("nprobe", 4.0),))
    expected = searched(options, clustered)
    asked: list[Any] = []
    notes: list[str] = []

    def to_gpu(resources: Any, device: int, index: Any, options: Any) -> Any:
        asked.append((device, options.use_cuvs, options.allowCpuCoarseQuantizer))
        if copied == "not by cuVS" and options.use_cuvs:
            raise RuntimeError("Error: this type of index is not implemented for cuVS")
        if copied == "none":
            raise RuntimeError(
                "Error in clone at GpuCloner.cpp:9: This index type is not implemented"
            )
        copy = faiss.clone_index(index)
        if copied == "other":
            copy.reset()
            copy.add(np.ascontiguousarray(documents[::-1]))
        return copy

    monkeypatch.setattr(faiss, "StandardGpuResources", _Resources, raising=False)
    monkeypatch.setattr(faiss, "GpuClonerOptions", _Resources, raising=False)
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", to_gpu, raising=False)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    monkeypatch.setattr(faiss, "get_compile_options", lambda: "GPU CUVS ")
    for (rows, _), (same, _) in zip(
        searched(options, clustered, note=notes.append), expected, strict=True
    ):
        np.testing.assert_array_equal(rows, same)
    tries = [(0, True, True), (0, False, True)]
    assert asked == (tries if copied in ("none", "not by cuVS") else tries[:1])
    assert [message in note for note in notes] == ([True] if message else [])


def test_a_kept_index_is_read_for_other_search_parameters(
    clustered: tuple[Vectors, Vectors], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow = IndexOptions("IVF50,Flat", (("nprobe", 1.0),))
    wide = IndexOptions("IVF50,Flat", (("nprobe", 50.0),))
    first = searched(narrow, clustered, folder=tmp_path)
    (kept,) = tmp_path.glob("*.faiss")
    before = kept.stat().st_mtime_ns
    monkeypatch.setattr("bge_eval.search.faiss_index._built", None)  # building would fail
    again = searched(narrow, clustered, folder=tmp_path)
    for (rows, _), (same, _) in zip(first, again, strict=True):
        np.testing.assert_array_equal(rows, same)
    exact = searched(IndexOptions(), clustered)
    assert recall(searched(wide, clustered, folder=tmp_path), exact) == 1
    assert kept.stat().st_mtime_ns == before


@pytest.mark.slow
def test_kept_indexes_are_listed_and_pruned_with_their_vectors(
    bge_eval: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BGE_EVAL_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "cache" / "indexes"
    command = ("run", "demo", "-m", BUILTIN, "-o", tmp_path / "out", "--offline")
    for index in ("SQ8", "BHNSW8"):
        assert bge_eval(*command, "--index", index).returncode == 0
    (folder / "of-an-older-release.faiss").write_bytes(b"0" * 2000)
    (folder / "stale.json").write_text("{}")
    listed = " ".join(bge_eval("store").stderr.split())
    (name,) = {entry.model for entry in kept_indexes(folder)} - {""}
    assert f"of {name} (SQ8, float32, 199 documents)" in listed
    assert f"of {name} (BHNSW8, binary, 199 documents)" in listed
    assert "2 kB of an unknown model" in listed
    os.utime(folder / ".locks", (1, 1))
    pruned = bge_eval("store", "prune", "--model", "nobody's").stderr
    assert "index" not in pruned and not (folder / "stale.json").exists()
    assert len(list(folder.glob("*.json"))) == 2
    pruned = bge_eval("store", "prune", "--max-size", "0MB").stderr
    assert "Removed 2 faiss indexes" in pruned
    assert [path.name for path in folder.glob("[!.]*")] == ["of-an-older-release.faiss"]
    assert "Removed 1 faiss index, 2 kB" in bge_eval("store", "prune", "--all").stderr
    # Another process may hold a lock, however long ago the last one was made.
    assert [path.name for path in folder.iterdir()] == [".locks"]


def test_a_damaged_kept_index_is_built_again(
    clustered: tuple[Vectors, Vectors], tmp_path: Path
) -> None:
    options = IndexOptions("SQ8")
    first = searched(options, clustered, folder=tmp_path)
    (kept,) = tmp_path.glob("*.faiss")
    kept.write_bytes(kept.read_bytes()[:100])
    notes: list[str] = []
    again = searched(options, clustered, folder=tmp_path, note=notes.append)
    assert "cannot be read and is built again" in notes[0]
    np.testing.assert_array_equal(first[0][0], again[0][0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("IVF4096,Flat", {}), "IVF4096,Flat needs 4,096 documents or more"),
        (("IVF65536_HNSW32,Flat", {}), "needs 65,536 documents or more, and the corpus has 3,000"),
        (("", {}), "faiss makes no index of ''"),
        (("NoSuchIndex", {}), "for inner products: could not parse index string NoSuchIndex. Name"),
        (("LSH", {}), "faiss makes no index of 'LSH'"),
        (("ivf16, flat", {}), "Did you mean 'IVF16,Flat'?"),
        (("bhnsw8", {}), "Did you mean 'BHNSW8'?"),
        (("PCA8,Flat", {}, Precision.BINARY), "no index of 'PCA8,Flat' for binary vectors"),
        (("Flat,IDMap", {}), "Leave IDMap out"),
        (("RCQ2x5", {}), "RCQ only assigns documents to lists"),
        (("PCAR32,LSCQ2x5", {}), "LSCQ only assigns documents to lists"),
        (("IVF16,SQ8_direct", {}), "keeps whole numbers"),
        (("HNSW8_PQ8", {}), "does not compare by inner product: faiss makes its IndexHNSWPQ"),
        (("IVF16(HNSW8_PQ8),Flat", {}), "does not compare by inner product"),
        (("PQ7", {}), "for inner products of 64 dimensions"),
        # On these faiss ends the process, or does not end.
        (("HNSW0", {}), "links is 0; expected 2 to 1,024"),
        (("HNSW1", {}), "links is 1; expected 2"),
        (("BHNSW1", {}), "links is 1; expected 2"),
        (("NSG4", {}), "links is 4; expected 8 to"),
        (("HNSW100000", {}), "links is 100000; expected 2 to 1,024"),
        (("IVF0,Flat", {}), "the number of lists is 0"),
        (("IVF99999999999,Flat", {}), "expected 1 to 500,000"),
        (("PQ8x0", {}), "the number of bits is 0; expected 1 to 16"),
        (("PQ8x4fs_0", {}), "a size is 0"),
        (("Pad1000000,Flat", {}), "a size is 1000000"),
        (("IVF16,Flat", {"nprobe": 0.0}), "nprobe=0: expected a whole number, 1 or more"),
        (("IVF16,Flat", {"nprobe": "8"}), "nprobe='8': expected a whole number"),
        (("IVF16,Flat", {"nprobe": 1.5}), "nprobe=1.5: expected a whole number"),
        (("IVF16,Flat", {"nprobe": float("nan")}), "nprobe=nan: expected a whole number"),
        (("SQ8,RFlat", {"k_factor_rf": 0.5}), "k_factor_rf=0.5: expected a number, 1 or more"),
        (("RaBitQ", {"qb": 9}), "qb=9: expected a whole number, 0 to 8"),
        (("IVF16,PQ8x4", {"ht": 9}), "no such parameter. It has nprobe, max_codes."),
        (("HNSW32", {"nprobe": 4}), "HNSW32 has no such parameter. It has efSearch, efConstr"),
        (("HNSW32", {"verbose": 1}), "--index-param verbose: HNSW32 has no such parameter"),
        (("BHNSW32", {"nprob": 4}), "--index-param nprob: BHNSW32 has no such parameter"),
        (("BFlat", {"ntotal": 4}), "BFlat has no such parameter. It has none."),
        (("flat", {"efSearch": 4}), "no effect on the exact search"),
        (("Flat", {}, Precision.FLOAT32, 10), "--rescore-top has no effect"),
        (("BHNSW8,PQ4", {}), "could not parse index string BHNSW8,PQ4"),
        (("IVF16,PQ8", {}, Precision.BINARY), "no index of 'IVF16,PQ8' for binary vectors"),
        (("BFlat", {}, Precision.INT8), "holds binary vectors, not int8"),
    ],
)
def test_what_cannot_be_done_is_refused(
    options: tuple[Any, ...], message: str, clustered: tuple[Vectors, Vectors]
) -> None:
    with pytest.raises(UsageError, match=re.escape(message)) as refusal:
        searched(IndexOptions.checked(*options), clustered)
    assert "Error in" not in str(refusal.value) and ".cpp" not in str(refusal.value)


def test_nsg_over_repeated_documents_is_refused(clustered: tuple[Vectors, Vectors]) -> None:
    """faiss may not end there: with 120 equal ones of 1,000 it had not after 12 seconds."""
    documents = clustered[0][:600].copy()
    documents[:120] = documents[0]
    with pytest.raises(UsageError, match="120 documents have the same vector"):
        searched(IndexOptions("NSG16"), (documents, clustered[1]))
    documents = documents[100:]
    assert len(searched(IndexOptions("NSG32"), (documents, clustered[1]))[0][0]) == 10


def test_a_dimension_is_refused_before_the_corpus(clustered: tuple[Vectors, Vectors]) -> None:
    start = engine(IndexOptions("IVF16,PQ12"))  # the dimension may be a multiple of 12
    with pytest.raises(UsageError, match="of 64 dimensions"):
        start(clustered[1], 10, lambda rows: [], DOCUMENTS)


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("IVF70,Flat", 70),
        ("IVF64(IVF8,Flat),Flat", 64),
        ("IVF16,PQ8x5", 32),
        ("PQ8x4fs,Refine(PQ8x5)", 32),
        ("PCAR40,IVF20,Flat", 40),
        ("ITQ16,SQ8", 16),
        ("OPQ8,PQ8x4fs", 256),
        ("RQ2x4", 64),
        ("IVF9,PRQ2x2x4fs", 32),
        ("LSQ2x4", 1),
        ("NSG16", 228),  # where faiss may end the process
        ("BIVF40", 40),
    ],
)
def test_a_corpus_is_refused_before_it_is_encoded_where_faiss_would_fail(
    name: str, least: int, clustered: tuple[Vectors, Vectors]
) -> None:
    documents, queries = clustered
    few = documents[: least - 1]
    binary = name.startswith("B")
    make: Any = faiss.index_binary_factory if binary else faiss.index_factory
    by_hand = make(DIMENSION, name, *(() if binary else (faiss.METRIC_INNER_PRODUCT,)))
    if least > 1:
        if name != "NSG16":
            with pytest.raises(RuntimeError):
                by_hand.train(np.packbits(few > 0, axis=1) if binary else few)
        with pytest.raises(UsageError, match=f"needs {least} documents or more, and the corpus"):
            engine(IndexOptions(name))(queries, 10, lambda rows: [], len(few))
    just_enough = searched(IndexOptions(name), (documents[:least], queries[:2]), k=1)
    assert [len(rows) for rows, _ in just_enough] == [1, 1]


@pytest.mark.parametrize(
    ("name", "key", "values"),
    [("NSG16", "search_L", (10, 200)), ("RaBitQ", "qb", (1, 8)), ("BHash16", "nflip", (0, 3))],
)
def test_parameters_that_faiss_does_not_name_are_set(
    name: str, key: str, values: tuple[float, float], clustered: tuple[Vectors, Vectors]
) -> None:
    few = (clustered[0][:900], clustered[1])
    precision = Precision.BINARY if name.startswith("B") else Precision.FLOAT32
    exact = searched(IndexOptions(precision=precision), few)
    low, high = (searched(IndexOptions(name, ((key, value),)), few) for value in values)
    assert recall(low, exact) < recall(high, exact)


def test_the_advice_of_faiss_is_one_note(
    clustered: tuple[Vectors, Vectors], capfd: pytest.CaptureFixture[str]
) -> None:
    notes: list[str] = []
    searched(IndexOptions("IVF128,Flat"), clustered, note=notes.append)
    told = "IVF128,Flat is trained on 3,000 vectors; faiss advises 4,992 or more"
    assert [told in note for note in notes if "advises" in note] == [True]
    assert capfd.readouterr().err == ""


def test_what_others_write_while_an_index_is_trained_is_not_lost(
    capfd: pytest.CaptureFixture[str],
) -> None:
    from bge_eval.search.native_output import clustering_advice

    with clustering_advice() as advice:
        os.write(2, b"WARNING clustering 9 points to 8 centroids: please provide at least 312\nA\n")
    assert (advice.trained, advice.advised) == (9, 312)
    assert capfd.readouterr().err == "A\n"


def test_a_build_parameter_of_a_quantizer_has_an_index_of_its_own(
    clustered: tuple[Vectors, Vectors], tmp_path: Path
) -> None:
    for width in (2, 200):
        params = (("nprobe", 2.0), ("quantizer_efConstruction", float(width)))
        searched(IndexOptions("IVF32_HNSW4,Flat", params), clustered, folder=tmp_path)
    assert len(list(tmp_path.glob("*.faiss"))) == 2


def test_an_empty_corpus_and_one_smaller_than_the_depth(clustered: tuple[Vectors, Vectors]) -> None:
    documents, queries = clustered
    options = IndexOptions(precision=Precision.INT8)
    empty = searched(options, (documents[:0], queries))
    assert [len(rows) for rows, _ in empty] == [0] * QUERIES
    assert [len(rows) for rows, _ in searched(options, (documents[:3], queries))] == [3] * QUERIES


def test_the_exact_search_is_unchanged_and_the_first(clustered: tuple[Vectors, Vectors]) -> None:
    documents, queries = clustered
    usual = engine(IndexOptions())(queries, 10, lambda rows: [], len(documents))
    assert isinstance(usual, ExactSearch)
    assert IndexOptions().identity() == {"index": "flat"} and IndexOptions().experiment() == {}


def test_a_changed_byte_of_a_kept_index_is_told_and_it_is_built_again(
    clustered: tuple[Vectors, Vectors], tmp_path: Path
) -> None:
    options = IndexOptions("SQ8")
    before = searched(options, clustered, folder=tmp_path)
    [path] = tmp_path.glob("*.faiss")
    damaged = bytearray(path.read_bytes())
    for place in range(len(damaged) // 4, 3 * len(damaged) // 4):
        damaged[place] ^= 0x55
    path.write_bytes(damaged)
    notes: list[str] = []
    after = searched(options, clustered, folder=tmp_path, note=notes.append)
    assert [note for note in notes if "has changed bytes" in note]
    for (rows, _), (same, _) in zip(before, after, strict=True):
        np.testing.assert_array_equal(rows, same)


def test_partial_files_of_killed_processes_are_removed_and_others_stay(
    clustered: tuple[Vectors, Vectors], tmp_path: Path
) -> None:
    killed, written = tmp_path / f"{'a' * 32}.faiss", tmp_path / f"{'b' * 32}.faiss"
    parts = part_of(killed), part_of(killed.with_suffix(".json")), part_of(written)
    for part in parts:
        part.write_bytes(b"partial")
    with building(written, lambda: None):
        part_of(written).write_bytes(b"partial")
        searched(IndexOptions("SQ8"), clustered, folder=tmp_path)
    assert [part for part in parts if part.exists()] == [part_of(written)]
    assert len(kept_indexes(tmp_path)) == 1


def test_a_folder_that_cannot_be_written_keeps_no_index(
    clustered: tuple[Vectors, Vectors], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    notes: list[str] = []
    results = searched(
        IndexOptions("SQ8"), clustered, folder=tmp_path / "file" / "indexes", note=notes.append
    )
    assert [note for note in notes if "cannot be kept" in note and "BGE_EVAL_CACHE" in note]
    for (rows, _), (same, _) in zip(results, searched(IndexOptions("SQ8"), clustered), strict=True):
        np.testing.assert_array_equal(rows, same)


def test_of_two_processes_one_builds_an_index(
    clustered: tuple[Vectors, Vectors], tmp_path: Path
) -> None:
    options = IndexOptions("SQ8")
    searched(options, clustered, folder=tmp_path / "one")
    [built] = (tmp_path / "one").glob("*.faiss")
    path = tmp_path / "two" / built.name
    waiting = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        with building(path, lambda: None):
            other = pool.submit(
                searched, options, clustered, 10, path.parent, lambda note: waiting.set()
            )
            assert waiting.wait(60)
            for file in (built, built.with_suffix(".json")):
                shutil.copy(file, path.parent / file.name)
            inode = path.stat().st_ino
        other.result(60)
    assert path.stat().st_ino == inode


@pytest.mark.skipif(sys.platform == "win32", reason="has no limit on the size of files")
def test_a_full_temporary_folder_is_named(clustered: tuple[Vectors, Vectors]) -> None:
    message = f"^{re.escape(tempfile.gettempdir())} .*TMPDIR names another folder"
    with file_limit(2**10), pytest.raises(TemporaryError, match=message):
        searched(IndexOptions("flat", precision=Precision.INT8), clustered)
