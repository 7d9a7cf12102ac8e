"""Compare the estimate of an index with its building and its search, in CPU seconds of a thread.

    OMP_NUM_THREADS=1 python benchmarks/estimate_index.py --data-dir DIR

The vectors are MiniLM's of SciFact. Encoding them takes minutes; --vectors keeps them in a file.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from bge_eval.models.kinds import ModelOptions
from bge_eval.models.transformer import EncoderModel
from bge_eval.records import Vectors
from bge_eval.scale.indexing import IndexWork, index_cost
from bge_eval.search.faiss_index import FaissIndex
from bge_eval.search.index import IndexOptions

_INDEXES = "HNSW32;IVF64,Flat;SQ8;IVF64,PQ48x4fs;PQ48;BIVF64"
_QUERIES = 300
_DEPTH = 1000


def main() -> None:
    """Print a Markdown row for every index."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--vectors", type=Path, help="a .npy file to write and to read again")
    parser.add_argument("--indexes", default=_INDEXES, help="semicolons between")
    arguments = parser.parse_args()
    documents, queries = _encoded(arguments.data_dir / "SciFact", arguments.vectors)
    time.perf_counter = time.process_time  # what the estimate measures with
    work = IndexWork(len(queries), len(documents), documents.shape[1], _DEPTH)
    print("| index | s, told | took | error | MiB, told | took |\n| --- |" + " ---: |" * 5)
    for name in arguments.indexes.split(";"):
        options = IndexOptions(name)
        cost = index_cost(options, work)
        if cost is None:
            print(f"| `{name}` | too large to be tried |")
            continue
        start = time.perf_counter()
        opened = FaissIndex(options, None, lambda text: None).opened(documents)
        opened.search(opened.represent(queries), _DEPTH)
        took = time.perf_counter() - start
        print(
            f"| `{name}` | {cost.seconds:.2f} | {took:.2f} | {cost.seconds / took - 1:+.0%}"
            f" | {cost.bytes / 2**20:.1f} | {opened.bytes / 2**20:.1f} |",
            flush=True,
        )


def _encoded(folder: Path, kept: Path | None) -> tuple[Vectors, Vectors]:
    """Return the vectors of the documents and of the queries."""
    queries = [json.loads(line)["text"] for line in (folder / "queries.jsonl").open()][:_QUERIES]
    if kept is not None and kept.is_file():
        vectors: Vectors = np.load(kept)
    else:
        records = [json.loads(line) for line in (folder / "corpus.jsonl").open()]
        documents = [f"{each.get('title', '')} {each['text']}".strip() for each in records]
        model = EncoderModel("builtin:all-MiniLM-L6-v2", ModelOptions(store=False, offline=True))
        vectors = model.encoder.encode(documents + queries)
        if kept is not None:
            np.save(kept, vectors)
    return vectors[: -len(queries)], vectors[-len(queries) :]


if __name__ == "__main__":
    main()
