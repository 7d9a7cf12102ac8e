"""The report before it is looked at: what it holds, how it is packed, what is escaped."""

from __future__ import annotations

import base64
import gzip
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bge_eval.leaderboard.ranks import ranks
from bge_eval.leaderboard.rows import Row
from bge_eval.leaderboard.significance import Evidence
from bge_eval.measures.mteb_keys import MAIN_KEY
from bge_eval.records import Excerpt, Excerpts, Qrels, Run
from bge_eval.report.content import Content, PartialScore
from bge_eval.report.gathering import gather, measure_name
from bge_eval.report.packing import CHUNK, Block, pack
from bge_eval.report.page import data_block, render
from bge_eval.report.queries import query_groups
from bge_eval.results.saved import SavedResult
from bge_eval.statistics.corrections import holm
from bge_eval.statistics.many import tukey_hsd
from bge_eval.statistics.paired import compare
from bge_eval.statistics.samples import RESAMPLES
from conftest import CommandLine
from saved import result_folder, save_run
from test_significance import QRELS, QUERIES, a_run, board_of


def unpacked(block: str) -> Any:
    return json.loads(gzip.decompress(base64.b64decode(block)))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    texts = Excerpts(
        {query: f"about {query}" for query in QUERIES},
        {f"{query}-gold": Excerpt("Gold", f"of {query}") for query in QUERIES},
    )
    save_run(tmp_path, "a/good", a_run(1, 2), QRELS, texts)
    save_run(tmp_path, "b/bad", a_run(3, 11), QRELS, texts)
    return tmp_path


def content_of(root: Path, *published: Row) -> Content:
    return gather(board_of(root), key=MAIN_KEY, published=published)


def blocks_of(root: Path, number: int = 0) -> dict[str, Any]:
    """Return the content of the blocks of one group of queries, by name."""
    blocks = list(pack(number, content_of(root).collections[0]))
    assert all(isinstance(block, Block) for block in blocks)
    return {block.name: unpacked(block.content) for block in blocks}


def test_queries_are_packed_with_values_and_documents(root: Path) -> None:
    group = content_of(root).collections[0]
    blocks = blocks_of(root, 3)
    assert blocks["queries-3"]["ids"] == QUERIES
    assert blocks["queries-3"]["texts"][7] == "about q7"
    _, values = group.results[0].per_query(("default", "test"))
    assert blocks["values-3-0"]["values"][0][7] == round(values["q7"][0] * 10_000)
    chunks = [name for name in blocks if name.startswith("documents-3-")]
    assert len(chunks) == -(-len(QUERIES) // CHUNK)
    run = group.results[1].run(("default", "test"))["q7"]
    ranked = sorted(run, key=lambda doc: -run[doc])
    text, relevant, rankings = blocks["documents-3-0"]["queries"][7]
    documents = blocks["documents-3-0"]["documents"]
    gold = documents.index(["q7-gold", "Gold", "of q7"])
    head, later = rankings[1]
    place = ranked.index("q7-gold") + 1
    assert text == "" and relevant == [[gold, 1]]
    assert [documents[at][0] for at in head] == ranked[:10]
    assert later == ([[gold, place]] if place > 10 else [])
    assert blocks["queries-3"]["first"][1][7] == place


def test_tests_are_those_of_the_statistics(root: Path) -> None:
    group = content_of(root).collections[0]
    expected = compare(group.values[0][0], group.values[1][0])
    ((first, second, low, high, p_value),) = blocks_of(root)["values-0-0"]["tests"]
    assert (first, second) == (0, 1)
    # Both p-values are drawn: four standard errors of their difference.
    error = 4 * (2 * expected.p_value * (1 - expected.p_value) / RESAMPLES) ** 0.5
    assert p_value == pytest.approx(expected.p_value, abs=error + 1e-4)
    assert low < expected.difference < high


def test_pairs_of_a_task_are_corrected(root: Path) -> None:
    save_run(root, "c/third", a_run(9, 7), QRELS)
    save_run(root, "a/good", a_run(1, 2), QRELS, task="Other")
    save_run(root, "b/bad", a_run(3, 11), QRELS, task="Other")
    content = content_of(root)
    by_name = {task.name: task for task in content.tasks}
    pairs = by_name["Mine"].pairs
    assert [(pair.first, pair.second) for pair in pairs] == [(0, 1), (0, 2), (1, 2)]
    group = next(group for group in content.collections if group.task == "Mine")
    p_values = tukey_hsd([np.array([group.values[index][0] for index in range(3)]).T])
    assert [pair.corrected for pair in pairs] == pytest.approx(
        [p_values[pair.first, pair.second] for pair in pairs]
    )
    every = [pair for task in content.tasks for pair in task.pairs]
    assert len(every) == 4
    assert [pair.corrected_for_tasks for pair in every] == pytest.approx(
        holm([pair.p for pair in every])
    )
    for pair in pairs:
        one, two = (by_name["Mine"].standings[index] for index in (pair.first, pair.second))
        assert one and two and pair.difference == pytest.approx(two.score - one.score, abs=1e-5)
        assert pair.wins + pair.ties + pair.losses == len(QUERIES)


def test_scores_by_language(tmp_path: Path) -> None:
    for model, scores in (("a/one", (0.8, 0.4, 0.6)), ("b/two", (0.5, 0.5))):
        folder = result_folder(tmp_path, model, "Both", None)
        subsets = [("de", ["deu-Latn"]), ("de-en", ["deu-Latn", "eng-Latn"]), ("en", ["eng-Latn"])]
        entries = [
            {"hf_subset": subset, "languages": languages, "main_score": score}
            for (subset, languages), score in zip(subsets, scores, strict=False)
        ]
        text = json.dumps({"task_name": "Both", "scores": {"test": entries}})
        (folder / "Both.json").write_text(text)
    content = content_of(tmp_path)
    one = [system.name for system in content.systems].index("a/one")
    languages = content.tasks[0].languages
    assert languages["deu-Latn"][one] == pytest.approx(0.6)
    assert languages["eng-Latn"][one] == pytest.approx(0.5)
    # The other system lacks a subset: its score is shown as that of a part of the task.
    assert languages["eng-Latn"][1 - one] is None
    assert content.tasks[0].partial[1 - one] == PartialScore(0.5, "de+de-en")
    assert content.tasks[0].partial[one] is None


def test_a_mixture_of_languages_is_no_score_of_one(tmp_path: Path) -> None:
    folder = result_folder(tmp_path, "a/one", "Mixed", None)
    entry = {"hf_subset": "default", "languages": ["eng-Latn", "zho-Hans"], "main_score": 0.5}
    text = json.dumps({"task_name": "Mixed", "scores": {"test": [entry]}})
    (folder / "Mixed.json").write_text(text)
    content = content_of(tmp_path)
    assert content.tasks[0].languages == {} and content.languages == ()


def test_settings_stand_by_value(tmp_path: Path) -> None:
    prompt = "Represent this sentence: "
    model = {"dtype": "float32", "prompts": {"query": prompt, "document": ""}}
    experiment = {"prompts": "3f2a9c1d", "max_length": 128}
    recorded = {"identity": {"model": model}}
    save_run(tmp_path, "a/x", a_run(1, 2), QRELS, experiment=experiment, recorded=recorded)
    (system,) = content_of(tmp_path).systems
    assert system.settings == f"max length 128, query prompt “{prompt}”"
    assert system.name == "a/x" and "3f2a9c1d" not in system.label + system.short


def test_ranks_are_the_leaderboards(root: Path) -> None:
    save_run(root, "c/third", a_run(9, 7), QRELS)
    board = board_of(root)
    placed = ranks(board, Evidence(board, MAIN_KEY))
    assert [system.rank for system in content_of(root).systems] == placed
    assert [rank.borda for rank in placed if rank] == [1, 2, 3]
    assert all(rank.low is not None for rank in placed if rank)


def test_page_answers_before_its_blocks_are_read(root: Path) -> None:
    page = render(content_of(root))
    assert (
        page.index('id="data"')
        < page.index("Start every part of the page")
        < page.index('queries-0">')
    )


def test_other_judgements_are_not_put_together(root: Path) -> None:
    other: Qrels = {query: {"d0": 1} for query in QUERIES}
    path = save_run(root, "c/other", a_run(5, 3), other)
    results = {i: SavedResult(p) for i, p in enumerate(sorted(root.rglob("Mine.json")))}
    assert SavedResult(path) in results.values()
    found = query_groups("Mine", results)
    assert [sorted(group.results) for group in found] == [[0, 1], [2]]
    assert [group.label for group in found] == ["Mine", "Mine · other judgements 2"]


def test_results_without_judgements_are_named(root: Path) -> None:
    next(root.rglob("b__bad/*/Mine.qrels.tsv.gz")).unlink()
    content = content_of(root)
    assert [list(group.results) for group in content.collections] == [[0]]
    assert "bad: single queries of Mine are not shown" in " ".join(content.notes)
    assert "run it again with --overwrite" in render(content)


def test_published_models_and_recall(root: Path) -> None:
    row = Row("p/other", "r", "", None, "", {"Mine": 0.5}, published=True, other_data=("Mine",))
    task = content_of(root, row).tasks[0]
    assert [(p.model, p.score, p.other_data) for p in task.published] == [("p/other", 0.5, True)]
    assert task.recall[0] is not None and task.recall[0][-1] == 1.0
    assert content_of(root).tasks[0].published == ()


def test_data_cannot_end_its_element() -> None:
    evil = "</script><!--<script>\u2028&"
    block = data_block({"title": evil})
    assert not re.search("[<>&\u2028]", block)
    assert json.loads(block) == {"title": evil}


def test_policy_allows_its_own_scripts_only(root: Path) -> None:
    page = render(content_of(root))
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)
    assert policy is not None
    allowed = policy[1].replace("&#39;", "'")
    assert "default-src 'none'" in allowed
    scripts = re.search("script-src ([^;]+);", allowed)
    assert scripts is not None
    assert all(source.startswith("'sha256-") for source in scripts[1].split())
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", page)


def test_deterministic(root: Path) -> None:
    assert render(content_of(root)) == render(content_of(root))


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("ndcg_at_10", "nDCG@10"),
        ("cosine_spearman", "cosine spearman"),
        ("ap", "AP"),
        ("", "main score"),
    ],
)
def test_measures_have_names(key: str, name: str) -> None:
    assert measure_name(key) == name


def test_hostile_run_is_text(tmp_path: Path) -> None:
    run: Run = {"<q>": {"</script><b>": 1.0}}
    qrels: Qrels = {"<q>": {"</script><b>": 1}}
    texts = Excerpts({"<q>": "<img src=x>"}, {"</script><b>": Excerpt("<i>", "\ud800 lone")})
    save_run(tmp_path, "m/<script>", run, qrels, Excerpts(texts.queries))
    page = render(content_of(tmp_path))
    assert "<img src=x>" not in page and "m/<script>" not in page


def test_command(bge_eval: CommandLine, root: Path, tmp_path: Path) -> None:
    save_run(root, "a/good", a_run(1, 2), QRELS, task="SciFact")
    done = bge_eval("report", root, "-o", "deep/page.html")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("deep/page.html (")
    page = tmp_path / "cwd" / "deep" / "page.html"
    text = page.read_text(encoding="utf-8")
    assert "<h1>Mine and SciFact</h1>" in text or "<h1>SciFact and Mine</h1>" in text
    assert "BAAI/bge-base-en-v1.5" in text
    assert [path.name for path in page.parent.iterdir()] == ["page.html"]
    done = bge_eval("report", "-o", "deep")
    assert done.returncode == 2 and "is a folder" in done.stderr
    done = bge_eval("report", "nowhere")
    assert done.returncode == 3 and "nowhere does not exist" in done.stderr
    done = bge_eval("report", root, "--no-published", "--metric", "R@10", "--title", "A <b>")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "cwd" / "report.html").read_text(encoding="utf-8")
    assert "<h1>A &lt;b&gt;</h1>" in text and "BAAI/bge-base-en-v1.5" not in text
    done = bge_eval("report", root, "--tasks", "ArguAna")
    assert done.returncode == 3 and "No result there" in done.stderr
