"""Parts of tasks: first queries and smaller corpora, which never mix with whole tasks."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import spearmanr

import bge_eval as api
from bge_eval.data.cutting import sampled
from bge_eval.errors import UsageError
from bge_eval.results.cut import WHOLE, Cut, averaged, is_cut, split_name, task_of
from bge_eval.results.saved import SavedResult, find_results
from conftest import CommandLine, write_beir
from saved import save_run

_WORDS = ("bees", "honey", "sleep", "memory", "bones", "vitamin", "blood", "aspirin")
_KEY = ("default", "test")


def _documents(count: int) -> list[dict[str, str]]:
    return [
        {"_id": f"d{n}", "title": "", "text": f"{_WORDS[n % 8]} {_WORDS[n // 8 % 8]} note {n}"}
        for n in range(count)
    ]


@pytest.fixture
def tickets(tmp_path: Path) -> Path:
    """A collection of 60 documents and 8 queries, in the layout of BEIR."""
    queries = {f"q{n}": f"{word} {_WORDS[n - 3]}" for n, word in enumerate(_WORDS)}
    qrels = [(f"q{n}", f"d{n + 8 * (n % 3)}", 1) for n in range(8)] + [("q0", "d9", 0)]
    return write_beir(tmp_path / "Tickets", _documents(60), queries, qrels)


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """An STS collection of 12 pairs."""
    folder = tmp_path / "Pairs"
    folder.mkdir()
    rows = [
        {"sentence1": _WORDS[n % 8], "sentence2": f"{_WORDS[n % 5]} {n}", "score": (n * 7) % 5}
        for n in range(12)
    ]
    (folder / "test.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return folder


def run(command: CommandLine, *words: str | Path, output: Path) -> None:
    done = command("run", "-q", "--offline", "--no-store", "--output", output, *words)
    assert done.returncode == 0, done.stderr


def result(output: Path, name: str) -> SavedResult:
    """Return the result of a name, or the one of a cut whose digest the name leaves out."""
    paths = {path.stem: path for path in find_results([output])}
    return SavedResult(paths.get(name) or paths[next(n for n in paths if n.startswith(name))])


@pytest.mark.parametrize(
    ("name", "task", "cut"),
    [
        ("SciFact", "SciFact", WHOLE),
        ("SciFact@limit=50", "SciFact", Cut(limit=50)),
        ("SciFact@lite=1000", "SciFact", Cut(lite=1000)),
        ("S.v2@limit=5+lite=9+seed=3+top=7+runs=3f2a9c1b", "S.v2", Cut(5, 9, 3, 7, "3f2a9c1b")),
        ("SciFact@limit=0", "SciFact@limit=0", WHOLE),
        ("SciFact@depth=5", "SciFact@depth=5", WHOLE),
        ("SciFact@limit=5+limit=6", "SciFact@limit=5+limit=6", WHOLE),
        ("SciFact@limit=5f", "SciFact@limit=5f", WHOLE),
        ("me@home", "me@home", WHOLE),
        ("@limit=5", "@limit=5", WHOLE),
    ],
)
def test_a_name_has_the_task_and_the_cut(name: str, task: str, cut: Cut) -> None:
    assert split_name(name) == (task, cut)
    assert cut.named(task) == name
    assert is_cut(name) is bool(cut)
    assert task_of(name) == task


def test_tasks_of_one_kind_are_averaged() -> None:
    assert averaged(["A", "B@limit=5", "C"]) == ("A", "C")
    assert averaged(["A@limit=5", "B@limit=5"]) == ("A@limit=5", "B@limit=5")
    assert averaged(["A@limit=5", "B@limit=6"]) == ()
    runs = ["A@lite=9+top=3+runs=aaaaaaaa", "B@lite=9+top=3+runs=bbbbbbbb"]
    assert averaged(runs) == tuple(runs)


def test_a_sample_depends_on_ids_and_seed_and_grows_by_adding() -> None:
    ids = [f"d{n}" for n in range(500)]
    assert sampled(ids, 50, 0) == sampled(reversed(ids), 50, 0)
    assert sampled(ids, 50, 0) < sampled(ids, 80, 0)
    assert sampled(ids, 50, 0) != sampled(ids, 50, 1)
    # Of many seeds, each document is drawn about as often.
    often = [sum(name in sampled(ids[:20], 5, seed) for seed in range(400)) for name in ids[:20]]
    assert 60 < min(often) <= max(often) < 140


def test_the_first_queries_score_what_they_score_in_the_whole(
    bge_eval: CommandLine, tickets: Path, tmp_path: Path
) -> None:
    output = tmp_path / "runs"
    run(bge_eval, "--model", "bm25", "--tasks", tickets, output=output)
    run(bge_eval, "--model", "bm25", "--tasks", tickets, "--limit", "3", output=output)
    whole, cut = result(output, "Tickets"), result(output, "Tickets@limit=3")
    names, values = whole.per_query(_KEY)
    assert cut.per_query(_KEY) == (names, {query: values[query] for query in ("q0", "q1", "q2")})
    expected = sum(values[query][names.index("nDCG@10")] for query in ("q0", "q1", "q2")) / 3
    assert cut.main_score() == pytest.approx(expected, abs=1e-5)
    assert cut.identity is not None and whole.identity is not None
    assert cut.identity.task == whole.identity.task == "Tickets"
    assert cut.identity.filed == "Tickets@limit=3"
    assert "cut" not in whole.identity.data  # results of earlier versions count as done


def test_a_lite_corpus_has_judged_documents_the_runs_first_and_a_sample(
    bge_eval: CommandLine, tickets: Path, tmp_path: Path
) -> None:
    output, kept = tmp_path / "runs", tmp_path / "trec"
    kept.mkdir()
    lines = [f"q0 Q0 d{40 + n} {n} {9 - n} x" for n in range(4)]
    (kept / "Tickets.run").write_text("\n".join(lines) + "\n", encoding="utf-8")
    options = ("--lite", "--lite-sample", "5", "--lite-runs", kept, "--lite-top", "3")
    run(bge_eval, "--model", "bm25", "--tasks", tickets, *options, output=output)
    cut = result(output, "Tickets@lite=5+top=3+runs=")
    judged = {document for grades in cut.qrels(_KEY).values() for document in grades}
    documents = {f"d{n}" for n in range(60)}
    expected = judged | {"d40", "d41", "d42"} | sampled(documents, 5, 0)
    retrieved = {document for scores in cut.run(_KEY).values() for document in scores}
    assert retrieved == expected
    assert len(expected) < 20
    # Another run, another cut: both results stay.
    (kept / "Tickets.run").write_text("\n".join(lines[1:]) + "\n", encoding="utf-8")
    run(bge_eval, "--model", "bm25", "--tasks", tickets, *options, output=output)
    assert len(find_results([output])) == 2


def test_a_corpus_that_is_kept_whole_has_the_whole_score(
    bge_eval: CommandLine, tickets: Path, tmp_path: Path
) -> None:
    output = tmp_path / "runs"
    run(bge_eval, "--model", "bm25", "--tasks", tickets, output=output)
    run(bge_eval, "--model", "bm25", "--tasks", tickets, "--lite", output=output)
    whole, cut = result(output, "Tickets"), result(output, "Tickets@lite=1000")
    assert whole.run(_KEY) == cut.run(_KEY)
    assert whole.main_score() == cut.main_score()


def test_whole_and_cut_replace_each_other_never_and_share_their_vectors(
    bge_eval: CommandLine, tickets: Path, tiny_bge: Path, tmp_path: Path
) -> None:
    output = tmp_path / "runs"
    common = ("run", "--offline", "--store", tmp_path / "store", "--model", tiny_bge)
    words = (*common, "--output", output, "--tasks", tickets)
    cuts: list[list[str]] = [[], ["--limit", "3"], ["--lite", "--lite-sample", "4"]]
    for cut in cuts:
        assert bge_eval(*words, *cut).returncode == 0
    saved = {path.stem: SavedResult(path) for path in find_results([output])}
    assert sorted(saved) == ["Tickets", "Tickets@limit=3", "Tickets@lite=4"]
    assert not (output / "replaced").exists()
    encoded = {
        name: one.record.profile and one.record.profile.tokens for name, one in saved.items()
    }
    assert encoded["Tickets"]
    assert not encoded["Tickets@limit=3"]
    assert not encoded["Tickets@lite=4"]
    for cut in cuts:
        assert "already done" in bge_eval(*words, *cut).stderr


def test_a_table_has_whole_tasks_and_says_what_is_apart(
    bge_eval: CommandLine, tmp_path: Path
) -> None:
    qrels = {"q": {"d": 1}}
    save_run(tmp_path, "a/one", {"q": {"d": 1.0}}, qrels, task="SciFact")
    save_run(tmp_path, "a/one", {"q": {"x": 1.0}}, qrels, task="NFCorpus")
    save_run(tmp_path, "a/one", {"q": {"d": 1.0}}, qrels, task="SciFact@limit=5")
    save_run(tmp_path, "a/two", {"q": {"d": 1.0}}, qrels, task="SciFact@limit=5")
    shown = bge_eval("table", tmp_path, "--format", "csv")
    [row] = csv.DictReader(io.StringIO(shown.stdout))
    assert "SciFact@limit=5" not in row
    assert float(row["average"]) == 0.5
    assert "SciFact@limit=5" in shown.stderr
    beside = bge_eval(
        "table", tmp_path, "--tasks", "SciFact,NFCorpus,SciFact@limit=5", "--format", "json"
    )
    rows = {row["model"]: row for row in json.loads(beside.stdout)["rows"]}
    assert rows["a/one"]["scores"] == {"SciFact": 1.0, "NFCorpus": 0.0, "SciFact@limit=5": 1.0}
    assert rows["a/one"]["average"] == 0.5
    assert rows["a/one"]["means"]["Mean (Task)"]["value"] == 0.5
    assert rows["a/two"]["average"] is None
    ranked = bge_eval(
        "table", tmp_path, "--tasks", "SciFact,NFCorpus,SciFact@limit=5", "--ranks", "--best"
    )
    assert ranked.returncode == 0, ranked.stderr
    page = bge_eval(
        "report", tmp_path, "--tasks", "SciFact,SciFact@limit=5", "-o", tmp_path / "page.html"
    )
    assert page.returncode == 2
    assert "have none together" in page.stderr
    alone = bge_eval("table", tmp_path, "--tasks", "SciFact@limit=5", "--format", "csv")
    assert len(list(csv.DictReader(io.StringIO(alone.stdout)))) == 2


def test_cuts_of_several_kinds_have_no_average(bge_eval: CommandLine, tmp_path: Path) -> None:
    for task in ("A@limit=5", "A@limit=6"):
        save_run(tmp_path, "a/one", {"q": {"d": 1.0}}, {"q": {"d": 1}}, task=task)
    shown = bge_eval("table", tmp_path, "--format", "csv")
    [row] = csv.DictReader(io.StringIO(shown.stdout))
    assert row["average"] == ""
    assert "cut in different ways" in shown.stderr
    best = bge_eval("table", tmp_path, "--format", "csv", "--best")
    assert best.returncode == 0, best.stderr


def test_a_comparison_means_whole_tasks_and_cuts_apart(
    bge_eval: CommandLine, tmp_path: Path
) -> None:
    for model, score in (("a/one", 1.0), ("a/two", 0.1)):
        for task in ("A", "B", "A@limit=5", "B@limit=5"):
            run_of_task = {"q": {"d": score, "x": 0.5}, "r": {"d": 1.0}}
            qrels = {"q": {"d": 1}, "r": {"d": 1}}
            save_run(tmp_path, model, run_of_task, qrels, task=task)
    done = bge_eval("compare", "one", "two", "--runs", tmp_path, "--format", "json")
    [pair] = json.loads(done.stdout)["pairs"]
    assert [each["tasks"] for each in pair["means"]] == [["A", "B"], ["A@limit=5", "B@limit=5"]]


def test_the_gates_average_is_over_whole_tasks(bge_eval: CommandLine, tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    good, bad, qrels = {"q": {"d": 1.0}}, {"q": {"x": 1.0}}, {"q": {"d": 1}}
    for folder, cut in ((before, good), (after, bad)):
        save_run(folder, "a/one", good, qrels, task="A")
        save_run(folder, "a/one", cut, qrels, task="A@limit=1")
    rules = tmp_path / "rules.toml"
    rules.write_text("[default]\nmax_drop = 1.0\n[average]\nmax_drop = 0.0\n", encoding="utf-8")
    done = bge_eval("check", after, "--baseline", before, "--rules", rules)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_cut_is_not_exported(bge_eval: CommandLine, tmp_path: Path) -> None:
    save_run(tmp_path, "a/one", {"q": {"d": 1.0}}, {"q": {"d": 1}}, task="SciFact@limit=5")
    done = bge_eval("export", tmp_path, "--output", tmp_path / "public")
    assert done.returncode == 3
    assert "part of the task" in done.stderr


@pytest.mark.slow
def test_pairs_are_cut_too(
    bge_eval: CommandLine, pairs: Path, tiny_bge: Path, tmp_path: Path
) -> None:
    output = tmp_path / "runs"
    run(bge_eval, "--model", tiny_bge, "--tasks", pairs, output=output)
    run(bge_eval, "--model", tiny_bge, "--tasks", pairs, "--limit", "6", output=output)
    whole = result(output, "Pairs")
    columns, rows = whole.items()[_KEY]
    first = [rows[str(n)] for n in range(6)]
    gold, own = columns.index("gold"), 1
    expected = spearmanr([row[gold] for row in first], [row[own] for row in first]).statistic
    assert result(output, "Pairs@limit=6").main_score() == pytest.approx(expected, abs=1e-5)


@pytest.mark.slow
def test_a_fusion_and_a_reranker_know_the_cut(
    bge_eval: CommandLine, tickets: Path, tiny_bge: Path, tiny_cross_encoder: Path, tmp_path: Path
) -> None:
    output = tmp_path / "runs"
    words = ("--model", "bm25", "--model", tiny_bge, "--fuse", "rrf", "--tasks", tickets)
    reranker = ("--reranker", tiny_cross_encoder, "--rerank-top-k", "5")
    run(bge_eval, *words, *reranker, "--limit", "3", output=output)
    names = [path.stem for path in find_results([output])]
    assert names == ["Tickets@limit=3"] * 4
    whole = bge_eval("run", "-q", *words, "--output", output, "--offline", "--no-store")
    assert whole.returncode == 0, whole.stderr
    assert sorted(path.stem for path in find_results([output]))[:3] == ["Tickets"] * 3


_REFUSED: list[tuple[list[str], str]] = [
    (["--tasks", "STS12", "--lite"], "STS12 searches no documents"),
    (["--tasks", "SciDocsRR", "--lite"], "SciDocsRR ranks the candidates"),
    (["--tasks", "STS12", "--limit", "1"], "STS12 has no score over fewer than two"),
    (["--tasks", "TwentyNewsgroupsClustering", "--limit", "9"], "is a task of type Clustering"),
    (["--tasks", "Core17InstructionRetrieval", "--limit", "9"], "compares pairs of queries"),
    (["--tasks", "SciFact", "--lite-sample", "9"], "--lite-sample belongs to --lite"),
    (["--tasks", "SciFact", "--lite", "--lite-top", "9"], "no effect without --lite-runs"),
    (["--tasks", "SciFact@limit=5", "--limit", "9"], "SciFact@limit=5 names a cut"),
    (["--tasks", "SciFact@limit=0"], "No suite or task is called 'SciFact@limit=0'"),
]


@pytest.mark.parametrize(("words", "text"), _REFUSED)
def test_a_cut_without_meaning_is_refused_by_name(
    bge_eval: CommandLine, words: list[str], text: str
) -> None:
    done = bge_eval("run", "--offline", "--model", "bm25", *words)
    assert done.returncode == 2
    assert text in " ".join(done.stderr.split())


def test_every_task_that_cannot_be_cut_is_named(bge_eval: CommandLine) -> None:
    done = bge_eval(
        "run", "--offline", "--model", "bm25", "--tasks", "STS12,SciFact,STS13", "--lite"
    )
    assert "STS12" in done.stderr and "STS13" in done.stderr and "SciFact" not in done.stderr


def test_runs_to_keep_must_be_there(bge_eval: CommandLine, tickets: Path, tmp_path: Path) -> None:
    words = ("run", "--offline", "--model", "bm25", "--tasks", tickets, "--lite", "--lite-runs")
    none = bge_eval(*words, tmp_path / "absent")
    assert (none.returncode, "there is no such folder" in none.stderr) == (3, True)
    (tmp_path / "empty").mkdir()
    empty = bge_eval(*words, tmp_path / "empty")
    assert (empty.returncode, "no run of Tickets" in empty.stderr) == (3, True)


def test_python_takes_cuts(tickets: Path, tmp_path: Path) -> None:
    common: dict[str, Any] = {"output": tmp_path / "runs", "offline": True}
    first = api.evaluate("bm25", [tickets], limit=3, **common)
    assert list(first.scores()) == ["Tickets@limit=3"]
    lite = api.Lite(runs=(), sample=4, seed=2)
    assert list(api.evaluate("bm25", [tickets], lite=lite, **common).scores()) == [
        "Tickets@lite=4+seed=2"
    ]
    for wrong in ({"limit": 0}, {"lite": api.Lite(sample=0)}):
        with pytest.raises(UsageError, match="takes 1 or more"):
            api.evaluate("bm25", [tickets], **wrong, **common)


def test_the_mean_of_a_training_is_over_tasks_of_one_kind(tickets: Path) -> None:
    from bge_eval.integrations.during import Tasks

    assert Tasks([str(tickets)], limit=3).limit == 3
    with pytest.raises(UsageError, match="have none together"):
        Tasks([str(tickets), f"{tickets}@limit=3"])


@pytest.mark.slow
def test_watch_and_experiments_take_cuts(
    bge_eval: CommandLine, tickets: Path, tiny_bge: Path, tmp_path: Path
) -> None:
    folder, output = tmp_path / "checkpoints", tmp_path / "runs"
    shutil.copytree(tiny_bge, folder / "checkpoint-2")
    (folder / "checkpoint-2" / "trainer_state.json").write_text("{}", encoding="utf-8")
    watch = ("watch", folder, "--tasks", tickets, "--limit", "3", "--idle", "0", "--no-store")
    done = bge_eval(*watch, "--output", output, "--offline")
    assert done.returncode == 0, done.stderr
    file = tmp_path / "experiment.toml"
    text = f'tasks = ["{tickets}"]\nlimit = 3\noffline = true\nmodel = "bm25"\n'
    file.write_text(f'{text}output = "{output}"\n', encoding="utf-8")
    done = bge_eval("run", file)
    assert done.returncode == 0, done.stderr
    assert [path.stem for path in find_results([output])] == ["Tickets@limit=3"] * 2


def test_the_data_of_a_cut_are_opened_again_as_they_were_scored(
    bge_eval: CommandLine, tickets: Path, tmp_path: Path
) -> None:
    from bge_eval.progress import Progress
    from bge_eval.suites.scored import scored_data

    output = tmp_path / "runs"
    run(bge_eval, "--model", "bm25", "--tasks", tickets, "--limit", "3", output=output)
    with scored_data(result(output, "Tickets"), (), Progress()) as parts:
        assert list(parts[_KEY].queries["id"]) == ["q0", "q1", "q2"]
        assert set(parts[_KEY].qrels) == {"q0", "q1", "q2"}
