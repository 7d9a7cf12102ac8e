"""What a precision costs and loses on this processor: texts encoded, pairs scored.

    OMP_NUM_THREADS=1 python benchmarks/precisions.py --collection ../shared/datasets/SciFact

Fewer instructions than the processor has, for texts alone::

    ONEDNN_MAX_CPU_ISA=AVX2 OMP_NUM_THREADS=1 python benchmarks/precisions.py \\
        --collection ../shared/datasets/SciFact --precisions float32,int8 --pairs 0

All contenders are loaded first and then take turns in one process; CPU seconds are compared, so
that other work on the machine disturbs little. Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from rerank_pairs import make, pairs_of

DTYPES = ("float32", "bfloat16", "int8")


def encoders(dtypes: Sequence[str]) -> dict[str, Callable[[list[str]], Any]]:
    """Return precision → what encodes texts with the embedded model."""
    from bge_eval.encode.locate import BUILTIN
    from bge_eval.encode.settings import Dtype, Overrides
    from bge_eval.models.kinds import ModelOptions
    from bge_eval.models.transformer import EncoderModel

    return {
        dtype: EncoderModel(
            BUILTIN,
            ModelOptions(device="cpu", store=False, overrides=Overrides(dtype=Dtype(dtype))),
        ).encoder.encode
        for dtype in dtypes
    }


def rerankers(
    folder: str, dtypes: Sequence[str]
) -> dict[str, Callable[[list[tuple[str, str]]], Any]]:
    """Return contender → what scores pairs with the cross-encoder in a folder."""
    from sentence_transformers import CrossEncoder

    from bge_eval.encode.locate import locate
    from bge_eval.rerank.cross_encoder import CrossEncoderReranker
    from bge_eval.rerank.reranker import RerankerOptions

    predict = CrossEncoder(folder, device="cpu").predict
    ours = {
        dtype: CrossEncoderReranker(
            locate(folder), RerankerOptions(device="cpu", dtype=dtype)
        ).score
        for dtype in dtypes
    }
    return {"CrossEncoder.predict": lambda pairs: predict(pairs, show_progress_bar=False), **ours}


def measured(contenders: dict[str, Callable[[Any], Any]], items: Any, rounds: int) -> Any:
    """Return contender → (median CPU seconds, results); they take turns after a first call."""
    results = {name: np.asarray(call(items)) for name, call in contenders.items()}
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, call in contenders.items():
            start = time.process_time()
            call(items)
            seconds[name].append(time.process_time() - start)
    return {name: (median(seconds[name]), results[name]) for name in contenders}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--collection", type=Path, required=True)
    parser.add_argument("--documents", type=int, default=200)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--precisions", default=",".join(DTYPES), help="float32 first")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    dtypes = arguments.precisions.split(",")
    with (arguments.collection / "corpus.jsonl").open(encoding="utf-8") as lines:
        texts = [json.loads(next(lines))["text"] for _ in range(arguments.documents)]
    encoded = measured(encoders(dtypes), texts, arguments.rounds)
    seconds, full = encoded["float32"]
    print(f"{len(texts)} documents\n\n| precision | CPU s | times float32 | mean cosine | lowest |")
    print("|---|---:|---:|---:|---:|")
    for name, (cost, vectors) in encoded.items():
        cosine = (vectors * full).sum(axis=1)
        cosine /= np.linalg.norm(vectors, axis=1) * np.linalg.norm(full, axis=1)
        print(
            f"| {name} | {cost:.1f} | {seconds / cost:.2f} | {cosine.mean():.4f} |"
            f" {cosine.min():.4f} |"
        )
    if not arguments.pairs:
        return
    with tempfile.TemporaryDirectory() as folder:
        make(folder)
        pairs = pairs_of(str(arguments.collection), arguments.pairs)
        scored = measured(rerankers(folder, dtypes), pairs, arguments.rounds)
    seconds, reference = scored["CrossEncoder.predict"]
    print(f"\n{len(pairs)} pairs\n\n| contender | CPU s | times predict | largest difference |")
    print("|---|---:|---:|---:|")
    for name, (cost, scores) in scored.items():
        difference = np.abs(scores - reference).max()
        print(f"| {name} | {cost:.1f} | {seconds / cost:.2f} | {difference:.1e} |")


if __name__ == "__main__":
    main()
