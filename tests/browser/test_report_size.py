"""The report of many tasks and systems, and of hostile ids, in a browser."""

from __future__ import annotations

import csv
import io
import json
import random
from pathlib import Path
from typing import Any

import pytest

from bge_eval.leaderboard.reading import leaderboard
from bge_eval.measures.mteb_keys import MAIN_KEY
from bge_eval.records import Excerpt, Excerpts, Qrels, Run
from bge_eval.report.gathering import gather
from bge_eval.report.page import render
from bge_eval.results.saved import find_results
from chromium import Browser, chromium_window  # noqa: F401 (a fixture)
from saved import result_folder, save_run

MODELS = [f"org/system-{number}" for number in range(6)]
TYPES = {"Classification": 8, "STS": 6, "BitextMining": 3}
LANGUAGES = ("deu-Latn", "arb-Arab", "eng-Latn")
OBJECT_FIELDS = ["constructor", "toString", "__proto__", "hasOwnProperty"]
CONTRAST = Path(__file__).with_name("contrast.js").read_text(encoding="utf-8")
ARABIC = "ما هي فوائد فيتامين د للعظام"


def a_page(root: Path) -> tuple[Path, dict[str, Any]]:
    """Write the page of some results, and return it with the scores on it."""
    board = leaderboard(find_results([root]), measure="main score", key=MAIN_KEY)
    content = gather(board, key=MAIN_KEY)
    page = root / "report.html"
    page.write_text(render(content), encoding="utf-8")
    return page, {row.model: dict(row.scores) for row in board.rows}


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Six systems on nineteen tasks of four types, two of the tasks with runs."""
    root = tmp_path_factory.mktemp("many")
    draw = random.Random(4)
    for type_, count in TYPES.items():
        for number in range(count):
            task = f"{type_}Task{number}"
            for model in MODELS:
                subsets = LANGUAGES if type_ == "BitextMining" else ("eng-Latn",)
                entries = [
                    {"hf_subset": s, "languages": [s], "main_score": draw.uniform(0.4, 0.9)}
                    for s in subsets
                ]
                folder = result_folder(root, model, task, None)
                record = {"format": 1, "task_type": type_, "main_measure": "accuracy"}
                (folder / task / "run.json").write_text(json.dumps(record))
                content = {"task_name": task, "scores": {"test": entries}}
                (folder / f"{task}.json").write_text(json.dumps(content))
    queries = [f"q{number}" for number in range(30)] + OBJECT_FIELDS
    documents = [f"d{number}" for number in range(60)] + OBJECT_FIELDS
    qrels: Qrels = {query: {draw.choice(documents[:60]): 1} for query in queries}
    qrels["q0"] = {"constructor": 1}
    texts = Excerpts(
        {query: f"What is {query}?" for query in queries} | {"q1": ARABIC},
        {document: Excerpt(f"Title {document}", "Its text.") for document in documents},
    )
    for task in ("FirstRetrieval", "SecondRetrieval"):
        for place, model in enumerate(MODELS):
            run: Run = {}
            for query in queries:
                ranked = [*OBJECT_FIELDS, *draw.sample(documents[:60], 8)]
                if draw.random() < 0.9 - 0.15 * place:
                    ranked = [*qrels[query], *ranked]
                run[query] = {d: 1 - i / 50 for i, d in enumerate(dict.fromkeys(ranked))}
            save_run(root, model, run, qrels, texts, task=task)
    return a_page(root)


def names(browser: Browser) -> list[str]:
    found: list[str] = browser.script(
        "return [...document.querySelectorAll('.board thead .sort')].map(e => e.textContent)"
    )
    return found


def choose(browser: Browser, place: str, value: str) -> None:
    """Put a value into a field as a person does."""
    browser.script(
        "const e = document.querySelector(arguments[0]); e.value = arguments[1];"
        "e.dispatchEvent(new Event('input', {bubbles: true}));"
        "e.dispatchEvent(new Event('change', {bubbles: true}))",
        place,
        value,
    )


@pytest.mark.parametrize("width", [1280, 390])
def test_name_rank_and_mean_stay_in_place(
    browser: Browser, many: tuple[Path, dict[str, Any]], width: int
) -> None:
    browser.size(width)
    browser.open(many[0])
    assert names(browser)[:3] == ["Model", "Rank", "Mean"]
    for type_ in (*TYPES, "Retrieval"):
        browser.script(f"document.querySelector(`.fold[data-type='{type_}']`).click()")
    assert len(names(browser)) >= 3 + 4 + 19
    where = (
        "return ['name', 'rank', 'mean'].map(kind => Math.round("
        "document.querySelector(`.board tbody .${kind}`).getBoundingClientRect().left))"
    )
    before = browser.script(where)
    browser.script("document.querySelector('.scroll').scrollLeft = 600")
    assert browser.script("return document.querySelector('.scroll').scrollLeft") == 600
    assert browser.script(where) == before == sorted(before)
    assert browser.script("return document.documentElement.scrollWidth") == width


def test_types_unfold_and_filters_recompute(
    browser: Browser, many: tuple[Path, dict[str, Any]]
) -> None:
    page, scores = many
    browser.size(1280)
    browser.open(page)
    assert [name for name in names(browser) if "Task" in name] == []
    mean = "return Number(document.querySelector('.board tbody td.mean').dataset.value)"
    choose(browser, "#only-task", "STSTask1, STSTask4")
    top = browser.script("return document.querySelector('.board tbody th').dataset.value")
    expected = (scores[top]["STSTask1"] + scores[top]["STSTask4"]) / 2
    assert browser.script(mean) == pytest.approx(expected)
    assert "2 of 19 tasks" in browser.script("return document.querySelector('.shown').textContent")
    choose(browser, "#only-task", "")
    choose(browser, "#only-model", "system-1, system-3")
    assert browser.script("return document.querySelectorAll('.board tbody tr').length") == 2
    ranks = "return [...document.querySelectorAll('.board tbody td.rank')].map(e => e.textContent)"
    assert sorted(browser.script(ranks)) == ["1", "2"]
    browser.script("document.getElementById('reset').click()")
    choose(browser, "#only-language", "arb-Arab")
    assert [name for name in names(browser) if name == "BitextMining"] == ["BitextMining"]
    assert "scores in Arabic" in browser.script(
        "return document.querySelector('.shown').textContent"
    )
    assert browser.errors() == []


def test_ranks_are_mtebs_borda_count(browser: Browser, many: tuple[Path, dict[str, Any]]) -> None:
    import polars as pl
    from mteb.benchmarks._create_table import _get_borda_rank

    page, scores = many
    frame = pl.DataFrame([{"model": model, **own} for model, own in scores.items()])
    tasks = [name for name in frame.columns if name != "model"]
    ranks = frame.select("model", rank=_get_borda_rank(tasks))
    browser.size(1280)
    browser.open(page)
    shown = browser.script(
        "return [...document.querySelectorAll('.board tbody tr')].map(row =>"
        " [row.querySelector('th').dataset.value,"
        " Number(row.querySelector('.rank').dataset.value)])"
    )
    assert dict(shown) == dict(ranks.iter_rows())


def test_address_keeps_the_state(browser: Browser, many: tuple[Path, dict[str, Any]]) -> None:
    browser.size(1280)
    browser.open(many[0])
    choose(browser, "#only-model", "system-0, system-2, system-5")
    browser.script("document.querySelector(`.fold[data-type='STS']`).click()")
    browser.script("document.querySelectorAll('.board .sort')[2].click()")
    choose(browser, "#pick-a", "3")
    choose(browser, "#pick-measure", "1")
    choose(browser, "#find", "what is q2")
    browser.until("return document.querySelector('.sentence').textContent.includes('RR@10')")
    browser.script("document.querySelector('.queries button').click()")
    browser.until("return document.querySelector('dialog').open")
    shown = (
        "return [location.hash, document.querySelector('.board').textContent,"
        " document.querySelector('.sentence').textContent,"
        " document.querySelector('#reader-title').textContent]"
    )
    before = browser.script(shown)
    browser.driver.get("about:blank")
    browser.driver.get(many[0].as_uri() + before[0])
    browser.until("return document.querySelector('dialog')?.open")
    assert browser.script(shown) == before
    browser.driver.get("about:blank")


def test_ids_that_every_object_has_are_not_relevant(
    browser: Browser, many: tuple[Path, dict[str, Any]]
) -> None:
    browser.size(1280)
    browser.open(many[0])
    relevant = (
        "return [...document.querySelectorAll('.documents li')].map(li =>"
        " [li.querySelector('h4').textContent, li.className])"
    )
    for query in ("q0", "q3", "toString", "__proto__"):
        browser.script(
            "document.querySelector(`.queries button[data-query='${arguments[0]}']`).click()", query
        )
        browser.until(f"return document.querySelector('.about')?.textContent.startsWith('{query}')")
        marked = {title for title, kind in browser.script(relevant) if kind == "relevant"}
        fields = {f"Title {name}" for name in OBJECT_FIELDS}
        assert marked & fields == ({"Title constructor"} if query == "q0" else set())
        assert len(marked) == 1
        browser.script("document.getElementById('close').click()")
    assert browser.errors() == []


def test_four_systems_side_by_side(browser: Browser, many: tuple[Path, dict[str, Any]]) -> None:
    browser.size(1280)
    browser.open(many[0])
    browser.script("document.querySelector('.queries button').click()")
    browser.until("return document.querySelectorAll('.columns > div').length === 2")
    for count in (3, 4):
        choose(browser, "#beside", browser.script("return beside.options[1].value"))
        browser.until(f"return document.querySelectorAll('.columns > div').length === {count}")
    assert browser.script("return beside.disabled")
    tops = browser.script(
        "return [...document.querySelectorAll('.columns > div')].map(e =>"
        " e.getBoundingClientRect().top)"
    )
    assert len(set(tops)) == 1
    letters = browser.script(
        "return [...document.querySelectorAll('.columns h3 span')].map(e => e.textContent[0])"
    )
    assert letters == ["A", "B", "C", "D"]
    browser.script("document.querySelector('.remove').click()")
    browser.until("return document.querySelectorAll('.columns > div').length === 3")


def test_texts_run_in_their_own_direction(
    browser: Browser, many: tuple[Path, dict[str, Any]]
) -> None:
    browser.size(1280)
    browser.open(many[0])
    direction = "return getComputedStyle(document.querySelector(`{}`)).direction"
    button = ".queries button[data-query='q{}'] span"
    assert browser.script(direction.format(button.format(1))) == "rtl"
    assert browser.script(direction.format(button.format(2))) == "ltr"
    browser.script("document.querySelector(`.queries button[data-query='q1']`).click()")
    browser.until("return document.querySelector('dialog').open")
    assert browser.script(direction.format("#reader-title")) == "rtl"


def test_intervals_and_figures_are_plain_to_see(
    browser: Browser, many: tuple[Path, dict[str, Any]]
) -> None:
    browser.size(1280)
    browser.open(many[0])
    choose(browser, "#only-task", "FirstRetrieval")
    browser.until("return document.querySelector('.board td.mean small') !== null")
    ends = browser.script("return document.querySelector('.board td.mean small').textContent")
    low, high = map(float, ends.split("–"))
    assert low < high
    figures = "return getComputedStyle(document.querySelector('{}')).fontVariantNumeric"
    assert "tabular-nums" in browser.script(figures.format(".board td.num"))
    assert browser.script(figures.format(".board th.name")) == "normal"


def test_matrix_counts_tasks_and_opens_the_pair(
    browser: Browser, many: tuple[Path, dict[str, Any]]
) -> None:
    browser.size(1280)
    browser.open(many[0])
    cells = browser.script(
        "return [...document.querySelectorAll('[data-plot=matrix] .cell text')]"
        ".map(e => e.textContent)"
    )
    assert len(cells) == 6 * 5
    assert all(sum(map(int, cell.split("–"))) == 2 for cell in cells)
    choose(browser, "#pick-pairs", "FirstRetrieval")
    cells = browser.script(
        "return [...document.querySelectorAll('[data-plot=matrix] .cell text')]"
        ".map(e => e.textContent)"
    )
    assert all(sum(map(int, cell.split("–"))) == 34 for cell in cells)
    browser.script(
        "document.querySelectorAll('[data-plot=matrix] .cell')[5]"
        ".dispatchEvent(new MouseEvent('click', {bubbles: true}))"
    )
    words = browser.script("return document.querySelector('[data-readout=matrix]').textContent")
    assert "better on" in words and "corrected" in words
    a, b = browser.script(
        "return ['a', 'b'].map(side => {"
        " const pick = document.querySelector(`#pick-${side}`);"
        " return pick.options[pick.selectedIndex].textContent })"
    )
    assert words.startswith(f"{b} against {a}:")


def test_table_is_copied_as_csv_and_markdown(
    browser: Browser, many: tuple[Path, dict[str, Any]]
) -> None:
    page, scores = many
    browser.size(1280)
    browser.open(page)
    browser.driver.execute_cdp_cmd(
        "Browser.grantPermissions", {"permissions": ["clipboardReadWrite"]}
    )
    choose(browser, "#only-task", "STSTask2")
    read = (
        "const done = arguments[arguments.length - 1];"
        "navigator.clipboard.readText().then(done, error => done(String(error)))"
    )
    browser.script("document.querySelector('#copy-csv').click()")
    browser.until("return document.querySelector('#copy-csv').textContent === 'Copied'")
    rows = list(csv.DictReader(io.StringIO(browser.driver.execute_async_script(read))))
    assert {row["Model"]: float(row["Mean"]) for row in rows} == pytest.approx(
        {model: own["STSTask2"] for model, own in scores.items()}
    )
    browser.script("document.querySelector('#copy-markdown').click()")
    browser.until("return document.querySelector('#copy-markdown').textContent === 'Copied'")
    lines = browser.driver.execute_async_script(read).splitlines()
    assert lines[0].startswith("| Model |") and set(lines[1]) <= set("|-: ")
    assert len(lines) == 2 + len(MODELS)


def test_copied_texts_are_no_formulas(browser: Browser, many: tuple[Path, dict[str, Any]]) -> None:
    browser.open(many[0])
    made = browser.script(
        "return [report.table.csv(['a', 'b'], [['=1+1', -0.5], ['@x,\"y\"', 0.25]]),"
        " report.table.markdown(['a'], [['<b>|x|']])]"
    )
    assert made[0] == 'a,b\r\n\'=1+1,-0.5\r\n"\'@x,""y""",0.25\r\n'
    assert made[1].splitlines()[2] == "| \\<b\\>\\|x\\| |"


def test_groups_of_queries_list_their_queries(
    browser: Browser, many: tuple[Path, dict[str, Any]]
) -> None:
    browser.size(1280)
    browser.open(many[0])
    rows = browser.script(
        "return [...document.querySelectorAll('.groups tr:not(.section)')].slice(1).map(row =>"
        " [row.cells[0].textContent, parseInt(row.cells[1].firstChild.data)])"
    )
    name, count = next(row for row in rows if row[0].startswith("A finds nothing"))
    browser.script(
        "[...document.querySelectorAll('.groups button')]"
        ".find(e => e.textContent === arguments[0]).click()",
        name,
    )
    assert browser.script("return document.querySelectorAll('.queries button').length") == count
    assert name in browser.script("return document.querySelector('.chosen').textContent")
    bars = browser.script(
        "return [...document.querySelectorAll('[data-plot=histogram] rect title')]"
        ".map(e => parseInt(e.textContent.split(' ')[1]))"
    )
    assert sum(bars) == 2 * 34


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_labels_have_contrast(
    browser: Browser, many: tuple[Path, dict[str, Any]], dark: bool
) -> None:
    browser.size(1280, dark=dark)
    browser.open(many[0])
    browser.script("document.querySelector('.queries button').click()")
    browser.until("return document.querySelector('.documents li') !== null")
    assert browser.script(CONTRAST) == []
