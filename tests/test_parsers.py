"""Properties of every parser: any content is read or refused by one of our errors; round trips."""

from __future__ import annotations

import gzip
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bge_eval.data.collection import read_collection
from bge_eval.data.files import records
from bge_eval.data.jsonl_table import read_table
from bge_eval.data.qrels import jsonl_judgements, tsv_judgements
from bge_eval.errors import BgeEvalError, DamagedError
from bge_eval.gate.baseline import read_baseline
from bge_eval.gate.rules import read_rules
from bge_eval.judgements.sheet import read_sheet
from bge_eval.measures.measure import parse_measure
from bge_eval.measures.mteb_keys import parse_key
from bge_eval.models.decoder import read_examples
from bge_eval.remote.apis import Api, WrongAnswerError, in_order, wire
from bge_eval.results.record import read_record
from bge_eval.results.saved import read_meta, read_scores
from bge_eval.results.trec import (
    read_excerpts,
    read_per_query,
    read_qrels,
    read_run,
    write_per_query,
    write_qrels,
    write_run,
)

QUICK = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
IDS = st.text(
    st.characters(exclude_categories=("Cs", "Cc", "Zs", "Zl", "Zp")), min_size=1, max_size=8
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=8,
)
WORDS = st.sampled_from(
    ["q1", "d1", "0", "Q0", "\t", " ", "1", "-1", "1.5", "nan", "inf", "9" * 400, "\n", "\r\n", "é",
     "{", "}", "[", "]", '"', ":", ",", "=", "_id", "text", "qid", "docid", "relevance", "score",
     "query", "positive", "max_drop", "default", "task", "name", "\\ud800", "\x00", "\x1b", "null"]
)  # fmt: skip
CONTENT = st.binary(max_size=60) | st.lists(WORDS, max_size=16).map(lambda w: "".join(w).encode())


def whole(read: Callable[[Path], Any]) -> Callable[[Path], Any]:
    """Return a reader that reads to the end."""

    def to_the_end(path: Path) -> Any:
        result = read(path)
        return list(result) if isinstance(result, Iterator) else result

    return to_the_end


def corpus(path: Path) -> Any:
    return read_table(path, "_id", path.with_suffix(".arrow"), ("title", "text"))


def collection(path: Path) -> Any:
    folder = path.parent / "own"
    folder.mkdir(exist_ok=True)
    (folder / "task.toml").write_bytes(path.read_bytes())
    rows = ({"sentence1": "a", "sentence2": "b", "score": n} for n in range(2))
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_collection(folder)


def meta(path: Path) -> Any:
    (path.parent / "model_meta.json").write_bytes(path.read_bytes())
    return read_meta(path.parent)


def record(path: Path) -> Any:
    place = path.parent / "T" / "run.json"
    place.parent.mkdir(exist_ok=True)
    place.write_bytes(path.read_bytes())
    return read_record(path.parent / "T.json")


READERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "jsonl": ("a.jsonl", records),
    "packed jsonl": ("a.jsonl.gz", records),
    "corpus": ("a.jsonl", corpus),
    "judgements": ("a.tsv", tsv_judgements),
    "judgements of FlagEmbedding": ("a.jsonl", jsonl_judgements),
    "qrels": ("a.qrels", read_qrels),
    "run": ("a.run", read_run),
    "packed run": ("a.run.gz", read_run),
    "values by query": ("a.tsv.gz", read_per_query),
    "excerpts": ("a.jsonl.gz", read_excerpts),
    "rules": ("a.toml", read_rules),
    "options of a collection": ("a.toml", collection),
    "baseline": ("a.json", read_baseline),
    "examples": ("a.json", read_examples),
    "sheet": ("a.csv", read_sheet),
    "sheet of lines": ("a.jsonl", read_sheet),
    "record": ("a.json", record),
    "model": ("a.json", meta),
    "scores": ("a.json", lambda path: read_scores(path, read_record(path))),
}


@contextmanager
def written(name: str, content: bytes) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        yield path


def read_or_refused(name: str, read: Callable[[Path], Any], content: bytes) -> None:
    with written(name, content) as path:
        try:
            whole(read)(path)
        except BgeEvalError as error:
            assert path.name.partition(".")[0] in str(error) or str(path.parent) in str(error)
            assert len(str(error)) < 3000


@pytest.mark.parametrize("kind", READERS)
@given(content=CONTENT, packed=st.booleans())
@QUICK
def test_any_bytes_are_read_or_refused(kind: str, content: bytes, packed: bool) -> None:
    name, read = READERS[kind]
    read_or_refused(name, read, gzip.compress(content) if packed else content)


@pytest.mark.parametrize("kind", [kind for kind in READERS if "json" in READERS[kind][0]])
@given(content=JSON, keys=st.lists(WORDS, max_size=4))
@QUICK
def test_any_json_is_read_or_refused(kind: str, content: Any, keys: list[str]) -> None:
    name, read = READERS[kind]
    value = dict.fromkeys(keys, content) if keys else content
    data = (json.dumps(value) + "\n").encode()
    read_or_refused(name, read, gzip.compress(data) if name.endswith("gz") else data)


GRADES = st.integers(-10_000, 10_000)


@given(qrels=st.dictionaries(IDS, st.dictionaries(IDS, GRADES, min_size=1), min_size=1))
@QUICK
def test_qrels_are_read_as_written(qrels: dict[str, dict[str, int]]) -> None:
    with written("a.tsv.gz", b"") as path:
        write_qrels(path, qrels)
        assert read_qrels(path) == qrels


@given(
    run=st.dictionaries(
        IDS, st.dictionaries(IDS, st.floats(allow_nan=False, allow_infinity=False), min_size=1)
    )
)
@QUICK
def test_runs_are_read_as_written(run: dict[str, dict[str, float]]) -> None:
    with written("a.tsv.gz", b"") as path:
        write_run(path, run, "a tag")
        assert read_run(path) == run


@given(values=st.dictionaries(IDS, st.tuples(st.floats(0, 1), st.floats(0, 1))))
@QUICK
def test_values_are_read_as_written(values: dict[str, tuple[float, float]]) -> None:
    with written("a.tsv.gz", b"") as path:
        write_per_query(path, ["A", "B"], values)
        names, rows = read_per_query(path)
    assert names == ["A", "B"] and rows.keys() == values.keys()
    for query, row in rows.items():
        np.testing.assert_allclose(row, values[query], rtol=1e-8)


@given(number=st.integers())
@QUICK
def test_grades_are_bounded(number: int) -> None:
    line = f"q\td\t{number}\n".encode()
    with written("a.tsv", line) as path:
        if abs(number) <= 10_000:
            assert [each.grade for each in tsv_judgements(path)] == [number]
        else:
            with pytest.raises(DamagedError, match="too large"):
                list(tsv_judgements(path))


@given(text=st.text(max_size=20) | st.lists(WORDS, max_size=4).map("".join))
@QUICK
def test_any_measure_is_read_or_refused(text: str) -> None:
    for parse in (parse_measure, parse_key):
        try:
            parse(text)
        except BgeEvalError:
            continue


@pytest.mark.parametrize("api", Api)
@given(answer=JSON, count=st.integers(0, 3))
@QUICK
def test_any_answer_is_read_or_refused(api: Api, answer: Any, count: int) -> None:
    """What a caller turns into "an answer that is not of the interface", and nothing else."""
    for parse in (wire(api).vectors, wire(api).scores):
        try:
            parse(answer, count)
        except (WrongAnswerError, KeyError, IndexError, TypeError, ValueError, AttributeError):
            continue
        except NotImplementedError:
            continue


@given(order=st.permutations(range(5)))
@QUICK
def test_results_are_put_in_order(order: list[int]) -> None:
    parts = [{"index": index, "score": index * 2} for index in order]
    assert in_order(parts, "score", 5) == [0, 2, 4, 6, 8]
