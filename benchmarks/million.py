"""Evaluate an encoder on a million documents within a stated memory.

``python benchmarks/million.py`` writes a collection of short random texts and an encoder of random
weights, runs the real command in a process of its own, and reads the process's highest resident
memory, which does not depend on what else the machine does. Needs a POSIX system.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

LIMIT = 1536
"""MiB of resident memory that the run may take."""
_TASK = "Million"
_DIMENSION = 64


def make_collection(folder: Path, documents: int, queries: int) -> None:
    """Write a collection of texts of two words and a number in the BEIR layout."""
    chosen = random.Random(5)
    words = [f"w{number}" for number in range(300)]
    (folder / "qrels").mkdir(parents=True)
    with (folder / "corpus.jsonl").open("w") as file:
        for number in range(documents):
            text = f"{chosen.choice(words)} {chosen.choice(words)} {number}"
            file.write(json.dumps({"_id": f"d{number}", "title": "", "text": text}) + "\n")
    asked = [{"_id": f"q{n}", "text": f"{chosen.choice(words)} {n * 7}"} for n in range(queries)]
    (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, asked)) + "\n")
    rows = [f"q{n}\td{chosen.randrange(documents)}\t1" for n in range(queries)]
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "\n".join(rows))


def make_encoder(folder: Path) -> Path:
    """Save an encoder of one narrow layer and random weights; return its folder."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertModel

    from bge_eval.encode.locate import locate

    torch.manual_seed(5)
    config = BertConfig(
        hidden_size=_DIMENSION,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        initializer_range=0.3,
    )
    BertModel(config).save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(locate("builtin:all-MiniLM-L6-v2").folder)
    tokenizer.save_pretrained(folder)
    return folder


def peak(documents: int) -> tuple[float, float]:
    """Run the command; return the MiB of its highest resident memory, and its seconds.

    Raises:
        RuntimeError: the command fails.
    """
    with tempfile.TemporaryDirectory(prefix="bge-eval-million-") as name:
        home = Path(name)
        make_collection(home / _TASK, documents, 100)
        # In a process of its own: this one would count as the largest child.
        made = f"from million import *; make_encoder(Path({str(home / 'encoder')!r}))"
        subprocess.run([sys.executable, "-c", made], check=True, cwd=Path(__file__).parent)
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        command = [sys.executable, "-m", "bge_eval", "run", "--model", str(home / "encoder")]
        command += ["--tasks", str(home / _TASK), "--pooling", "cls", "--backend", "torch"]
        command += ["--output", str(home / "output"), "--store", str(home / "store")]
        command += ["--offline", "--quiet"]
        start = time.monotonic()
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stdout + done.stderr)
        seconds = time.monotonic() - start
        highest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        if highest <= before:
            raise RuntimeError("The making of the encoder took more memory than the run.")
    return highest / (2**20 if sys.platform == "darwin" else 2**10), seconds


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a row of the page; exit 1 if the run took more than the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=1_000_000)
    options = parser.parse_args(arguments)
    highest, seconds = peak(options.documents)
    print(
        f"| highest resident memory of a run on {options.documents:,} documents,"
        f" {_DIMENSION} dimensions; limit {LIMIT} MiB | {highest:.0f} MiB in {seconds:.0f} s |"
    )
    return int(highest > LIMIT)


if __name__ == "__main__":
    raise SystemExit(main())
