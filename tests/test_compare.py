"""Comparing: who is meant, what may not be compared, the figures, the queries behind them."""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from bge_eval.compare.outputs import MAIN, Output, output
from bge_eval.compare.pairs import Pair, Verdict, compare_pair, corrected
from bge_eval.compare.queries import changed_queries
from bge_eval.compare.sides import Side, differing, distinguish, find_side
from bge_eval.errors import MissingError, UsageError
from bge_eval.measures.per_query import PER_QUERY, per_query
from bge_eval.records import Excerpt, Excerpts, Qrels, Run, SplitKey
from bge_eval.results.trec import write_excerpts, write_per_query, write_qrels, write_run
from conftest import CommandLine

QUERIES = 40
QRELS: Qrels = {f"q{number}": {f"gold{number}": 1} for number in range(QUERIES)}


def ranked(better: float, seed: int) -> Run:
    """A run in which the one relevant document is the higher, the better the system is."""
    generator = random.Random(seed)
    run: Run = {}
    for number in range(QUERIES):
        place = min(20, int(generator.expovariate(better)))
        documents = [f"d{number}-{other}" for other in range(20)]
        documents.insert(place, f"gold{number}")
        run[f"q{number}"] = {document: 30.0 - rank for rank, document in enumerate(documents)}
    return run


def save(
    root: Path,
    model: str,
    task: str,
    runs: Mapping[SplitKey, Run],
    *,
    qrels: Qrels = QRELS,
    fingerprint: str = "aaaa",
    splits: tuple[str, ...] = ("test",),
    experiment: dict[str, str] | None = None,
    revision: str = "rev12345",
    prompt: str = "",
    main: str = "ndcg_at_10",
) -> Path:
    """Write a result as a run leaves it: scores, run, judgements, values, texts, identity."""
    folder = root / "results" / model.replace("/", "__") / revision
    if experiment:
        folder = folder / "experiments" / "_".join(experiment)
    (folder / task).mkdir(parents=True)
    meta = {"name": model, "revision": revision, "experiment_kwargs": experiment}
    (folder / "model_meta.json").write_text(json.dumps(meta))
    scores: dict[str, list[dict[str, Any]]] = {}
    files = []
    for (subset, split), run in runs.items():
        part = task if len(runs) == 1 else f"{task}.{subset}.{split}"
        values = per_query(run, qrels)
        mean = round(float(np.mean([row[0] for row in values.values()])), 5)
        entry = {"hf_subset": subset, "ndcg_at_10": mean, "main_score": mean}
        scores.setdefault(split, []).append(entry)
        names = {
            "run": f"{part}.run.tsv.gz",
            "queries": f"{part}.queries.tsv.gz",
            "qrels": f"{part}.qrels.tsv.gz",
            "texts": f"{part}.texts.jsonl.gz",
        }
        files.append({"subset": subset, "split": split, **names})
        write_run(folder / names["run"], run, model)
        write_per_query(folder / names["queries"], list(map(str, PER_QUERY)), values)
        write_qrels(folder / names["qrels"], qrels)
        texts = Excerpts(
            {query: f"question {query} <b>" for query in qrels},
            {document: Excerpt(f"Title of {document}", "") for q in run for document in run[q]},
        )
        write_excerpts(folder / names["texts"], texts)
    path = folder / f"{task}.json"
    path.write_text(json.dumps({"task_name": task, "scores": scores}))
    record = {
        "identity": {
            "model": {"name": model, "revision": revision, "prompts": {"query": prompt}},
            "data": {"fingerprint": fingerprint, "splits": splits, "subsets": ["default"]},
            "search": {"index": "flat", "drop_identical_ids": False},
        },
        "task_type": "Retrieval",
        "main_measure": main,
        "files": files,
    }
    (folder / task / "run.json").write_text(json.dumps(record))
    return path


WHOLE: SplitKey = ("default", "test")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two models on two tasks, the second much better on one of them; a reranked row."""
    out = tmp_path / "out"
    for task, better, seed in (("Easy", 2.0, 1), ("Even", 0.3, 2)):
        save(out, "org/old", task, {WHOLE: ranked(0.3, seed)})
        save(out, "org/new", task, {WHOLE: ranked(better, seed + 10)}, prompt="query: ")
    reranked = {"reranker": "r/tiny@12345678", "rerank_top_k": "50"}
    save(out, "org/new", "Easy", {WHOLE: ranked(3.0, 3)}, experiment=reranked)
    return out


def pair(one: Side, two: Side, *tasks: str, metric: str = MAIN, **more: Any) -> Pair:
    outputs: dict[str, tuple[Output, Output]] = {}
    for task in tasks:
        first, second = output(one, task, metric), output(two, task, metric)
        assert first and second
        outputs[task] = (first, second)
    suites = [("all", tasks)]
    [found] = corrected([compare_pair((one.label, two.label), outputs, suites, **more)])
    return found


def test_figures(root: Path) -> None:
    old, new = find_side("org/old", [root]), find_side("org/new", [root])
    found = pair(old, new, "Easy", "Even", seed=3)
    easy, even = found.tasks
    values = [per_query(ranked(b, s), QRELS) for b, s in ((0.3, 1), (2.0, 11))]
    before, after = (np.array([row[0] for row in value.values()]) for value in values)
    assert easy.before == pytest.approx(before.mean()) and easy.after == pytest.approx(after.mean())
    assert easy.statistics is not None
    interval = stats.ttest_rel(after, before).confidence_interval()
    assert easy.statistics.interval is not None
    # A little wider than Student's t, for the changes that the sample may have missed.
    wider = easy.statistics.interval.high - interval.high
    assert easy.statistics.interval.low == pytest.approx(interval.low - wider)
    assert 0 < wider < 0.1 * (interval.high - interval.low)
    assert easy.statistics.wins == (after > before + 1e-9).sum()
    assert easy.statistics.losses == (after < before - 1e-9).sum()
    # Holm: the smaller of two p-values is doubled.
    assert even.statistics is not None
    assert easy.statistics.p_value < even.statistics.p_value
    assert easy.corrected == pytest.approx(2 * easy.statistics.p_value)
    assert (easy.verdict, even.verdict) == (Verdict.BETTER, Verdict.UNCLEAR)
    [mean] = found.means
    assert mean.title == "all, mean of 2"
    assert mean.difference == pytest.approx((easy.difference + even.difference) / 2)


def test_other_measures_come_from_the_runs(root: Path) -> None:
    old, new = find_side("org/old", [root]), find_side("org/new", [root])
    [line] = pair(old, new, "Easy", metric="AP@5").tasks
    values = [per_query(ranked(b, s), QRELS) for b, s in ((0.3, 1), (2.0, 11))]
    assert line.measure == "AP@5"
    # With one relevant document AP@5 is RR@5.
    expected = [np.mean([rr if rr >= 0.2 else 0 for _, rr, _ in v.values()]) for v in values]
    assert [line.before, line.after] == pytest.approx(expected)


def test_subsets_count_alike_whatever_their_size(tmp_path: Path) -> None:
    parts: dict[SplitKey, Run] = {("en", "test"): ranked(0.3, 1), ("de", "test"): ranked(1.0, 2)}
    save(tmp_path, "org/a", "Many", parts)
    save(tmp_path, "org/b", "Many", dict(zip(parts, [ranked(2.0, 3), ranked(1.0, 4)], strict=True)))
    a, b = find_side("org/a", [tmp_path]), find_side("org/b", [tmp_path])
    [line] = pair(a, b, "Many").tasks
    stored = a.results["Many"].scores["test"]
    assert line.before == pytest.approx(sum(e["main_score"] for e in stored) / 2, abs=1e-5)
    assert line.statistics is not None and line.statistics.queries == 2 * QUERIES


def test_an_aggregate_is_compared_by_its_parts(tmp_path: Path) -> None:
    for model, better in (("org/a", 0.3), ("org/b", 1.5)):
        for number, task in enumerate(("Android", "Gis")):
            path = save(tmp_path, model, task, {WHOLE: ranked(better, number)})
        (path.parent / "Whole").mkdir()
        (path.parent / "Whole.json").write_text('{"scores": {"test": [{"main_score": 0.1}]}}')
        record = {"aggregate_of": ["Android", "Gis"], "main_measure": "ndcg_at_10"}
        (path.parent / "Whole" / "run.json").write_text(json.dumps(record))
    a, b = find_side("org/a", [tmp_path]), find_side("org/b", [tmp_path])
    whole, android, gis = pair(a, b, "Whole", "Android", "Gis").tasks
    assert whole.difference == pytest.approx((android.difference + gis.difference) / 2)
    assert whole.statistics is not None and whole.statistics.queries == 2 * QUERIES


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"fingerprint": "bbbb"}, r"the data differ \(aaaa against bbbb\)"),
        ({"splits": ("dev",)}, r"the splits differ \(test against dev\)"),
        ({"main": "mrr_at_10"}, r"the measure differs \(nDCG@10 against RR@10\)"),
        ({"qrels": {**QRELS, "q0": {"gold0": 1, "d0-1": 1}}}, "the judgements differ"),
    ],
)
def test_what_may_not_be_compared(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    save(tmp_path, "org/a", "Task", {WHOLE: ranked(0.3, 1)})
    save(tmp_path, "org/b", "Task", {WHOLE: ranked(0.5, 2)}, **changed)
    a, b = find_side("org/a", [tmp_path]), find_side("org/b", [tmp_path])
    with pytest.raises(UsageError, match=message) as refused:
        pair(a, b, "Task")
    assert "--allow-different" in str(refused.value)
    allowed = pair(a, b, "Task", allow_different=True)
    assert any("compared although" in note for note in allowed.notes)


def test_only_common_queries_are_compared_if_so_asked(tmp_path: Path) -> None:
    fewer = {query: QRELS[query] for query in list(QRELS)[5:]}
    save(tmp_path, "org/a", "Task", {WHOLE: ranked(0.3, 1)})
    save(tmp_path, "org/b", "Task", {WHOLE: ranked(0.5, 2)}, qrels=fewer)
    a, b = find_side("org/a", [tmp_path]), find_side("org/b", [tmp_path])
    found = pair(a, b, "Task", allow_different=True)
    assert found.tasks[0].statistics is not None
    assert found.tasks[0].statistics.queries == QUERIES - 5
    assert "Task: 5 queries that only one side has are left out" in found.notes


def test_scores_that_are_not_the_queries_mean_are_compared_by_themselves(tmp_path: Path) -> None:
    for model in ("org/a", "org/b"):
        path = save(tmp_path, model, "Task", {WHOLE: ranked(0.3, 1)})
        content = json.loads(path.read_text())
        content["scores"]["test"][0]["ndcg_at_10"] = 0.9
        path.write_text(json.dumps(content))
    a, b = find_side("org/a", [tmp_path]), find_side("org/b", [tmp_path])
    found = pair(a, b, "Task")
    assert found.tasks[0].verdict is Verdict.UNTESTED and found.tasks[0].before == 0.9
    assert any("but the saved score is 0.90000" in note for note in found.notes)


def test_experiments_pair_up(tmp_path: Path) -> None:
    for model, shift in (("org/a", 0.0), ("org/b", 0.02)):
        folder = tmp_path / "results" / model.replace("/", "__") / "rev"
        (folder / "Classes").mkdir(parents=True)
        (folder / "model_meta.json").write_text(json.dumps({"name": model, "revision": "rev"}))
        repeated = [{"accuracy": 0.5 + shift + number / 100} for number in range(10)]
        mean = sum(entry["accuracy"] for entry in repeated) / 10
        entry = {"hf_subset": "en", "main_score": mean, "scores_per_experiment": repeated}
        (folder / "Classes.json").write_text(json.dumps({"scores": {"test": [entry]}}))
        record = {"main_measure": "accuracy", "task_type": "Classification"}
        (folder / "Classes" / "run.json").write_text(json.dumps(record))
    a, b = find_side("org/a", [tmp_path]), find_side("org/b", [tmp_path])
    found = pair(a, b, "Classes")
    [line] = found.tasks
    assert (line.unit, line.measure) == ("experiments", "accuracy")
    assert line.statistics is not None and line.statistics.exact
    assert line.statistics.p_value == 2 / 2**10
    assert any("all the same test data" in note for note in found.notes)


def test_queries_that_changed(root: Path) -> None:
    old, new = find_side("org/old", [root]), find_side("org/new", [root])
    first, second = output(old, "Easy", MAIN), output(new, "Easy", MAIN)
    assert first and second
    gained, lost = changed_queries(first, second, 3)
    assert len(gained) == 3
    assert all(one.after < one.before for one in lost)
    runs = (ranked(0.3, 1), ranked(2.0, 11))
    differences = {
        query: after[0] - before[0]
        for (query, before), after in zip(
            per_query(runs[0], QRELS).items(), per_query(runs[1], QRELS).values(), strict=True
        )
    }
    best = gained[0]
    assert best.after - best.before == pytest.approx(max(differences.values()))
    assert best.text == f"question {best.query} <b>"
    [gold] = best.gold
    assert gold.document.title == f"Title of {gold.document.id}"
    for place, run in zip((gold.before, gold.after), runs, strict=True):
        assert place == list(run[best.query]).index(gold.document.id) + 1
    assert [document.id for document in best.second] == list(runs[1][best.query])[:3]
    assert [document.grade for document in best.second] == [
        QRELS[best.query].get(document.id) for document in best.second
    ]


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("org/old", "org/old"),
        ("old", "org/old"),
        ("ORG/Old", "org/old"),
        ("./org/old", "org/old"),
        ("org/old@rev1", "org/old"),
        ("org/new", "org/new"),
        ("tiny", "org/new + r/tiny"),
    ],
)
def test_names(root: Path, text: str, label: str) -> None:
    assert find_side(text, [root]).label == label


def test_a_rows_own_folder(root: Path) -> None:
    folder = root / "results" / "org__new" / "rev12345"
    assert find_side(str(folder), []).label == "org/new"
    assert find_side(str(folder / "Easy.json"), []).results.keys() == {"Easy"}


def test_names_that_answer_to_several_or_none(root: Path) -> None:
    with pytest.raises(UsageError, match="matches 3 rows"):
        find_side("org", [root])
    with pytest.raises(UsageError, match="matches 3 rows"):
        find_side(str(root), [])
    with pytest.raises(MissingError, match="Did you mean org/old"):
        find_side("org/odl", [root])
    with pytest.raises(MissingError, match="--runs FOLDER"):
        find_side("org/old", [root / "nowhere"])


def test_equal_labels_are_told_apart(tmp_path: Path) -> None:
    for revision in ("aaaaaaaa1", "bbbbbbbb1"):
        save(tmp_path, "org/a", "Task", {WHOLE: ranked(0.3, 1)}, revision=revision)
    sides = [find_side(f"org/a@{revision}", [tmp_path]) for revision in ("aaaa", "bbbb")]
    assert distinguish(sides) == ["org/a (aaaaaaaa)", "org/a (bbbbbbbb)"]
    assert differing(sides[0], sides[1], ["Task"]) == {"model.revision": ("aaaaaaaa1", "bbbbbbbb1")}


def test_command(bge_eval: CommandLine, root: Path) -> None:
    done = bge_eval("compare", "old", "org/new", "tiny", "--runs", root, "--queries", "1")
    assert done.returncode == 0, done.stderr
    shown = " ".join(done.stdout.split())
    for text in (
        "A org/old B org/new nDCG@10",
        "all tasks, mean of 2",
        "B org/new + r/tiny",
        "for want of a result of org/new + r/tiny: Even",
        "Agresti and Min 2005",
        "Smucker et al. 2007",
        "seed 0",
        "queries that gained most (nDCG@10, A → B)",
        "Title of gold",
    ):
        assert text in shown, text
    again = bge_eval("compare", "old", "org/new", "tiny", "--runs", root, "--queries", "1")
    assert again.stdout == done.stdout


def test_narrow_screen(bge_eval: CommandLine, root: Path) -> None:
    done = bge_eval("compare", "old", "org/new", "--runs", root, env={"COLUMNS": "80"})
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "better" in done.stdout and "…+" in done.stdout


def test_forms_hold_the_same_figures(bge_eval: CommandLine, root: Path) -> None:
    call = ("compare", "old", "org/new", "--runs", root, "--format")
    content = json.loads(bge_eval(*call, "json", "--queries", "2").stdout)
    [found] = content["pairs"]
    rows = list(csv.DictReader(io.StringIO(bge_eval(*call, "csv").stdout)))
    assert [row["task"] for row in rows] == ["Easy", "Even", "all tasks, mean of 2"]
    assert float(rows[0]["p_holm"]) == found["tasks"][0]["p_holm"]
    assert len(found["queries"]["Easy"]["gained"]) == 2
    markdown = bge_eval(*call, "markdown", "--queries", "1").stdout
    assert f"| {found['tasks'][0]['difference']:+.5f} |" in markdown
    assert "<b>" not in markdown.replace("\\<b\\>", "")
    queries = list(csv.DictReader(io.StringIO(bge_eval(*call, "csv", "--queries", "1").stdout)))
    assert queries[0]["query"] == found["queries"]["Easy"]["gained"][0]["query"]


def test_runs_of_other_tools(bge_eval: CommandLine, root: Path, tmp_path: Path) -> None:
    other = tmp_path / "anserini.trec"
    with other.open("w") as file:
        for query, scores in ranked(2.0, 11).items():
            for place, (document, score) in enumerate(scores.items(), start=1):
                file.write(f"{query} Q0 {document} {place} {score} anserini\n")
    against = bge_eval("compare", "old", other, "--runs", root, "--tasks", "Easy", "--format=csv")
    assert against.returncode == 0, against.stderr
    saved = bge_eval("compare", "old", "org/new", "--runs", root, "--tasks", "Easy", "--format=csv")
    rows = [next(csv.DictReader(io.StringIO(done.stdout))) for done in (against, saved)]
    assert rows[0]["b"] == "anserini"
    for name in ("score_a", "score_b", "low", "high", "p", "d"):
        assert float(rows[0][name]) == pytest.approx(float(rows[1][name]), abs=1e-8)
    several = bge_eval("compare", "old", other, "--runs", root)
    assert several.returncode == 2 and "is a run of one task" in several.stderr
    alone = bge_eval("compare", other, other)
    assert alone.returncode == 2 and "--qrels FILE" in alone.stderr
    qrels = tmp_path / "test.qrels"
    qrels.write_text(
        "".join(f"{q} 0 {d} {g}\n" for q, own in QRELS.items() for d, g in own.items())
    )
    same = bge_eval("compare", other, other, "--qrels", qrels)
    assert same.returncode == 0 and "same" in same.stdout
    # Judged queries that a run lacks, and judgements that contradict one another, are named.
    lines = other.read_text().splitlines(keepends=True)
    other.write_text("".join(line for line in lines if not line.startswith(("q1 ", "q2 "))))
    short = bge_eval("compare", "old", other, "--runs", root, "--tasks", "Easy")
    assert "no documents for 2 judged queries, which score 0: q1, q2" in " ".join(
        short.stdout.split()
    )
    qrels.write_text(qrels.read_text() + "q0 0 gold0 0\n")
    twice = bge_eval("compare", other, other, "--qrels", qrels)
    assert twice.returncode == 3
    assert "line 41: 'q0' and 'gold0' were already judged 1, now 0" in twice.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["old"], 2, "nothing to be compared with"),
        (["old", "org/neww"], 3, "no result in"),
        (["old", "org/new", "--metric", "nDCGG@10"], 2, "Did you mean nDCG@10"),
        (["old", "only/Even.json"], 3, "is no file or folder"),
    ],
)
def test_wrong_input(
    bge_eval: CommandLine, root: Path, arguments: list[str], code: int, message: str
) -> None:
    done = bge_eval("compare", *arguments, "--runs", root)
    assert done.returncode == code, done.stderr
    assert message in " ".join(done.stderr.split())
    assert done.stdout == "" and "Traceback" not in done.stderr


def test_against_published_scores(bge_eval: CommandLine, tmp_path: Path) -> None:
    save(tmp_path, "sentence-transformers/all-MiniLM-L6-v2", "SciFact", {WHOLE: ranked(0.5, 1)})
    done = bge_eval("compare", "published", "MiniLM", "--runs", tmp_path, "--format", "json")
    assert done.returncode == 0, done.stderr
    [pair] = json.loads(done.stdout)["pairs"]
    [line] = pair["tasks"]
    assert (line["score_a"], line["verdict"]) == (0.64508, "untested")
    [note] = [each for each in pair["notes"] if each.startswith("untested")]
    assert note.startswith("untested (SciFact): sentence-transformers/all-MiniLM-L6-v2 (published)")
    assert note.endswith("has only scores, no values by query, pair or text")


def test_nothing_published_of_a_model() -> None:
    from bge_eval.cli.compare import _published

    with pytest.raises(MissingError, match=r"no published scores of no/body on SciFact"):
        _published([find_side("published:no/body", [])], ["SciFact"], MAIN)


def test_no_task_in_common(bge_eval: CommandLine, tmp_path: Path) -> None:
    save(tmp_path, "org/a", "One", {WHOLE: ranked(0.5, 1)})
    save(tmp_path, "org/b", "Two", {WHOLE: ranked(0.5, 1)})
    done = bge_eval("compare", "org/a", "org/b", "--runs", tmp_path)
    assert done.returncode == 2 and "have no task in common" in done.stderr
    assert "of org/b: One" in done.stderr and "of org/a: Two" in done.stderr


def test_rescore_takes_the_mean_over_subsets_as_mteb(bge_eval: CommandLine, tmp_path: Path) -> None:
    parts: dict[SplitKey, Run] = {("en", "test"): ranked(0.3, 1), ("de", "test"): ranked(1.0, 2)}
    path = save(tmp_path, "org/a", "Many", parts)
    done = bge_eval("rescore", tmp_path, "--metric", "nDCG@10", "--format", "json")
    assert done.returncode == 0, done.stderr
    rows = {row["task"]: row["nDCG@10"] for row in json.loads(done.stdout)}
    assert list(rows) == ["Many/en/test", "Many/de/test", "Many (mean of 2)"]
    stored = json.loads(path.read_text())["scores"]["test"]
    assert list(rows.values())[:2] == pytest.approx([e["main_score"] for e in stored], abs=1e-5)
    assert rows["Many (mean of 2)"] == pytest.approx(sum(list(rows.values())[:2]) / 2)
