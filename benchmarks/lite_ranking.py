"""Evaluate several systems on SciFact, whole and cut, to see what cuts do to their ranking.

The systems differ as those of a user do: BM25, an embedder, the same with fewer dimensions, with
prompts, with shorter texts, and fusions of both. Every vector is stored once and serves all cuts::

    python benchmarks/lite_ranking.py --data-dir ../shared/datasets --output results/lite
    bge-eval agreement results/lite
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import bge_eval
from bge_eval import Lite
from bge_eval.models.bm25 import BM25Model
from bge_eval.models.fused import FusedModel, Fusion

MODEL = "builtin:all-MiniLM-L6-v2"
DIMENSIONS = (256, 192, 128, 96, 64, 32)
PROMPTS = ("query: ", "Represent this sentence for searching relevant passages: ")
LENGTHS = (64,)
LIMITS = (25, 50, 100, 200)


def systems(store: Path) -> list[Any]:
    """Return the models: BM25, and encoders that read and fill one store."""
    common: dict[str, Any] = {"store": store}
    settings: list[dict[str, Any]] = [
        {},
        *({"truncate_dim": dimension} for dimension in DIMENSIONS),
        *({"query_prompt": prompt} for prompt in PROMPTS),
        *({"max_length": length} for length in LENGTHS),
    ]
    encoders = [bge_eval.load_model(MODEL, **common, **own) for own in settings]
    fusions = [
        FusedModel([BM25Model(), encoders[0]], Fusion.RRF),
        FusedModel([BM25Model(), encoders[0]], Fusion.MINMAX),
        FusedModel([BM25Model(), encoders[5]], Fusion.RRF),
    ]
    # Shorter texts come last: their corpus is encoded anew.
    return [BM25Model(), *encoders[: -len(LENGTHS)], *fusions, *encoders[-len(LENGTHS) :]]


def cuts(output: Path) -> list[dict[str, Any]]:
    """Return the arguments of `bge_eval.evaluate` for the whole task and for each cut."""
    runs = output / "lite-runs"
    return [
        {},
        *({"limit": limit} for limit in LIMITS),
        *({"lite": Lite(sample=sample)} for sample in (1, 100, 1000)),
        *({"lite": Lite(runs, top, sample=1)} for top in (10, 100)),
        {"lite": Lite(runs, 100, sample=1000)},
        {"limit": 50, "lite": Lite(runs, 100, sample=1000)},
    ]


def main() -> None:
    """Evaluate what is not saved yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--store", type=Path, default=None, help="Default: in the output folder.")
    parser.add_argument("--task", default="SciFact")
    options = parser.parse_args()
    common: dict[str, Any] = {"data_dir": options.data_dir}
    # What a cut keeps must not change while results are added, so its run lies apart.
    kept = options.output / "lite-runs"
    bge_eval.evaluate(BM25Model(), options.task, output=kept, **common)
    for model in systems(options.store or options.output / "store"):
        for cut in cuts(options.output):
            done = bge_eval.evaluate(model, options.task, output=options.output, **common, **cut)
            print(model.mteb_model_meta.name, done.scores(), flush=True)


if __name__ == "__main__":
    main()
