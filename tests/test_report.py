"""The report before it is looked at: what it holds, how it is packed, what is escaped."""

from __future__ import annotations

import base64
import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest

from bge_eval.leaderboard.rows import Row
from bge_eval.measures.mteb_keys import MAIN_KEY
from bge_eval.records import Excerpt, Excerpts, Qrels, Run
from bge_eval.report.content import Content
from bge_eval.report.gathering import gather, measure_name
from bge_eval.report.page import data_block, render
from bge_eval.report.queries import CHUNK, pack, query_groups
from bge_eval.results.saved import SavedResult
from bge_eval.statistics.paired import compare
from conftest import CommandLine
from saved import save_run
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


def test_queries_are_packed_with_values_and_documents(root: Path) -> None:
    collection = content_of(root).collections[0]
    blocks = pack(collection)
    overview = unpacked(blocks.overview)
    assert overview["ids"] == QUERIES
    _, values = collection.results[0].per_query(("default", "test"))
    assert overview["values"]["0"][0][7] == round(values["q7"][0], 4)
    assert len(blocks.chunks) == -(-len(QUERIES) // CHUNK)
    chunk = unpacked(blocks.chunks[0])
    run = collection.results[1].run(("default", "test"))["q7"]
    ranked = sorted(run, key=lambda doc: -run[doc])
    head, ranks = chunk["queries"]["q7"]["systems"]["1"]
    assert head == ranked[:10]
    assert ranks == {"q7-gold": ranked.index("q7-gold") + 1}
    assert chunk["queries"]["q7"]["relevant"] == {"q7-gold": 1}
    assert chunk["documents"]["q7-gold"] == ["Gold", "of q7"]


def test_tests_are_those_of_the_statistics(root: Path) -> None:
    collection = content_of(root).collections[0]
    before, after = (collection.values[i] for i in (0, 1))
    expected = compare(
        [before[query][0] for query in QUERIES],
        [after[query][0] for query in QUERIES],
        resamples=2000,
    )
    assert expected.interval is not None
    found = collection.tests()["0-1:nDCG@10"]
    assert found["p"] == pytest.approx(expected.p_value, abs=1e-5)
    assert found["low"] == pytest.approx(expected.interval.low, abs=1e-5)


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
