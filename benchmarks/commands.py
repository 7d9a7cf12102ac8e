"""Whole commands as a user types them: second runs and the start."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

_COMMAND = [sys.executable, "-m", "bge_eval"]


def _timed(*words: str) -> tuple[float, float, str]:
    """Return the seconds, the peak memory in MiB and the output of one command."""
    start = time.perf_counter()
    with subprocess.Popen([*_COMMAND, *words], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        printed = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"bge-eval {words[0]} failed with exit {process.returncode}")
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return time.perf_counter() - start, usage.ru_maxrss / unit, printed


def _run(collection: str, folder: str, *more: str) -> dict[str, Any]:
    output = f"{folder}/results"
    words = ["run", "--model", "builtin:all-MiniLM-L6-v2", "--tasks", collection, "--offline"]
    words += ["--quiet", "--output", output, *more]
    if "--no-store" not in more:
        words += ["--store", f"{folder}/store"]
    began = time.time()
    seconds, peak, _ = _timed(*words)
    records = [path for path in Path(output).rglob("run.json") if path.stat().st_mtime >= began]
    encoding = 0.0
    for path in records:
        phases = json.loads(path.read_text())["seconds"]
        parts = ("encode corpus", "store corpus", "encode documents", "store")
        encoding += sum(phases.get(name, 0.0) for name in parts)
    return {"seconds": seconds, "peak_mib": peak, "encoding": encoding}


def first_run(collection: str, folder: str) -> dict[str, Any]:
    shutil.rmtree(folder, ignore_errors=True)
    return _run(collection, folder)


def other_prompt(collection: str, folder: str) -> dict[str, Any]:
    return _run(collection, folder, "--query-prompt", "query: ", "--overwrite")


def other_measure(collection: str, folder: str) -> dict[str, Any]:
    return _run(collection, folder, "--metric", "R@100")


def many_results(collection: str, folder: str, count: int, made: str) -> dict[str, Any]:
    """Copy the result files of a real run until there are ``count``."""
    shutil.rmtree(folder, ignore_errors=True)
    root = Path(made, "results", "results")
    if not root.is_dir():
        _run(collection, f"{folder}/one", "--no-store")
        root = Path(folder, "one", "results", "results")
    # The shortest path is the model's own result; the others are experiments.
    source = min(root.rglob("model_meta.json"), key=lambda path: len(path.parts)).parent
    for number in range(count):
        target = Path(folder, "many", "results", f"bench__m{number:04d}", source.name)
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("experiments"))
        for path in target.rglob("*.json*"):
            if path.suffix in {".json", ".jsonl"}:
                text = path.read_text().replace("builtin/all-MiniLM-L6-v2", f"bench/m{number:04d}")
                path.write_text(text)
    return {"seconds": 0.0}


def help_text() -> dict[str, Any]:
    seconds, peak, _ = _timed("--help")
    return {"seconds": seconds, "peak_mib": peak}


def table_of(folder: str) -> dict[str, Any]:
    seconds, peak, printed = _timed("table", f"{folder}/many", "--format", "markdown")
    return {
        "seconds": seconds,
        "peak_mib": peak,
        "rows": sum(line.count("/m") for line in printed.splitlines()),
    }


def bare_help() -> dict[str, Any]:
    """Print the help of an empty typer application."""
    code = "import typer; app = typer.Typer(); app.command()(lambda: None); app(['--help'])"
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True)
    return {"seconds": time.perf_counter() - start}


CONTENDERS = {
    "typer's own --help": lambda **_: bare_help(),
    "first run": first_run,
    "other query prompt": other_prompt,
    "other measure": other_measure,
    "make results": many_results,
    "bge-eval --help": lambda **_: help_text(),
    "bge-eval table": lambda folder, **_: table_of(folder),
}
