"""Train a small cross-encoder on SciFact's training judgements, as a second stage to measure.

    python benchmarks/train_cross_encoder.py DATA/SciFact OUT [--minutes 4]
    bge-eval run --model builtin:all-MiniLM-L6-v2 --reranker OUT --rerank-top-k 20 \
        --reranker-max-length 160 --tasks SciFact --data-dir DATA

It starts from the embedded MiniLM's weights and tells each relevant abstract from negatives that
MiniLM itself ranks high. The weights are not kept in the repository.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import time
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from bge_eval.models.form import Form
from bge_eval.models.kinds import ModelOptions
from bge_eval.models.transformer import EncoderModel

LENGTH = 160
NEGATIVES = 3
FROZEN_LAYERS = 2
QUERIES_A_STEP = 6
RATE = 1e-4


def read(folder: Path) -> tuple[dict[str, str], dict[str, str], dict[str, set[str]]]:
    lines = (folder / "corpus.jsonl").read_text("utf-8").splitlines()
    corpus = {d["_id"]: f"{d['title']} {d['text']}".strip() for d in map(json.loads, lines)}
    lines = (folder / "queries.jsonl").read_text("utf-8").splitlines()
    queries = {q["_id"]: q["text"] for q in map(json.loads, lines)}
    relevant: dict[str, set[str]] = {}
    with (folder / "qrels" / "train.tsv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            if int(row["score"]) > 0:
                relevant.setdefault(row["query-id"], set()).add(row["corpus-id"])
    return corpus, queries, relevant


def hard_negatives(
    corpus: dict[str, str], queries: dict[str, str], relevant: dict[str, set[str]]
) -> dict[str, list[str]]:
    """Return MiniLM's first 30 irrelevant abstracts for every training claim."""
    model = EncoderModel("builtin:all-MiniLM-L6-v2", ModelOptions(offline=True))
    ids = list(corpus)
    documents = model._encode(list(corpus.values()), Form(), "encode corpus")
    asked = model._encode([queries[query] for query in relevant], Form(), "encode queries")
    ranked = np.argsort(-(asked @ documents.T), axis=1)[:, :30]
    return {
        query: [ids[row] for row in rows if ids[row] not in relevant[query]]
        for query, rows in zip(relevant, ranked.tolist(), strict=True)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="SciFact in the BEIR layout")
    parser.add_argument("out", type=Path, help="where the reranker is saved")
    parser.add_argument("--minutes", type=float, default=4.0)
    chosen = parser.parse_args()
    random.seed(0)
    torch.manual_seed(0)
    corpus, queries, relevant = read(chosen.data)
    negatives = hard_negatives(corpus, queries, relevant)
    folder = EncoderModel("builtin:all-MiniLM-L6-v2", ModelOptions(offline=True)).files.folder
    tokenizer = AutoTokenizer.from_pretrained(folder, model_max_length=512)
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device).train()
    # The lowest layers change least in a few steps and cost a third of the time: freeze them.
    frozen = [model.base_model.embeddings, *model.base_model.encoder.layer[:FROZEN_LAYERS]]
    for part in frozen:
        part.requires_grad_(False)
    learned = [weights for weights in model.parameters() if weights.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=RATE, weight_decay=0.01)
    pairs = [(query, document) for query, found in relevant.items() for document in found]
    start, step, running = time.monotonic(), 0, 1.0
    limit = chosen.minutes * 60
    while (spent := time.monotonic() - start) < limit:
        for group in optimizer.param_groups:  # warm up, then down to nothing when time is up
            group["lr"] = RATE * min(1.0, (step + 1) / 20) * (1 - spent / limit)
        left, right = [], []
        for query, document in random.sample(pairs, QUERIES_A_STEP):
            others = random.sample(negatives[query], NEGATIVES)
            left += [queries[query]] * (1 + NEGATIVES)
            right += [corpus[name] for name in (document, *others)]
        inputs = tokenizer(
            left,
            right,
            truncation="only_second",
            max_length=LENGTH,
            padding=True,
            return_tensors="pt",
        ).to(device)
        logits = model(**inputs).logits.view(QUERIES_A_STEP, 1 + NEGATIVES)
        target = torch.zeros(QUERIES_A_STEP, dtype=torch.long, device=device)
        loss = torch.nn.functional.cross_entropy(logits, target)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        running += 0.05 * (loss.item() - running)
        if step % 20 == 0:
            print(f"step {step}, {spent:.0f} s, loss {running:.3f}", flush=True)
    model.eval().save_pretrained(chosen.out)
    tokenizer.save_pretrained(chosen.out)
    print(f"{step} steps in {chosen.minutes} minutes; saved to {chosen.out}")


if __name__ == "__main__":
    main()
