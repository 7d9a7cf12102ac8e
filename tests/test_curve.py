"""Curves: the grid, figures against faiss by hand, rows against single runs, formats."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import faiss
import numpy as np
import pytest
from rich.console import Console

from bge_eval.cli.formats.blocks import Output
from bge_eval.cli.formats.registry import Format, rendered, write
from bge_eval.curve.grid import Axes
from bge_eval.errors import BgeEvalError, DamagedError, UsageError
from bge_eval.progress import Progress
from bge_eval.records import Vectors
from bge_eval.report.deployment import read_curve
from bge_eval.search.exact import unit_rows
from bge_eval.search.index import IndexOptions, Precision
from bge_eval.search.trials import RECALL_AT, Trial, Trials
from conftest import BUILTIN, CommandLine
from saved import save_run

DIMENSION, DOCUMENTS, QUERIES = 32, 2000, 30


def _clustered(seed: int) -> tuple[Vectors, Vectors]:
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((40, DIMENSION), dtype=np.float32)
    noise = rng.standard_normal((DOCUMENTS + QUERIES, DIMENSION), dtype=np.float32)
    vectors = unit_rows(centres[rng.integers(0, 40, DOCUMENTS + QUERIES)] + noise)
    return vectors[:DOCUMENTS], vectors[DOCUMENTS:]


def _tried(grid: list[IndexOptions], folder: Path | None = None) -> list[Trial]:
    documents, queries = _clustered(3)
    trials = Trials(grid, folder, Progress(), "org/model", depth=100)
    search = trials.start(queries, 1000, lambda rows: [f"{row:05d}" for row in rows], DOCUMENTS)
    search.add(documents[:1500], 0)
    search.add(documents[1500:], 1500)
    search.results()
    return search.done


def test_recall_and_size_are_those_of_faiss_called_by_hand() -> None:
    options = IndexOptions("IVF16,Flat", (("nprobe", 2.0),), depth=100)
    exact, approximate = _tried([IndexOptions(), options])
    documents, queries = _clustered(3)
    by_hand = faiss.index_factory(DIMENSION, "IVF16,Flat", faiss.METRIC_INNER_PRODUCT)
    by_hand.train(documents)
    by_hand.add(documents)
    faiss.ParameterSpace().set_index_parameter(by_hand, "nprobe", 2)
    flat = faiss.IndexFlatIP(DIMENSION)
    flat.add(documents)
    for place, depth in enumerate(RECALL_AT):
        rows, expected = by_hand.search(queries, 100)[1], flat.search(queries, depth)[1]
        shares = [
            len(np.intersect1d(a[:depth], b)) / depth for a, b in zip(rows, expected, strict=True)
        ]
        np.testing.assert_allclose(approximate.recalls[place], shares)
        assert 0.2 < np.mean(shares) < 1 and exact.recalls[place].min() == 1
    assert approximate.index_bytes == faiss.serialize_index(by_hand).nbytes
    assert exact.index_bytes == DOCUMENTS * DIMENSION * 4
    assert [speed.queries for speed in approximate.speeds] == [QUERIES, QUERIES]
    assert all(len(speed.latencies) == QUERIES for speed in approximate.speeds)


@pytest.mark.parametrize(("name", "links"), [("HNSW16", True), ("IVF8,Flat", False)])
def test_an_index_holds_codes_of_the_representation(name: str, links: bool) -> None:
    sizes = {}
    for precision in Precision:
        [trial] = _tried([IndexOptions(name, (), precision, depth=100)])
        sizes[precision] = trial.index_bytes / DOCUMENTS
    beside = sizes[Precision.FLOAT32] - 4 * DIMENSION
    assert (beside > 100) is links
    assert sizes[Precision.INT8] == pytest.approx(DIMENSION + beside, abs=20)
    assert sizes[Precision.FLOAT16] == pytest.approx(2 * DIMENSION + beside, abs=20)
    assert sizes[Precision.BINARY] == pytest.approx(DIMENSION / 8 + beside, abs=20)


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.FLOAT16])
def test_codes_give_the_scores_of_the_values_that_they_hold(precision: Precision) -> None:
    wide = (("nprobe", 8.0),)
    flat, indexed = _tried(
        [IndexOptions(precision=precision), IndexOptions("IVF8,Flat", wide, precision, depth=100)]
    )
    for (_, scores), (_, same) in zip(flat.rankings, indexed.rankings, strict=True):
        np.testing.assert_allclose(scores[:100], same, rtol=1e-5)


def test_a_kept_index_states_the_seconds_of_its_building(tmp_path: Path) -> None:
    options = IndexOptions("HNSW8", depth=100)
    [first], [again] = _tried([options], tmp_path), _tried([options], tmp_path)
    assert first.build_seconds == pytest.approx(again.build_seconds, abs=1e-6)
    for (rows, _), (same, _) in zip(first.rankings, again.rankings, strict=True):
        np.testing.assert_array_equal(rows, same)
    for path in tmp_path.glob("*.json"):
        path.unlink()
    assert _tried([options], tmp_path)[0].build_seconds is None


def test_an_index_is_asked_for_its_depth_and_searched_as_wide_as_its_parameter_says() -> None:
    from bge_eval.search.engines import engine

    documents, queries = _clustered(3)

    def searched(width: int, depth: int | None) -> tuple[list[list[int]], list[str]]:
        notes: list[str] = []
        options = IndexOptions.checked("HNSW16", {"efSearch": width}, depth=depth)
        search = engine(options, None, notes.append)(
            queries, 1000, lambda rows: list(map(str, rows)), len(documents)
        )
        search.add(documents, 0)
        lists = [rows[np.argsort(-scores)] for rows, scores in search.results()]
        return [rows.tolist() for rows in lists], notes

    deep, notes = searched(64, None)
    short, _ = searched(64, 50)
    assert max(map(len, short)) == 50 < max(map(len, deep)) <= 1000
    # faiss visits as much of the graph for 50 documents as for 1,000, and no note may deny it.
    assert [rows[:10] for rows in short] == [rows[:10] for rows in deep]
    assert not any("effect" in note for note in notes)
    narrow, wide = searched(2, None)[0], searched(1000, None)[0]
    assert [rows[:10] for rows in narrow] != [rows[:10] for rows in wide]
    with pytest.raises(UsageError, match="--index-depth has no effect on --index flat"):
        IndexOptions.checked("flat", {}, depth=10)


def test_the_grid_leaves_out_what_says_nothing_new() -> None:
    grid = Axes().grid()
    assert len(grid) == len(set(grid)) == 10 and grid[0].is_exact
    assert not any(o.rescore and o.precision is Precision.FLOAT32 for o in grid)
    axes = Axes(indexes=(("BHNSW8", {}), ("IVF4,PQ8", {})), precisions=(Precision.FLOAT32,))
    names = [(o.name, o.precision, o.rescore, o.depth) for o in axes.grid()]
    assert names[0] == ("flat", Precision.FLOAT32, None, None)
    assert ("BHNSW8", Precision.BINARY, 100, 100) in names
    assert ("IVF4,PQ8", Precision.FLOAT32, 100, 100) in names


def test_the_grid_refuses_before_anything_is_encoded_what_a_dimension_cannot_have() -> None:
    float32 = (Precision.FLOAT32,)
    for axes, message in (
        (Axes((None, 256), float32, (("PQ48", {}),)), "--grid-dim 256: .* of 256 dimensions"),
        (Axes((None, 64), float32, (("PCA128,Flat", {}),)), "64 .* cannot give 128 of them"),
        (Axes((None, 100)), "--grid-dim 100: .* Name a multiple of 8"),
    ):
        with pytest.raises(UsageError, match=message):
            axes.grid()
    with pytest.raises(UsageError, match="faiss makes no index of 'PQ7'"):
        _tried([IndexOptions("PQ7", (), Precision.FLOAT32, depth=100)])


def test_the_grid_leaves_out_binary_where_faiss_has_numbers_alone() -> None:
    axes = Axes((None,), indexes=(("IVF16,PQ8x4", {"nprobe": 4}),), rescoring=(None,))
    kinds = [(o.name, o.precision) for o in axes.grid()[1:]]
    assert kinds == [("IVF16,PQ8x4", Precision.FLOAT32), ("IVF16,PQ8x4", Precision.INT8)]
    with pytest.raises(UsageError, match="for binary vectors: binary indexes are BFlat"):
        replace(axes, precisions=(Precision.BINARY,)).grid()


@dataclass(frozen=True)
class Curve:
    content: dict[str, Any]
    output: Output
    encoded: int
    folder: Path


@pytest.fixture(scope="module")
def curve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Curve]:
    """The curve of the demo, made once through the command line."""
    from typer.testing import CliRunner

    from bge_eval.cli.app import application
    from bge_eval.cli.curves import CurveOutput
    from bge_eval.runtime.text_encoder import TextEncoder

    folder = tmp_path_factory.mktemp("curve")
    encoded: list[int] = []
    parts = TextEncoder.parts

    def counted(self: TextEncoder, texts: Any, *args: Any, **kwargs: Any) -> Any:
        encoded.append(int(np.sum(kwargs["wanted"])))
        return parts(self, texts, *args, **kwargs)

    outputs: list[CurveOutput] = []
    content = CurveOutput.content

    def kept(self: CurveOutput) -> dict[str, Any]:
        outputs.append(self)
        return content(self)

    words = ["curve", "-m", BUILTIN, "-t", "demo", "--offline", "-q", "--format", "json"]
    words += ["--store", str(folder / "store"), "--picture", str(folder / "curve.svg")]
    words += ["--grid-dim", "full,128", "--grid-index", "flat"]
    words += ["--grid-index", "HNSW16 efSearch=100"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TextEncoder, "parts", counted)
        patch.setattr(CurveOutput, "content", kept)
        done = CliRunner().invoke(application(), words)
    assert done.exit_code == 0, done.output
    yield Curve(json.loads(done.stdout), outputs[0], sum(encoded), folder)


def test_nothing_is_encoded_twice(curve: Curve) -> None:
    from bge_eval.encode.store import stored_spaces

    assert {row["dimension"] for row in curve.content["rows"]} == {384, 128}
    stored = stored_spaces(curve.folder / "store")
    assert 0 < curve.encoded == sum(space.texts for space in stored)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="has no device that is full")
def test_a_picture_that_cannot_be_written_loses_no_table(
    curve: Curve, bge_eval: CommandLine, tmp_path: Path
) -> None:
    (tmp_path / "full.svg").symlink_to("/dev/full")
    done = bge_eval(
        "curve", "-m", BUILTIN, "demo", "--offline", "--store", curve.folder / "store",
        "--grid-dim", "full", "--grid-vectors", "float32", "--grid-index", "flat",
        "--format", "csv", "--picture", tmp_path / "full.svg",
    )  # fmt: skip
    assert done.returncode == 3 and "the disk is full" in " ".join(done.stderr.split())
    assert done.stdout.count("384,float32,flat") == 1


def test_progress_counts_each_dimension_from_its_start(
    curve: Curve, monkeypatch: pytest.MonkeyPatch
) -> None:
    from typer.testing import CliRunner

    from bge_eval.cli.app import application

    monkeypatch.setattr("bge_eval.cli.console._BEAT", -1)  # a line for every advance
    words = ["curve", "-m", BUILTIN, "-t", "demo", "--offline", "--grid-dim", "full,128"]
    words += ["--grid-index", "flat", "--grid-vectors", "float32,int8"]
    done = CliRunner().invoke(application(), [*words, "--store", str(curve.folder / "store")])
    counts = re.findall(r"indexes: (\d+) of (\d+) settings", done.stderr)
    assert done.exit_code == 0 and counts == 2 * [("1", "3"), ("2", "3")]


@pytest.mark.parametrize("number", [4, 6, 13, 16])
def test_a_row_has_the_scores_of_a_run_with_the_same_options(
    number: int, curve: Curve, bge_eval: CommandLine, tmp_path: Path
) -> None:
    row = curve.content["rows"][number]
    command = ("run", "demo", "-m", BUILTIN, "-o", tmp_path, "--offline")
    done = bge_eval(*command, "--store", curve.folder / "store", *row["run_options"])
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.rglob("BgeEvalDemo.json")
    (scores,) = json.loads(path.read_text())["scores"]["test"]
    assert scores["ndcg_at_10"] == pytest.approx(row["nDCG@10"], abs=6e-6)
    assert scores["recall_at_100"] == pytest.approx(row["R@100"], abs=6e-6)


@pytest.mark.slow
def test_a_trial_ranks_as_a_single_search_with_the_same_options(tmp_path: Path) -> None:
    """Forty settings at random: index, parameters, representation, rescoring and depth."""
    from bge_eval.search.engines import engine

    rng = np.random.default_rng(11)
    documents, queries = _clustered(3)
    indexes: list[tuple[str, list[tuple[str, float]]]] = [
        ("flat", []),
        ("HNSW8", [("efSearch", 16), ("efSearch", 120), ("efConstruction", 24)]),
        ("IVF16,Flat", [("nprobe", 1), ("nprobe", 5)]),
        ("IVF8,SQ8", [("nprobe", 3)]),
        ("PCA16,SQ8", []),
        ("BHNSW8", [("efSearch", 150)]),
        ("SQ4,RFlat", [("k_factor_rf", 3)]),
    ]
    settings: list[IndexOptions] = []
    while len(settings) < 40:
        name, params = indexes[rng.integers(len(indexes))]
        chosen = dict(params[rng.integers(len(params)) :][:1]) if params else {}
        precision = list(Precision)[rng.integers(len(Precision))]
        rescore = [None, 10, 150][rng.integers(3)]
        depth = None if name == "flat" else [20, 100, 300][rng.integers(3)]
        if name in ("IVF8,SQ8", "PCA16,SQ8", "SQ4,RFlat") and precision is Precision.BINARY:
            continue  # faiss has no binary index of these
        if name.startswith("B"):
            precision = Precision.BINARY
        if name != "flat" or precision is not Precision.FLOAT32:
            settings.append(IndexOptions.checked(name, chosen, precision, rescore, depth))
    trials = _tried(settings, tmp_path)

    def ids_of(rows: Any) -> list[str]:
        return [f"{row:05d}" for row in rows]

    for options, trial in zip(settings, trials, strict=True):
        single = engine(options, tmp_path)(queries, 1000, ids_of, len(documents))
        single.add(documents, 0)
        for (rows, scores), (same, values) in zip(trial.rankings, single.results(), strict=True):
            order = np.lexsort((-same, -values))[: len(rows)]
            np.testing.assert_array_equal(scores, values[order], str(options))
            np.testing.assert_array_equal(rows, same[order], str(options))


def test_every_row_says_what_it_is_and_costs(curve: Curve) -> None:
    rows = curve.content["rows"]
    assert len(rows) == 20 == len({tuple(row["run_options"]) for row in rows})
    exact = rows[0]
    assert exact["recall@10"] == exact["recall@100"] == 1 and exact["run_options"] == []
    assert exact["bytes_per_document"] == 384 * 4 and exact["difference"] == 0
    for row in rows:
        assert row["one_core_p50_ms"] <= row["one_core_p95_ms"]
        assert row["one_core_queries_per_second"] > 0 and row["build_seconds"] >= 0
        assert f"{row['vectors']}, {row['dimension']} dimensions, {row['index']}" in row["summary"]
        better = [r for r in rows if r["nDCG@10"] > row["nDCG@10"]]
        beaten = any(r["bytes_per_document"] <= row["bytes_per_document"] for r in better)
        assert not (row["front"] and beaten)
    binary = next(row for row in rows if row["vectors"] == "binary" and row["index"] == "flat")
    assert "1/32 of the memory" in binary["summary"]
    picture = ElementTree.parse(curve.folder / "curve.svg").getroot()
    marks = [e for e in picture.iter() if e.tag.endswith(("circle", "rect")) and len(e)]
    assert len(marks) == 2 * len(rows)


def test_every_format_has_every_row(curve: Curve) -> None:
    rows = list(csv.DictReader(io.StringIO(rendered(curve.output, Format.CSV))))
    assert [float(row["nDCG@10"]) for row in rows] == [
        row["nDCG@10"] for row in curve.content["rows"]
    ]
    text = io.StringIO()
    write(curve.output, Format.TERMINAL, Console(file=text, width=80))
    lines = text.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert not any("…" in line for line in lines if line.startswith("│"))
    shown = [rendered(curve.output, f) for f in (Format.MARKDOWN, Format.LATEX, Format.HTML)]
    for output in (*shown, text.getvalue().replace("\n", " ")):
        assert output.count("0.589") >= 4 and output.count("HNSW16") >= 10


def test_a_report_reads_what_a_curve_writes(
    curve: Curve, bge_eval: CommandLine, tmp_path: Path
) -> None:
    path = tmp_path / "curve.json"
    path.write_text(json.dumps(curve.content))
    read = read_curve(path)
    assert read.heading == f"{BUILTIN} on BgeEvalDemo" and read.method == curve.content["method"]
    for point, row in zip(read.points, curve.content["rows"], strict=True):
        assert row["summary"].startswith(f"{point.name}: ")
        assert (point.ndcg, point.recall_100) == (row["nDCG@10"], row["recall@100"])
    save_run(tmp_path / "runs", "a/model", {"q": {"d": 1.0}}, {"q": {"d": 1}})
    page = tmp_path / "report.html"
    done = bge_eval("report", tmp_path / "runs", "--curve", path, "-o", page)
    assert done.returncode == 0, done.stderr
    text = page.read_text()
    for point in read.points:
        assert f"<span>{point.vectors}, {point.dimension} dimensions</span>" in text
    assert text.count("<span>HNSW16 efSearch=100") == 10


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        ("", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "it has no rows"),
        ('{"rows": []}', "has no row"),
        ('{"rows": [1]}', "does not name its tasks"),
        ('{"rows": [1], "tasks": [2]}', "does not name its tasks"),
        ('{"rows": [1], "tasks": []}', "row 1 is no object"),
        ('{"rows": [{}], "tasks": []}', "row 1: dimension is None; expected int"),
    ],
)
def test_what_is_no_curve_is_refused(content: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "curve.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(BgeEvalError, match=message) as caught:
        read_curve(path)
    assert "bge-eval curve" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("nDCG@10", "0.5"), ("nDCG@10", float("nan")), ("dimension", True), ("dimension", 1.5),
     ("front", 1), ("vectors", None), ("rescored", "100"), ("p_holm", None)],
)  # fmt: skip
def test_a_point_with_a_wrong_value_is_refused(
    name: str, value: Any, curve: Curve, tmp_path: Path
) -> None:
    path = tmp_path / "curve.json"
    first, *others = curve.content["rows"]
    path.write_text(json.dumps({**curve.content, "rows": [*others, {**first, name: value}]}))
    with pytest.raises(DamagedError, match=f"row {len(others) + 1}: .* is .*; expected"):
        read_curve(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--grid-dim", "512"), "the model has 384 dimensions"),
        (("--grid-dim", "half"), "--grid-dim takes whole numbers"),
        (("--grid-dim", ","), "--grid-dim is empty"),
        (("--grid-vectors", ""), "--grid-vectors is empty"),
        (("--grid-rescore", "100001"), "--grid-rescore takes whole numbers up to 100,000"),
        (("--grid-rescore", ""), "--grid-rescore is empty"),
        (("--grid-vectors", "int4"), "--grid-vectors takes float32, float16, int8, binary"),
        (("--grid-index", "HNSW32 efSearch"), "--grid-index takes NAME=VALUE"),
        (("--grid-index", "Nonsense"), "faiss makes no index of 'Nonsense'"),
        (("--grid-rescore", "few"), "--grid-rescore takes whole numbers"),
        (("--truncate-dim", "64"), "--truncate-dim is an axis of the grid"),
        (("--no-store",), "--no-store cannot be used with curve"),
        (("--picture", "curve.png"), "the picture is SVG"),
        (("-m", "bm25"), "has not one vector for each text"),
    ],
)
def test_what_a_curve_cannot_honour_is_refused(
    options: tuple[str, ...], message: str, bge_eval: CommandLine
) -> None:
    model = () if "-m" in options else ("-m", BUILTIN)
    done = bge_eval("curve", *model, "demo", "--offline", *options)
    assert done.returncode == 2 and message in " ".join(done.stderr.split())


def test_tasks_without_a_corpus_are_refused(bge_eval: CommandLine) -> None:
    done = bge_eval("curve", "-m", BUILTIN, "STSBenchmark", "--offline")
    assert done.returncode == 2 and "searches no corpus" in " ".join(done.stderr.split())
