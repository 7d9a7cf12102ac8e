"""A Ray cluster: the result is one machine's, whatever computes it and whatever dies.

The clusters are real: Ray's own test cluster of two nodes, and two `ray start` processes.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from bge_eval.encode.settings import Backend
from bge_eval.encode.shards import headers
from bge_eval.errors import NotReadyError, UsageError
from bge_eval.models.form import Form
from bge_eval.models.kinds import ModelOptions
from bge_eval.models.spread import Elsewhere, _pieces
from bge_eval.models.transformer import EncoderModel
from bge_eval.results.record import read_record
from bge_eval.results.unfinished import FOLDER
from bge_eval.runtime.batches import PairRule
from bge_eval.scale.cluster import ClusterOptions, Sizes, refuse_loopback, sizes
from bge_eval.scale.worker import EncoderSpec, Failure, Worker
from conftest import BUILTIN, CommandLine, write_beir
from test_shards import stored

WORDS = ["vitamin", "bone", "sleep", "memory", "insulin", "honey", "bee", "dance", "糖尿病", "体重"]
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0f" * 32}


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Documents of three windows, many of them equal to each other or to a query."""
    draw = random.Random(5)
    texts = [" ".join(draw.choices(WORDS, k=draw.randint(2, 40))) for _ in range(12_000)]
    queries = {f"q{n}": " ".join(draw.choices(WORDS, k=draw.randint(2, 5))) for n in range(40)}
    texts[4000:4020] = list(queries.values())[:20]
    texts[4500:4700] = texts[100:300]
    texts[9000:9200] = texts[100:300]
    qrels = [(query, f"d{draw.randrange(len(texts))}", 1) for query in queries]
    folder = tmp_path_factory.mktemp("data") / "generated"
    return write_beir(
        folder, [{"_id": f"d{n}", "text": t} for n, t in enumerate(texts)], queries, qrels
    )


@pytest.fixture(scope="module")
def similarity(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with pairs of sentences, which are not searched."""
    draw = random.Random(6)
    folder = tmp_path_factory.mktemp("data") / "STSBenchmark"
    folder.mkdir()
    rows = [
        {
            "sentence1": " ".join(draw.choices(WORDS, k=draw.randint(2, 30))),
            "sentence2": " ".join(draw.choices(WORDS, k=draw.randint(2, 30))),
            "score": draw.random() * 5,
        }
        for _ in range(600)
    ]
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    (folder / "test.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder.parent


Command = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Command]:
    """Start the real command in an empty folder; it is killed with the test."""
    with ExitStack() as running:

        def call(*words: str | Path, env: Mapping[str, str] | None = None) -> Any:
            process = subprocess.Popen(
                [sys.executable, "-m", "bge_eval", "run", *map(str, words)],
                cwd=tmp_path,
                env={**os.environ, "COLUMNS": "160", "OMP_NUM_THREADS": "1", **(env or {})},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            running.callback(process.kill)
            return process

        yield call


def finished(process: subprocess.Popen[str]) -> str:
    """Wait for a command and return what it printed on stderr."""
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    return errors


def results(output: Path) -> dict[str, bytes]:
    """Return the runs and items of all results, by path."""
    kinds = ("*.run.tsv.gz", "*.queries.tsv.gz", "*.items.tsv.gz")
    return {
        path.relative_to(output).as_posix(): path.read_bytes()
        for kind in kinds
        for path in output.rglob(kind)
    }


def records(output: Path) -> dict[str, Any]:
    """Return the run.json of every result, by task and whether it was reranked."""
    paths = [path for path in output.glob("results/**/*.json") if "." not in path.stem]
    paths = [path for path in paths if (path.parent / path.stem / "run.json").is_file()]
    return {f"{path.stem}{'+' * ('rerank' in str(path))}": read_record(path) for path in paths}


@contextmanager
def nodes(*more: Sequence[str]) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """Start a head and other nodes with `ray start`; yield the address and the processes."""
    ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"]
    common = ["--num-cpus", "1", "--object-store-memory", str(2**27), "--node-ip-address"]
    common += ["127.0.0.1", "--include-log-monitor", "false"]
    with ExitStack() as started:
        port = 20000 + os.getpid() % 20000

        def begun(*words: str) -> subprocess.Popen[bytes]:
            process = subprocess.Popen(
                [*ray, *common, *words],
                env={**os.environ, **TOKEN, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1"},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            started.callback(_ended, process)
            return process

        head = begun("--head", "--port", str(port), "--include-dashboard", "false")
        time.sleep(4)
        yield f"127.0.0.1:{port}", [head, begun("--address", f"127.0.0.1:{port}")]


def _ended(process: subprocess.Popen[bytes]) -> None:
    """End a node, all processes of its session included."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(15)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def workers_of(process: subprocess.Popen[Any]) -> list[int]:
    """Return the actors of bge-eval among a node's processes."""
    listed = subprocess.run(
        ["ps", "-A", "-o", "pid=,sess=,args="], capture_output=True, text=True, check=True
    ).stdout
    found = [line.split(None, 2) for line in listed.splitlines() if "ray::Worker" in line]
    return [int(pid) for pid, session, _ in found if int(session) == process.pid]


def stored_texts(store: Path) -> int:
    """Return how many vectors a store holds on the disk."""
    total = 0
    for path in [*store.glob("*/*.shard"), *store.glob("*/*.journal")]:
        with suppress(OSError):
            total += sum(count for count, _ in headers(path))
    return total


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait until something holds, while the command runs."""
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


@pytest.mark.slow
def test_a_cluster_with_a_token_whose_worker_and_then_node_die(
    tiny_bge: Path, collection: Path, start: Command, tmp_path: Path
) -> None:
    pytest.importorskip("ray", reason="needs Ray: pip install 'bge-eval[ray]'")
    base = ["--model", tiny_bge, "--tasks", collection, "--offline", "--backend", "torch"]
    base += ["--batch-tokens", "512"]
    single = start(*base, "--store", "single", "--output", "one")
    cluster = ["--engine", "ray", "--workers", "2", "--store", "spread", "--output", "many"]
    with nodes() as (address, (_, second)):
        cluster += ["--ray-address", address]
        finished(single)
        # In folders of its own: beside the run, it would take the finished result of the run.
        apart = ["--store", "apart", "--output", "apart"]
        wrong = start(*base, *cluster, *apart, env={**TOKEN, "RAY_AUTH_TOKEN": "0e" * 32})
        run = start(*base, *cluster, env=TOKEN)
        store = tmp_path / "spread"
        wait_for(lambda: stored_texts(store) > 100 and bool(workers_of(second)), run)
        killed = workers_of(second)
        os.kill(killed[0], signal.SIGKILL)
        wait_for(lambda: bool(set(workers_of(second)) - set(killed)), run)
        wait_for(lambda: stored_texts(store) > 5_000, run)
        os.killpg(second.pid, signal.SIGKILL)
        errors = finished(run)
        assert wrong.wait(60) == 3
        assert "another token" in " ".join(wrong.communicate()[1].split())
    assert errors.count("it is replaced") >= 2, errors
    assert results(tmp_path / "many") == results(tmp_path / "one")
    assert stored(tmp_path / "spread") == stored(tmp_path / "single")
    one, many = records(tmp_path / "one")["generated"], records(tmp_path / "many")["generated"]
    assert many.identity_digest == one.identity_digest
    assert one.profile.workers == {}
    for phase in ("load", "encode queries", "encode corpus", "search"):
        assert one.profile.counts[phase] == many.profile.counts[phase], phase
    done = list(many.profile.workers.values())
    assert sum(each.retries for each in done) >= 2 and all(each.machine for each in done)
    assert sum(each.items for each in done) >= len(stored(tmp_path / "single"))


@contextmanager
def cluster_of_two() -> Iterator[tuple[str, int, Callable[[], None]]]:
    """Open Ray's own test cluster; yield its address, the second raylet, what removes that node."""
    with subprocess.Popen(
        [sys.executable, Path(__file__).with_name("two_nodes.py")],
        env={**os.environ, **TOKEN, "RAY_USAGE_STATS_ENABLED": "0"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        lines, ask = process.stdout, process.stdin

        def line(word: str) -> list[str]:
            for printed in lines:
                if printed.startswith(word):
                    return printed.split()[1:]
            raise AssertionError(f"no cluster of two nodes: it ended with {process.wait()}")

        def remove() -> None:
            print("remove", file=ask, flush=True)
            line("removed")

        try:
            address, raylet = line("cluster")
            yield address, int(raylet), remove
        finally:
            ask.close()


@pytest.mark.slow
def test_two_nodes_lose_a_worker_while_they_encode_and_a_node_while_they_rerank(
    tiny_bge: Path,
    tiny_cross_encoder: Path,
    collection: Path,
    start: Command,
    tmp_path: Path,
) -> None:
    """The first and the second stage; the worker dies in the first, its node in the second."""
    pytest.importorskip("ray", reason="needs Ray: pip install 'bge-eval[ray]'")
    base = ["--model", tiny_bge, "--tasks", collection, "--offline", "--backend", "torch"]
    base += ["--reranker", tiny_cross_encoder, "--rerank-top-k", "200", "--batch-tokens", "512"]
    single = start(*base, "--store", "single", "--output", "one")
    many = tmp_path / "many"
    with cluster_of_two() as (address, raylet, remove_the_second_node):
        finished(single)
        spread = ["--engine", "ray", "--ray-address", address, "--workers", "2"]
        run = start(*base, *spread, "--store", "spread", "--output", many, env=TOKEN)
        busy: set[int] = set()

        def computes() -> bool:
            busy.update(computing(raylet))
            return bool(busy)

        wait_for(lambda: stored_texts(tmp_path / "spread") > 100 and computes(), run)
        os.kill(busy.pop(), signal.SIGKILL)
        wait_for(lambda: scored_pairs(many) > 0 and computes(), run)
        remove_the_second_node()
        errors = finished(run)
    assert errors.count("it is replaced") == 2, errors
    assert results(many) == results(tmp_path / "one") and len(results(many)) == 4
    assert stored(tmp_path / "spread") == stored(tmp_path / "single")
    for stage in ("generated", "generated+"):
        done = records(many)[stage]
        assert done.identity_digest == records(tmp_path / "one")[stage].identity_digest
        assert sum(each.retries for each in done.profile.workers.values()) >= 1, stage


def computing(raylet: int) -> set[int]:
    """Return the workers of a node that do a job; Ray writes it into the process's title."""
    listed = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid=,args="], capture_output=True, text=True, check=True
    ).stdout
    rows = [line.split(None, 2) for line in listed.splitlines() if "ray::Worker.call" in line]
    return {int(pid) for pid, parent, _ in rows if int(parent) == raylet}


def scored_pairs(output: Path) -> int:
    """Return how many scores of pairs an unfinished task has on the disk."""
    return sum(stored_texts(folder) for folder in (output / FOLDER).glob("*"))


@pytest.mark.slow
def test_a_cluster_of_this_machine_reranks_and_encodes_pairs(
    tiny_bge: Path,
    tiny_cross_encoder: Path,
    collection: Path,
    similarity: Path,
    start: Command,
    tmp_path: Path,
) -> None:
    """First and second stage, a task without a search, no store; no other machine reaches it."""
    pytest.importorskip("ray", reason="needs Ray: pip install 'bge-eval[ray]'")
    base = ["--model", tiny_bge, "--tasks", f"{collection},STSBenchmark", "--offline", "--no-store"]
    base += ["--reranker", tiny_cross_encoder, "--rerank-top-k", "10", "--backend", "torch"]
    base += ["--data-dir", similarity, "--allow-other-data", "--batch-tokens", "1024"]
    single = start(*base, "--output", "one")
    run = start(*base, "--output", "many", "--engine", "ray", "--workers", "2")
    ports: set[str] = set()
    while run.poll() is None:
        ports |= listening(run.pid)
        time.sleep(0.2)
    errors = finished(run)
    finished(single)
    assert "2 workers" in errors and "no token" not in errors
    assert len(ports) >= 4 and {port.partition(":")[0] for port in ports} <= LOOPBACK, ports
    assert results(tmp_path / "many") == results(tmp_path / "one")
    assert len(results(tmp_path / "one")) == 5
    done = records(tmp_path / "many")
    for task in ("generated", "generated+", "STSBenchmark"):
        of_one = records(tmp_path / "one")[task]
        assert of_one.identity_digest == done[task].identity_digest
        assert len(done[task].profile.workers) == 2, task
    pairs = sum(each.items for each in done["generated+"].profile.workers.values())
    assert pairs == done["generated+"].profile.counts["rerank"] == 400


LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F"}
"""127.0.0.1 in the kernel's tables."""


def _table(name: str) -> list[str]:
    return Path(f"/proc/net/{name}").read_text().splitlines()


def listening(parent: int) -> set[str]:
    """Return the addresses on which a process and those it started accept connections."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    family = {parent}
    while more := {child for child, of in parents.items() if of in family} - family:
        family |= more
    sockets: set[str] = set()
    for process in family:
        with suppress(OSError):
            for handle in Path(f"/proc/{process}/fd").iterdir():
                with suppress(OSError):
                    sockets.add(handle.readlink().name.removeprefix("socket:[").rstrip("]"))
    rows = [line.split() for name in ("tcp", "tcp6") for line in _table(name)]
    return {row[1] for row in rows if row[3] == "0A" and row[9] in sockets}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--workers", "2"], "add --engine ray"),
        (["--ray-address", "auto"], "add --engine ray"),
        (["--engine", "ray", "--shard", "1/2"], "--shard"),
        (["--engine", "ray", "--estimate"], "--estimate"),
        (["--engine", "ray", "--device", "cuda:1"], "--device cuda:1"),
        (["--engine", "ray", "--device", "cpu", "--gpus-per-worker", "1"], "contradict"),
        (["--engine", "ray", "--ray-address", "head"], "host:port"),
        (["--engine", "ray", "--ray-address", "ray://head:10001"], "ray://"),
        (["--engine", "ray", "--ray-address", "8.8.8.8:6379"], "public address"),
        (["--engine", "ray", "--model", "bm25"], "bm25 is none"),
    ],
)
def test_what_contradicts_a_cluster_is_refused(
    options: list[str], words: str, bge_eval: CommandLine, small_scifact: Path, tiny_bge: Path
) -> None:
    command = ["run", "--tasks", "SciFact", "--data-dir", str(small_scifact), "--offline"]
    model = [] if "--model" in options else ["--model", str(tiny_bge)]
    done = bge_eval(*command, *model, "--allow-other-data", *options)
    assert done.returncode == 2 and words in done.stderr.replace("\n", " "), done.stderr


def test_a_cluster_that_listens_on_the_loopback_address_alone_is_named_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as head:
        port = head.getsockname()[1]
        with pytest.raises(NotReadyError, match=f"connects to 127.0.0.2:{port} instead"):
            refuse_loopback(f"127.0.0.1:{port}", "127.0.0.2")
        refuse_loopback(f"127.0.0.1:{port}", "127.0.0.1")
    refuse_loopback(f"127.0.0.1:{port}", "127.0.0.2")  # none at all: Ray waits for it to start


def test_what_contradicts_a_cluster_is_refused_in_python(tmp_path: Path) -> None:
    import bge_eval as api

    loaded = api.load_model(BUILTIN, offline=True)
    model: Any
    engine: Any
    for model, engine, words in (
        (BUILTIN, "dask", 'it is "ray"'),
        (BUILTIN, ClusterOptions(workers=0), "1 or more"),
        (BUILTIN, ClusterOptions("8.8.8.8:6379"), "public address"),
        (loaded, "ray", "Give names"),
    ):
        with pytest.raises(UsageError, match=words):
            api.evaluate(model, "demo", engine=engine, output=tmp_path, offline=True)


def test_a_worker_with_other_files_of_the_model_is_refused(
    tiny_bge: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # a worker sets it, and the test restores it
    other = Path(shutil.copytree(tiny_bge, tmp_path / tiny_bge.name))
    pooling = other / "1_Pooling" / "config.json"
    pooling.write_text(pooling.read_text().replace("cls", "mean"))
    options = ModelOptions(store=False, offline=True, backend=Backend.TORCH)
    facts = EncoderModel(str(tiny_bge), options).facts(Form(), "")
    worker = Worker(1, offline=False)
    assert isinstance(
        worker.call("open_encoder", EncoderSpec(str(tiny_bge), options, facts)), Elsewhere
    )
    failure = worker.call("open_encoder", EncoderSpec(str(other), options, facts))
    assert isinstance(failure, Failure) and failure.kind == "UsageError"
    assert "same files of the model" in failure.message and "revision" in failure.message


def test_without_ray_the_extra_is_named(
    bge_eval: CommandLine, tiny_bge: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bge_eval.scale import cluster

    monkeypatch.setattr(cluster, "find_spec", lambda name: None)
    done = bge_eval("run", "--model", tiny_bge, "--tasks", "demo", "--offline", "--engine", "ray")
    assert done.returncode == 3 and "pip install 'bge-eval[ray]'" in done.stderr.replace("\n", " ")


class _Ray:
    """The nodes of a cluster, as Ray lists them."""

    def __init__(self, *resources: dict[str, float]) -> None:
        self.resources = resources

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": each} for each in self.resources]


def test_workers_fit_the_nodes() -> None:
    options = ClusterOptions
    two = _Ray({"CPU": 8}, {"CPU": 8})
    assert sizes(two, options()) == Sizes(2, 8, 0)
    assert sizes(two, options(workers=3)) == Sizes(3, 4, 0)  # one node takes two of them
    assert sizes(two, options(workers=16)) == Sizes(16, 1, 0)
    with pytest.raises(UsageError, match="room for 16 workers"):
        sizes(two, options(workers=17))
    mixed = _Ray({"CPU": 16, "GPU": 4}, {"CPU": 8, "GPU": 3}, {"CPU": 4})
    assert sizes(mixed, options()).workers == 7
    assert sizes(mixed, options(gpus_per_worker=2)).workers == 3
    assert sizes(mixed, options(gpus_per_worker=0)).gpus == 0
    with pytest.raises(UsageError, match="room for 3 workers with 2 GPU"):
        sizes(mixed, options(workers=4, gpus_per_worker=2))


def test_consecutive_batches_of_pairs_are_made_again() -> None:
    """A worker that gets some batches makes exactly these; so scores do not depend on it."""
    draw = random.Random(1)
    pairs = [("q" * draw.randint(1, 9), "d" * draw.randint(1, 90)) for _ in range(900)]
    rule = PairRule(lambda texts: [len(text) for text in texts], 300, 80, 3)
    whole = [batch.rows.tolist() for batch in rule.batches(pairs)]
    for first in range(0, len(whole), 3):
        rows = [row for batch in whole[first : first + 3] for row in batch]
        again = rule.batches([pairs[row] for row in rows])
        assert [[rows[row] for row in batch.rows] for batch in again] == whole[first : first + 3]


def test_few_windows_are_cut_and_many_are_not() -> None:
    for workers in (1, 2, 7, 64):
        pieces = [_pieces(4096, left, workers) for left in range(1000, 0, -1)]
        assert pieces[0] == 1 and pieces[-1] == workers and pieces == sorted(pieces)
    assert _pieces(10, 1, 64) == 1


def test_run_json_lists_the_parts(
    tiny_bge: Path, small_scifact: Path, bge_eval: CommandLine, tmp_path: Path
) -> None:
    base = ["run", "--model", tiny_bge, "--tasks", "SciFact", "--data-dir", small_scifact]
    base += ["--offline", "--allow-other-data", "--store", tmp_path / "store", "-o", tmp_path / "o"]
    for part in ("2/2", "1/2", "2/2"):
        assert bge_eval(*base, "--shard", part).returncode == 0
    assert bge_eval(*base).returncode == 0
    listed = records(tmp_path / "o")["SciFact"].profile.workers
    assert [(name, each.shards, each.retries) for name, each in listed.items()] == [
        ("part 1/2", 1, 0),
        ("part 2/2", 1, 1),
    ]
    assert all(each.machine for each in listed.values())
