"""Search ten million stored vectors exactly, and read how much memory the command takes.

    python benchmarks/beyond_memory.py --documents 1000000
    python benchmarks/beyond_memory.py --documents 10000000     # 16 GB of disk, a few minutes

Vectors of unit length are drawn and written into the store as those of the embedded model for
texts such as "d17". The real command then reads the collection, finds every vector, and searches.
The best ten documents of every query by numpy, in float64, are its judgements: so nDCG@10 is 1 if
the search is exact, and anything else ends the benchmark. Needs a POSIX system.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

_NAME = "Generated"
_CHUNK = 50_000
_JUDGED = 10

Array = npt.NDArray[np.float32]


def chunks(documents: int, dimension: int) -> Iterator[tuple[int, Array]]:
    """Yield the first row and the vectors of unit length, ``(n, dim)`` float32, of every chunk."""
    for start in range(0, documents, _CHUNK):
        count = min(_CHUNK, documents - start)
        made = np.random.default_rng(start).standard_normal((count, dimension), np.float32)
        yield start, made / np.linalg.norm(made, axis=1, keepdims=True)


def fill(store: Path, documents: int, queries: Sequence[str]) -> list[list[int]]:
    """Store the vectors; return the rows of the best documents of every query.

    Args:
        store: the folder of the store.
        documents: how many vectors.
        queries: texts, which are encoded.
    """
    from bge_eval.encode.locate import BUILTIN
    from bge_eval.encode.shards import text_keys, write_shard
    from bge_eval.models.form import Form
    from bge_eval.models.kinds import ModelOptions
    from bge_eval.models.transformer import EncoderModel

    model = EncoderModel(BUILTIN, ModelOptions(store=store))
    asked = model.vectors_of(list(queries), Form()).astype(np.float64)
    space = model.space_of(Form())
    space.flush()
    scores, rows = np.empty((len(queries), 0)), np.empty((len(queries), 0), np.int64)
    for start, vectors in chunks(documents, asked.shape[1]):
        numbers = range(start, start + len(vectors))
        write_shard(space.folder, text_keys([f"d{number}" for number in numbers]), vectors)
        scores = np.concatenate([scores, asked @ vectors.T.astype(np.float64)], axis=1)
        rows = np.concatenate(
            [rows, np.tile(np.arange(numbers.start, numbers.stop), (len(queries), 1))], axis=1
        )
        best = np.argpartition(-scores, _JUDGED, axis=1)[:, :_JUDGED]
        scores, rows = np.take_along_axis(scores, best, 1), np.take_along_axis(rows, best, 1)
    order = np.argsort(-scores, axis=1)
    return [row.tolist() for row in np.take_along_axis(rows, order, 1)]


def write_collection(
    folder: Path, documents: int, queries: Sequence[str], best: list[list[int]]
) -> None:
    """Write the corpus, the queries and the judgements in the BEIR layout."""
    (folder / "qrels").mkdir(parents=True)
    with (folder / "corpus.jsonl").open("w") as file:
        for number in range(documents):
            file.write(f'{{"_id": "{number}", "title": "", "text": "d{number}"}}\n')
    asked = [json.dumps({"_id": f"q{row}", "text": text}) for row, text in enumerate(queries)]
    (folder / "queries.jsonl").write_text("\n".join(asked) + "\n")
    lines = [
        f"q{row}\t{document}\t{_JUDGED - place}"
        for row, documents_of in enumerate(best)
        for place, document in enumerate(documents_of)
    ]
    (folder / "qrels" / "test.tsv").write_text(
        "query-id\tcorpus-id\tscore\n" + "\n".join(lines) + "\n"
    )


def prepare(home: Path, documents: int, queries: int) -> None:
    """Fill a store and write the collection that belongs to it."""
    texts = [f"what is known about {number * 37} and {number}" for number in range(queries)]
    best = fill(home / "store", documents, texts)
    write_collection(home / _NAME, documents, texts, best)


def measure(home: Path) -> tuple[float, float]:
    """Run the command; return the MiB of its highest resident memory, and its seconds.

    Raises:
        RuntimeError: the command fails, or the score is not 1.
    """
    command = [sys.executable, "-m", "bge_eval", "run", "--model", "builtin:all-MiniLM-L6-v2"]
    command += ["--tasks", str(home / _NAME), "--output", str(home / "output")]
    command += ["--store", str(home / "store"), "--offline", "--quiet", "--format", "json"]
    start = time.monotonic()
    with (home / "table.json").open("w") as table:
        child = subprocess.Popen(command, stdout=table)
        _, status, usage = os.wait4(child.pid, 0)
    seconds = time.monotonic() - start
    if status:
        raise RuntimeError(f"The command ended with status {status}.")
    [row] = json.loads((home / "table.json").read_text())["rows"]
    if row["average"] != 1:
        raise RuntimeError(f"nDCG@10 is {row['average']}, so the search was not exact.")
    highest = usage.ru_maxrss
    return highest / (2**20 if sys.platform == "darwin" else 2**10), seconds


def main() -> None:
    """Print a row of Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--folder", type=Path, help="where the vectors lie meanwhile")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bge-eval-beyond-", dir=asked.folder) as name:
        # In a process of its own: a child's highest memory begins with its parent's.
        made = f"prepare(Path({name!r}), {asked.documents}, {asked.queries})"
        subprocess.run(
            [sys.executable, "-c", f"from beyond_memory import *; {made}"],
            check=True,
            cwd=Path(__file__).parent,
        )
        highest, seconds = measure(Path(name))
        stored = sum(file.stat().st_size for file in Path(name, "store").rglob("*.shard"))
    print("| documents | vectors, GB | peak MiB | seconds |\n| ---: | ---: | ---: | ---: |")
    print(f"| {asked.documents:,} | {stored / 1e9:.1f} | {highest:.0f} | {seconds:.0f} |")


if __name__ == "__main__":
    main()
