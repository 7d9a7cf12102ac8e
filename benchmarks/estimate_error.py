"""Compare ``bge-eval run --estimate`` with the runs themselves, in CPU seconds of one process.

    OMP_NUM_THREADS=1 python benchmarks/estimate_error.py --data-dir DIR --tasks STS12,SICK-R

CPU time is what a run takes on a machine that does nothing else, with one thread. Every task is
estimated and then run in a process of its own, whose largest memory and whose files are compared
with the estimate too.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

_HEAD = (
    "task",
    "type",
    "encode, told",
    "took",
    "in all, told",
    "took",
    "error",
    "memory, told",
    "took",
    "disk, told",
    "took",
)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, nargs="+", required=True)
    parser.add_argument("--tasks", required=True, help="commas between; NAME/SUBSET for a subset")
    parser.add_argument("--model", default="builtin:all-MiniLM-L6-v2")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--reranker", help="a folder")
    parser.add_argument("--top-k", type=int, default=20)
    parser.add_argument("--limit", type=int, help="queries of each task")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Print a Markdown row for every task."""
    arguments = _arguments()
    if arguments.one:
        _row(arguments, arguments.one)
        return
    print(f"| {' | '.join(_HEAD)} |\n| --- | --- |{' ---: |' * (len(_HEAD) - 2)}", flush=True)
    for item in arguments.tasks.split(","):
        command = [sys.executable, *sys.argv, "--one", item]
        subprocess.run(command, check=True)


def _row(arguments: argparse.Namespace, item: str) -> None:
    """Estimate one task, run it, and print both."""
    from bge_eval.encode.locate import locate
    from bge_eval.encode.settings import Dtype, Overrides
    from bge_eval.evaluation.evaluate import evaluate
    from bge_eval.evaluation.options import Options
    from bge_eval.models.kinds import ModelOptions
    from bge_eval.models.transformer import EncoderModel
    from bge_eval.progress import Progress
    from bge_eval.rerank.families import load_reranker
    from bge_eval.rerank.reranker import RerankerOptions
    from bge_eval.results.record import read_record
    from bge_eval.scale.estimate import estimate
    from bge_eval.suites.catalogue import plan

    time.perf_counter = time.process_time  # what profile and estimate measure with
    name, _, subset = item.partition("/")
    if arguments.limit:
        name = f"{name}@limit={arguments.limit}"
    subsets = [subset] if subset else []
    with tempfile.TemporaryDirectory() as scratch:
        settings = ModelOptions(
            overrides=Overrides(dtype=Dtype(arguments.dtype)), store=Path(scratch) / "store"
        )
        model = EncoderModel(arguments.model, settings)
        assert model.encoder  # loaded before either is timed
        reranker = None
        if arguments.reranker:
            reranker = load_reranker(
                locate(arguments.reranker), RerankerOptions(dtype=arguments.dtype)
            )
            reranker.score([("a", "b")])
        data = tuple(arguments.data_dir)
        options = Options(Path(scratch) / "runs", data, offline=True, other_data=True)
        options = replace(options, rerank_top_k=arguments.top_k)
        tasks = plan([name], subsets)
        [told] = estimate(model, tasks, options, Progress(), reranker)
        tasks = plan([name], subsets)
        start = time.process_time()
        report = evaluate(model, tasks, options, reranker=reranker)
        took = time.process_time() - start
        assert report.done, report.failed
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        model.flush()
        disk = sum(path.stat().st_size for path in Path(scratch).rglob("*") if path.is_file())
        [paths] = report.done.values()
        encoded = 0.0
        for path in paths:
            profile = read_record(path).profile
            for phase, seconds in (profile.seconds if profile else {}).items():
                encoded += seconds if phase.startswith(("encode", "tokenise", "rerank")) else 0.0
    told_work = told.encode.seconds + told.rerank.seconds
    cells = [
        item,
        str(tasks[0].task.metadata.type),
        *(f"{told_work:.1f}", f"{encoded:.1f}", f"{told.seconds:.1f}", f"{took:.1f}"),
        f"{100 * (told.seconds / took - 1):+.0f}%",
        *(f"{size / 2**20:.1f}" for size in (told.memory_bytes, memory, told.disk_bytes, disk)),
    ]
    print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
