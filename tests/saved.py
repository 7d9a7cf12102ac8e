"""Saved runs made of given rankings, as the output folder holds them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bge_eval.measures.measure import Measure
from bge_eval.measures.mteb_keys import CUTOFFS, mteb_key
from bge_eval.measures.per_query import PER_QUERY, per_query
from bge_eval.records import Excerpts, Qrels, Run
from bge_eval.results.trec import write_excerpts, write_per_query, write_qrels, write_run


def result_folder(root: Path, model: str, task: str, experiment: Mapping[str, Any] | None) -> Path:
    """Make the folder of a model's results, with mteb's record of the model in it."""
    folder = root / "results" / model.replace("/", "__") / "rev12345"
    if experiment:
        folder = folder / "experiments" / "_".join(experiment)
    (folder / task).mkdir(parents=True, exist_ok=True)
    meta = {"name": model, "revision": "rev12345", "experiment_kwargs": experiment}
    (folder / "model_meta.json").write_text(json.dumps(meta))
    return folder


def without_checksums(record: Path) -> dict[str, Any]:
    """Rewrite a run.json without checksums, so that a test may change the result; return it."""
    content: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
    content = {name: content[name] for name in content if not name.startswith("checksum")}
    record.write_text(json.dumps(content), encoding="utf-8")
    return content


def save_run(
    root: Path,
    model: str,
    run: Run,
    qrels: Qrels,
    texts: Excerpts | None = None,
    *,
    task: str = "Mine",
    experiment: Mapping[str, Any] | None = None,
    recorded: Mapping[str, Any] | None = None,
) -> Path:
    """Save one retrieval result with its run, judgements, texts and real measures."""
    folder = result_folder(root, model, task, experiment)
    names = {
        "run": f"{task}.run.tsv.gz",
        "queries": f"{task}.queries.tsv.gz",
        "qrels": f"{task}.qrels.tsv.gz",
        "texts": f"{task}.texts.jsonl.gz",
    }
    values = per_query(run, qrels)
    write_run(folder / names["run"], run, model)
    write_qrels(folder / names["qrels"], qrels)
    write_per_query(folder / names["queries"], [str(m) for m in PER_QUERY], values)
    write_excerpts(folder / names["texts"], texts or Excerpts())
    kept = [*PER_QUERY, *(Measure("R", k) for k in CUTOFFS)]
    every = per_query(run, qrels, kept)
    scores = {
        mteb_key(measure): sum(row[place] for row in every.values()) / len(every)
        for place, measure in enumerate(kept)
    }
    entry = {"hf_subset": "default", "main_score": scores["ndcg_at_10"], **scores}
    record = {
        "format": 1,
        "identity": {"model": {"dtype": "float32", "pooling": "mean"}},
        "task_type": "Retrieval",
        "main_measure": "ndcg_at_10",
        "created": "2026-01-02T03:04:05+00:00",
        "files": [{"subset": "default", "split": "test", **names}],
        **(recorded or {}),
    }
    (folder / task / "run.json").write_text(json.dumps(record))
    path = folder / f"{task}.json"
    path.write_text(json.dumps({"task_name": task, "scores": {"test": [entry]}}))
    return path
