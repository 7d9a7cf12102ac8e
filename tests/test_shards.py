"""Parts of corpora: whatever encodes them, in whatever order, the result is one machine's."""

from __future__ import annotations

import itertools
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from bge_eval.encode.merge import merge
from bge_eval.encode.part import Part, SeenKeys, Share, parse_part
from bge_eval.encode.settings import Backend
from bge_eval.encode.shards import headers, read_shard, text_keys
from bge_eval.errors import DamagedError, MissingError, StorageError, UsageError
from bge_eval.evaluation.evaluate import evaluate
from bge_eval.evaluation.options import Options
from bge_eval.models.kinds import ModelOptions
from bge_eval.models.transformer import EncoderModel
from bge_eval.results.markers import progressions, read_markers
from bge_eval.results.store import ResultStore
from bge_eval.scale.sharded import encode_part
from bge_eval.suites.catalogue import plan
from conftest import CommandLine, write_beir

WORDS = ["vitamin", "bone", "sleep", "memory", "insulin", "honey", "bee", "dance", "糖尿病", "体重"]
DOCUMENTS = 5_000


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Documents of two windows, many of them equal, some equal to a query."""
    draw = random.Random(5)
    texts = [" ".join(draw.choices(WORDS, k=draw.randint(2, 9))) for _ in range(DOCUMENTS)]
    queries = {f"q{n}": " ".join(draw.choices(WORDS, k=draw.randint(2, 5))) for n in range(40)}
    texts[4000:4020] = list(queries.values())[:20]
    texts[4500:4700] = texts[100:300]
    qrels = [(query, f"d{draw.randrange(DOCUMENTS)}", 1) for query in queries]
    folder = tmp_path_factory.mktemp("data") / "generated"
    corpus = [{"_id": f"d{n}", "text": text} for n, text in enumerate(texts)]
    return write_beir(folder, corpus, queries, qrels)


def opened(model: Path, store: Path) -> EncoderModel:
    options = ModelOptions(store=store, backend=Backend.TORCH, batch_tokens=512, offline=True)
    return EncoderModel(str(model), options)


def encode(
    model: Path, store: Path, collection: Path, part: str, *, searches: bool = False
) -> None:
    done = encode_part(
        opened(model, store),
        plan([str(collection)]),
        Options(output=store / "unused", offline=True),
        parse_part(part, {}),
        searches=searches,
    )
    assert not done.failed and len(done.markers) == 1


def run(model: EncoderModel, collection: Path, output: Path) -> dict[object, object]:
    report = evaluate(model, plan([str(collection)]), Options(output=output, offline=True))
    assert not report.failed
    [[path]] = report.done.values()
    return {key: list(run.items()) for key, run in ResultStore(output).load_runs(path).items()}


def stored(store: Path) -> dict[tuple[int, ...], bytes]:
    """Return the vectors of a store by key, and fail where a key has two different ones."""
    vectors: dict[tuple[int, ...], bytes] = {}
    for path in store.glob("*/*.shard"):
        shard = read_shard(path)
        for key, vector in zip(shard.keys().tolist(), shard.vectors, strict=True):
            assert vectors.setdefault(tuple(key), vector.tobytes()) == vector.tobytes()
    return vectors


@pytest.fixture(scope="module")
def single(tiny_bge: Path, collection: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store and the results of one machine."""
    folder = tmp_path_factory.mktemp("single")
    model = opened(tiny_bge, folder / "store")
    run(model, collection, folder / "results")
    model.flush()
    return folder


def results(folder: Path) -> dict[object, object]:
    [path] = folder.glob("results/*/*/**/generated.json")
    return {k: list(run.items()) for k, run in ResultStore(folder).load_runs(path).items()}


@pytest.mark.parametrize("order", ["1/2 2/2", "3/3 1/3 2/3", "2/5 5/5 1/5 4/5 3/5"])
def test_parts_with_stores_of_their_own_give_the_result_of_one_machine(
    order: str, tiny_bge: Path, collection: Path, single: Path, tmp_path: Path
) -> None:
    for part in order.split():
        encode(tiny_bge, tmp_path / part.replace("/", "of"), collection, part)
    stores = sorted(tmp_path.iterdir())
    held = [sum(n for path in s.glob("*/*.shard") for n, _ in headers(path)) for s in stores]
    whole = stored(single / "store")
    assert sum(held) == len(whole) and max(held) < 1.25 * len(whole) / len(stores) + 60
    for store in stores:
        merge(store, tmp_path / "merged")
    again = merge(stores[0], tmp_path / "merged")
    assert (again.added, again.present) == (0, held[0])
    assert stored(tmp_path / "merged") == whole
    model = opened(tiny_bge, tmp_path / "merged")
    assert run(model, collection, tmp_path / "out") == results(single / "results")
    assert model._encoder is None  # everything was found: no weights were loaded


def test_parts_are_searched_where_they_are_encoded(
    tiny_bge: Path, collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five chunks; texts of one part that are first in another, and equal scores at the cut."""
    from bge_eval.search import exact

    monkeypatch.setattr(exact, "_CHUNK_ROWS", (1024, 1024))
    expected = run(opened(tiny_bge, tmp_path / "single"), collection, tmp_path / "single-out")
    for part in ("3/3", "1/3", "2/3"):
        own = tmp_path / f"own-{part[0]}"
        encode(tiny_bge, own, collection, part, searches=True)
        model = opened(tiny_bge, tmp_path / "searches")
        model.merges_searches = True
        if part != "2/3" and (tmp_path / "searches").exists():
            failed = evaluate(
                model, plan([str(collection)]), Options(output=tmp_path / "no", offline=True)
            ).failed
            assert "of 3 parts only" in str(failed["generated"])
        searches = list(own.rglob("*.npz"))
        assert len(searches) == 1
        target = tmp_path / "searches" / searches[0].relative_to(own)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(searches[0], target)  # the vectors of the documents stay where they are
    model = opened(tiny_bge, tmp_path / "searches")
    model.merges_searches = True
    assert run(model, collection, tmp_path / "out") == expected
    target.write_bytes(target.read_bytes()[:-100])
    model = opened(tiny_bge, tmp_path / "searches")
    model.merges_searches = True
    options = Options(output=tmp_path / "again", offline=True)
    failure = evaluate(model, plan([str(collection)]), options).failed["generated"]
    assert isinstance(failure, DamagedError) and str(target) in str(failure)


@pytest.mark.slow
def test_a_shared_store_that_two_processes_fill_and_one_is_killed(
    tiny_bge: Path, collection: Path, single: Path, tmp_path: Path
) -> None:
    """2/3 twice at once, 1/3 killed and repeated, then 3/3."""
    store = tmp_path / "store"

    def process(part: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "bge_eval", "run", "--model", str(tiny_bge), "--offline"]
        command += ["--tasks", str(collection), "--store", str(store), "--shard", part]
        command += ["--backend", "torch", "--batch-tokens", "512"]
        return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path)

    both = [process("2/3"), process("2/3")]
    assert [each.wait(120) for each in both] == [0, 0], [each.communicate() for each in both]
    before = set(store.glob("*/*"))
    killed = process("1/3")
    while killed.poll() is None and not [
        path for path in set(store.glob("*/*.journal")) - before if path.stat().st_size
    ]:
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    killed.communicate()
    [progress] = progressions(store, read_markers(store))
    assert progress.done == (2,) and progress.missing == (1, 3) and not progress.stale
    for part in ("1/3", "3/3"):
        encode(tiny_bge, store, collection, part)
    assert stored(store) == stored(single / "store")
    [progress] = progressions(store, read_markers(store))
    assert progress.done == (1, 2, 3) and progress.missing == ()
    model = opened(tiny_bge, store)
    assert run(model, collection, tmp_path / "out") == results(single / "results")
    for each in both:
        assert "Next: bge-eval shards" in each.communicate()[1].replace("\n", " ")


def test_every_batch_belongs_to_one_part() -> None:
    for count, windows, together in itertools.product(
        (1, 2, 3, 7), (0, 1, 2, 5, 22), (None, 1, 11)
    ):
        shares = [Share(Part(n + 1, count), windows, 0, together) for n in range(count)]
        loads = [0] * count
        for window, batch in itertools.product(range(windows), range(40)):
            takes = [share.takes(window, batch) for share in shares]
            assert sum(takes) == 1
            loads[takes.index(True)] += 1
            some = [share.takes_some_of(window) for share in shares]
            assert all(may for may, does in zip(some, takes, strict=True) if does)
            later = [s.beginning(window).takes(0, batch) for s in shares]
            assert later == takes
        if together is None:
            assert max(loads) - min(loads) <= 40 + count  # one window of 40 batches


def test_seen_texts() -> None:
    keys = text_keys([f"text {number % 700}" for number in range(2_000)])
    seen, known = SeenKeys(), set[int]()
    for start in range(0, 2_000, 37):
        distinct = np.unique(keys[start : start + 37], axis=0)
        expected = [int(half) not in known for half in distinct[:, 0]]
        assert seen.add(distinct).tolist() == expected
        known |= set(map(int, distinct[:, 0]))
    assert not seen.add(keys[:0]).any()


SLURM = {
    "SLURM_ARRAY_TASK_ID": "6",
    "SLURM_ARRAY_TASK_COUNT": "3",
    "SLURM_ARRAY_TASK_MIN": "2",
    "SLURM_ARRAY_TASK_STEP": "2",
}


def test_the_part_of_a_job_array() -> None:
    assert parse_part("slurm", SLURM) == Part(3, 3)
    assert parse_part("SLURM", {**SLURM, "SLURM_ARRAY_TASK_ID": "2"}) == Part(1, 3)
    assert parse_part("1/2", SLURM) == Part(1, 2)  # an array says nothing unless it is asked
    from_zero = {**SLURM, "SLURM_ARRAY_TASK_MIN": "0", "SLURM_ARRAY_TASK_STEP": "1"}
    assert parse_part("slurm", {**from_zero, "SLURM_ARRAY_TASK_ID": "0"}) == Part(1, 3)


@pytest.mark.parametrize(
    ("text", "environment", "words"),
    [
        ("0/3", {}, "names part 0 of 3"),
        ("4/3", {}, "names part 4 of 3"),
        ("1/0", {}, "part 1 of 0"),
        ("2 of 3", {}, "such as 1/3"),
        ("-1/3", {}, "such as 1/3"),
        ("slurm", {}, "SLURM_ARRAY_TASK_ID, which is not set"),
        ("slurm", {**SLURM, "SLURM_ARRAY_TASK_COUNT": "x"}, "SLURM_ARRAY_TASK_COUNT"),
        ("slurm", {**SLURM, "SLURM_ARRAY_TASK_ID": "8"}, "part 4 of 3"),
    ],
)
def test_a_wrong_part_is_refused(text: str, environment: dict[str, str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse_part(text, environment)


def test_the_commands(bge_eval: CommandLine, small_scifact: Path, tiny_bge: Path) -> None:
    store = small_scifact / "store"
    base = ["run", "--model", tiny_bge, "--tasks", "SciFact", "--data-dir", small_scifact]
    base += ["--offline", "--allow-other-data", "--store", store]
    nothing = bge_eval("shards", "--store", store)
    assert nothing.returncode == 3 and "no part of a task" in nothing.stderr
    first = bge_eval(*base, "--shard", "2/2")
    assert first.returncode == 0 and "Part 2/2 is done" in first.stderr, first.stderr
    missing = bge_eval("shards", "--store", store)
    assert missing.returncode == 1 and "1 of 2" in missing.stdout and "missing 1" in missing.stdout
    assert bge_eval(*base, "--shard", "1/2").returncode == 0
    complete = bge_eval("shards", "--store", store)
    assert complete.returncode == 0 and "2 of 2" in complete.stdout
    whole = bge_eval(*base, "--profile")
    assert whole.returncode == 0 and "load model" not in whole.stderr, whole.stderr
    other = small_scifact / "other"
    merged = bge_eval("store", "merge", store, "--store", other)
    assert merged.returncode == 0 and "8 vectors added, 0 were there" in merged.stderr
    assert bge_eval("shards", "--store", other).stdout == complete.stdout
    for path in other.glob("*/*.shard"):
        path.unlink()
    removed = bge_eval("shards", "--store", other)
    assert removed.returncode == 1 and "vectors were removed" in removed.stderr


def test_a_part_of_other_versions_is_stale(
    bge_eval: CommandLine, small_scifact: Path, tiny_bge: Path
) -> None:
    store = small_scifact / "store"
    encode(tiny_bge, store, small_scifact / "scifact", "1/1")
    [path] = store.glob("parts/*/*-1-of-1.json")
    marker = json.loads(path.read_text())
    marker["packages"]["torch"] = "1.13.0"
    path.write_text(json.dumps(marker))
    done = bge_eval("shards", "--store", store)
    assert done.returncode == 1 and "stale" in done.stdout and "torch 1.13.0 →" in done.stderr
    path.write_text("{}")
    done = bge_eval("shards", "--store", store)
    assert done.returncode == 3 and str(path) in done.stderr.replace("\n", "")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--shard", "3/2"], "part 3 of 2"),
        (["--shard", "1/2", "--no-store"], "--no-store"),
        (["--shard", "1/2", "--overwrite"], "--overwrite"),
        (["--shard", "1/2", "--reranker", "x/y"], "--reranker"),
        (["--search-shards", "--index", "HNSW16"], "--search-shards"),
        (["--search-shards", "--model", "bm25"], "--search-shards"),
        (["--shard", "1/2", "--model", "bm25"], "stores no vectors"),
    ],
)
def test_what_contradicts_a_part_is_refused(
    options: list[str], words: str, bge_eval: CommandLine, small_scifact: Path, tiny_bge: Path
) -> None:
    command = ["run", "--tasks", "SciFact", "--data-dir", str(small_scifact), "--offline"]
    model = [] if "--model" in options else ["--model", str(tiny_bge)]
    done = bge_eval(*command, *model, "--allow-other-data", *options)
    assert done.returncode == 2 and words in done.stderr.replace("\n", " "), done.stderr


def test_a_damaged_file_is_not_merged(tiny_bge: Path, collection: Path, tmp_path: Path) -> None:
    encode(tiny_bge, tmp_path / "one", collection, "1/9")
    [path] = (tmp_path / "one").glob("*/*.shard")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    done = merge(tmp_path / "one", tmp_path / "two")
    assert done.added == 0 and str(path) in done.damaged[0] and path.is_file()
    with pytest.raises(MissingError, match="no store"):
        merge(tmp_path / "nowhere", tmp_path / "two")
    with pytest.raises(UsageError, match="the store itself"):
        merge(tmp_path / "two", tmp_path / "two")
    [facts] = (tmp_path / "two").glob("*/space.json")
    facts.write_text(facts.read_text().replace('"mean"', '"cls"').replace('"cls"', '"max"'))
    with pytest.raises(DamagedError, match="different vectors"):
        merge(tmp_path / "one", tmp_path / "two")


def test_a_journal_of_a_killed_process_is_merged(tmp_path: Path) -> None:
    from bge_eval.encode.store import EmbeddingStore

    space = EmbeddingStore(tmp_path / "one").space("org/model", {"prompt": ""})
    keys, vectors = text_keys(["a", "b", "c"]), np.eye(3, 8, dtype=np.float32)
    space.put(keys, vectors)  # and no flush
    assert merge(tmp_path / "one", tmp_path / "two").added == 3
    known, found = EmbeddingStore(tmp_path / "two").space("org/model", {"prompt": ""}).get(keys)
    assert known.all() and found is not None and np.array_equal(found, vectors)


def test_a_part_that_cannot_store_ends_at_once(
    tiny_bge: Path, collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type(shutil.disk_usage(tmp_path))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, 0))
    with pytest.raises(StorageError, match="full"):
        encode(tiny_bge, tmp_path / "store", collection, "1/2")
    assert not list((tmp_path / "store" / "parts").rglob("*.json"))
