"""What the size of a batch and a model compiled for one shape of it are worth on this CPU.

    OMP_NUM_THREADS=1 python benchmarks/batch_shapes.py --collection ../shared/datasets/SciFact

Prints the CPU time of batches of several shapes, through the model that takes every shape and
through one that is compiled for this shape alone, with what the second one costs; then the CPU
seconds of encoding by tokens of a batch. Contenders take turns.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from measuring import table

BATCH_TOKENS = (1024, 2048, 4096, 8192)
SHAPES = ((16, 256), (32, 128), (128, 32))


def _encoder(dtype: str) -> Any:
    from bge_eval.encode.locate import BUILTIN
    from bge_eval.encode.settings import Dtype, Overrides
    from bge_eval.models.kinds import ModelOptions
    from bge_eval.models.transformer import EncoderModel

    options = ModelOptions(device="cpu", store=False, overrides=Overrides(dtype=Dtype(dtype)))
    return EncoderModel(BUILTIN, options).encoder


def in_turns(calls: dict[Any, Callable[[], Any]], rounds: int) -> dict[Any, float]:
    """Return contender → the fewest CPU seconds of a call, after a first one."""
    for call in calls.values():
        call()
    least = dict.fromkeys(calls, float("inf"))
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.process_time()
            call()
            least[name] = min(least[name], time.process_time() - start)
    return least


def by_tokens(texts: list[str], dtypes: Sequence[str], rounds: int) -> None:
    """Print the CPU seconds of encoding by precision and tokens of a batch."""
    rows = []
    for dtype in dtypes:
        encoder = _encoder(dtype)

        def encode(tokens: int, encoder: Any = encoder) -> None:
            encoder.batch_tokens = tokens
            encoder.encode(texts)

        calls: dict[Any, Callable[[], Any]]
        calls = {tokens: partial(encode, tokens) for tokens in BATCH_TOKENS}
        rows.append([dtype, *(f"{each:.2f}" for each in in_turns(calls, rounds).values())])
    print(f"{len(texts)} texts, CPU s by tokens of a batch\n")
    print(table(["precision", *map(str, BATCH_TOKENS)], rows))


def _memory() -> float:
    """Return the resident memory in MiB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def by_shape(dtypes: Sequence[str], rounds: int) -> None:
    """Print the CPU milliseconds of batches in both models, and what the second one costs."""
    from bge_eval.runtime import converted
    from bge_eval.runtime.batches import model_inputs

    models: list[Any] = []
    compiled_as_before = converted.Conversion.compiled

    def compiled(self: Any, *given: Any, **named: Any) -> Any:
        models.append(self)
        return compiled_as_before(self, *given, **named)

    converted.Conversion.compiled = compiled  # type: ignore[method-assign]
    rows = []
    for dtype in dtypes:
        _encoder(dtype)
        conversion = models[-1]
        free = compiled_as_before(conversion, dtype, throughput=True).create_infer_request()
        for shape in SHAPES:
            ids = np.random.default_rng(0).integers(1000, 20000, shape)
            inputs = model_inputs(
                {"input_ids": ids, "attention_mask": np.ones_like(ids)}, conversion.facts.inputs
            )
            before, start = _memory(), time.process_time()
            alone = compiled_as_before(conversion, dtype, throughput=True, shape=shape)
            fixed = alone.create_infer_request()
            cost = time.process_time() - start
            fixed.infer(inputs)
            memory = _memory() - before
            least = in_turns(
                {
                    "free": partial(free.infer, inputs),
                    "fixed": partial(fixed.infer, inputs),
                },
                3 * rounds,
            )
            equal = np.array_equal(free.get_output_tensor(0).data, fixed.get_output_tensor(0).data)
            figures = [f"{1000 * least['free']:.0f}", f"{1000 * least['fixed']:.0f}"]
            figures += [f"{least['free'] / least['fixed']:.2f}", "yes" if equal else "no"]
            rows.append(
                [f"{dtype}, {shape[0]} × {shape[1]}", *figures, f"{cost:.2f}", f"{memory:.0f}"]
            )
    converted.Conversion.compiled = compiled_as_before  # type: ignore[method-assign]
    heads = ["any shape, ms", "this shape, ms", "ratio", "equal bits", "compiling, s", "MiB"]
    print()
    print(table(["batch", *heads], rows))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--collection", type=Path, required=True)
    parser.add_argument("--documents", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16", "int8"])
    arguments = parser.parse_args()
    with (arguments.collection / "corpus.jsonl").open(encoding="utf-8") as lines:
        texts = [json.loads(next(lines))["text"] for _ in range(arguments.documents)]
    by_shape(arguments.dtypes, arguments.rounds)
    if texts:
        by_tokens(texts, arguments.dtypes, arguments.rounds)


if __name__ == "__main__":
    main()
