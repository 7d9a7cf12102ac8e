"""Own collections with every fault we could think of: exit code and a sentence with the place."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from bad_inputs import HALF_PAIR, POINTER, Change, both, more, refused, text
from conftest import CommandLine, write_beir
from test_layouts import as_flagembedding

DEEP = "[" * 100_000
Case = tuple[Change, int, str]


def corpus(line: str) -> Change:
    return more("corpus.jsonl", line + "\n")


def queries(line: str) -> Change:
    return more("queries.jsonl", line + "\n")


def judged(*lines: str) -> Change:
    return text("qrels/test.tsv", "".join(f"{line}\n" for line in lines))


def options(content: str) -> Change:
    return text("task.toml", content)


def gone(name: str) -> Change:
    return lambda folder: (folder / name).unlink()


def packed(name: str, content: bytes | None = None) -> Change:
    """Put a gzipped copy beside a file."""

    def change(folder: Path) -> None:
        path = folder / name
        Path(f"{path}.gz").write_bytes(content or gzip.compress(path.read_bytes()))

    return change


BEIR: dict[str, Case] = {
    "empty corpus": (text("corpus.jsonl", ""), 3, "corpus.jsonl is empty"),
    "corpus of blank lines": (text("corpus.jsonl", "\n \n\n"), 3, "corpus.jsonl is empty"),
    "corpus is a page of a proxy": (
        text("corpus.jsonl", "<!DOCTYPE html>\n<html>"),
        3,
        "corpus.jsonl, line 1: not JSON",
    ),
    "corpus is a pointer": (text("corpus.jsonl", POINTER), 3, "corpus.jsonl is a Git LFS pointer"),
    "queries are a pointer": (
        text("queries.jsonl", POINTER),
        3,
        "queries.jsonl is a Git LFS pointer",
    ),
    "judgements are a pointer": (
        text("qrels/test.tsv", POINTER),
        3,
        "test.tsv is a Git LFS pointer",
    ),
    "corpus is one array": (text("corpus.jsonl", '[\n{"_id": "d0"}]'), 3, "line 1: not JSON"),
    "corpus is a csv": (text("corpus.jsonl", "_id,text\nd0,a\n"), 3, "line 1: not JSON"),
    "line is a list": (corpus('["d9", "text"]'), 3, "line 4: expected a JSON object, not list"),
    "line is a number": (corpus("7"), 3, "line 4: expected a JSON object, not int"),
    "corpus is null": (
        text("corpus.jsonl", "null\n"),
        3,
        "line 1: expected a JSON object, not null",
    ),
    "line is null": (corpus("null"), 3, "line 4: expected a JSON object, not null"),
    "line is cut": (corpus('{"_id": "d9", "te'), 3, "line 4: not JSON"),
    "two objects on a line": (
        corpus('{"_id": "d8", "text": "a"} {"_id": "d9", "text": "b"}'),
        3,
        "line 4: not JSON",
    ),
    "no id": (corpus('{"id": "d9", "text": "a"}'), 3, "line 4: no _id"),
    "id of null": (corpus('{"_id": null, "text": "a"}'), 3, "line 4: no _id"),
    "empty id": (corpus('{"_id": "", "text": "a"}'), 3, "line 4: no _id"),
    "id of a fraction": (corpus('{"_id": 1.5, "text": "a"}'), 3, "line 4: no _id"),
    "id of true": (corpus('{"_id": true, "text": "a"}'), 3, "line 4: no _id"),
    "id of a list": (corpus('{"_id": ["d9"], "text": "a"}'), 3, "line 4: no _id"),
    "id twice": (corpus('{"_id": "d0", "text": "a"}'), 3, "line 4: _id 'd0' was already used in"),
    "id twice, number and text": (
        corpus('{"_id": 7, "text": "a"}\n{"_id": "7", "text": "b"}'),
        3,
        "line 5: _id '7' was",
    ),
    "id of half a pair": (corpus(f'{{"_id": {HALF_PAIR}, "text": "a"}}'), 3, "line 4: _id holds"),
    "text of half a pair": (
        corpus(f'{{"_id": "d9", "text": {HALF_PAIR}}}'),
        3,
        "line 4: text holds half",
    ),
    "title of half a pair": (
        corpus(f'{{"_id": "d9", "title": {HALF_PAIR}, "text": "a"}}'),
        3,
        "line 4: title holds",
    ),
    "id with a tab": (corpus('{"_id": "d\\t9", "text": "a"}'), 3, "holds a tab"),
    "id with a line break": (corpus('{"_id": "d\\n9", "text": "a"}'), 3, "end of a line"),
    "id of 5,000 digits": (corpus(f'{{"_id": {"9" * 5000}, "text": "a"}}'), 3, "line 4: not JSON"),
    "no text": (corpus('{"_id": "d9"}'), 3, "line 4: text is missing"),
    "text of null": (corpus('{"_id": "d9", "text": null}'), 3, "line 4: text is null, not a"),
    "text of a number": (corpus('{"_id": "d9", "text": 5}'), 3, "line 4: text is 5, not a"),
    "text of a list": (corpus('{"_id": "d9", "text": ["a"]}'), 3, "line 4: text is .*, not a"),
    "title of a number": (
        corpus('{"_id": "d9", "title": 5, "text": "a"}'),
        3,
        "line 4: title is 5, not a",
    ),
    "a deep line": (corpus(DEEP), 3, "line 4: not JSON"),
    "a key twice": (
        corpus('{"_id": "d9", "text": "one", "text": "two"}'),
        3,
        "line 4: the key 'text' is twice",
    ),
    "id key twice": (
        corpus('{"_id": "d8", "_id": "d9", "text": "two"}'),
        3,
        "line 4: the key '_id' is twice",
    ),
    "a key twice in queries": (
        queries('{"_id": "q9", "text": "one", "text": "two"}'),
        3,
        "line 2: .*'text' .*twice",
    ),
    "Latin-1": (
        more("corpus.jsonl", '{"_id": "d9", "text": "Grüße"}\n'.encode("latin-1")),
        3,
        "line 4: not UTF-8",
    ),
    "GB18030": (
        more("corpus.jsonl", '{"_id": "d9", "text": "糖尿病"}\n'.encode("gb18030")),
        3,
        "line 4: not UTF-8",
    ),
    "UTF-16": (
        text("corpus.jsonl", '{"_id": "d9", "text": "a"}\n'.encode("utf-16")),
        3,
        "line 1: not UTF-8",
    ),
    "both packed and plain": (packed("corpus.jsonl"), 3, "corpus.jsonl and .*corpus.jsonl.gz"),
    "both queries": (packed("queries.jsonl"), 3, "queries.jsonl and .*queries.jsonl.gz"),
    "both judgements": (packed("qrels/test.tsv"), 3, "test.tsv and .*test.tsv.gz"),
    "packed junk": (both(packed("corpus.jsonl", b"junk"), gone("corpus.jsonl")), 3, "cut off"),
    "packed and cut": (
        both(packed("corpus.jsonl", gzip.compress(b"x" * 9000)[:-8]), gone("corpus.jsonl")),
        3,
        "cut off|not JSON",
    ),
    "corpus is a folder": (
        both(gone("corpus.jsonl"), text("corpus.jsonl/a", "")),
        3,
        "own|layout|corpus.jsonl",
    ),
    "no corpus": (gone("corpus.jsonl"), 3, "has no corpus.jsonl"),
    "no queries": (gone("queries.jsonl"), 3, "has no queries.jsonl"),
    "no judgements": (gone("qrels/test.tsv"), 3, "no judgements"),
    "empty queries": (text("queries.jsonl", ""), 3, "queries.jsonl is empty"),
    "query twice": (queries('{"_id": "q", "text": "a"}'), 3, "line 2: _id 'q' was already used"),
    "query without text": (queries('{"_id": "q9"}'), 3, "line 2: text is missing"),
    "query of half a pair": (queries(f'{{"_id": {HALF_PAIR}, "text": "a"}}'), 3, "half of a surr"),
    "query id with a tab": (
        both(queries('{"_id": "q\\t9", "text": "a"}'), judged("q 0 d1 1", "q\\t9 0 d1 1")),
        3,
        "q.*9.* is not in",
    ),
    "query deep": (queries(DEEP), 3, "queries.jsonl, line 2: not JSON"),
    "empty judgements": (judged(), 3, "test.tsv holds no judgements"),
    "judgements of a header": (judged("query-id\tcorpus-id\tscore"), 3, "holds no judgements"),
    "unknown query": (judged("q9\td1\t1"), 3, "line 1: query 'q9' is not in"),
    "unknown document": (judged("q\td9\t1"), 3, "line 1: document 'd9' is not in corpus.jsonl"),
    "two columns": (judged("q\td1"), 3, "line 1: expected three columns or four"),
    "five columns": (judged("q\t0\td1\t1\t1"), 3, "line 1: expected three columns or four"),
    "commas": (judged("q,d1,1"), 3, "line 1: expected three columns or four"),
    "columns change": (judged("q\td1\t1", "q\t0\td1\t1"), 3, "line 2: expected 3 columns"),
    "header the other way": (
        judged("corpus-id\tquery-id\tscore", "d1\tq\t1"),
        3,
        "line 1: the header names",
    ),
    "grade of a word": (judged("q\td1\tyes"), 3, "line 1: the grade 'yes' is not a whole"),
    "grade of a fraction": (judged("q\td1\t0.5"), 3, "line 1: the grade '0.5' is not a whole"),
    "grade of nan": (judged("q\td1\tnan"), 3, "line 1: the grade 'nan' is not a whole"),
    "grade of infinity": (judged("q\td1\tinf"), 3, "line 1: the grade 'inf' is not a whole"),
    "no grade": (judged("q\td1\t"), 3, "line 1: the grade '' is not a whole"),
    "grade of 400 digits": (judged(f"q\td1\t{'9' * 400}"), 3, "line 1: the grade '999+…"),
    "grade of 5,000 digits": (judged(f"q\td1\t{'9' * 5000}"), 3, "line 1: the grade '999+…"),
    "grade of a million digits": (judged(f"q\td1\t{'9' * 10**6}"), 3, "line 1: the grade '999+…"),
    "grade of 1e300": (judged("q\td1\t1e300"), 3, "line 1: the grade '1e300' is"),
    "grade beyond 32 bits": (judged("q\td1\t2147483648"), 3, "line 1: the grade '2147483648'"),
    "grade far below zero": (judged("q\td1\t-2147483649"), 3, "line 1: the grade '-2147483649'"),
    "grade of 2**31 - 1": (judged("q\td1\t2147483647"), 3, "line 1: the grade '2147483647'"),
    "grade of 10,001": (judged("q\td1\t10001"), 3, "line 1: the grade '10001'"),
    "grade with an underscore": (judged("q\td1\t1_0"), 3, "line 1: the grade '1_0' is not a"),
    "grade of Arabic digits": (judged("q\td1\t١"), 3, "line 1: the grade '١' is not a whole"),
    "two grades": (judged("q\td1\t1", "q\td1\t2"), 3, "line 2: 'q' and 'd1' were already judged 1"),
    "all grades zero": (judged("q\td1\t0", "q\td0\t0"), 3, "test.tsv.*no document.* relevant"),
    "all grades negative": (judged("q\td1\t-1"), 3, "test.tsv.*no document.* relevant"),
    "judgements in Latin-1": (text("qrels/test.tsv", b"q\td\xe9\t1\n"), 3, "line 1: not UTF-8"),
    "judgements of bytes": (text("qrels/test.tsv", b"\x00\x01\xff"), 3, "line 1: not UTF-8"),
    "judgements are a folder": (
        both(gone("qrels/test.tsv"), text("qrels/test.tsv/a", "")),
        3,
        "qrels",
    ),
}

TOML: dict[str, Case] = {
    "no TOML": (options("name: Tickets"), 3, "task.toml is not TOML"),
    "TOML of bytes": (text("task.toml", b"\xff\xfe"), 3, "task.toml is not TOML"),
    "deep TOML": (options("a = " + DEEP), 3, "task.toml is not TOML"),
    "a TOML key twice": (options('name = "a"\nname = "b"'), 3, "task.toml is not TOML"),
    "an unknown option": (options('naem = "Tickets"'), 3, "no option 'naem'. Did you mean name"),
    "name of a number": (options("name = 5"), 3, "name must be a"),
    "empty name": (options('name = ""'), 3, "the name ''"),
    "name with a separator": (options('name = "a/b"'), 3, "the name 'a/b' becomes a file name"),
    "name that leaves": (options('name = "../../x"'), 3, "the name '../../x'"),
    "name of dots": (options('name = ".."'), 3, "the name '..'"),
    "name of a dot": (options('name = "."'), 3, "the name '.'"),
    "name with a dot first": (options('name = ".hidden"'), 3, "the name '.hidden'"),
    "name with a line break": (options('name = "a\\n"'), 3, "the name 'a"),
    "name with an escape": (options('name = "a\\u001b[31m"'), 3, "the name 'a"),
    "a long name": (options(f'name = "{"a" * 300}"'), 3, "the name 'aaa"),
    "mteb's name": (options('name = "SciFact"'), 2, "mteb has a task SciFact"),
    "a suite's collection": (options('name = "BgeEvalDemo"'), 2, "a task BgeEvalDemo"),
    "a suite's name": (options('name = "model_meta"'), 3, "the name 'model_meta'"),
    "the record's name": (options('name = "run"'), 3, "the name 'run'"),
    "an unknown language": (options('languages = ["German"]'), 3, "'German' is no language"),
    "no language": (options("languages = []"), 3, "languages"),
    "a language of a number": (options("languages = [5]"), 3, "'5' is no language"),
    "an unknown split": (options('split = "dev"'), 3, "has the splits test, and no 'dev'"),
    "split that leaves": (options('split = "../test"'), 3, "no '../test'"),
    "an unknown measure": (options('main_measure = "F1"'), 3, "main_measure is 'F1'"),
    "a measure of another type": (
        options('main_measure = "cosine_spearman"'),
        3,
        "main_measure is 'cosine_spearman'",
    ),
    "a cutoff that mteb lacks": (options('main_measure = "nDCG@7"'), 3, "main_measure is 'nDCG@7'"),
    "a flag of text": (options('drop_identical_ids = "yes"'), 3, "drop_identical_ids must be a"),
    "a prompt of a number": (options("query_prompt = 5"), 3, "query_prompt must be a"),
}


def flag(content: str) -> Change:
    return both(as_flagembedding, text("test_qrels.jsonl", content + "\n"))


def grade(value: str) -> Change:
    return flag(f'{{"qid": "q", "docid": "d1", "relevance": {value}}}')


FLAG: dict[str, Case] = {
    "flag, a word": (grade('"yes"'), 3, "line 1: the grade 'yes'"),
    "flag, true": (grade("true"), 3, "line 1: the grade 'true'"),
    "flag, null": (grade("null"), 3, "line 1: the grade 'null'"),
    "flag, a list": (grade("[1]"), 3, r"line 1: the grade '\[1\]'"),
    "flag, a fraction": (grade("1.5"), 3, "line 1: the grade '1.5'"),
    "flag, NaN": (grade("NaN"), 3, "line 1: .*NaN"),
    "flag, 400 digits": (grade("9" * 400), 3, "line 1: the grade '999"),
    "flag, 5,000 digits": (grade("9" * 5000), 3, "line 1: not JSON"),
    "flag, 33 bits": (grade(str(2**32)), 3, "line 1: the grade '4294967296'"),
    "flag, no document": (flag('{"qid": "q", "relevance": 1}'), 3, "line 1: no docid"),
    "flag, list for a query": (
        flag('{"qid": ["q"], "docid": "d1", "relevance": 1}'),
        3,
        "line 1: qid is",
    ),
    "flag, null for a query": (
        flag('{"qid": null, "docid": "d1", "relevance": 1}'),
        3,
        "line 1: qid is null",
    ),
    "flag, all zero": (grade("0"), 3, "no document.* relevant"),
    "flag, deep": (flag(DEEP), 3, "line 1: not JSON"),
    "flag, half a pair": (
        flag(f'{{"qid": "q", "docid": {HALF_PAIR}, "relevance": 1}}'),
        3,
        "docid holds half",
    ),
    "flag, a key twice": (
        flag('{"qid": "q", "docid": "d1", "relevance": 1, "relevance": 2}'),
        3,
        "line 1: .*'relevance' .*twice",
    ),
}


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A sound collection that a test may damage."""
    documents = [{"_id": f"d{n}", "title": "", "text": f"number {n}"} for n in range(3)]
    return write_beir(tmp_path / "own", documents, {"q": "number one"}, [("q", "d1", 1)])


@pytest.mark.parametrize("case", [*BEIR, *TOML, *FLAG])
def test_a_search_collection(bge_eval: CommandLine, own: Path, case: str) -> None:
    change, code, message = {**BEIR, **TOML, **FLAG}[case]
    change(own)
    done = bge_eval("run", "-m", "bm25", "-t", own, "-o", own.parent / "out", "--offline", "-q")
    said = refused(done, code, message)
    assert str(own) in said or "document id" in said, "the file is named"
    assert not list(own.parent.rglob("own.json"))


def pair(**values: object) -> str:
    row = {"sentence1": "a bee", "sentence2": "a wasp", "score": 2.0, **values}
    return json.dumps({name: value for name, value in row.items() if value is not ...})


def pairs(*lines: str) -> Change:
    return text("test.jsonl", "".join(f"{line}\n" for line in lines))


GOOD = (pair(score=1), pair(score=4, sentence1="a b"), pair(score=3, sentence2="a c"))
ROWS: dict[str, Case] = {
    "no rows": (pairs(), 3, "test.jsonl is empty|holds no"),
    "score of NaN": (pairs(*GOOD, pair(score=float("nan"))), 3, "line 4: .*score.*(NaN|nan)"),
    "score of infinity": (pairs(*GOOD, pair(score=float("inf"))), 3, "line 4: .*score.*(Inf|inf)"),
    "score of null": (pairs(*GOOD, pair(score=None)), 3, "line 4: .*score"),
    "score of a word": (pairs(*GOOD, pair(score="high")), 3, "line 4: .*score"),
    "score of true": (pairs(*GOOD, pair(score=True)), 3, "line 4: .*score"),
    "score of a list": (pairs(*GOOD, pair(score=[1])), 3, "line 4: .*score"),
    "no score": (pairs(*GOOD, pair(score=...)), 3, "line 4: .*score"),
    "constant scores": (pairs(pair(), pair(sentence1="x"), pair(sentence1="y")), 3, "all .*2"),
    "one pair": (pairs(pair()), 3, "all scores of the 1 pairs"),
    "no second sentence": (pairs(*GOOD, pair(sentence2=...)), 3, "line 4: .*sentence2"),
    "sentence of null": (pairs(*GOOD, pair(sentence2=None)), 3, "line 4: .*sentence2"),
    "sentence of a number": (pairs(*GOOD, pair(sentence1=5)), 3, "line 4: .*sentence1"),
    "sentence of half a pair": (pairs(*GOOD, pair(sentence1="\ud800")), 3, "line 4: .*surrogate"),
    "row of a list": (pairs(*GOOD, "[]"), 3, "line 4: expected a JSON object"),
    "deep row": (pairs(*GOOD, DEEP), 3, "line 4: not JSON"),
    "row with a key twice": (
        pairs(*GOOD, pair()[:-1] + ', "score": 3}'),
        3,
        "line 4: .*'score' .*twice",
    ),
    "rows are a pointer": (pairs(POINTER), 3, "test.jsonl is a Git LFS pointer"),
    "unknown columns": (pairs('{"a": 1}'), 3, "line 1: its columns are 'a'"),
}


@pytest.mark.parametrize("case", ROWS)
def test_a_collection_of_pairs(
    bge_eval: CommandLine, tmp_path: Path, tiny_bge: Path, case: str
) -> None:
    change, code, message = ROWS[case]
    (tmp_path / "own").mkdir()
    change(tmp_path / "own")
    arguments = ("run", "-m", tiny_bge, "--known-as", "none", "-o", tmp_path / "out", "--offline")
    done = bge_eval(*arguments, "--backend", "torch", "-t", tmp_path / "own")
    assert str(tmp_path / "own") in refused(done, code, message)
    assert not list(tmp_path.rglob("own.json"))


def ranks(**values: object) -> Change:
    row = {"query": "a", "positive": ["ab"], "negative": ["c"], **values}
    row = {name: value for name, value in row.items() if value is not ...}
    return pairs(json.dumps(row), json.dumps(row))


RERANKING: dict[str, Case] = {
    "no query": (ranks(query=...), 3, "line 1: its columns are"),
    "query of a number": (ranks(query=5), 3, "line 1: .*query"),
    "query of null": (ranks(query=None), 3, "line 1: .*query"),
    "positive is a text": (ranks(positive="ab"), 3, "line 1: .*positive"),
    "positive of numbers": (ranks(positive=[5]), 3, "line 1: .*positive"),
    "no positive": (ranks(positive=[]), 3, "positive|relevant"),
    "negative of null": (ranks(negative=None), 3, "line 1: .*negative"),
    "negative is an object": (ranks(negative={"a": 1}), 3, "line 1: .*negative"),
    "positive of half a pair": (ranks(positive=["\ud800"]), 3, "line 1: .*surrogate"),
}


@pytest.mark.parametrize("case", RERANKING)
def test_a_collection_of_candidates(bge_eval: CommandLine, tmp_path: Path, case: str) -> None:
    change, code, message = RERANKING[case]
    (tmp_path / "own").mkdir()
    change(tmp_path / "own")
    done = bge_eval("run", "-m", "bm25", "-t", tmp_path / "own", "-o", tmp_path / "out")
    assert str(tmp_path / "own") in refused(done, code, message)


def test_a_folder_called_as_a_task_of_mteb(bge_eval: CommandLine, own: Path) -> None:
    """It was scored, ranked and exported as SciFact."""
    done = bge_eval("run", "-m", "bm25", "-t", own.rename(own.with_name("SciFact")), "--offline")
    assert 'name = "' in refused(done, 2, "mteb has a task SciFact")


def test_the_sound_collections_are_accepted(bge_eval: CommandLine, own: Path) -> None:
    done = bge_eval("run", "-m", "bm25", "-t", own, "-o", own.parent / "out", "--offline")
    assert done.returncode == 0, done.stderr
