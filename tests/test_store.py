"""The embedding store: nothing is encoded twice, nothing damaged is used, nothing is lost."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bge_eval.encode.settings import Backend, Overrides, Pooling
from bge_eval.encode.shards import text_keys
from bge_eval.encode.store import EmbeddingStore, Space, prune, stored_spaces
from bge_eval.errors import UsageError
from bge_eval.evaluation.evaluate import evaluate
from bge_eval.evaluation.options import Options
from bge_eval.models.form import Form
from bge_eval.models.kinds import ModelOptions
from bge_eval.models.opening import open_model
from bge_eval.models.transformer import EncoderModel
from bge_eval.records import Vectors
from bge_eval.suites.catalogue import plan

FACTS = {"revision": "r", "dtype": "float32", "prompt": ""}


def rows(count: int, dimension: int = 8, seed: int = 0) -> Vectors:
    return np.random.default_rng(seed).normal(size=(count, dimension)).astype(np.float32)


def sizes(model: EncoderModel) -> dict[str, Any]:
    settings = model.machine_settings()
    return {name: settings[name] for name in ("dimension", "parameters")}


def space(root: Path, note: Callable[[str], None] = print, **facts: str) -> Space:
    return EmbeddingStore(root, note).space("org/model", FACTS | facts)


def test_what_was_put_is_there(tmp_path: Path) -> None:
    keys, vectors = text_keys([f"text {i}" for i in range(500)]), rows(500)
    first = space(tmp_path)
    first.put(keys[:300], vectors[:300])
    known, found = first.get(keys[:10])  # before anything is written
    assert known.all() and found is not None and np.array_equal(found, vectors[:10])
    first.flush()
    first.put(keys[300:], vectors[300:])
    first.flush()
    order = np.random.default_rng(1).permutation(500)
    asked = text_keys([*(f"text {i}" for i in order), "never seen", ""])
    known, found = space(tmp_path).get(asked)
    assert known.tolist() == [True] * 500 + [False, False]
    assert found is not None and np.array_equal(found, vectors[order])


def test_another_space_knows_nothing(tmp_path: Path) -> None:
    keys = text_keys(["one text"])
    first = space(tmp_path)
    first.put(keys, rows(1))
    first.flush()
    for other in ({"prompt": "query: "}, {"revision": "s"}, {"dtype": "bfloat16"}):
        assert space(tmp_path, print, **other).get(keys)[1] is None


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied"])
def test_a_damaged_shard_is_made_again(tmp_path: Path, damage: str) -> None:
    keys, vectors = text_keys(["a", "b"]), rows(2)
    first = space(tmp_path)
    first.put(keys, vectors)
    first.flush()
    [path] = tmp_path.glob("*/*.shard")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes({"cut": content[:-3], "flipped": content, "emptied": b""}[damage]))
    notes: list[str] = []
    known, found = space(tmp_path, notes.append).get(keys)
    assert not known.any() and found is None
    assert str(path) in notes[0] and "damaged" in notes[0] and "computed again" in notes[0]
    assert not path.exists() and path.with_name(f"{path.name}.damaged").exists()


def test_many_small_shards_become_one(tmp_path: Path) -> None:
    store = space(tmp_path)
    texts = [f"text {i}" for i in range(70)]
    vectors = rows(70)
    for index, text in enumerate(texts):
        store.put(text_keys([text]), vectors[index : index + 1])
        store.flush()
    assert len(list(tmp_path.glob("*/*.shard"))) < 10
    known, found = space(tmp_path).get(text_keys(texts))
    assert known.all() and found is not None and np.array_equal(found, vectors)


def test_shards_that_another_process_merged(tmp_path: Path) -> None:
    vectors = rows(150)
    texts = [f"text {i}" for i in range(150)]
    first = space(tmp_path)
    for index in range(40):
        first.put(text_keys([texts[index]]), vectors[index : index + 1])
        first.flush()
    second = space(tmp_path)  # knows the first one's shards, and merges them away
    for index in range(40, 75):
        second.put(text_keys([texts[index]]), vectors[index : index + 1])
        second.flush()
    assert len(list(tmp_path.glob("*/*.shard"))) < 40
    for index in range(75, 150):
        first.put(text_keys([texts[index]]), vectors[index : index + 1])
        first.flush()
    known, found = space(tmp_path).get(text_keys(texts))
    assert known.all() and found is not None and np.array_equal(found, vectors)


def test_several_processes_write_at_once(tmp_path: Path) -> None:
    code = (
        "import sys, numpy as np; from pathlib import Path;"
        "from bge_eval.encode.store import EmbeddingStore;"
        "from bge_eval.encode.shards import text_keys;"
        f"s = EmbeddingStore(Path({str(tmp_path)!r})).space('org/model', {FACTS!r});\n"
        "for i in range(200):\n"
        "    n = int(sys.argv[1]) * 100 + i\n"
        "    s.put(text_keys([f'text {n}']), np.full((1, 8), n, np.float32)); s.flush()\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, str(i)]) for i in range(3)]
    assert [process.wait() for process in running] == [0, 0, 0]
    known, found = space(tmp_path).get(text_keys([f"text {n}" for n in range(400)]))
    assert known.all() and found is not None
    assert np.array_equal(found[:, 0], np.arange(400))
    assert not list(tmp_path.glob("*/.*"))


def test_a_full_disk_stops_storing_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    usage = type(shutil.disk_usage(tmp_path))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, 0))
    notes: list[str] = []
    store = space(tmp_path, notes.append)
    store.put(text_keys(["a"]), rows(1))
    store.flush()
    store.put(text_keys(["b"]), rows(1))
    store.flush()
    assert len(notes) == 1 and "no longer stored" in notes[0]
    assert not list(tmp_path.rglob("*.shard"))


def test_a_store_of_somebody_else_s_is_read() -> None:
    """A folder that another user owns and nobody else can write into."""
    if os.getuid() != 0:
        pytest.skip("only root can become another user, who owns nothing here")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = space(folder)
        store.put(text_keys(["a"]), rows(1))
        store.flush()
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755)
        # What reads is imported before, since the other user may not see the package.
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.setuid(65534)
                known, _ = space(folder).get(text_keys(["a", "b"]))
                code = 0 if known.tolist() == [True, False] else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_list_and_prune(tmp_path: Path) -> None:
    for prompt, age in (("", 0), ("query: ", 100)):
        store = space(tmp_path, prompt=prompt)
        store.put(text_keys([f"{prompt}{i}" for i in range(10)]), rows(10))
        store.flush()
        [folder] = [entry.folder for entry in stored_spaces(tmp_path) if entry.prompt == prompt]
        os.utime(folder, (time.time() - age,) * 2)
    listed = stored_spaces(tmp_path)
    assert [(entry.prompt, entry.texts, entry.dimension) for entry in listed] == [
        ("", 10, 8),
        ("query: ", 10, 8),
    ]
    with pytest.raises(UsageError, match="Pass what to remove"):
        prune(tmp_path)
    assert prune(tmp_path, model="another") == []
    assert [entry.prompt for entry in prune(tmp_path, largest=listed[0].bytes)] == ["query: "]
    assert [entry.prompt for entry in prune(tmp_path, older_than=3600)] == []
    assert len(prune(tmp_path, everything=True)) == 1
    assert stored_spaces(tmp_path) == []


class _Counted:
    """Counts the texts that reach the model."""

    def __init__(self, model: EncoderModel) -> None:
        encoder = model.encoder
        self.texts: list[str] = []
        self._parts = encoder.parts
        encoder.parts = self  # type: ignore[method-assign]

    def __call__(self, texts: Sequence[str], *args: Any, **rest: Any) -> Iterator[Any]:
        for rows, vectors in self._parts(texts, *args, **rest):
            self.texts += [texts[row] for row in rows.tolist()]
            yield rows, vectors


def run(model: EncoderModel, output: Path, data: Path) -> float:
    import mteb

    options = Options(output, (data,), offline=True)
    report = evaluate(model, plan(["SciFact"]), options)
    result = mteb.TaskResult.from_disk(report.done["SciFact"][0])
    return float(next(iter(result.scores.values()))[0]["main_score"])


def test_another_prompt_encodes_the_queries_alone(
    tiny_bge: Path, small_scifact: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    first = EncoderModel(str(tiny_bge), ModelOptions(store=store))
    counted = _Counted(first)
    run(first, tmp_path / "out", small_scifact)
    assert len(counted.texts) == 8  # three queries, five documents
    first.flush()

    second = EncoderModel(
        str(tiny_bge), ModelOptions(store=store, overrides=Overrides(query_prompt="query: "))
    )
    counted = _Counted(second)
    score = run(second, tmp_path / "out", small_scifact)
    assert len(counted.texts) == 3
    # The score is the one that a run without a store gives.
    plain = EncoderModel(
        str(tiny_bge), ModelOptions(store=False, overrides=Overrides(query_prompt="query: "))
    )
    assert run(plain, tmp_path / "other", small_scifact) == score

    third = EncoderModel(str(tiny_bge), ModelOptions(store=store))
    assert run(third, tmp_path / "again", small_scifact) > 0
    assert third.machine_settings() == sizes(plain), "nothing was to be encoded; weights are loaded"
    [saved] = [json.loads(path.read_text()) for path in (tmp_path / "again").rglob("run.json")]
    assert saved["settings"] == sizes(plain)


@pytest.mark.parametrize(
    "overrides", [{"truncate_dim": 16}, {"normalize": False}], ids=["truncate_dim", "normalize"]
)
def test_what_happens_after_pooling_needs_no_encoding(
    tiny_bge: Path, tmp_path: Path, overrides: dict[str, Any]
) -> None:
    texts = ["one", "two", "one"]
    first = EncoderModel(str(tiny_bge), ModelOptions(store=tmp_path))
    first._encode(texts, Form(), "encode")
    first.flush()
    other = EncoderModel(
        str(tiny_bge), ModelOptions(store=tmp_path, overrides=Overrides(**overrides))
    )
    stored = other._encode(texts, Form(), "encode")
    assert other.machine_settings() == sizes(other) and other._encoder is None
    plain = EncoderModel(str(tiny_bge), ModelOptions(store=False, overrides=Overrides(**overrides)))
    np.testing.assert_allclose(stored, plain._encode(texts, Form(), "encode"), atol=1e-6)
    assert sizes(other) == sizes(plain)


def test_stored_vectors_are_not_taken_for_longer_ones(tiny_bge: Path, tmp_path: Path) -> None:
    first = EncoderModel(str(tiny_bge), ModelOptions(store=tmp_path))
    first._encode(["one"], Form(), "encode")
    first.flush()
    overrides = Overrides(truncate_dim=65)
    longer = EncoderModel(str(tiny_bge), ModelOptions(store=tmp_path, overrides=overrides))
    with pytest.raises(UsageError, match="--truncate-dim 65 is more than the model's 64"):
        longer._encode(["one"], Form(), "encode")
    with pytest.raises(UsageError, match="no device 'gpu'"):
        open_model(str(tiny_bge), ModelOptions(store=tmp_path, device="gpu"))


def test_what_changes_a_vector_is_another_space(tiny_bge: Path, tmp_path: Path) -> None:
    first = EncoderModel(str(tiny_bge), ModelOptions(store=tmp_path))
    first._encode(["one"], Form(), "encode")
    for overrides in ({"max_length": 8}, {"pooling": Pooling.MEAN}):
        other = EncoderModel(
            str(tiny_bge), ModelOptions(store=tmp_path, overrides=Overrides(**overrides))
        )
        other._encode(["one"], Form(), "encode")
        assert "device" in other.machine_settings()
    other = EncoderModel(str(tiny_bge), ModelOptions(store=tmp_path))
    other._encode(["one"], Form("a prompt: "), "encode")
    assert "device" in other.machine_settings()


_KILLED = """
import os, signal, sys
from pathlib import Path
from bge_eval.models.form import Form
from bge_eval.encode.settings import Backend
from bge_eval.models.kinds import ModelOptions
from bge_eval.models.transformer import EncoderModel
options = ModelOptions(store=Path(sys.argv[2]), backend=Backend.TORCH, batch_tokens=256)
model = EncoderModel(sys.argv[1], options)
parts = model.encoder.parts
def killed(*args, **options):
    for number, part in enumerate(parts(*args, **options)):
        if number == 5:
            os.kill(os.getpid(), getattr(signal, sys.argv[3]))
        yield part
model.encoder.parts = killed
texts = [f"text number {i} of many" + i % 7 * " and more" for i in range(400)]
model._encode(texts, Form(), "encode")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="sends a POSIX signal")
@pytest.mark.parametrize(
    "name",
    [
        "SIGKILL",
        pytest.param("SIGTERM", marks=pytest.mark.slow),
        pytest.param("SIGINT", marks=pytest.mark.slow),
    ],
)
def test_a_killed_run_goes_on_where_it_stopped(tmp_path: Path, tiny_bge: Path, name: str) -> None:
    """Killed in the midst of a window: every finished batch is stored, and nothing is different."""
    command = [sys.executable, "-c", _KILLED, str(tiny_bge), str(tmp_path), name]
    killed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert killed.returncode != 0, killed.stderr
    [entry] = stored_spaces(tmp_path)
    assert 50 < entry.texts < 400
    texts = [f"text number {i} of many" + i % 7 * " and more" for i in range(400)]
    options = ModelOptions(store=False, backend=Backend.TORCH, batch_tokens=256)
    plain = EncoderModel(str(tiny_bge), options)
    expected = plain._encode(texts, Form(), "encode")
    again = EncoderModel(str(tiny_bge), replace(options, store=tmp_path))
    counted = _Counted(again)
    assert np.array_equal(again._encode(texts, Form(), "encode"), expected)
    assert len(counted.texts) == 400 - entry.texts
    again.flush()
    assert not list(tmp_path.glob("*/*.journal")) and not list(tmp_path.glob("*/*.lock"))
    assert stored_spaces(tmp_path)[0].texts == 400


def test_a_finished_evaluation_holds_no_journal(tiny_bge: Path, small_scifact: Path) -> None:
    """A process may evaluate many models: each would keep two files open, and its vectors."""
    store = small_scifact.parent / "store"
    model = EncoderModel(str(tiny_bge), ModelOptions(store=store, backend=Backend.TORCH))
    options = Options(small_scifact.parent / "output", (small_scifact,), offline=True)
    assert not evaluate(model, plan(["SciFact"]), options).failed
    assert list(store.glob("*/*.shard")) and not list(store.glob("*/*.journal"))
    model._encode(["a text of nobody's task"], Form(), "encode")
    assert list(store.glob("*/*.journal"))
    del model
    gc.collect()
    assert not list(store.glob("*/*.journal"))


def test_the_journal_of_a_running_process_is_left_alone(tmp_path: Path) -> None:
    keys, vectors = text_keys([f"text {i}" for i in range(20)]), rows(20)
    running = space(tmp_path)
    running.put(keys[:10], vectors[:10])
    running.put(keys[10:], vectors[10:])
    [journal] = tmp_path.glob("*/*.journal")
    assert space(tmp_path).get(keys)[1] is None and journal.is_file()
    copy = journal.with_name("1.journal")  # a journal of a process that has died
    copy.write_bytes(journal.read_bytes()[:-1])  # while it wrote its second batch
    lock = journal.with_name("2.lock")  # of one that died after its journal was removed
    lock.touch()
    known, found = space(tmp_path).get(keys)
    assert known.tolist() == [True] * 10 + [False] * 10
    assert found is not None and np.array_equal(found, vectors[:10])
    assert not copy.exists() and not lock.exists() and journal.is_file()
    assert len(list(tmp_path.glob("*/*.shard"))) == 1


def test_a_damaged_journal_is_named(tmp_path: Path) -> None:
    keys, vectors = text_keys([f"text {i}" for i in range(20)]), rows(20)
    dead = space(tmp_path)
    dead.put(keys[:10], vectors[:10])
    dead.put(keys[10:], vectors[10:])
    [journal] = tmp_path.glob("*/*.journal")
    content = bytearray(journal.read_bytes())
    content[-1] ^= 1
    copy = journal.with_name("1.journal")
    copy.write_bytes(content)
    notes: list[str] = []
    known, _ = space(tmp_path, notes.append).get(keys)
    assert known.tolist() == [True] * 10 + [False] * 10
    assert len(notes) == 1 and str(copy) in notes[0] and "computed again" in notes[0]


@pytest.mark.skipif(sys.platform == "win32", reason="a limit of POSIX")
def test_a_limit_on_the_size_of_files(tmp_path: Path) -> None:
    code = (
        "import resource; from pathlib import Path; import numpy as np;"
        "from bge_eval.encode.shards import text_keys;"
        "from bge_eval.encode.store import EmbeddingStore;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000));"
        f"s = EmbeddingStore(Path({str(tmp_path)!r}), print).space('org/model', {FACTS!r});"
        "[s.put(text_keys([str(i)]), np.full((1, 64), i, 'f4')) for i in range(1, 9)];"
        "s.flush(); print(s.get(text_keys(['8']))[0])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("no longer stored") == 1 and "File too large" in done.stdout
    known, found = space(tmp_path).get(text_keys([str(i) for i in range(1, 9)]))
    assert known.tolist() == [True] * 3 + [False] * 5
    assert found is not None and np.array_equal(found[:, 0], [1, 2, 3])


def test_a_shard_of_version_0_1_0_is_read(tmp_path: Path) -> None:
    """The bytes that 0.1.0 wrote: header, sorted keys, rows, vectors."""
    import struct
    import zlib

    keys, vectors = text_keys(["a", "b", "c"]), rows(3)
    order = sorted(range(3), key=lambda row: int(keys[row, 0]))
    body = b"".join(struct.pack("<Q", int(keys[row, half])) for half in (0, 1) for row in order)
    body += b"".join(struct.pack("<I", row) for row in order) + vectors.tobytes()
    header = struct.pack("<16sQQQ", b"bge-eval shard 1", 3, 8, zlib.crc32(body))
    folder = space(tmp_path)._folder
    folder.mkdir(parents=True)
    (folder / f"{7:020d}-00000000.shard").write_bytes(header + body)
    known, found = space(tmp_path).get(keys[::-1])
    assert known.all() and found is not None and np.array_equal(found, vectors[::-1])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux counts the pages")
def test_reading_a_store_keeps_none_of_it_in_memory(tmp_path: Path) -> None:
    def mapped() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("RssFile")).split()[1]) * 1024

    texts, vectors = [f"text {i}" for i in range(24_000)], rows(24_000, 384)
    filled = space(tmp_path)
    for start in range(0, len(texts), 8_000):
        part = slice(start, start + 8_000)
        filled.put(text_keys(texts[part]), vectors[part])
        filled.flush()
    read = space(tmp_path)
    before = mapped()
    for start in range(0, len(texts), 3_000):
        part = slice(start, start + 3_000)
        _, found = read.get(text_keys(texts[part]))
        assert found is not None and np.array_equal(found, vectors[part])
        assert read.knows(text_keys(texts[part])).all()
    assert mapped() - before < vectors.nbytes / 4


def test_what_a_killed_process_had_begun_is_removed_after_a_day(tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path)
    space = store.space("model", {"model": "m"})
    space.put(text_keys(["a"]), np.ones((1, 2), np.float32))
    store.flush()
    [folder] = tmp_path.iterdir()
    for name, age in ((".0123-old", 90_000), (".0123-new", 60)):
        (folder / name).write_bytes(b"half")
        os.utime(folder / name, (time.time() - age,) * 2)
    EmbeddingStore(tmp_path).space("model", {"model": "m"})
    assert not (folder / ".0123-old").exists() and (folder / ".0123-new").exists()
