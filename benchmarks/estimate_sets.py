"""Write small data sets of kinds that are rare: a clustering, a reranking and a little retrieval.

    python benchmarks/estimate_sets.py --data-dir DIR --output made

They are made of the texts of SciFact and Banking77Classification under the names of tasks of
mteb's, so that what they take can be measured; their scores mean nothing.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def main() -> None:
    """Write the three sets."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    output = arguments.output
    rows = _read(arguments.data_dir / "Banking77Classification" / "test.jsonl")
    columns = {"sentences": "text", "labels": "label"}
    clusters = [{name: [row[key] for row in rows] for name, key in columns.items()}]
    _write(output / "TwentyNewsgroupsClustering.v2" / "test.jsonl", clusters)

    folder = arguments.data_dir / "SciFact"
    corpus = {row["_id"]: row for row in _read(folder / "corpus.jsonl")}
    queries = {row["_id"]: row for row in _read(folder / "queries.jsonl")}
    with (folder / "qrels" / "test.tsv").open(encoding="utf-8", newline="") as file:
        judged = [tuple(line[:2]) for line in csv.reader(file, delimiter="\t")][1:]
    draw = random.Random(0)
    ids = sorted(corpus)
    pairs = [(query, document) for query, document in judged if document in corpus]
    reranking = [
        {
            "query": queries[query]["text"],
            "positive": [corpus[document]["text"]],
            "negative": [corpus[other]["text"] for other in draw.sample(ids, 10)],
        }
        for query, document in dict(pairs[:120]).items()
    ]
    _write(output / "AskUbuntuDupQuestions" / "test.jsonl", reranking)

    kept = {document for _, document in pairs[:150]} | set(draw.sample(ids, 1200))
    few = [(query, document) for query, document in pairs if document in kept]
    place = output / "NFCorpus"
    _write(place / "corpus.jsonl", (corpus[document] for document in sorted(kept)))
    _write(place / "queries.jsonl", (queries[query] for query in dict(few)))
    qrels = place / "qrels" / "test.tsv"
    qrels.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{query}\t{document}\t1\n" for query, document in few]
    qrels.write_text("query-id\tcorpus-id\tscore\n" + "".join(lines), encoding="utf-8")


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _write(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main()
