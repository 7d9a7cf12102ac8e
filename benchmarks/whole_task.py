"""Whole-task time of bge-eval and of mteb's own runner, alternating in one process.

    .venv/bin/python benchmarks/whole_task.py ../shared/datasets SciFact --rounds 2

Prints a Markdown table of seconds, nDCG@10 and the ratio. Machines are shared and noisy: only the
ratio within one run means anything.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import mteb
from sentence_transformers import SentenceTransformer

from bge_eval.data.finding import find_source
from bge_eval.encode.adapter import EncoderModel
from bge_eval.encode.locate import BUILTIN, locate
from bge_eval.evaluate import Options, evaluate
from bge_eval.progress import Progress
from bge_eval.suites import plan


def ours(task: str, data: Path) -> tuple[float, float]:
    """Return seconds and nDCG@10 of our run, loading of data and model included."""
    with tempfile.TemporaryDirectory() as output:
        start = time.perf_counter()
        options = Options(Path(output), (data,), offline=True)
        report = evaluate(EncoderModel(BUILTIN), plan([task]), options)
        seconds = time.perf_counter() - start
        result = mteb.TaskResult.from_disk(report.done[task][0])
    return seconds, main_score(result)


def theirs(task: str, data: Path) -> tuple[float, float]:
    """Return the same of mteb's runner with sentence-transformers, on data read by our reader."""
    planned = plan([task])[0]
    start = time.perf_counter()
    source = find_source(planned.task, [data], planned.folder_names)
    with source.loaded(planned.task, Progress()):
        model = SentenceTransformer(str(locate(BUILTIN).folder), device="cpu")
        done = mteb.evaluate(model, planned.task, cache=None, show_progress_bar=False)
        seconds = time.perf_counter() - start
    return seconds, main_score(done.task_results[0])


def main_score(result: Any) -> float:
    """Return the main score of a result with one split and one subset."""
    entry = next(iter(result.scores.values()))[0]
    return float(entry["main_score"])


def main() -> None:
    """Read the arguments, alternate, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="a folder of data sets in the BEIR layout")
    parser.add_argument("task", help="mteb's name of a retrieval task in it")
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    runs: dict[str, list[tuple[float, float]]] = {"mteb": [], "bge-eval": []}
    for _ in range(arguments.rounds):
        runs["mteb"].append(theirs(arguments.task, arguments.data))
        runs["bge-eval"].append(ours(arguments.task, arguments.data))
    medians = {name: statistics.median(s for s, _ in rounds) for name, rounds in runs.items()}
    print("| runner | seconds (median) | nDCG@10 | ratio |\n| --- | ---: | ---: | ---: |")
    for name, rounds in runs.items():
        ratio = medians["mteb"] / medians[name]
        print(f"| {name} | {medians[name]:.1f} | {rounds[0][1]:.5f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
