"""Reading the BEIR layout: what is right is read whole, what is wrong is named with its line."""

from __future__ import annotations

import gzip
import inspect
import json
import shutil
import sys
import tempfile
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import pytest

from bge_eval.data import jsonl_table
from bge_eval.data.files import Place, plain_records
from bge_eval.data.retrieval_folder import BEIR, RetrievalFolder, RetrievalSplit
from bge_eval.data.scratch import scratch_folder
from bge_eval.data.tables import batches
from bge_eval.data.texts import document_texts
from bge_eval.errors import DamagedError, MissingError, TemporaryError
from bge_eval.progress import Progress
from conftest import file_limit, write_beir

CORPUS = [{"_id": f"d{i}", "title": f"t{i}", "text": f"文本 {i}"} for i in range(3)]
QUERIES = {"q0": "问题", "q1": "unjudged", "q2": "third"}
QRELS = [("q0", "d0", 1), ("q2", "d2", 2), ("q2", "d0", 0)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_beir(tmp_path / "set", CORPUS, QUERIES, QRELS)


def load(path: Path, *, dangling: bool = False) -> RetrievalSplit:
    scratch = path.parent / "scratch"
    scratch.mkdir(exist_ok=True)
    return RetrievalFolder(path, BEIR).load(["test"], scratch, Progress(), dangling=dangling)[
        "test"
    ]


def gzip_in_place(path: Path) -> None:
    Path(f"{path}.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()


def test_reads_whole(folder: Path) -> None:
    data = load(folder)
    assert data.corpus["text"][:] == ["文本 0", "文本 1", "文本 2"]
    assert data.corpus["id"][:] == ["d0", "d1", "d2"]
    # As mteb does: queries that the split does not judge are left out, order is the file's.
    assert data.queries["id"][:] == ["q0", "q2"]
    assert data.qrels == {"q0": {"d0": 1}, "q2": {"d2": 2, "d0": 0}}


def test_gzipped_is_the_same_data(folder: Path) -> None:
    before = RetrievalFolder(folder, BEIR).fingerprint(["test"])
    for name in ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv"):
        gzip_in_place(folder / name)
    assert RetrievalFolder(folder, BEIR).fingerprint(["test"]) == before
    assert load(folder).qrels == {"q0": {"d0": 1}, "q2": {"d2": 2, "d0": 0}}


def test_fingerprint_follows_content(folder: Path) -> None:
    before = RetrievalFolder(folder, BEIR).fingerprint(["test"])
    path = folder / "corpus.jsonl"
    path.write_text(path.read_text(encoding="utf-8").replace("t1", "tX"), encoding="utf-8")
    assert RetrievalFolder(folder, BEIR).fingerprint(["test"]) != before


def test_forgiven(folder: Path) -> None:
    """What real files have: a byte order mark, blank lines, Windows line ends, no title, numbers
    for ids, a judgement said twice alike."""
    records = [{"_id": 0, "text": "a"}, {"_id": "d1", "title": None, "text": ""}]
    text = "\r\n\r\n".join(json.dumps(record) for record in records)
    (folder / "corpus.jsonl").write_bytes(b"\xef\xbb\xbf" + text.encode() + b"\r\n")
    header = "query-id\tcorpus-id\tscore\r\n"
    (folder / "qrels/test.tsv").write_bytes((header + "q0\t0\t1\r\nq0\t0\t1\r\n").encode())
    data = load(folder)
    assert data.corpus[:] == {"id": ["0", "d1"], "title": ["", ""], "text": ["a", ""]}
    assert data.qrels == {"q0": {"0": 1}}


GOOD = json.dumps(CORPUS[0])
BAD_CORPUS = {
    "not json": (f"{GOOD}\n{{oops", "line 2: not JSON"),
    "no object": (f"{GOOD}\n[1]", "line 2: expected a JSON object"),
    "missing id": (f'{GOOD}\n{{"text": "x"}}', "line 2: no _id"),
    "empty id": (f'{GOOD}\n{{"_id": "", "text": "x"}}', "line 2: no _id"),
    "missing text": (f'{GOOD}\n{{"_id": "d9", "title": "x"}}', "line 2: text is missing"),
    "text no string": (f'{GOOD}\n{{"_id": "d9", "text": 4}}', "line 2: text is 4, not a string"),
    "half a character": (f'{GOOD}\n{{"_id": "d9", "text": "\\ud800"}}', "line 2: text holds half"),
    "duplicate id": (f"{GOOD}\n\n{GOOD}", "line 3: _id 'd0' was already used in line 1"),
    "empty": ("\n", "is empty"),
}


@pytest.mark.parametrize("case", BAD_CORPUS)
def test_bad_corpus(folder: Path, case: str) -> None:
    content, message = BAD_CORPUS[case]
    path = folder / "corpus.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DamagedError) as caught:
        load(folder)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


HEADER = "query-id\tcorpus-id\tscore\n"
BAD_QRELS = {
    "two forms": (HEADER + "q0 0 d0 1\n", "line 2: expected 3 columns"),
    "grade no integer": (HEADER + "q0\td0\t1\nq2\td2\t0.5\n", "line 3: the grade '0.5'"),
    "unknown query": (HEADER + "q9\td0\t1\n", "line 2: query 'q9' is not in queries.jsonl"),
    "unknown document": (HEADER + "q0\td9\t1\n", "line 2: document 'd9' is not in corpus.jsonl"),
    "contradiction": (HEADER + "q0\td0\t1\nq0\td0\t2\n", "line 3: 'q0' and 'd0' were already"),
    "empty": ("", "holds no judgements"),
    "header only": (HEADER, "holds no judgements"),
}


@pytest.mark.parametrize("case", BAD_QRELS)
def test_bad_qrels(folder: Path, case: str) -> None:
    content, message = BAD_QRELS[case]
    (folder / "qrels/test.tsv").write_text(content, encoding="utf-8")
    with pytest.raises(DamagedError) as caught:
        load(folder)
    assert message in str(caught.value)
    assert str(folder / "qrels/test.tsv") in str(caught.value)


def test_wrong_encoding(folder: Path) -> None:
    path = folder / "queries.jsonl"
    path.write_bytes(b'{"_id": "q0", "text": "a"}\n' + '{"_id": "q2", "text": "问"}'.encode("gbk"))
    with pytest.raises(DamagedError, match=r"queries\.jsonl, line 2: not UTF-8"):
        load(folder)


def test_truncated_gzip(folder: Path) -> None:
    path = folder / "corpus.jsonl"
    gzip_in_place(path)
    packed = Path(f"{path}.gz")
    packed.write_bytes(packed.read_bytes()[:-12])
    with pytest.raises(DamagedError, match="damaged or cut off"):
        load(folder)
    with pytest.raises(DamagedError, match="damaged or cut off"):
        RetrievalFolder(folder, BEIR).fingerprint(["test"])


def test_dangling_on_request(folder: Path) -> None:
    """Some published sets judge documents that they do not hold (ArguAna of BEIR does)."""
    (folder / "qrels/test.tsv").write_text(HEADER + "q0\td0\t1\nq0\tgone\t1\n", encoding="utf-8")
    assert load(folder, dangling=True).qrels == {"q0": {"d0": 1, "gone": 1}}


def test_missing_split_names_those_there(folder: Path) -> None:
    with pytest.raises(MissingError, match=r"qrels/dev\.tsv.*Splits with qrels there: test"):
        RetrievalFolder(folder, BEIR).files(["dev"])


def test_missing_queries(folder: Path) -> None:
    (folder / "queries.jsonl").unlink()
    with pytest.raises(MissingError, match=r"no queries\.jsonl"):
        load(folder)


def test_many_batches(tmp_path: Path) -> None:
    corpus = [{"_id": str(i), "text": f"text {i}"} for i in range(10_000)]
    path = write_beir(tmp_path / "big", corpus, {"q": "x"}, [("q", "9999", 1)])
    data = load(path)
    assert len(data.corpus) == 10_000
    assert data.corpus[9_999]["text"] == "text 9999"


ODD = [
    '{"_id": "d0", "title": null, "text": "a\\u0000\\ud83d\\ude00 \\u4e2d", "x": {"y": [1]}}',
    '{"text": "", "_id": "d1"}',
    '{"_id": "d2", "title": "T", "text": " 文本 ", "score": 1e400}',
]


@pytest.mark.parametrize(
    "content",
    [
        "\n".join(ODD) + "\n",
        "\n".join(ODD),
        "\ufeff" + "\n".join(ODD),
        "\n\n".join(ODD) + "\n \n",
        "\r\n".join(ODD) + "\r\n",
    ],
    ids=["plain", "no end", "byte order mark", "blank lines", "Windows"],
)
def test_both_ways_of_reading_agree(
    folder: Path, content: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "corpus.jsonl").write_text(content, encoding="utf-8", newline="")
    fast = load(folder).corpus.to_dict()
    monkeypatch.setattr("bge_eval.data.jsonl_table._parse_with_arrow", lambda *_: None)
    assert load(folder).corpus.to_dict() == fast
    assert fast["id"] == ["d0", "d1", "d2"] and fast["title"] == ["", "", "T"]
    assert fast["text"] == ["a\0😀 中", "", " 文本 "]


@pytest.mark.parametrize(
    "content",
    ["".join(ODD), ODD[0] + "\n" + ODD[1] + ODD[2] + "\n", "\n".join(ODD).replace(", ", ",\n")],
    ids=["one line", "two in a line", "over lines"],
)
def test_what_arrow_would_accept(folder: Path, content: str) -> None:
    (folder / "corpus.jsonl").write_text(content, encoding="utf-8")
    with pytest.raises(DamagedError, match="not JSON"):
        load(folder)


def test_plain_files_are_parsed_by_arrow(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("bge_eval.data.jsonl_table._line_by_line")
    assert load(folder).corpus["id"][:] == ["d0", "d1", "d2"]
    gzip_in_place(folder / "corpus.jsonl")
    assert load(folder).corpus["id"][:] == ["d0", "d1", "d2"]


def test_a_pass_over_the_corpus(tmp_path: Path) -> None:
    documents = [{"_id": f"d{i}", "text": f"text {i} " * 40} for i in range(9000)]
    documents[7]["title"] = "seven"
    data = load(write_beir(tmp_path / "set", documents, QUERIES, QRELS))
    passed = [row for batch in batches(data.corpus, ["title", "id"]) for row in batch.to_pylist()]
    assert passed == data.corpus.select_columns(["title", "id"]).to_list()
    some = data.corpus.select_columns(["text"])
    assert sum(len(batch) for batch in batches(some, ["text"])) == 9000
    # A selection is not the file's rows.
    some = data.corpus.select(range(4096, 8192))
    assert [row for batch in batches(some, ["id"]) for row in batch["id"].to_pylist()] == (
        some["id"][:]
    )
    texts = list(document_texts(data.corpus, None, 1000))
    assert [len(part) for part in texts] == [1000] * 9
    assert texts[0][7].startswith("seven text 7") and texts[8][999].startswith("text 8999")


def test_damage_inside_a_gzip_is_named(tmp_path: Path) -> None:
    """Bytes that are no deflate stream raise an error of zlib's own, which no other one is."""
    folder = write_beir(
        tmp_path / "x",
        [{"_id": f"d{i}", "text": f"text {i * i}"} for i in range(5000)],
        {"q": "a"},
        [("q", "d1", 1)],
        split="test",
    )
    path = folder / "corpus.jsonl"
    packed = bytearray(gzip.compress(path.read_bytes()))
    packed[2000:6000] = bytes(range(250)) * 16
    path.unlink()
    path.with_name("corpus.jsonl.gz").write_bytes(packed)
    recognised = RetrievalFolder.recognise(folder)
    assert recognised is not None
    with pytest.raises(DamagedError, match=r"corpus\.jsonl\.gz"):
        recognised.fingerprint(["test"])


@pytest.mark.skipif(sys.platform == "win32", reason="has no limit on the size of files")
def test_a_full_disk_ends_the_reading_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that is left open aborts the process when the interpreter ends."""
    source, target = tmp_path / "corpus.jsonl", tmp_path / "corpus.arrow"
    rows = ({"_id": f"d{row}", "title": "", "text": "w " * 500} for row in range(2000))
    source.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    readers = []

    def spied(place: Place, names: Sequence[str]) -> Generator[Any, None, None]:
        readers.append(plain_records(place, names))
        return readers[-1]

    monkeypatch.setattr(jsonl_table, "plain_records", spied)
    message = "corpus.arrow would be larger .* TMPDIR names another folder"
    with file_limit(2**16), pytest.raises(TemporaryError, match=message) as refusal:
        jsonl_table.read_table(source, "_id", target, ("title", "text"))
    assert refusal.tb is not None
    assert [inspect.getgeneratorstate(reader) for reader in readers] == [inspect.GEN_CLOSED]


def test_tables_of_killed_processes_are_removed_and_others_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    other = tmp_path / "bge-eval-of-something-else"
    other.mkdir()
    with scratch_folder() as running:
        (running / "corpus.arrow").write_bytes(b"table")
        shutil.copytree(running, tmp_path / "bge-eval-killed")  # nobody holds its lock
        with scratch_folder() as mine:
            assert set(tmp_path.iterdir()) == {other, running, mine}
            assert (running / "corpus.arrow").exists()
    assert list(tmp_path.iterdir()) == [other]
