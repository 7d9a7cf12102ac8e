"""Score (query, document) pairs with a cross-encoder on the embedded model's weights."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any


def make(folder: str) -> dict[str, Any]:
    """Save the embedded encoder with a random scoring head: real cost, random scores."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from bge_eval.encode.locate import BUILTIN, locate
    from bge_eval.rerank.cross_encoder import CrossEncoderReranker
    from bge_eval.rerank.reranker import RerankerOptions

    torch.manual_seed(0)
    source = str(locate(BUILTIN).folder)
    model = AutoModelForSequenceClassification.from_pretrained(source, num_labels=1)
    model.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(source)
    tokenizer.model_max_length = 256
    tokenizer.save_pretrained(folder)
    start = time.perf_counter()
    CrossEncoderReranker(locate(folder), RerankerOptions(device="cpu")).score(
        [("a query", "a document")]
    )
    return {"seconds": 0.0, "conversion": time.perf_counter() - start}


def pairs_of(collection: str, count: int) -> list[tuple[str, str]]:
    folder = Path(collection)
    queries = [json.loads(line)["text"] for line in (folder / "queries.jsonl").open()]
    documents = [json.loads(line)["text"] for line in (folder / "corpus.jsonl").open()]
    return [(queries[n % len(queries)], documents[n * 7 % len(documents)]) for n in range(count)]


def ours(collection: str, model: str, pairs: int) -> dict[str, Any]:
    import mteb  # noqa: F401
    import sentence_transformers  # noqa: F401

    from bge_eval.encode.locate import locate
    from bge_eval.rerank.cross_encoder import CrossEncoderReranker
    from bge_eval.rerank.reranker import RerankerOptions

    asked = pairs_of(collection, pairs)
    start = time.perf_counter()
    scores = CrossEncoderReranker(locate(model), RerankerOptions(device="cpu")).score(asked)
    return _result(time.perf_counter() - start, scores.tolist())


def theirs(collection: str, model: str, pairs: int) -> dict[str, Any]:
    from sentence_transformers import CrossEncoder

    asked = pairs_of(collection, pairs)
    start = time.perf_counter()
    scores = CrossEncoder(model, device="cpu").predict(asked, show_progress_bar=False)
    return _result(time.perf_counter() - start, scores.tolist())


def _result(seconds: float, scores: list[float]) -> dict[str, Any]:
    return {"seconds": seconds, "scores": scores, "pairs_per_second": len(scores) / seconds}


OURS = "bge-eval"
CONTENDERS = {OURS: ours, "CrossEncoder.predict": theirs, "make": make}
