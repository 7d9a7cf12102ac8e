"""Compare one machine and two Ray workers bit by bit, first and second stage, and watch the memory.

    python benchmarks/cluster_equal.py --documents 50000 100000 200000
    python benchmarks/cluster_equal.py --scifact ./datasets

Every run is the real command, with a store and results of its own. The one machine computes with
the threads of one worker, half of the cores, because libraries round differently with other numbers
of threads. Equal are the bytes of the
saved rankings, scores included, and the vectors in the stores. The memory is the command's own,
with its shared pages counted in part (Linux's Pss), read ten times a second: "own" is what it has
allocated, "files" the mapped files that it has in memory. Ray's object store, at most 512 MiB, and
Ray's daemons are other processes and not in it. Needs Linux.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from measuring import table

_BUILTIN = "builtin:all-MiniLM-L6-v2"
_KINDS = {"own": "Pss_Anon", "files": "Pss_File", "shared": "Pss_Shmem"}


@dataclass(slots=True)
class Run:
    """One run of the command."""

    folder: Path
    """Holds its results and its store."""
    seconds: float = 0.0
    """How long it took."""
    peak: dict[str, float] = field(default_factory=lambda: dict.fromkeys(_KINDS, 0.0))
    """Kind of memory → the most that the command had of it, in MiB."""

    def rankings(self, *, reranked: bool) -> dict[str, bytes]:
        """Return the saved rankings and measures of one stage, by their path."""
        files = [
            path
            for kind in ("*.run.tsv.gz", "*.queries.tsv.gz")
            for path in (self.folder / "results").rglob(kind)
            if ("rerank" in path.as_posix().removeprefix(str(self.folder))) == reranked
        ]
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in files}

    def vectors(self) -> dict[bytes, int]:
        """Return a hash of the vector of every key in the store."""
        from bge_eval.encode.shards import read_shard

        hashes: dict[bytes, int] = {}
        for path in (self.folder / "store").glob("*/*.shard"):
            shard = read_shard(path)
            for key, vector in zip(shard.keys(), shard.vectors, strict=True):
                hashes[key.tobytes()] = hash(vector.tobytes())
        return hashes


def make_collection(folder: Path, documents: int, queries: int) -> None:
    """Write documents of 2 to 30 words, every twentieth of them a copy: equal scores abound."""
    draw = random.Random(17)
    words = [f"w{number}" for number in range(500)]
    (folder / "qrels").mkdir(parents=True)
    kept: list[str] = []
    with (folder / "corpus.jsonl").open("w") as file:
        for number in range(documents):
            if number % 20 == 19:
                text = draw.choice(kept)
            else:
                text = " ".join(draw.choices(words, k=draw.randint(2, 30)))
                kept.append(text)
            file.write(json.dumps({"_id": f"d{number}", "title": "", "text": text}) + "\n")
    asked = [
        {"_id": f"q{number}", "text": " ".join(draw.choices(words, k=draw.randint(2, 6)))}
        for number in range(queries)
    ]
    (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, asked)) + "\n")
    rows = [f"q{number}\td{draw.randrange(documents)}\t1" for number in range(queries)]
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "\n".join(rows))


def watched(words: Sequence[str], folder: Path, threads: int) -> Run:
    """Run the command in a folder, with a number of threads, and watch its memory.

    Raises:
        RuntimeError: it fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    run, start = Run(folder), time.monotonic()
    command = [sys.executable, "-m", "bge_eval", "run", *words, "--output", str(folder)]
    command += ["--store", str(folder / "store"), "--offline"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": str(threads)}
        )
        while process.poll() is None:
            with suppress(OSError):
                lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()[1:]
                sizes = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines}
                for kind, name in _KINDS.items():
                    run.peak[kind] = max(run.peak[kind], sizes.get(name, 0.0))
            time.sleep(0.1)
    if process.returncode:
        raise RuntimeError((folder / "log").read_text())
    run.seconds = time.monotonic() - start
    return run


def compared(name: str, words: Sequence[str], home: Path) -> list[str]:
    """Return the row of one collection: run it on one machine, then with two workers."""
    threads = max((os.cpu_count() or 2) // 2, 1)
    single = watched(words, home / "one", threads)
    spread = watched([*words, "--engine", "ray", "--workers", "2"], home / "two", threads)
    same = []
    for reranked in (False, True):
        one, two = single.rankings(reranked=reranked), spread.rankings(reranked=reranked)
        same.append(f"equal ({len(one)} files)" if one and one == two else "DIFFERENT")
    vectors = single.vectors()
    equal = bool(vectors) and vectors == spread.vectors()
    row = [
        name,
        f"{len(vectors):,} {'equal' if equal else 'DIFFERENT'}",
        *same,
        f"{single.seconds:.0f}",
        f"{spread.seconds:.0f}",
        *(f"{run.peak[kind]:.0f}" for kind in ("own", "files") for run in (single, spread)),
    ]
    print(row, file=sys.stderr, flush=True)
    return row


def main() -> int:
    """Print a Markdown table; exit 1 if anything differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--scifact", type=Path, help="the folder of data sets with SciFact in it")
    parser.add_argument("--documents", type=int, nargs="*", default=[])
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--depth", type=int, default=20, help="documents reranked for a query")
    parser.add_argument("--home", type=Path, help="an empty folder for everything that is written")
    asked = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(prefix="bge-eval-equal-") as name:
        home: Path = asked.home or Path(name)
        home.mkdir(parents=True, exist_ok=True)
        # In a process of its own: torch would take this one's memory.
        made = f"from torture import *; make_models(Path({str(home)!r}))"
        subprocess.run([sys.executable, "-c", made], check=True, cwd=Path(__file__).parent)
        second = ["--reranker", str(home / "reranker"), "--rerank-top-k", str(asked.depth)]
        if asked.scifact:
            words = ["--model", _BUILTIN, "--tasks", "SciFact", "--data-dir", str(asked.scifact)]
            rows.append(compared("SciFact", [*words, *second], home / "SciFact"))
        for documents in asked.documents:
            data = home / str(documents) / "Generated"
            make_collection(data, documents, asked.queries)
            words = ["--model", str(home / "encoder"), "--tasks", str(data), "--pooling", "cls"]
            row = compared(f"{documents:,} generated", [*words, *second], data.parent)
            rows.append(row)
    headings = ["documents", "vectors", "first stage", "second stage", "one machine, s"]
    headings += ["two workers, s", "own MiB, one machine", "own MiB, two workers"]
    headings += ["files MiB, one machine", "files MiB, two workers"]
    print(table(headings, rows))
    return int(any("DIFFERENT" in cell for row in rows for cell in row))


if __name__ == "__main__":
    raise SystemExit(main())
