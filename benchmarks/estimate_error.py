"""Compare ``bge-eval run --estimate`` with the runs themselves, in CPU seconds of one process.

    OMP_NUM_THREADS=1 python benchmarks/estimate_error.py --data-dir DIR --tasks STS12,SICK-R

CPU time is what a run takes on a machine that does nothing else, with one thread.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from bge_eval.evaluation import Options, evaluate
from bge_eval.models.kinds import ModelOptions
from bge_eval.models.transformer import EncoderModel
from bge_eval.progress import Progress
from bge_eval.scale import estimate as estimating
from bge_eval.suites.catalogue import plan


def main() -> None:
    """Print a Markdown row for every task."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument(
        "--tasks", required=True, help="names, with commas between; NAME/SUBSET for one subset"
    )
    parser.add_argument("--model", default="builtin:all-MiniLM-L6-v2")
    arguments = parser.parse_args()
    time.perf_counter = time.process_time  # what the estimate measures with
    print("| task | type | told, CPU s | took, CPU s | error |\n| --- | --- | ---: | ---: | ---: |")
    for item in arguments.tasks.split(","):
        name, _, subset = item.partition("/")
        subsets = [subset] if subset else []
        with tempfile.TemporaryDirectory() as scratch:
            model = EncoderModel(arguments.model, ModelOptions(store=Path(scratch) / "store"))
            assert model.encoder  # loaded before either is timed
            options = Options(
                Path(scratch) / "runs", (arguments.data_dir,), offline=True, other_data=True
            )
            [told] = estimating.estimate(model, plan([name], subsets), options, Progress())
            planned = plan([name], subsets)
            start = time.process_time()
            report = evaluate(model, planned, options)
            took = time.process_time() - start
            kind = planned[0].task.metadata.type
        assert report.done, report.failed
        error = 100 * (told.seconds / took - 1)
        print(f"| {item} | {kind} | {told.seconds:.1f} | {took:.1f} | {error:+.0f}% |", flush=True)


if __name__ == "__main__":
    main()
