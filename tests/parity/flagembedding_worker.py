"""FlagEmbedding, asked over standard input: one JSON request a line, one JSON answer a line.

This file runs in FlagEmbedding's own environment (tests/environments.py) and imports nothing of
ours. A request is ``{"call": name of a function below, …its arguments}``; the answer is
``{"result": …}`` or ``{"error": traceback}``.
"""

from __future__ import annotations

import json
import sys
import traceback
import warnings
from typing import Any

COMMON: dict[str, Any] = {"use_fp16": False, "devices": ["cpu"]}


def m3(folder: str, queries: list[str], documents: list[str], max_length: int) -> dict[str, Any]:
    """BGE-M3's scores by mode, ``(queries, documents)``."""
    from FlagEmbedding import BGEM3FlagModel

    model = BGEM3FlagModel(folder, **COMMON)
    options = {"max_length": max_length, "return_sparse": True, "return_colbert_vecs": True}
    asked, answers = model.encode(queries, **options), model.encode(documents, **options)
    sparse = model.compute_lexical_matching_score(
        asked["lexical_weights"], answers["lexical_weights"]
    )
    # Not its compute_score: there padding's zero vectors win over matches below zero.
    colbert = [
        [float(model.colbert_score(query, document)) for document in answers["colbert_vecs"]]
        for query in asked["colbert_vecs"]
    ]
    dense = asked["dense_vecs"] @ answers["dense_vecs"].T
    return {"dense": dense.tolist(), "sparse": sparse.tolist(), "colbert": colbert}


def in_context(
    folder: str, texts: list[str], max_length: int, instruction: str, examples: list[Any]
) -> dict[str, Any]:
    """bge-en-icl's vectors of queries and of passages."""
    from FlagEmbedding import FlagICLModel

    model = FlagICLModel(
        folder,
        query_instruction_for_retrieval=instruction,
        examples_for_task=examples or None,
        query_max_length=max_length,
        passage_max_length=max_length,
        **COMMON,
    )
    queries, passages = model.encode_queries(texts), model.encode_corpus(texts)
    return {"queries": queries.tolist(), "passages": passages.tolist()}


def cross_encoder(folder: str, pairs: list[Any], **options: Any) -> Any:
    """Logits of a sequence classifier."""
    from FlagEmbedding import FlagReranker

    return FlagReranker(folder, **COMMON).compute_score(pairs, **options)


def yes_logit(folder: str, pairs: list[Any], **options: Any) -> Any:
    """bge-reranker-v2-gemma's scores."""
    from FlagEmbedding import FlagLLMReranker

    return FlagLLMReranker(folder, batch_size=3, **COMMON).compute_score(pairs, **options)


def layerwise(folder: str, pairs: list[Any], layers: list[int], **options: Any) -> Any:
    """bge-reranker-v2-minicpm-layerwise's scores for each number of layers."""
    from FlagEmbedding import LayerWiseFlagLLMReranker

    model = LayerWiseFlagLLMReranker(folder, batch_size=3, **COMMON)
    return [model.compute_score(pairs, cutoff_layers=[layer], **options) for layer in layers]


def lightweight(folder: str, pairs: list[Any], settings: list[Any], **options: Any) -> Any:
    """bge-reranker-v2.5-gemma2-lightweight's scores for each (layers, ratio, compress_layers)."""
    from FlagEmbedding import LightWeightFlagLLMReranker

    model = LightWeightFlagLLMReranker(folder, batch_size=3, **COMMON)
    # Its default attention on a machine without flash-attention leaves Gemma 2's soft-capping out.
    model.model = type(model.model).from_pretrained(folder, attn_implementation="eager")
    return [
        model.compute_score(
            pairs, cutoff_layers=[layers], compress_ratio=ratio, compress_layers=at, **options
        )
        for layers, ratio, at in settings
    ]


def training_rows(path: str, cache: str, group_size: int) -> list[dict[str, Any]]:
    """The rows of its training data set: query, passages (a positive first), teacher's scores."""
    import torch.distributed
    from FlagEmbedding.abc.finetune.embedder import (
        AbsEmbedderDataArguments,
        AbsEmbedderTrainDataset,
    )

    arguments = AbsEmbedderDataArguments(
        train_data=[path],
        cache_path=cache,
        train_group_size=group_size,
        knowledge_distillation=True,
    )
    # It asks for the rank of the process, so there has to be a group of processes.
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{path}.group", rank=0, world_size=1
    )
    try:
        rows = AbsEmbedderTrainDataset(arguments, tokenizer=None)
        return [
            dict(zip(("query", "passages", "scores"), rows[row], strict=True))
            for row in range(len(rows))
        ]
    finally:
        torch.distributed.destroy_process_group()


CALLS = {
    call.__name__: call
    for call in (
        *(m3, in_context),
        *(cross_encoder, yes_logit, layerwise, lightweight),
        training_rows,
    )
}


def main() -> None:
    answers, sys.stdout = sys.stdout, sys.stderr  # FlagEmbedding prints
    warnings.simplefilter("ignore")
    import torch

    torch.set_grad_enabled(False)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"result": CALLS[request.pop("call")](**request)}
        except Exception:
            answer = {"error": traceback.format_exc()}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
