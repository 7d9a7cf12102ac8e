"""The report as its reader meets it: in a browser, by hand, by keyboard, on a phone, on paper."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from bge_eval.leaderboard.reading import leaderboard
from bge_eval.measures.mteb_keys import MAIN_KEY
from bge_eval.records import Excerpt, Excerpts, Qrels, Run
from bge_eval.report.gathering import gather
from bge_eval.report.page import render
from bge_eval.results.saved import find_results
from chromium import Browser, chromium_window  # noqa: F401 (a fixture)
from saved import save_run

EVIL = "</script><script>window.broken = 1</script><img src=x onerror='window.broken = 2'>"
QUERIES = ["what makes bones strong", "memory and sleep", f"糖尿病的原因 {EVIL}", "why bees dance"]
TITLES = ["Vitamin D", f"Sleep {EVIL}", "糖尿病", "Aspirin", "Honey bees"]


def page_of(root: Path, page: Path) -> Path:
    board = leaderboard(find_results([root]), measure="nDCG@10", key=MAIN_KEY)
    page.write_text(render(gather(board, key=MAIN_KEY)), encoding="utf-8")
    return page


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two systems on four queries, whose titles, queries and names are hostile."""
    root = tmp_path_factory.mktemp("runs")
    qrels: Qrels = {"q0": {"d0": 2}, "q1": {"d1": 1, "d3": 1}, "q2": {"d2": 1}, "q3": {"d4": 1}}
    documents = {f"d{i}": Excerpt(title, f"About {title}.") for i, title in enumerate(TITLES)}
    texts = Excerpts({f"q{i}": text for i, text in enumerate(QUERIES)}, documents)
    ranked = {"q0": "0 1 2", "q1": "1 3 0", "q2": "2 4 1", "q3": "0 1 2"}
    good: Run = {
        q: {f"d{d}": 1 - i / 9 for i, d in enumerate(v.split())} for q, v in ranked.items()
    }
    other: Run = {q: {f"d{i}": 1 - i / 9 for i in range(4)} for q in qrels}
    timed = {
        "seconds": {"encode corpus": 0.5, "encode queries": 0.5},
        "counts": {"encode corpus": 5, "encode queries": 4},
        "settings": {"dimension": 384, "parameters": 22_700_000, "device": "cpu"},
        "environment": {"processor": f"CPU {EVIL}", "cores": 2},
    }
    save_run(root, "a/good", good, qrels, texts, recorded=timed)
    save_run(root, "a/good", good, qrels, texts, task="Other")
    save_run(root, "b/other<b>", other, qrels, texts, recorded=timed)
    return page_of(root, root / "report.html")


def test_opens_without_error_and_without_a_request(browser: Browser, report: Path) -> None:
    browser.size(1280)
    browser.open(report)
    assert browser.errors() == []
    assert {url.split(":")[0] for url in browser.requests()} <= {"file", "data"}
    browser.script("fetch('https://example.org/').catch(() => { window.refused = true })")
    browser.until("return window.refused === true")
    assert "Content Security Policy" in " ".join(browser.errors())


def test_hostile_texts_stay_texts(browser: Browser, report: Path) -> None:
    browser.size(1280)
    browser.open(report)
    for place in range(len(QUERIES)):
        browser.script(f"document.querySelectorAll('.queries button')[{place}].click()")
        browser.until("return document.querySelector('dialog').open")
        browser.until("return !!document.querySelector('.documents li')")
        browser.script("document.getElementById('close').click()")
    assert browser.script("return window.broken") is None
    assert browser.script("return document.images.length") == 0
    shown = browser.script("return document.querySelector('.queries').textContent")
    assert "<script>window.broken" in shown
    # A script that finds its way into the page would still not be run.
    browser.script(
        "const s = document.createElement('script'); s.textContent ="
        " 'window.broken = 3'; document.body.append(s)"
    )
    assert browser.script("return window.broken") is None


def test_headings_sort(browser: Browser, report: Path) -> None:
    browser.size(1280)
    browser.open(report)
    names = "return [...document.querySelectorAll('.board tbody th')].map(e => e.dataset.value)"
    headings = browser.script(
        "return [...document.querySelectorAll('.board thead .sort')].map(e => e.textContent)"
    )
    assert headings[:5] == ["Model", "Rank", "Mean", "Mine", "Other"]
    heading = "document.querySelectorAll('.board thead .sort')[{}]"
    assert browser.script(names) == ["a/good", "b/other<b>"]
    browser.script(heading.format(3) + ".click()")
    assert browser.script(names) == ["a/good", "b/other<b>"]
    assert browser.script(f"return {heading.format(3)}.parentNode.ariaSort") == "descending"
    browser.script(heading.format(3) + ".click()")
    assert browser.script(names) == ["b/other<b>", "a/good"]
    # What is missing stands last, whichever way a column is sorted.
    for _ in range(2):
        browser.script(heading.format(4) + ".click()")
        assert browser.script(names) == ["a/good", "b/other<b>"]


def test_query_opens_with_its_documents_by_keyboard(browser: Browser, report: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.size(1280)
    browser.open(report)
    first = browser.driver.find_element("css selector", ".queries button")
    first.send_keys(Keys.ENTER)
    browser.until("return document.querySelector('dialog').open")
    assert first.get_attribute("data-query") == "q2"
    title = browser.script("return document.getElementById('reader-title').textContent")
    assert title == QUERIES[2]
    columns = browser.script(
        "return [...document.querySelectorAll('.columns > div')].map(column =>"
        " [...column.querySelectorAll('li')].map(li => [li.className,"
        " li.querySelector('.rank').textContent, li.querySelector('h4').textContent]))"
    )
    # A is the other, which has its fixed order; B is the good one, with the gold first.
    assert columns[0][2] == ["relevant", "3", "糖尿病"]
    assert columns[1][0] == ["relevant", "1", "糖尿病"]
    assert "B: rank 1" in browser.script("return document.querySelector('.columns').textContent")
    browser.driver.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    browser.until("return document.querySelector('.place').textContent.startsWith('2 ')")
    browser.driver.switch_to.active_element.send_keys(Keys.ESCAPE)
    browser.until("return !document.querySelector('dialog').open")
    assert browser.script("return document.activeElement.closest('.queries') !== null")


def test_gold_beyond_the_first_ten_is_listed(browser: Browser, report: Path) -> None:
    browser.size(1280)
    browser.open(report)
    browser.script("document.querySelector('[data-query=q3]').click()")
    browser.until("return document.querySelector('dialog').open")
    missed = browser.script("return document.querySelector('.missed + ol').textContent")
    assert "Honey bees" in missed
    assert missed.startswith("–")


def test_points_choices_and_search(browser: Browser, report: Path) -> None:
    browser.size(1280)
    browser.open(report)
    chosen = "return [...document.querySelectorAll('#queries form select')].map(e => e.value)"
    assert browser.script(chosen) == ["0", "1", "0", "0"]
    assert "better with B" in browser.script(
        "return document.querySelector('.tallies').textContent"
    )
    before = browser.script("return document.querySelector('.sentence').textContent")
    cell = browser.script("return document.querySelector('.board td.task').textContent")
    assert cell[:6] in before  # the same figure as on the leaderboard, not rounded another way
    browser.script("document.getElementById('swap').click()")
    browser.until(f"return document.querySelector('.sentence').textContent !== {before!r}")
    assert browser.script(chosen) == ["0", "0", "1", "0"]
    browser.script(
        "const point = [...document.querySelectorAll('.points circle')].find(c =>"
        " c.__data__ !== undefined && c.textContent.startsWith('1 query'));"
        "point.dispatchEvent(new MouseEvent('click', {bubbles: true}))"
    )
    browser.until("return document.querySelector('dialog').open")
    browser.script("document.getElementById('close').click()")
    assert browser.script("return document.querySelectorAll('.queries button').length") == 1
    browser.script("document.getElementById('all-queries').click()")
    browser.script(
        "const find = document.getElementById('find'); find.value = 'bees';"
        "find.dispatchEvent(new Event('input'))"
    )
    assert browser.script("return document.querySelector('.queries').textContent").endswith(
        "why bees dance"
    )
    assert browser.errors() == []


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_pictures(browser: Browser, report: Path, width: int, dark: bool) -> None:
    browser.size(width, dark=dark)
    browser.open(report)
    assert browser.script("return document.documentElement.scrollWidth") == width
    ink, paper = browser.script(
        "const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]"
    )
    light = [sum(map(int, color[4:-1].split(","))) for color in (ink, paper)]
    assert (light[0] > light[1]) is dark
    name = f"{width}-{'dark' if dark else 'light'}"
    assert browser.picture(name, whole=True).stat().st_size > 20_000
    browser.size(width, dark=dark)
    browser.script("document.querySelector('.queries button').click()")
    browser.until("return document.querySelector('dialog').open")
    browser.picture(f"{name}-query")


def test_prints(browser: Browser, report: Path) -> None:
    browser.size(1280)
    browser.open(report)
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    hidden = "return getComputedStyle(document.querySelector('{}')).display"
    assert browser.script(hidden.format("nav")) == "none"
    assert browser.script(hidden.format(".list")) == "none"
    assert browser.script(hidden.format(".board")) == "table"
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


@pytest.mark.slow
def test_ten_thousand_queries_open_at_once(browser: Browser, tmp_path: Path) -> None:
    draw = random.Random(5)
    words = [f"word{i}" for i in range(3000)]

    def text(length: int) -> str:
        return " ".join(draw.choices(words, k=length))

    queries = [f"q{i}" for i in range(10_000)]
    documents = {f"d{i}": Excerpt(text(6), text(40)) for i in range(20_000)}
    names = list(documents)
    qrels: Qrels = {query: dict.fromkeys(draw.sample(names, 2), 1) for query in queries}
    texts = Excerpts({query: text(9) for query in queries}, documents)
    for model in ("a/one", "b/two"):
        run: Run = {}
        for query in queries:
            found = [*draw.sample(names, 8), *(d for d in qrels[query] if draw.random() < 0.6)]
            draw.shuffle(found)
            run[query] = {document: 1 - i / 50 for i, document in enumerate(found)}
        save_run(tmp_path, model, run, qrels, texts)
    page = page_of(tmp_path, tmp_path / "report.html")
    browser.size(1280)
    browser.open(page)
    assert browser.script("return document.querySelectorAll('.points circle').length") > 100
    browser.script("document.querySelector('.queries button').click()")
    browser.until("return document.querySelector('dialog').open")
    assert browser.errors() == []


def test_the_scores_of_a_training_are_a_curve(browser: Browser, tmp_path: Path) -> None:
    for series, steps in (("run-a", (100, 200, 300)), ("run<b>", (100, 200))):
        for step in steps:
            good = step // 20 - 3 * (step == 300)
            for task in ("Mine", "Other"):
                run = {f"q{n}": {"d": 2.0 if n < good else 0.5, "x": 1.0} for n in range(20)}
                qrels = {f"q{n}": {"d": 1} for n in range(20)}
                save_run(tmp_path, f"{series}/checkpoint-{step}", run, qrels, task=task)
    page = page_of(tmp_path, tmp_path / "page.html")
    for width, dark in ((1280, False), (390, True)):
        browser.size(width, dark=dark)
        browser.open(page)
        picture = "[data-plot=trend] svg[aria-label^='Mean of the 2 tasks']"
        browser.until(f"return !!document.querySelector(`{picture}`)")
        said = browser.script("return document.querySelector('[data-readout=trend]').textContent")
        assert "run-a: best" in said
        assert "at checkpoint-300, the last step" in said
        listed = (
            "[...document.querySelectorAll('.steps tbody tr')].map(e => e.children[1].textContent)"
        )
        assert browser.script(f"return {listed}") == [
            *("checkpoint-100", "checkpoint-200", "checkpoint-300"),
            *("checkpoint-100", "checkpoint-200"),
        ]
        browser.script(
            "const s = document.getElementById('pick-trend'); s.value = '1';"
            " s.dispatchEvent(new Event('change'))"
        )
        browser.until(
            "return !!document.querySelector(`[data-plot=trend] svg[aria-label^='Mine']`)"
        )
        assert browser.script("return document.documentElement.scrollWidth") <= width
        assert not browser.errors()
    assert not browser.script("return document.querySelector('#trend b')")
