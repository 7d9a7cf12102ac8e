"""The second stage: batches, given first stages, a reranker by itself."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mteb
import numpy as np
import pytest

from bge_eval.encode.locate import locate
from bge_eval.errors import BgeEvalError, DamagedError, MissingError, UsageError
from bge_eval.evaluation.evaluate import evaluate
from bge_eval.evaluation.options import Options
from bge_eval.models.base import Model
from bge_eval.models.reranker_alone import RerankerAlone
from bge_eval.models.saved_runs import RecordedRuns, SavedRuns, open_runs
from bge_eval.models.transformer import EncoderModel
from bge_eval.rerank.cross_encoder import CrossEncoderReranker
from bge_eval.rerank.reranker import RerankerOptions
from bge_eval.results.finished import Report
from bge_eval.results.record import read_record
from bge_eval.results.trec import read_run, write_run
from bge_eval.runtime.batches import PairRule
from bge_eval.suites.catalogue import plan
from conftest import BUILTIN, CommandLine, write_beir

PAIRS = [
    ("what makes bones strong", "Vitamin D strengthens bones."),
    ("糖尿病的原因", "二型糖尿病与体重有关。"),
    ("", "an empty query"),
    ("an empty document", ""),
    ("", ""),
    ("a long document", "word " * 900),
    ("very long query " * 300, "short"),
    ("what makes bones strong", "Aspirin thins the blood."),
    ("what makes bones strong", "Vitamin D strengthens bones."),
]


@pytest.mark.parametrize("budget", [1, 700, 100_000])
@pytest.mark.parametrize("max_length", [None, 32])
def test_equals_cross_encoder_predict(
    tiny_cross_encoder: Path, budget: int, max_length: int | None
) -> None:
    from sentence_transformers import CrossEncoder

    expected = CrossEncoder(
        str(tiny_cross_encoder),
        device="cpu",
        processor_kwargs={"model_max_length": max_length} if max_length else None,
    ).predict(PAIRS)
    reranker = CrossEncoderReranker(
        locate(str(tiny_cross_encoder)), RerankerOptions(max_length=max_length, batch_tokens=budget)
    )
    scores = reranker.score(PAIRS)
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    assert reranker.progress.profile.counts == {"rerank": len(PAIRS)}


def test_batches_keep_to_the_budget() -> None:
    rng = np.random.default_rng(0)
    words = [" ".join(["w"] * int(n)) for n in rng.integers(0, 60, 300)]
    pairs = [(words[i], words[j]) for i, j in rng.integers(0, 300, (500, 2))]
    asked: list[str] = []

    def lengths_of(texts: list[str]) -> list[int]:
        asked.extend(texts)
        return [len(text.split()) for text in texts]

    batches = list(PairRule(lengths_of, 400, 80, 3).batches(pairs))
    rows = np.concatenate([batch.rows for batch in batches])
    assert sorted(rows.tolist()) == list(range(500)), "every pair once"
    assert len(asked) == len(set(asked)), "no text is measured twice"
    length = [min(len(q.split()) + len(d.split()) + 3, 80) for q, d in pairs]
    ordered = [length[row] for row in rows]
    assert ordered == sorted(ordered, reverse=True), "longest first"
    for batch in batches:
        longest = max(length[row] for row in batch.rows)
        assert longest * len(batch.rows) <= 400
        assert batch.tokens == sum(length[row] for row in batch.rows)
    assert len(batches) < 120


# ── a first stage that was made before ──────────────────────────────────────────────────────


@pytest.fixture
def first_run(small_scifact: Path, tmp_path: Path) -> Path:
    """The folder of a model's saved runs."""
    options = Options(tmp_path / "first", (small_scifact,), offline=True)
    report = evaluate(EncoderModel(BUILTIN), plan(["SciFact"]), options)
    return report.done["SciFact"][0].parent


@pytest.fixture
def reranked(small_scifact: Path, tiny_cross_encoder: Path) -> Callable[..., tuple[Report, Path]]:
    def call(model: Model, output: Path, data: Path = small_scifact) -> tuple[Report, Path]:
        reranker = CrossEncoderReranker(locate(str(tiny_cross_encoder)))
        options = Options(output, (data,), offline=True, rerank_top_k=3)
        return evaluate(model, plan(["SciFact"]), options, reranker=reranker), output

    return call


def scores(path: Path) -> dict[str, Any]:
    found = mteb.TaskResult.from_disk(path).scores["test"][0]
    return {key: value for key, value in found.items() if value == value}  # NaN equals nothing


def digest(path: Path) -> str:
    record = read_record(path)
    return record.identity_digest


def test_saved_run_stands_for_its_model(
    first_run: Path, tmp_path: Path, reranked: Callable[..., tuple[Report, Path]]
) -> None:
    """What is made of it has the identity and the place that --model would have given."""
    with_model, _ = reranked(EncoderModel(BUILTIN), tmp_path / "a")
    with_run, _ = reranked(open_runs(first_run), tmp_path / "b")
    assert not with_run.failed
    pairs = list(zip(with_model.done["SciFact"], with_run.done["SciFact"], strict=True))
    assert len(pairs) == 2
    for theirs, ours in pairs:
        assert ours.relative_to(tmp_path / "b") == theirs.relative_to(tmp_path / "a")
        assert digest(ours) == digest(theirs)
        assert scores(ours) == scores(theirs)
    # In the same output the first stage is not even measured again.
    before = first_run.joinpath("SciFact.json").stat().st_mtime_ns
    again, _ = reranked(open_runs(first_run / "SciFact.run.tsv.gz"), tmp_path / "first")
    assert first_run.joinpath("SciFact.json").stat().st_mtime_ns == before
    assert digest(again.done["SciFact"][1]) == digest(with_model.done["SciFact"][1])


@pytest.mark.parametrize("name", ["SciFact.run", "scifact.trec.gz", "bm25-run.txt"])
def test_run_of_another_tool(
    first_run: Path, tmp_path: Path, reranked: Callable[..., tuple[Report, Path]], name: str
) -> None:
    """Space-separated columns and wrong ranks, as other tools write them; scores decide."""
    run = read_run(first_run / "SciFact.run.tsv.gz")
    lines = [
        f"{query} Q0 {doc} 0 {score!r} other\n"
        for query, documents in run.items()
        for doc, score in reversed(documents.items())
    ]
    place = tmp_path / "runs" / name
    place.parent.mkdir()
    opener = gzip.open if name.endswith(".gz") else open
    with opener(place, "wt", encoding="utf-8") as file:
        file.writelines(lines)
    given = open_runs(place if name.startswith("bm25") else place.parent)
    report, _ = reranked(given, tmp_path / "out")
    with_model, _ = reranked(EncoderModel(BUILTIN), tmp_path / "reference")
    for ours, theirs in zip(report.done["SciFact"], with_model.done["SciFact"], strict=True):
        assert scores(ours) == scores(theirs)
        assert digest(ours) != digest(theirs)
        assert "runs__" in str(ours)


def test_reranked_run_is_a_first_stage_like_any(
    first_run: Path, tmp_path: Path, reranked: Callable[..., tuple[Report, Path]]
) -> None:
    report, _ = reranked(open_runs(first_run), tmp_path / "out")
    second = report.done["SciFact"][1]
    given = open_runs(second.with_name("SciFact.run.tsv.gz"))
    assert not isinstance(given, RecordedRuns)
    again, _ = reranked(given, tmp_path / "again")
    assert scores(again.done["SciFact"][0])["ndcg_at_10"] == scores(second)["ndcg_at_10"]


def spoilt(run: dict[str, dict[str, float]], how: str) -> dict[str, dict[str, float]]:
    if how == "document":
        return {query: {f"{doc}-x": s for doc, s in docs.items()} for query, docs in run.items()}
    return {f"{query}-x": docs for query, docs in run.items()}


@pytest.mark.parametrize(
    ("how", "message"),
    [("document", "which the corpus of SciFact lacks"), ("query", "none of the 3 queries")],
)
def test_run_of_something_else(
    first_run: Path, tmp_path: Path, small_scifact: Path, how: str, message: str
) -> None:
    write_run(tmp_path / "r.run.gz", spoilt(read_run(first_run / "SciFact.run.tsv.gz"), how), "x")
    options = Options(tmp_path / "out", (small_scifact,), offline=True)
    report = evaluate(open_runs(tmp_path / "r.run.gz"), plan(["SciFact"]), options)
    assert isinstance(report.failed["SciFact"], DamagedError)
    assert message in str(report.failed["SciFact"])


def test_queries_without_documents_score_nothing(
    first_run: Path, tmp_path: Path, small_scifact: Path
) -> None:
    run = read_run(first_run / "SciFact.run.tsv.gz")
    del run["q1"]
    write_run(tmp_path / "r.run.gz", run, "x")
    options = Options(tmp_path / "out", (small_scifact,), offline=True)
    report = evaluate(open_runs(tmp_path / "r.run.gz"), plan(["SciFact"]), options)
    whole = scores(first_run / "SciFact.json")
    assert whole["recall_at_10"] == 1.0
    assert scores(report.done["SciFact"][0])["recall_at_10"] == pytest.approx(2 / 3, abs=1e-5)


def test_saved_run_of_other_data_is_refused(
    first_run: Path, small_scifact: Path, tmp_path: Path
) -> None:
    with (small_scifact / "scifact" / "corpus.jsonl").open("a") as file:
        file.write(json.dumps({"_id": "d6", "text": "One more."}) + "\n")
    options = Options(tmp_path / "out", (small_scifact,), offline=True)
    report = evaluate(open_runs(first_run), plan(["SciFact"]), options)
    assert isinstance(report.failed["SciFact"], UsageError)
    assert "was made on other data" in str(report.failed["SciFact"])


def test_what_is_no_first_stage(first_run: Path, tmp_path: Path, small_scifact: Path) -> None:
    with pytest.raises(MissingError, match="no such file"):
        open_runs(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingError, match="holds no run"):
        open_runs(tmp_path / "empty")
    for given in (open_runs(first_run), foreign(tmp_path, "SciFact.run")):
        with pytest.raises(MissingError, match=r"no run of ArguAna.*SciFact\.run"):
            given.identity(plan(["ArguAna"])[0].task.metadata)


def foreign(folder: Path, *names: str) -> SavedRuns:
    for name in names:
        (folder / "other").mkdir(exist_ok=True)
        (folder / "other" / name).write_text("q1\tQ0\td1\t1\t1.5\tx\n")
    return open_runs(folder / "other")


def test_no_run_stands_for_two(tmp_path: Path) -> None:
    given = foreign(tmp_path, "XQuADRetrieval.run", "SciFact.run", "scifact.trec")
    given._file("XQuADRetrieval", ("zh", "validation"))
    with pytest.raises(UsageError, match="would stand for two runs"):
        given._file("XQuADRetrieval", ("de", "validation"))
    with pytest.raises(UsageError, match="several runs of SciFact"):
        given._file("SciFact", ("default", "test"))
    both = foreign(tmp_path, "XQuADRetrieval.de.validation.run", "XQuADRetrieval.zh.validation.run")
    assert both._file("XQuADRetrieval", ("de", "validation")).name.endswith("de.validation.run")


def test_another_task_s_run_is_not_taken(tmp_path: Path) -> None:
    """FEVERHardNegatives.v2 is a task of its own, with other prompts."""
    given = foreign(tmp_path, "FEVERHardNegatives.v2.run")
    with pytest.raises(MissingError, match=r"expected .* or FEVERHardNegatives\.run"):
        given._file("FEVERHardNegatives", ("default", "test"))
    assert given._file("FEVERHardNegatives.v2", ("default", "test")).name.endswith(".v2.run")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("q1 Q0 d1 1 nan x", "line 2: document 'd1' of query 'q1' scores nan"),
        ("q1 Q0 d2 2 0.5 x", "line 2: document 'd2' of query 'q1' is there twice"),
        ("q1 d1 0.5", "line 2: a TREC run has six columns, found 3"),
    ],
)
def test_damaged_run(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "x.run"
    path.write_text(f"q1 Q0 d2 1 0.9 x\n{line}\n")
    with pytest.raises(DamagedError, match=message):
        read_run(path)


def test_identical_ids_leave_before_the_cut(tmp_path: Path, tiny_cross_encoder: Path) -> None:
    """ArguAna's queries are documents: with a depth of 1 the query itself must not fill it."""
    texts = ["bones and vitamins", "sleep and memory", "weight and sugar", "blood and aspirin"]
    write_beir(
        tmp_path / "arguana",
        [{"_id": f"a{i}", "title": "", "text": text} for i, text in enumerate(texts)],
        {f"a{i}": text for i, text in enumerate(texts)},
        [(f"a{i}", f"a{(i + 1) % 4}", 1) for i in range(4)],
    )
    reranker = CrossEncoderReranker(locate(str(tiny_cross_encoder)))
    options = Options(tmp_path / "out", (tmp_path,), offline=True, rerank_top_k=1)
    report = evaluate(EncoderModel(BUILTIN), plan(["ArguAna"]), options, reranker=reranker)
    first, second = (read_run(p.with_name("ArguAna.run.tsv.gz")) for p in report.done["ArguAna"])
    assert reranker.progress.profile.counts["rerank"] == 4
    for query, documents in second.items():
        assert query not in documents
        assert list(documents) == list(first[query]), "one re-ordered document keeps the order"


# ── a reranker by itself ────────────────────────────────────────────────────────────────────


@pytest.mark.filterwarnings("ignore")
def test_reranking_task_equals_mteb(tiny_cross_encoder: Path) -> None:
    from mteb.mocks.mock_tasks import MockRerankingTask
    from sentence_transformers import CrossEncoder

    reranker = CrossEncoderReranker(locate(str(tiny_cross_encoder)))
    ours = mteb.evaluate(RerankerAlone(reranker), MockRerankingTask(), cache=None).task_results[0]
    reference = CrossEncoder(str(tiny_cross_encoder), device="cpu")
    theirs = mteb.evaluate(reference, MockRerankingTask(), cache=None).task_results[0]
    mine, expected = ours.scores["test"][0], theirs.scores["test"][0]
    assert mine.keys() == expected.keys() and len(expected) > 150
    for key, value in expected.items():
        if isinstance(value, float):
            assert mine[key] == pytest.approx(value, abs=1e-5, nan_ok=True), key


def candidates_collection(folder: Path) -> Path:
    rows = [
        {"query": "strong bones", "positive": ["vitamin D for bones"], "negative": ["a car"]},
        {"query": "记忆", "positive": ["睡眠与记忆"], "negative": ["汽车", "bus", ""]},
    ]
    folder.mkdir()
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    (folder / "test.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder


@pytest.mark.slow
def test_command_without_a_model(
    tmp_path: Path, tiny_cross_encoder: Path, bge_eval: CommandLine
) -> None:
    answers = candidates_collection(tmp_path / "answers")
    done = bge_eval(
        *("run", "--reranker", tiny_cross_encoder, "--tasks", answers, "demo"),
        *("--offline", "--output", tmp_path / "out", "--format", "json"),
    )
    assert done.returncode == 2
    assert "BgeEvalDemo was not evaluated" in done.stderr
    assert "--first-stage" in done.stdout + done.stderr  # the reason stands beneath the table
    row = json.loads(done.stdout)["rows"][0]
    assert row["model"].endswith("/tiny-reranker")
    assert row["scores"]["answers"] > 0 and row["scores"]["BgeEvalDemo"] is None


def test_wrong_first_stages(tmp_path: Path) -> None:
    """The command line in this process: the whole of it is started often enough elsewhere."""
    from typer.testing import CliRunner

    from bge_eval.cli.app import application

    wrong = {
        (): "Nothing to evaluate",
        ("--model", BUILTIN, "--first-stage", "x.run"): "give one of them",
        ("--first-stage", str(tmp_path / "x.run")): "no such file",
    }
    for arguments, message in wrong.items():
        done = CliRunner().invoke(application(), ["run", "--tasks", "demo", "--quiet", *arguments])
        assert done.exit_code in (2, 3), done.output
        assert message in " ".join(done.output.split())


def test_no_encoder_for_other_tasks(tmp_path: Path, tiny_cross_encoder: Path) -> None:
    reranker = CrossEncoderReranker(locate(str(tiny_cross_encoder)))
    with pytest.raises(BgeEvalError, match="cannot do"):
        RerankerAlone(reranker).identity(plan(["STSBenchmark"])[0].task.metadata)


def test_reranking_task_with_both_stages(tmp_path: Path, tiny_cross_encoder: Path) -> None:
    """The encoder orders a task's candidates, the reranker re-orders the first of them."""
    answers = candidates_collection(tmp_path / "answers")
    reranker = CrossEncoderReranker(locate(str(tiny_cross_encoder)))
    options = Options(tmp_path / "out", offline=True, rerank_top_k=2)
    (planned,) = plan([str(answers)])
    options = Options(tmp_path / "out", (tmp_path,), offline=True, rerank_top_k=2)
    report = evaluate(EncoderModel(BUILTIN), [planned], options, reranker=reranker)
    first, second = (read_run(p.with_name("answers.run.tsv.gz")) for p in report.done["answers"])
    for query, documents in first.items():
        assert second[query].keys() == documents.keys()
        assert list(second[query])[2:] == list(documents)[2:]


@pytest.mark.parametrize("kind", [None, "cross-encoder"])
def test_a_bare_encoder_is_no_reranker(minilm_folder: Path, tmp_path: Path, kind: str) -> None:
    """Its scoring head would be random: another score each time."""
    from transformers import AutoModel, AutoTokenizer

    from bge_eval.rerank.families import RerankerOptions, load_reranker
    from bge_eval.rerank.kinds import RerankerKind

    AutoModel.from_pretrained(minilm_folder).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(minilm_folder).save_pretrained(tmp_path)
    options = RerankerOptions(kind=RerankerKind(kind) if kind else None, device="cpu")
    with pytest.raises((UsageError, DamagedError), match="is not a reranker"):
        load_reranker(locate(str(tmp_path)), options).score(PAIRS)


@pytest.mark.parametrize("fault", ["removed", "renamed", "reshaped"])
def test_a_missing_weight_is_refused_by_name(
    tiny_cross_encoder: Path, tmp_path: Path, fault: str
) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    folder = tmp_path / "reranker"
    shutil.copytree(tiny_cross_encoder, folder)
    weights = load_file(folder / "model.safetensors")
    weight = weights.pop("classifier.weight")
    if fault == "renamed":
        weights["scorer.weight"] = weight
    elif fault == "reshaped":
        weights["classifier.weight"] = weight[:, :32].clone()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    reason = "do not fit its config" if fault == "reshaped" else r"lacks classifier\.weight"
    with pytest.raises(DamagedError, match=reason):
        CrossEncoderReranker(locate(str(folder)), RerankerOptions(device="cpu")).score(PAIRS)
