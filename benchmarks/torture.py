"""Kill runs at random moments of all phases, run them to the end, compare with an undisturbed run.

``make torture`` writes benchmarks/RELIABILITY.md. Every run is the real command in a process of its
own, on a small model and a reranker of random weights. Half of the kills come at a random time, the
others at the beginning of a random phase. The undisturbed run starts from nothing; the others are
forked from a process that has imported the libraries, so that no kill falls into the imports.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import forkserver
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torture_page import LEFT, Outcome, outcome_of, page

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerProcess

ROOT = Path(__file__).resolve().parents[1]
CHILD = Path(__file__).with_name("torture_child.py")
TASK = "Torture"
SIGNALS = {"SIGKILL": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT}
_SERVER = multiprocessing.get_context("forkserver")
_TIMES = {"created", "seconds", "counts", "tokens", "memory", "settings", "checksums", "checksum"}
"""Fields of run.json that tell how long a run took and how much of it was stored before."""
_FAULTS = ("test_faults.py", "test_hostile.py", "test_store.py", "test_unfinished.py")
"""Files of tests that inject faults."""
_MTEB_TIMES = {"evaluation_time", "date", "evaluation_phases"}


def make_data(folder: Path, documents: int, queries: int, seed: int = 1) -> None:
    """Write a collection of random words in the BEIR layout."""
    chosen = random.Random(seed)
    words = [f"w{number}" for number in range(500)]
    (folder / "qrels").mkdir(parents=True)
    lines = [
        {"_id": f"d{n}", "title": "", "text": " ".join(chosen.choices(words, k=20 + n % 60))}
        for n in range(documents)
    ]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    asked = [{"_id": f"q{n}", "text": " ".join(chosen.choices(words, k=6))} for n in range(queries)]
    (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, asked)) + "\n")
    rows = [f"q{n}\td{chosen.randrange(documents)}\t1" for n in range(queries)]
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "\n".join(rows))


def make_models(folder: Path) -> tuple[Path, Path]:
    """Save an encoder and a reranker of random weights; return their folders."""
    import torch
    from transformers import (
        AutoTokenizer,
        BertConfig,
        BertForSequenceClassification,
        BertModel,
    )

    from bge_eval.encode.locate import locate

    tokenizer = AutoTokenizer.from_pretrained(locate("builtin:all-MiniLM-L6-v2").folder)
    torch.manual_seed(3)
    config = BertConfig(
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        initializer_range=0.3,
    )
    encoder, reranker = folder / "encoder", folder / "reranker"
    BertModel(config).save_pretrained(encoder)
    config.num_labels = 1
    BertForSequenceClassification(config).save_pretrained(reranker)
    for place in (encoder, reranker):
        tokenizer.save_pretrained(place)
    return encoder, reranker


@dataclass(frozen=True)
class Rack:
    """The command, and the folders it works in."""

    home: Path
    """The folder of data and models."""
    encoder: Path
    """The encoder."""
    reranker: Path
    """The second stage."""

    def words(self, place: Path) -> list[str]:
        """Return the command's words; its results and its store are in the place."""
        words = ["run", "--model", str(self.encoder), "--tasks", str(self.home / TASK)]
        words += ["--reranker", str(self.reranker), "--rerank-top-k", "10"]
        words += ["--offline", "--pooling", "cls", "--backend", "torch", "--quiet"]
        words += ["--batch-tokens", "1024"]
        return [*words, "--output", str(place / "out"), "--store", str(place / "store")]

    def run(self, place: Path) -> None:
        """Run the command undisturbed, in a process that starts from nothing.

        Raises:
            RuntimeError: it fails.
        """
        place.mkdir()
        command = [sys.executable, str(CHILD), str(place / "phases"), *self.words(place)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr)

    def start(self, place: Path, *, backwards: bool = False) -> ForkServerProcess:
        """Start the command in a forked process."""
        place.mkdir(exist_ok=True)
        (place / "phases").write_text("")
        (place / "log").unlink(missing_ok=True)
        arguments = (self.words(place), place / "phases", place / "log", backwards)
        process = _SERVER.Process(target=_run, args=arguments)
        process.start()
        return process


def _run(words: Sequence[str], phases: Path, log: Path, backwards: bool) -> None:
    import torture_child

    torture_child.run(words, phases, log, backwards=backwards)


def content(output: Path) -> dict[str, Any]:
    """Return the files of a folder of results, without what is time."""
    files: dict[str, Any] = {}
    for path in sorted((output / "results").rglob("*")):
        name = path.relative_to(output).as_posix()
        if not path.is_file() or path.name == "run_settings.jsonl":
            continue
        if path.name == "run.json":
            files[name] = _without(json.loads(path.read_text()), _TIMES)
        elif path.suffix == ".json":
            files[name] = _without(json.loads(path.read_text()), _MTEB_TIMES)
        else:
            files[name] = path.read_bytes()
    return files


def _without(content: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in content.items() if name not in names}


def phases(place: Path) -> list[str]:
    """Return the phases that the run has begun."""
    return (place / "phases").read_text().split("\n")[:-1]


def torture(
    rack: Rack,
    kills: int,
    seed: int,
    *,
    hardships: bool = True,
    outcome: Outcome | None = None,
) -> Outcome:
    """Kill the command so many times; compare every run that comes to its end."""
    outcome = outcome or Outcome()
    if sum(outcome.kills.values()) >= kills and (outcome.hardships or not hardships):
        return outcome
    chosen = random.Random(seed + sum(outcome.kills.values()))
    _open_server()
    place = rack.home / "undisturbed"
    rack.run(place)
    expected, events = content(place / "out"), len(phases(place))
    whole = _seconds(rack, expected, outcome)
    if hardships and not outcome.hardships:
        _hardships(rack, expected, outcome)
        outcome.hardships = True
    outcome.keep()
    number = 0
    while sum(outcome.kills.values()) < kills:
        number += 1
        place = rack.home / f"killed-{number}"
        while not _killed(rack, place, _Moment(chosen, whole, events), outcome):
            kills_so_far = sum(outcome.kills.values())
            print(f"kill {kills_so_far}: {', '.join(phases(place)[-1:]) or 'start'}", flush=True)
        _compare(expected, place, outcome)
        shutil.rmtree(place)
        outcome.keep()
        print(f"{sum(outcome.kills.values())} kills, {outcome.runs} runs compared", flush=True)
    return outcome


def _open_server() -> None:
    """Open the server that forks the runs.

    It ignores the path of this process, and a module to import first that it does not find.
    """
    _SERVER.set_forkserver_preload(["torture_child"])
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(CHILD.parent), before)))
    try:
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def _seconds(rack: Rack, expected: Mapping[str, Any], outcome: Outcome) -> float:
    """Return the seconds of a forked run that is not killed; it is compared too."""
    place = rack.home / "forked"
    rack.start(rack.home / "first").join()  # imports what only the command knows
    start = time.monotonic()
    process = rack.start(place)
    process.join()
    _compare(expected, place, outcome)
    return time.monotonic() - start


def _hardships(rack: Rack, expected: Mapping[str, Any], outcome: Outcome) -> None:
    """Run with a clock that goes backwards, and stopped half of the time."""
    for place in (rack.home / "clock", rack.home / "slow"):
        process = rack.start(place, backwards=place.name == "clock")
        while process.exitcode is None and process.pid is not None:
            if place.name == "slow":
                _send(process.pid, signal.SIGSTOP)
                time.sleep(0.1)
                _send(process.pid, signal.SIGCONT)
            time.sleep(0.1)
        if process.exitcode:
            raise RuntimeError((place / "log").read_text())
        _compare(expected, place, outcome)
        print(f"{place.name}: {len(outcome.different)} files differ", flush=True)


@dataclass(frozen=True)
class _Moment:
    """What the moments of kills are drawn from."""

    chosen: random.Random
    """The source of chance."""
    whole: float
    """Seconds of a run that is not killed."""
    events: int
    """Phases of such a run."""


def _killed(rack: Rack, place: Path, moment: _Moment, outcome: Outcome) -> bool:
    """Run the command and kill it, nine times of ten; return whether it came to its end."""
    chosen = moment.chosen
    process = rack.start(place)
    _sleep_until((place / "log").exists, process, 600)  # before, it is no command yet
    if chosen.random() < 0.1:
        process.join()
    elif chosen.random() < 0.5:
        _sleep_until(lambda: False, process, chosen.uniform(0.02, 0.7) * moment.whole)
    else:
        event = chosen.randrange(1 + chosen.randrange(moment.events))  # a continued run has fewer
        _sleep_until(lambda: len(phases(place)) > event, process, 600)
        time.sleep(chosen.uniform(0, 0.05))
    if process.exitcode is None and process.pid is not None:
        name = chosen.choice(list(SIGNALS))
        begun = phases(place)
        # What an earlier process has stored is not lost, so the phase's beginning counts.
        last = max([(place / "phases").stat().st_mtime, *_journal_times(place)])
        computes = begun and begun[-1].startswith(("encode", "rerank"))
        lost = time.time() - last if computes else 0.0
        _send(process.pid, SIGNALS[name])
        outcome.kills[name] += 1
        outcome.phases[begun[-1] if begun else "start"] += 1
        outcome.lost = max(outcome.lost, lost)
    process.join()
    code = process.exitcode
    if code not in (0, 130, 143, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT):
        raise RuntimeError(f"{place.name} ends with {code}: {(place / 'log').read_text()}")
    return code == 0


def _journal_times(place: Path) -> list[float]:
    """Return when the journals of vectors and of a reranker's scores were last written."""
    times = []
    for pattern in ("store/*/*.journal", "out/.unfinished/*/*/*.journal"):
        with suppress(FileNotFoundError):  # the process removes what is finished
            times += [path.stat().st_mtime for path in place.glob(pattern)]
    return times


def _send(process: int, name: signal.Signals) -> None:
    with suppress(ProcessLookupError):  # it has just ended
        os.kill(process, name)


def _sleep_until(happened: Any, process: ForkServerProcess, longest: float) -> None:
    end = time.monotonic() + longest
    while time.monotonic() < end and process.exitcode is None and not happened():
        time.sleep(0.002)


def _compare(expected: Mapping[str, Any], place: Path, outcome: Outcome) -> None:
    outcome.runs += 1
    found = content(place / "out")
    outcome.different += [
        f"{place.name}/{name}"
        for name in {**expected, **found}
        if expected.get(name) != found.get(name)
    ]
    outcome.different += [
        f"{LEFT}{path.relative_to(place.parent)}"
        for pattern in (
            "out/**/.staging-*",
            "out/**/*.tmp*",
            "out/.unfinished",
            "store/*/*.journal",
        )
        for path in place.glob(pattern)
    ]


def fault_tests() -> tuple[int, int]:
    """Run the tests that inject faults; return how many passed, and how many there are."""
    report = Path(tempfile.mkdtemp()) / "faults.xml"
    tests = [str(ROOT / "tests" / name) for name in _FAULTS]
    command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", *tests]
    subprocess.run(command, check=False, cwd=ROOT)
    from xml.etree import ElementTree

    [suite] = ElementTree.parse(report).getroot().findall("testsuite")
    total = int(suite.get("tests", 0))
    wrong = sum(int(suite.get(kind, 0)) for kind in ("failures", "errors", "skipped"))
    return total - wrong, total


def measured(script: str) -> list[str]:
    """Run a script beside this one that prints rows of the page; return them.

    Raises:
        RuntimeError: memory, files or threads grew, or more memory was taken than is stated.
    """
    command = [sys.executable, str(Path(__file__).with_name(script))]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    return [line for line in done.stdout.splitlines() if line.startswith("|")]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the torture; exit 1 if anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=14)
    parser.add_argument("--no-faults", action="store_true", help="kill only")
    parser.add_argument(
        "--state", type=Path, help="a file that keeps the figures, for a run that goes on"
    )
    parser.add_argument(
        "--plus", type=Path, action="append", help="the state of another run; its figures are added"
    )
    parser.add_argument("--no-hardships", action="store_true", help="leave out clock and half CPU")
    parser.add_argument(
        "--no-endurance", action="store_true", help="leave out 100 tasks and a million documents"
    )
    parser.add_argument("--write", type=Path, help="the page to write; prints without")
    options = parser.parse_args(arguments)
    if options.state:
        options.state.parent.mkdir(parents=True, exist_ok=True)
    outcome = outcome_of(options.state)
    for path in options.plus or ():
        outcome = outcome.plus(outcome_of(path))
    with tempfile.TemporaryDirectory(prefix="bge-eval-torture-") as name:
        home = Path(name)
        make_data(home / TASK, 500, 10)
        rack = Rack(home, *make_models(home))
        hardships = not options.no_hardships
        torture(rack, options.kills, options.seed, hardships=hardships, outcome=outcome)
    if outcome.faults is None and not options.no_faults:
        outcome.faults = fault_tests()
        outcome.keep()
    for script in () if options.no_endurance else ("million.py", "endurance.py"):
        if script not in outcome.measured:
            outcome.endured += measured(script)
            outcome.measured.append(script)
            outcome.keep()
    text = page(outcome)
    if options.write:
        options.write.write_text(text)
    if options.state and options.write:
        options.state.unlink(missing_ok=True)
    print(text)
    for name in outcome.different:
        print(f"different: {name}")
    passed, total = outcome.faults or (0, 0)
    return int(bool(outcome.different) or passed != total)


if __name__ == "__main__":
    raise SystemExit(main())
