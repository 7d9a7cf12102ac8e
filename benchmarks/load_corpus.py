"""Read a BEIR folder into texts for an encoder."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any


def parse_only(collection: str) -> dict[str, Any]:
    start = time.perf_counter()
    count = 0
    with Path(collection, "corpus.jsonl").open(encoding="utf-8") as file:
        for line in file:
            json.loads(line)
            count += 1
    return {"seconds": time.perf_counter() - start, "documents": count}


def ours(collection: str) -> dict[str, Any]:
    import datasets  # noqa: F401

    from bge_eval.data.retrieval_folder import RetrievalFolder
    from bge_eval.data.texts import document_texts
    from bge_eval.progress import Progress

    with tempfile.TemporaryDirectory() as scratch:
        start = time.perf_counter()
        folder = RetrievalFolder.recognise(Path(collection))
        assert folder is not None
        split = folder.load(["test"], Path(scratch), Progress())["test"]
        count = sum(len(texts) for texts in document_texts(split.corpus, None, 4096))
        seconds = time.perf_counter() - start
    return {"seconds": seconds, "documents": count}


def beir(collection: str) -> dict[str, Any]:
    from beir.datasets.data_loader import GenericDataLoader

    start = time.perf_counter()
    corpus, *_ = GenericDataLoader(collection).load(split="test")
    texts = [f"{entry['title']} {entry['text']}".strip() for entry in corpus.values()]
    return {"seconds": time.perf_counter() - start, "documents": len(texts)}


def mteb_json(collection: str) -> dict[str, Any]:
    """The JSON reader of the datasets library, which mteb's loader uses."""
    from datasets import load_dataset

    with tempfile.TemporaryDirectory() as cache:
        start = time.perf_counter()
        path = str(Path(collection, "corpus.jsonl"))
        table = load_dataset("json", data_files=path, split="train", cache_dir=cache)
        count = 0
        for batch in table.iter(4096):
            texts = zip(batch["title"], batch["text"], strict=True)
            count += len([f"{title} {text}".strip() for title, text in texts])
        seconds = time.perf_counter() - start
    return {"seconds": seconds, "documents": count}


OURS = "bge-eval"
CONTENDERS = {
    "read and parse only": parse_only,
    OURS: ours,
    "beir, GenericDataLoader": beir,
    "datasets' JSON reader (mteb's)": mteb_json,
}
