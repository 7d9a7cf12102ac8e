"""Faults of disks, processes, models and servers: nothing is lost, nothing wrong is scored."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from datasets import Dataset

from bge_eval.encode.settings import Overrides
from bge_eval.errors import DamagedError, MissingError, StorageError
from bge_eval.evaluation.evaluate import evaluate
from bge_eval.evaluation.options import Options
from bge_eval.models.kinds import ModelOptions
from bge_eval.models.opening import open_model
from bge_eval.models.transformer import EncoderModel
from bge_eval.progress import Progress
from bge_eval.records import Vectors
from bge_eval.remote.client import Client, Limits
from bge_eval.rerank.second_stage import score_candidates
from bge_eval.results.locks import BusyError, folder_lock, task_lock
from bge_eval.results.staging import remove_staged
from bge_eval.runtime.checks import refuse_misshapen, refuse_unusable
from bge_eval.search.exact import ExactSearch
from bge_eval.suites.catalogue import plan
from conftest import BUILTIN, CommandLine
from model_server import ModelServer, status

DEMO = ("run", "--model", BUILTIN, "--tasks", "demo", "--offline")


class Notes(Progress):
    """Keeps the notes, and calls a function with each."""

    def __init__(self, seen: Callable[[str], None] = lambda text: None) -> None:
        super().__init__()
        self.texts: list[str] = []
        self._seen = seen

    def note(self, text: str) -> None:
        self.texts.append(text)
        self._seen(text)


def run_demo(output: Path, progress: Progress | None = None, **options: Any) -> list[Path]:
    report = evaluate(
        EncoderModel(BUILTIN),
        plan(["demo"]),
        Options(output, offline=True, **options),
        progress=progress,
    )
    assert not report.failed
    return [path for paths in report.done.values() for path in paths]


@pytest.fixture(scope="session")
def demo_output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("demo") / "out"
    run_demo(output)
    return output


@pytest.fixture
def output(demo_output: Path, tmp_path: Path) -> Path:
    return shutil.copytree(demo_output, tmp_path / "out")


# ── disks ───────────────────────────────────────────────────────────────────────────────────


def test_output_that_is_a_file(bge_eval: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    done = bge_eval(*DEMO, "--output", tmp_path / "file")
    assert done.returncode == 3 and str(tmp_path / "file") in done.stderr
    assert "is a file" in done.stderr and "--output" in done.stderr
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that nobody can fill")
def test_output_where_nothing_can_be_made(bge_eval: CommandLine) -> None:
    done = bge_eval(*DEMO, "--output", "/proc/bge-eval")
    assert done.returncode == 3 and "/proc/bge-eval" in done.stderr


def test_output_without_permission(demo_output: Path, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    shutil.copytree(demo_output, folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    if os.getuid() == 0:  # root may write everywhere: become somebody else in a child
        for path in (folder, *folder.rglob("*"), *list(tmp_path.parents)[:-2]):
            path.chmod(path.stat().st_mode | 0o055)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.setuid(65534)
                code = _refused(folder)
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    else:
        folder.chmod(0o555)
        (folder / ".locks").chmod(0o555)
        assert _refused(folder) == 0
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def _refused(folder: Path) -> int:
    try:
        with task_lock(folder, [folder / "results" / "new" / "Task.json"]):
            return 2
    except StorageError as error:
        return 0 if "permission" in str(error).casefold() else 3


@pytest.mark.parametrize("limit", [0, 3000], ids=["no byte", "3000 bytes"])
def test_a_limit_on_the_size_of_files(output: Path, tmp_path: Path, limit: int) -> None:
    before = {path: path.read_bytes() for path in output.rglob("*.*") if path.is_file()}
    code = (
        "import resource, sys; from bge_eval.results.store import *; from pathlib import Path;"
        "import bge_eval.cli.run, mteb.cache; from bge_eval.evaluation import judge, stages;"
        "from bge_eval.cli.app import main\n"
        "judged = judge.judge\n"
        "def limited(*args):\n"
        "    result = judged(*args)\n"
        f"    resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
        "    return result\n"
        "stages.judge = limited\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *DEMO, "--output", str(output), "--overwrite", "-q"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 3, done.stderr
    assert "limit on the size of files" in done.stderr and "unharmed" in done.stderr
    after = {path: path.read_bytes() for path in output.rglob("*.*") if path.is_file()}
    assert {path: content for path, content in after.items() if ".locks" not in path.parts} == {
        path: content for path, content in before.items() if ".locks" not in path.parts
    }
    assert not list(output.glob(".staging-*"))


@pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
def test_what_a_killed_save_left_goes_with_the_next_run(tmp_path: Path, output: Path) -> None:
    code = (
        "import os, signal; from bge_eval.results import store; from bge_eval.cli.app import main\n"
        "store._sync = lambda path: os.kill(os.getpid(), signal.SIGKILL)\n"
        "main()\n"
    )
    command = [sys.executable, "-c", code, *DEMO, "--output", str(output), "--overwrite", "-q"]
    done = subprocess.run(command, check=False, cwd=tmp_path, capture_output=True)
    assert done.returncode == -signal.SIGKILL
    (left,) = output.glob(".staging-*")
    (model,) = output.glob("results/*/*")
    with folder_lock(output, model):  # as if that process were still writing
        remove_staged(output)
        assert left.is_dir()
    run_demo(output)  # its result is reused: nothing is saved
    assert not left.exists()


@pytest.mark.parametrize("damage", ["truncated", "flipped", "emptied"])
@pytest.mark.parametrize("ending", [".json", ".run.tsv.gz", ".qrels.tsv.gz", "/run.json"])
def test_a_damaged_result_is_named_set_aside_and_made_again(
    output: Path, ending: str, damage: str
) -> None:
    [path] = [path for path in output.rglob("BgeEvalDemo.json") if "replaced" not in path.parts]
    victim = path.parent / f"{path.stem}{ending}"
    whole = victim.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    content = {"truncated": whole[:-9], "flipped": bytes(flipped), "emptied": b""}[damage]
    victim.write_bytes(content)
    notes = Notes()
    assert run_demo(output, notes) == [path]
    assert any(str(victim) in text for text in notes.texts), notes.texts
    assert list((output / "replaced").rglob("BgeEvalDemo*"))
    if ending.endswith(".gz"):
        assert victim.read_bytes() == whole
    again = Notes()
    run_demo(output, again)
    assert not any("damaged" in text for text in again.texts)


def test_a_result_of_a_later_version_is_left_alone(output: Path, bge_eval: CommandLine) -> None:
    [path] = output.rglob("run.json")
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    before = {each: each.read_bytes() for each in output.rglob("*.*") if each.is_file()}
    done = bge_eval(*DEMO, "--output", output, "--quiet")
    assert done.returncode == 3
    assert f"{path}: format is 2, and this bge-eval reads 1. Update" in " ".join(
        done.stderr.split()
    )
    after = {each: each.read_bytes() for each in output.rglob("*.*") if each.is_file()}
    assert after == before


def test_a_changed_score_is_no_result(output: Path, bge_eval: CommandLine) -> None:
    """A digit flips on the disk: the table must not show it."""
    [path] = [path for path in output.rglob("BgeEvalDemo.json") if "replaced" not in path.parts]
    text = path.read_text()
    place = text.index('"main_score"') + len('"main_score": 0.')
    path.write_text(f"{text[:place]}{9 - int(text[place])}{text[place + 1 :]}")
    done = bge_eval("table", output)
    assert done.returncode == 3 and str(path) in done.stderr and "checksum" in done.stderr


# ── processes ───────────────────────────────────────────────────────────────────────────────


def test_a_task_that_another_process_runs_comes_last(small_scifact: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    options = Options(output, (small_scifact,), offline=True)
    with ExitStack() as other:
        notes = Notes(lambda text: other.close() if "waiting for the process" in text else None)
        model = EncoderModel(BUILTIN, progress=notes)
        result = output / "results" / "x"
        from bge_eval.results.store import ResultStore

        result = ResultStore(output).result_path(model.mteb_model_meta, "SciFact")
        other.enter_context(task_lock(output, [result]))
        report = evaluate(model, plan(["SciFact", "demo"]), options)
    assert list(report.done) == ["SciFact", "BgeEvalDemo"] and not report.failed
    order = [text for text in notes.texts if "comes last" in text or "data from" in text]
    assert "SciFact" in order[0] and any("comes last" in text for text in order)
    scored = [text.partition(":")[0] for text in notes.texts if "tasks done" in text]
    assert scored == ["BgeEvalDemo", "SciFact"]


def test_the_result_of_the_other_process_is_taken(output: Path, tmp_path: Path) -> None:
    """It is saved while this process waits."""
    empty = tmp_path / "empty"
    with ExitStack() as other:

        def finish(text: str) -> None:
            if "waiting for the process" in text:
                shutil.copytree(output / "results", empty / "results", dirs_exist_ok=True)
                other.close()

        notes = Notes(finish)
        model = EncoderModel(BUILTIN, progress=notes)
        [path] = [path for path in output.rglob("BgeEvalDemo.json") if "replaced" not in path.parts]
        other.enter_context(task_lock(empty, [empty / path.relative_to(output)]))
        report = evaluate(model, plan(["demo"]), Options(empty, offline=True))
    assert report.done["BgeEvalDemo"] == [empty / path.relative_to(output)]
    assert model.machine_settings() == {}, "the weights were loaded"


@pytest.mark.skipif(sys.platform == "win32", reason="sends a POSIX signal")
def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    result = tmp_path / "results" / "a" / "b" / "Task.json"
    code = (
        "import sys, time; from pathlib import Path; from bge_eval.results.locks import task_lock\n"
        f"with task_lock(Path({str(tmp_path)!r}), [Path({str(result)!r})]):\n"
        "    print('held', flush=True); time.sleep(600)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    with pytest.raises(BusyError), task_lock(tmp_path, [result]):
        pass
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with task_lock(tmp_path, [result]):
        pass


# ── models, indexes, rerankers, servers ─────────────────────────────────────────────────────


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 0.0])
def test_an_unusable_vector_names_its_text(value: float) -> None:
    vectors = np.ones((3, 4), np.float32)
    refuse_unusable(vectors, ["a", "b", "c"])
    refuse_unusable(vectors * np.float32(1e30), ["a", "b", "c"])  # its square overflows
    vectors[1] = value
    with pytest.raises(DamagedError, match=r"'the second text' is (zero|not finite)"):
        refuse_unusable(vectors, ["a", "the\nsecond text", "c"])


def test_a_text_of_nothing_may_have_no_direction() -> None:
    refuse_unusable(np.zeros((2, 4), np.float32), ["", " \n"])


@pytest.mark.parametrize("shape", [(2, 4), (4, 4), (3,), (3, 5)])
def test_misshapen_vectors(shape: tuple[int, ...]) -> None:
    with pytest.raises(DamagedError, match="a/b gave"):
        refuse_misshapen(np.ones(shape, np.float32), 3, 4, "a/b")


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("[[1.0, 2.0]] * (len(texts) - 1)", "for 3 texts"),
        ("[[1.0, float('nan')]] * len(texts)", "'what makes bones strong' is not finite"),
        ("[[0.0, 0.0]] * len(texts)", "'what makes bones strong' is zero"),
    ],
)
def test_an_encoder_that_returns_nonsense(
    small_scifact: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    returned: str,
    message: str,
) -> None:
    name = f"nonsense_{abs(hash(returned))}"
    (tmp_path / f"{name}.py").write_text(
        f"class Encoder:\n    def encode(self, texts):\n        return {returned}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    model = open_model(f"{name}:Encoder", ModelOptions(overrides=Overrides()), None)
    report = evaluate(model, plan(["SciFact"]), Options(tmp_path / "out", (small_scifact,), True))
    assert message in str(report.failed["SciFact"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows, scores: (np.r_[rows[:-1], -1], scores), "row -1"),
        (lambda rows, scores: (np.r_[rows[:-1], 99], scores), "row 99"),
        (lambda rows, scores: (np.r_[rows[:-1], rows[0]], scores), "one document twice"),
        (lambda rows, scores: (rows, np.r_[scores[:-1], np.nan]), "not finite"),
        (lambda rows, scores: (rows, scores[:-1]), "missing or not finite"),
    ],
)
def test_an_index_that_returns_nonsense(
    small_scifact: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Any, Vectors], tuple[Any, Vectors]],
    message: str,
) -> None:
    right = ExactSearch.results
    monkeypatch.setattr(
        ExactSearch, "results", lambda self: [*right(self)[:-1], change(*right(self)[-1])]
    )
    report = evaluate(
        EncoderModel(BUILTIN), plan(["SciFact"]), Options(tmp_path / "out", (small_scifact,), True)
    )
    assert message in str(report.failed["SciFact"]) and "'q3'" in str(report.failed["SciFact"])
    assert not list((tmp_path / "out").rglob("SciFact.json"))


class _Wrong:
    """A reranker that changes its scores."""

    name = "org/wrong"
    packages = ()

    def __init__(self, change: Callable[[list[float]], list[float]]) -> None:
        self._change = change

    def identity(self) -> dict[str, Any]:
        return {}

    def score(self, pairs: Sequence[tuple[str, str]]) -> npt.NDArray[np.float64]:
        return np.array(self._change([float(len(text)) for _, text in pairs]))


def test_a_reranker_that_returns_nonsense() -> None:
    corpus = Dataset.from_dict({"id": ["d1", "d2"], "title": ["", ""], "text": ["one", "three"]})
    queries = Dataset.from_dict({"id": ["q"], "text": ["how many"]})
    candidates = {"q": ["d1", "d2"]}
    right = score_candidates(_Wrong(lambda all: all), corpus, queries, candidates)
    assert right == {"q": {"d1": 3.0, "d2": 5.0}}
    with pytest.raises(DamagedError, match=r"org/wrong gave scores of shape \(1,\) for 2 pairs"):
        score_candidates(_Wrong(lambda all: all[:1]), corpus, queries, candidates)
    with pytest.raises(DamagedError, match="the query 'how many' and the document 'three'"):
        score_candidates(_Wrong(lambda all: [all[0], np.nan]), corpus, queries, candidates)


def test_a_server_that_is_busy_for_ever() -> None:
    notes: list[str] = []
    with ModelServer() as server:
        server.always = status(429, "too many requests", Retry_After="60")
        client = Client(server.url, limits=Limits(patience=30.0), note=notes.append)
        with pytest.raises(MissingError, match="a request waits 30 s at most"):
            client.post("/embeddings", {"input": ["a"]})
        assert len(server.requests) == 1
        server.always = status(429, "too many requests")
        client = Client(server.url, limits=Limits(pause=0.001), note=notes.append)
        with pytest.raises(MissingError, match=r"429 .*\(6 tries\)"):
            client.post("/embeddings", {"input": ["a"]})


def test_a_long_pause_is_told() -> None:
    notes: list[str] = []
    with ModelServer() as server:
        server.faults.append(status(429, Retry_After="6"))
        client = Client(server.url, note=notes.append)
        client._stopped.set()  # nothing waits
        with pytest.raises(MissingError):
            client.post("/embeddings", {"input": ["a"]})
    assert len(notes) == 1 and "a pause of 6 s" in notes[0]


# ── partial failure ─────────────────────────────────────────────────────────────────────────


def test_the_table_shows_the_gap_with_its_reason(
    bge_eval: CommandLine, small_scifact: Path, tmp_path: Path
) -> None:
    with (small_scifact / "scifact" / "corpus.jsonl").open("a") as corpus:
        corpus.write("{")
    arguments = ["run", "--model", BUILTIN, "--offline", "--data-dir", small_scifact]
    arguments += ["--tasks", "SciFact", "--tasks", "demo", "--output", tmp_path / "out"]
    done = bge_eval(*map(str, arguments))
    assert done.returncode == 3
    both = " ".join((done.stdout + done.stderr).split())
    assert both.count("line 6: not JSON") == 1 and "SciFact: no score." in both
    for form in ("markdown", "json", "csv"):
        done = bge_eval(*map(str, arguments), "--format", form)
        assert (done.stdout + done.stderr).count("line 6: not JSON") == 1, form
    done = bge_eval(*map(str, arguments), "--fail-fast", "--output", tmp_path / "other")
    assert done.returncode == 3 and "line 6: not JSON" in done.stderr
    assert not list((tmp_path / "other").rglob("BgeEvalDemo.json"))
