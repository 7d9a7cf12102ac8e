"""The same model and data through mteb's own runner: every key of its scores must agree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mteb
import pytest

from bge_eval.data.collection import Collection, collection_task
from bge_eval.data.finding import find_source
from bge_eval.encode.settings import Overrides
from bge_eval.evaluation.evaluate import evaluate
from bge_eval.evaluation.options import Options
from bge_eval.measures.mteb_keys import parse_key
from bge_eval.models.transformer import EncoderModel
from bge_eval.progress import Progress
from bge_eval.reproduction.tables import Verdict, tables
from bge_eval.rerank.cross_encoder import CrossEncoderReranker
from bge_eval.results.trec import read_run
from bge_eval.suites.catalogue import PlannedTask, plan
from conftest import BUILTIN, make_encoder

# The peers warn while they run as references here; our own warnings are errors in all other tests.
pytestmark = pytest.mark.filterwarnings("ignore")

TOLERANCE = 1e-5


def same_scores(ours: Any, theirs: Any, *, skip: tuple[str, ...] = ()) -> None:
    """Compare two TaskResults, every split, subset and number."""
    assert ours.scores.keys() == theirs.scores.keys()
    for split, entries in theirs.scores.items():
        for mine, reference in zip(ours.scores[split], entries, strict=True):
            assert mine.keys() == reference.keys()
            assert len(reference) > 150
            for key, value in reference.items():
                if key in skip or not isinstance(value, float):
                    continue
                assert mine[key] == pytest.approx(value, abs=TOLERANCE, nan_ok=True), key


def reference_scores(planned: PlannedTask, data: Path, model: Any) -> Any:
    """Evaluate with mteb alone, on data read by our reader into mteb's own task."""
    source = find_source(planned.task, [data], planned.folder_names)
    with source.loaded(planned.task, Progress()):
        planned.cut_loaded()
        done = mteb.evaluate(model, planned.task, cache=None, show_progress_bar=False)
    return done.task_results[0]


def our_scores(model: EncoderModel, planned: PlannedTask, data: Path, output: Path) -> Any:
    report = evaluate(model, [planned], Options(output, (data,), offline=True))
    assert not report.failed
    return mteb.TaskResult.from_disk(report.done[planned.name][0])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "compared"), [("XQuADRetrieval", "XQuADRetrieval"), ("SciFact", "SciFact@lite=800")]
)
def test_published_score_and_every_key(
    real_data: Path, minilm_folder: Path, tmp_path: Path, task: str, compared: str
) -> None:
    """The published scores of a whole task; every key of it, or of a part, as mteb has it.

    sentence-transformers takes minutes for the whole of SciFact. The part has every judged document
    and more documents than mteb ranks (1,000).
    """
    from sentence_transformers import SentenceTransformer

    claims = [claim for claim in tables()["minilm"].claims if claim.task == task]
    assert len(claims) == (2 if task == "SciFact" else 1)
    subsets = [claims[0].subset] if claims[0].subset else []
    model = EncoderModel(BUILTIN)
    whole = our_scores(model, plan([task], subsets)[0], real_data, tmp_path)
    entry = next(iter(whole.scores.values()))[0]
    for claim in claims:
        key = "main_score" if claim.measure == "main" else parse_key(claim.measure)
        assert claim.verdict(entry[key]) is Verdict.OK, (claim, entry[key])
    ours = whole
    if compared != task:
        ours = our_scores(model, plan([compared])[0], real_data, tmp_path)
        assert ours.scores != whole.scores
    reference = SentenceTransformer(str(minilm_folder), device="cpu")
    same_scores(ours, reference_scores(plan([compared], subsets)[0], real_data, reference))


@pytest.mark.slow
def test_ranking_equals_beir(real_data: Path, tmp_path: Path) -> None:
    """beir's exact search on the same vectors gives the same ranking and its measures."""
    from beir.datasets.data_loader import GenericDataLoader
    from beir.retrieval.evaluation import EvaluateRetrieval
    from beir.retrieval.search.dense import DenseRetrievalExactSearch

    model = EncoderModel(BUILTIN)
    planned = plan(["XQuADRetrieval"], ["zh"])[0]
    report = evaluate(model, [planned], Options(tmp_path, (real_data,), offline=True))
    path = report.done["XQuADRetrieval"][0]
    ours = read_run(path.with_name("XQuADRetrieval.run.tsv.gz"))

    class Vectors:
        """beir's model interface over our vectors."""

        def encode_queries(self, queries: list[str], **kwargs: Any) -> Any:
            return model.encoder.encode(queries)

        def encode_corpus(self, corpus: list[dict[str, str]], **kwargs: Any) -> Any:
            texts = [f"{d.get('title', '')} {d['text']}".strip() for d in corpus]
            return model.encoder.encode(texts)

    folder = str(real_data / "XQuADRetrieval" / "zh")
    corpus, queries, qrels = GenericDataLoader(folder).load(split="validation")
    retriever = EvaluateRetrieval(DenseRetrievalExactSearch(Vectors(), batch_size=64))
    theirs = retriever.retrieve(corpus, queries)
    assert ours.keys() == theirs.keys()
    for query, scores in theirs.items():
        ranked = sorted(scores, key=lambda doc: (scores[doc], doc), reverse=True)
        mine = sorted(ours[query], key=lambda doc: (ours[query][doc], doc), reverse=True)
        assert mine[:10] == ranked[:10]
        for doc in ranked:
            assert ours[query][doc] == pytest.approx(scores[doc], abs=TOLERANCE)
    ndcg, _, recall, _ = retriever.evaluate(qrels, theirs, [10, 100])
    entry = mteb.TaskResult.from_disk(path).scores["validation"][0]
    assert entry["ndcg_at_10"] == pytest.approx(ndcg["NDCG@10"], abs=TOLERANCE)
    assert entry["recall_at_100"] == pytest.approx(recall["Recall@100"], abs=TOLERANCE)


@pytest.mark.slow
def test_mock_run() -> None:
    """mteb's own check of a model implementation: every text task must run."""
    from mteb.mocks.mock_run import mock_run
    from mteb.results import TaskResult

    results = mock_run(EncoderModel(BUILTIN)).task_results
    failed = {name: res for name, res in results.items() if not isinstance(res, TaskResult)}
    assert not {name: res for name, res in failed.items() if res is not None}
    passed = [name for name, res in results.items() if isinstance(res, TaskResult)]
    assert len(passed) >= 28


def test_mock_retrieval_and_reranking_equal_mteb(minilm_folder: Path) -> None:
    """The search through faiss against mteb's search over the same encoder, candidates too."""
    from mteb.mocks.mock_tasks import MockRerankingTask, MockRetrievalTask
    from sentence_transformers import SentenceTransformer

    reference = SentenceTransformer(str(minilm_folder), device="cpu")
    for kind in (MockRetrievalTask, MockRerankingTask):
        ours = mteb.evaluate(EncoderModel(BUILTIN), kind(), cache=None).task_results[0]
        theirs = mteb.evaluate(reference, kind(), cache=None).task_results[0]
        same_scores(ours, theirs)


DEMO = Path(__file__).resolve().parents[2] / "tasks" / "demo"


def demo() -> PlannedTask:
    return plan(["demo"])[0]


def test_demo_is_hard_and_equals_mteb(minilm_folder: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    ours = our_scores(EncoderModel(BUILTIN), demo(), DEMO.parent, tmp_path)
    assert 0.4 < ours.scores["test"][0]["ndcg_at_10"] < 0.9
    reference = SentenceTransformer(str(minilm_folder), device="cpu")
    task = demo()
    with find_source(task.task, [DEMO.parent], ["demo"]).loaded(task.task, Progress()):
        theirs = mteb.evaluate(reference, task.task, cache=None).task_results[0]
    same_scores(ours, theirs)


def test_dot_product_and_long_queries_equal_mteb(tmp_path: Path, minilm_folder: Path) -> None:
    """A model compared by inner product of vectors that are not normalised."""
    import json

    from sentence_transformers import SentenceTransformer

    folder = make_encoder(tmp_path / "model", minilm_folder, "mean")
    for name, content in (
        ("modules.json", json.loads((folder / "modules.json").read_text())[:2]),
        ("config_sentence_transformers.json", {"similarity_fn_name": "dot"}),
    ):
        (folder / name).write_text(json.dumps(content))
    ours = our_scores(EncoderModel(str(folder)), demo(), DEMO.parent, tmp_path / "out")
    task = demo()
    with find_source(task.task, [DEMO.parent], ["demo"]).loaded(task.task, Progress()):
        reference = SentenceTransformer(str(folder), device="cpu")
        theirs = mteb.evaluate(reference, task.task, cache=None).task_results[0]
    same_scores(ours, theirs)


@pytest.mark.parametrize("depth", [10, pytest.param(100, marks=pytest.mark.slow)])
def test_second_stage_equals_mteb(
    tmp_path: Path, minilm_folder: Path, tiny_cross_encoder: Path, depth: int
) -> None:
    """mteb's two stages (predictions, convert_to_reranking, cross-encoder) on the same models."""
    from sentence_transformers import CrossEncoder, SentenceTransformer

    from bge_eval.encode.locate import locate

    reranker = CrossEncoderReranker(locate(str(tiny_cross_encoder)))
    options = Options(tmp_path / "out", rerank_top_k=depth, offline=True)
    report = evaluate(EncoderModel(BUILTIN), [demo()], options, reranker=reranker)
    first, second = report.done["BgeEvalDemo"]
    ours = mteb.TaskResult.from_disk(second)

    task = demo()
    with find_source(task.task, [DEMO.parent], ["demo"]).loaded(task.task, Progress()):
        retriever = SentenceTransformer(str(minilm_folder), device="cpu")
        predictions = tmp_path / "predictions"
        mteb.evaluate(retriever, task.task, cache=None, prediction_folder=predictions)
        reranking: Any = task.task
        reranking.convert_to_reranking(predictions, top_k=depth)
        model = CrossEncoder(str(tiny_cross_encoder), device="cpu")
        theirs = mteb.evaluate(model, reranking, cache=None).task_results[0]
    # The tail keeps its order beneath the head, so what lies beyond the depth is not mteb's.
    entry, reference = ours.scores["test"][0], theirs.scores["test"][0]
    compared = 0
    for key, value in reference.items():
        cutoffs = [int(part) for part in key.split("_") if part.isdigit()]
        if cutoffs and cutoffs[0] <= depth:
            assert entry[key] == pytest.approx(value, abs=TOLERANCE, nan_ok=True), key
            compared += 1
    assert compared > 80
    before = mteb.TaskResult.from_disk(first).scores["test"][0]
    assert entry["recall_at_1000"] == before["recall_at_1000"]
    assert entry["ndcg_at_10"] != before["ndcg_at_10"]


def test_tail_keeps_its_order(tmp_path: Path, tiny_cross_encoder: Path) -> None:
    from bge_eval.encode.locate import locate

    reranker = CrossEncoderReranker(locate(str(tiny_cross_encoder)))
    options = Options(tmp_path, rerank_top_k=5, offline=True)
    report = evaluate(EncoderModel(BUILTIN), [demo()], options, reranker=reranker)
    first, second = (
        read_run(path.with_name("BgeEvalDemo.run.tsv.gz")) for path in report.done["BgeEvalDemo"]
    )
    for query, scores in second.items():
        ranked = sorted(scores, key=lambda doc: scores[doc], reverse=True)
        before = sorted(first[query], key=lambda doc: (first[query][doc], doc), reverse=True)
        assert set(ranked[:5]) == set(before[:5])
        assert ranked[5:] == before[5:]


def test_identical_ids_are_removed_where_mteb_does(tmp_path: Path, minilm_folder: Path) -> None:
    """ArguAna's queries are documents of its corpus; mteb drops them after the search."""
    from sentence_transformers import SentenceTransformer

    from conftest import write_beir

    texts = ["bones and vitamins", "sleep and memory", "weight and sugar", "blood and aspirin"]
    write_beir(
        tmp_path / "arguana",
        [{"_id": f"a{i}", "title": "", "text": text} for i, text in enumerate(texts)],
        {f"a{i}": text for i, text in enumerate(texts)},
        [(f"a{i}", f"a{(i + 1) % 4}", 1) for i in range(4)],
    )
    report = evaluate(
        EncoderModel(BUILTIN), plan(["ArguAna"]), Options(tmp_path / "out", (tmp_path,))
    )
    path = report.done["ArguAna"][0]
    run = read_run(path.with_name("ArguAna.run.tsv.gz"))
    assert all(query not in documents for query, documents in run.items())
    theirs = reference_scores(
        plan(["ArguAna"])[0], tmp_path, SentenceTransformer(str(minilm_folder), device="cpu")
    )
    same_scores(mteb.TaskResult.from_disk(path), theirs)


def test_collection_is_an_mteb_task(small_scifact: Path) -> None:
    collection = Collection("Mine", small_scifact / "scifact", "A test.", ("eng-Latn",))
    task = collection_task(collection)
    assert task.metadata.name == "Mine"
    assert task.metadata.main_score == "ndcg_at_10"


def test_load_model_works_in_mteb(tiny_bge: Path) -> None:
    import bge_eval

    model = bge_eval.load_model(str(tiny_bge), max_length=64, query_prompt="q: ")
    assert isinstance(model, EncoderModel)
    assert isinstance(model.overrides, Overrides)
    task = demo()
    with find_source(task.task, [DEMO.parent], ["demo"]).loaded(task.task, Progress()):
        done = mteb.evaluate(model, task.task, cache=None).task_results[0]
    assert 0 <= done.get_score() < 1
