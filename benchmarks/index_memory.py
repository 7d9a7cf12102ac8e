"""Peak memory of building and searching faiss's indexes over a large corpus on disk.

    python benchmarks/index_memory.py
    python benchmarks/index_memory.py --documents 1000000 --index SQ8 --index IVF1024,PQ48x4fs

Vectors are generated in groups, as real embeddings lie, and reach the engine chunk by chunk, as
those of a run do. Every index is measured in two processes of its own: the first builds and keeps
it, the second opens what is kept.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from measuring import measure, table

_INDEXES = ("flat", "SQ8", "IVF1024,Flat", "IVF1024,PQ48x4fs", "HNSW32")
_CHUNK = 16384
_GROUPS = 2000
_QUERIES = 200


def search(index: str, documents: int, dimension: int, folder: str) -> dict[str, Any]:
    """Build an index, or open the one that is kept, and search it; figures in MiB and seconds."""
    from bge_eval.search.engines import engine
    from bge_eval.search.exact import unit_rows
    from bge_eval.search.index import IndexOptions

    rng = np.random.default_rng(0)
    centres = rng.standard_normal((_GROUPS, dimension), dtype=np.float32)

    def drawn(rows: int) -> Any:
        noise = rng.standard_normal((rows, dimension), dtype=np.float32)
        return unit_rows(centres[rng.integers(0, _GROUPS, rows)] + noise)

    before = _peak()
    params = (("nprobe", 16.0),) if index.startswith("IVF") else ()
    start = engine(IndexOptions(index, params), Path(folder))
    begun = time.perf_counter()
    running = start(drawn(_QUERIES), 100, lambda rows: [f"{row:08d}" for row in rows], documents)
    for row in range(0, documents, _CHUNK):
        running.add(drawn(min(_CHUNK, documents - row)), row)
    collected = time.perf_counter()
    results = running.results()
    rows = [rows[np.argsort(-scores)[:10]].tolist() for rows, scores in results]
    kept = sum(path.stat().st_size for path in Path(folder).glob("*.faiss"))
    return {
        "before": before,
        "kept": kept / 2**20,
        "collecting": collected - begun,
        "searching": time.perf_counter() - collected,
        "rows": rows,
    }


CONTENDERS = {"search": search}


def main() -> None:
    """Measure every index twice and print a Markdown table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--index", action="append", help="faiss factory string; repeatable")
    arguments = parser.parse_args()
    sizes = {"documents": arguments.documents, "dimension": arguments.dimension}
    exact = _measured({"index": "flat", **sizes, "folder": ""})
    lines = []
    for index in arguments.index or _INDEXES:
        with tempfile.TemporaryDirectory() as folder:
            options = {"index": index, **sizes, "folder": folder}
            built, opened = _measured(options), _measured(options)
        shares = [
            len(set(a) & set(b)) / len(b)
            for a, b in zip(opened["rows"], exact["rows"], strict=True)
        ]
        assert index == "HNSW32" or built["rows"] == opened["rows"], index
        line = [
            index,
            f"{built['peak_mib']:.0f}",
            f"{opened['peak_mib']:.0f}",
            f"{built['kept']:.0f}",
            f"{built['searching']:.0f}",
            f"{opened['searching']:.1f}",
            f"{sum(shares) / len(shares):.3f}",
        ]
        lines.append(line)
        print(json.dumps(dict(zip(_HEADINGS, line, strict=True))), file=sys.stderr, flush=True)
    print(f"{arguments.documents:,} vectors of {arguments.dimension} dimensions, float32")
    print(f"({arguments.documents * arguments.dimension * 4 / 2**20:,.0f} MiB on disk)\n")
    print(table(_HEADINGS, lines))


_HEADINGS = [
    "index", "peak MiB, built", "peak MiB, kept", "file MiB", "build and search s", "search s",
    "recall@10",
]  # fmt: skip


def _measured(options: dict[str, Any]) -> dict[str, Any]:
    done = measure("index_memory", "search", options, None)
    if "failure" in done:
        raise SystemExit(f"{options['index']}: {done['failure']}")
    return done


def _peak() -> float:
    """Return the peak resident memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
