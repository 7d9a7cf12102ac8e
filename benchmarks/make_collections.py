"""Make the collections of the benchmarks: a sample of SciFact, or generated documents."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

NAME = "BenchSample"
_WORDS = 20_000
_MEDIAN_WORDS = 180
_SPREAD = 0.6


def sample_scifact(source: Path, target: Path, documents: int, queries: int) -> None:
    """Write a sample of SciFact: the first test queries, their relevant documents, and others.

    Args:
        source: SciFact in the BEIR layout.
        target: the folder to make.
        documents: number of documents; every relevant one is among them.
        queries: number of queries.
    """
    judged = [line.split("\t") for line in (source / "qrels" / "test.tsv").read_text().splitlines()]
    chosen = set(list(dict.fromkeys(row[0] for row in judged[1:]))[:queries])
    kept = [row for row in judged[1:] if row[0] in chosen]
    relevant = {row[1] for row in kept}
    (target / "qrels").mkdir(parents=True)
    lines = ["\t".join(row) for row in [judged[0], *kept]]
    (target / "qrels" / "test.tsv").write_text("\n".join(lines) + "\n")
    filler = documents - len(relevant)
    with (source / "corpus.jsonl").open() as whole, (target / "corpus.jsonl").open("w") as part:
        for line in whole:
            if json.loads(line)["_id"] in relevant:
                part.write(line)
            elif filler > 0:
                filler -= 1
                part.write(line)
    with (source / "queries.jsonl").open() as whole, (target / "queries.jsonl").open("w") as part:
        part.writelines(line for line in whole if json.loads(line)["_id"] in chosen)


def generate(target: Path, documents: int, queries: int) -> None:
    """Write documents of invented words: log-normal lengths, as abstracts have, and Zipfian words.

    A query is twelve consecutive words of its one relevant document, a third of them replaced.
    """
    rng = random.Random(0)
    (target / "qrels").mkdir(parents=True)
    with (target / "corpus.jsonl").open("w") as corpus:
        for number, text in enumerate(_texts(rng, documents)):
            record = {"_id": f"d{number}", "title": " ".join(text[:8]), "text": " ".join(text)}
            corpus.write(json.dumps(record) + "\n")
            if number < queries:
                start = rng.randrange(max(1, len(text) - 12))
                asked = [
                    rng.choice(text) if rng.random() < 0.3 else word
                    for word in text[start : start + 12]
                ]
                with (target / "queries.jsonl").open("a") as file:
                    file.write(json.dumps({"_id": f"q{number}", "text": " ".join(asked)}) + "\n")
    judgements = [f"q{number}\td{number}\t1" for number in range(min(queries, documents))]
    rows = ["query-id\tcorpus-id\tscore", *judgements]
    (target / "qrels" / "test.tsv").write_text("\n".join(rows) + "\n")


def collection(target: Path, datasets: Path | None, documents: int, queries: int) -> str:
    """Make the collection in ``target`` and return its description."""
    shutil.rmtree(target, ignore_errors=True)
    if datasets is not None and (datasets / "SciFact" / "corpus.jsonl").is_file():
        sample_scifact(datasets / "SciFact", target, documents, queries)
        return "SciFact sample"
    generate(target, documents, queries)
    return "generated"


def _texts(rng: random.Random, documents: int) -> Iterator[list[str]]:
    syllables = [a + b for a in "bcdfglmnprst" for b in ("a", "e", "i", "o", "u", "an", "er", "is")]
    words = ["".join(rng.choices(syllables, k=rng.randint(1, 4))) for _ in range(_WORDS)]
    totals = []
    total = 0.0
    for rank in range(_WORDS):
        total += 1 / (rank + 10)
        totals.append(total)
    for _ in range(documents):
        length = int(_MEDIAN_WORDS * rng.lognormvariate(0, _SPREAD))
        yield rng.choices(words, cum_weights=totals, k=max(12, length))
