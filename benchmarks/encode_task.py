"""A whole retrieval task: data, model, encoding, search, measures. Import time is left out."""

from __future__ import annotations

import contextlib
import importlib
import json
import tempfile
import time
from pathlib import Path
from typing import Any

TOKENS_LIMIT = 256
"""The built-in model's maximum length in tokens, for every contender."""


def _ours(collection: str, backend: str, dtype: str, device: str) -> dict[str, Any]:
    _import_all()
    import mteb

    from bge_eval.encode.locate import BUILTIN
    from bge_eval.encode.settings import Backend, Dtype, Overrides
    from bge_eval.evaluation.evaluate import evaluate
    from bge_eval.evaluation.options import Options
    from bge_eval.models.kinds import ModelOptions
    from bge_eval.models.transformer import EncoderModel
    from bge_eval.suites.catalogue import plan

    with tempfile.TemporaryDirectory() as output:
        start = time.perf_counter()
        model = EncoderModel(
            BUILTIN,
            ModelOptions(
                backend=Backend(backend),
                store=False,
                device=device,
                overrides=Overrides(dtype=Dtype(dtype)),
                offline=True,
            ),
        )
        report = evaluate(model, plan([collection]), Options(Path(output), offline=True))
        seconds = time.perf_counter() - start
        (paths,) = report.done.values()
        score = _main_score(mteb.TaskResult.from_disk(paths[0]))
        (record,) = Path(output).rglob("run.json")
        run = json.loads(record.read_text())
    tokens = sum(run["tokens"].values())
    encoding = sum(value for name, value in run["seconds"].items() if name.startswith("encode"))
    return {
        "seconds": seconds,
        "score": score,
        "tokens": tokens,
        "tokens_per_second": tokens / seconds,
        "encoding": encoding,
        "backend": run["settings"]["backend"],
    }


def _mteb(collection: str, device: str) -> dict[str, Any]:
    _import_all()
    import mteb
    from sentence_transformers import SentenceTransformer

    from bge_eval.data.finding import find_source
    from bge_eval.progress import Progress
    from bge_eval.suites.catalogue import plan

    planned = plan([collection])[0]
    start = time.perf_counter()
    source = find_source(planned.task, [Path(collection).parent], planned.folder_names)
    with source.loaded(planned.task, Progress()):
        model = SentenceTransformer(_model(), device=device)
        done = mteb.evaluate(model, planned.task, cache=None, show_progress_bar=False)
        seconds = time.perf_counter() - start
    return {"seconds": seconds, "score": _main_score(done.task_results[0])}


def _beir(collection: str, device: str) -> dict[str, Any]:
    from beir.datasets.data_loader import GenericDataLoader
    from beir.retrieval.evaluation import EvaluateRetrieval
    from beir.retrieval.models import SentenceBERT
    from beir.retrieval.search.dense import DenseRetrievalExactSearch

    start = time.perf_counter()
    corpus, queries, qrels = GenericDataLoader(collection).load(split="test")
    model = SentenceBERT(_model(), device=device)
    search = DenseRetrievalExactSearch(model, show_progress_bar=False)
    retriever = EvaluateRetrieval(search, score_function="cos_sim")
    run = retriever.retrieve(corpus, queries)
    ndcg, *_ = retriever.evaluate(qrels, run, [10])
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "score": ndcg["NDCG@10"]}


def _flag(collection: str, device: str) -> dict[str, Any]:
    """FlagEmbedding's encoder with numpy's search and pytrec_eval's measure."""
    import numpy as np
    import pytrec_eval
    from FlagEmbedding import FlagModel

    start = time.perf_counter()
    folder = Path(collection)
    documents = [json.loads(line) for line in (folder / "corpus.jsonl").open()]
    queries = [json.loads(line) for line in (folder / "queries.jsonl").open()]
    qrels: dict[str, dict[str, int]] = {}
    for line in (folder / "qrels" / "test.tsv").read_text().splitlines()[1:]:
        query, document, grade = line.split("\t")
        qrels.setdefault(query, {})[document] = int(grade)
    model = FlagModel(
        _model(),
        pooling_method="mean",
        use_fp16=device != "cpu",
        devices=device,
        query_max_length=TOKENS_LIMIT,
        passage_max_length=TOKENS_LIMIT,
    )
    texts = [f"{document.get('title', '')} {document['text']}".strip() for document in documents]
    scores = (
        np.asarray(model.encode_queries([query["text"] for query in queries]))
        @ np.asarray(model.encode_corpus(texts)).T
    )
    run = {}
    for query, row in zip(queries, scores, strict=True):
        best = np.argsort(-row)[:1000]
        run[query["_id"]] = {documents[int(n)]["_id"]: float(row[n]) for n in best}
    measured = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.10"}).evaluate(run)
    seconds = time.perf_counter() - start
    values = [entry["ndcg_cut_10"] for entry in measured.values()]
    return {"seconds": seconds, "score": sum(values) / len(values)}


def _import_all() -> None:
    """Import every library that a contender needs, before the clock starts."""
    for name in ("mteb", "faiss", "openvino", "sentence_transformers", "transformers"):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def matrix_peak() -> dict[str, Any]:
    """Return this machine's peak in float32 matrix products of the model's shape, in FLOP/s."""
    import torch

    config = json.loads((Path(_model()) / "config.json").read_text())
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    left, right = torch.randn(4096, hidden), torch.randn(hidden, inner)
    best = 0.0
    for _ in range(20):
        start = time.perf_counter()
        for _ in range(10):
            left @ right
        best = max(best, 10 * 2 * 4096 * hidden * inner / (time.perf_counter() - start))
    # Attention's products grow with the length and are left out: a lower bound.
    per_token = 2 * config["num_hidden_layers"] * (4 * hidden**2 + 2 * hidden * inner)
    return {"flops": best, "flops_per_token": per_token}


def _model() -> str:
    from bge_eval.encode.locate import BUILTIN, locate

    return str(locate(BUILTIN).folder)


def _main_score(result: Any) -> float:
    return float(next(iter(result.scores.values()))[0]["main_score"])


OURS = "bge-eval float32"
PEAK = "matrix peak"
CONTENDERS = {
    OURS: lambda collection, device="cpu": _ours(collection, "auto", "float32", device),
    "bge-eval float32, torch": lambda collection, device="cpu": _ours(
        collection, "torch", "float32", device
    ),
    "mteb, sentence-transformers": lambda collection, device="cpu": _mteb(collection, device),
    "FlagEmbedding": lambda collection, device="cpu": _flag(collection, device),
    "beir": lambda collection, device="cpu": _beir(collection, device),
    "bge-eval bfloat16": lambda collection, device="cpu": _ours(
        collection, "auto", "bfloat16", device
    ),
    PEAK: lambda **_: matrix_peak(),
    "bge-eval int8": lambda collection, device="cpu": _ours(collection, "auto", "int8", device),
}
