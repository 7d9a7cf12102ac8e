"""The report's section about vectors as deployed: its table, its picture, hostile names in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bge_eval.leaderboard.reading import leaderboard
from bge_eval.measures.mteb_keys import MAIN_KEY
from bge_eval.report.deployment import read_curve
from bge_eval.report.gathering import gather
from bge_eval.report.page import render
from bge_eval.results.saved import find_results
from chromium import Browser, chromium_window  # noqa: F401 (a fixture)
from saved import save_run

EVIL = "</script><script>window.broken = 1</script><img src=x onerror='window.broken = 2'>"


def rows() -> list[dict[str, Any]]:
    """Points of a curve as its command writes them: smaller ones have lower scores."""
    made = []
    for dimension in (384, 128):
        for vectors, size in (("float32", 4), ("int8", 1), ("binary", 1 / 8)):
            for index in ("flat", f"HNSW32 efSearch=64 {EVIL}"):
                loss = (384 - dimension) / 5000 + (4 - size) / 200 + (index != "flat") / 300
                speed = 1 + 9 * (index != "flat")
                made.append(
                    {
                        "dimension": dimension,
                        "vectors": vectors,
                        "index": index,
                        "rescored": 100 if vectors == "binary" else None,
                        "nDCG@10": 0.65 - loss,
                        "difference": -loss,
                        "low": -loss - 0.01,
                        "high": -loss + 0.01,
                        "p_holm": 0.02 if loss > 0.02 else 1.0,
                        "recall@10": 1 - loss,
                        "recall@100": 1 - loss / 2,
                        "bytes_per_document": dimension * size + 270 * (index != "flat"),
                        "build_seconds": 0.5,
                        "front": index == "flat",
                        **{
                            f"{cores}_{name}": value * factor
                            for cores, factor in (("one_core", 1), ("all_cores", 2))
                            for name, value in (
                                ("queries_per_second", 100.0 * speed),
                                ("p50_ms", 9.0 / speed),
                                ("p95_ms", 10.0 / speed),
                                ("threads", 1),
                            )
                        },
                    }
                )
    return made


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    save_run(root, "a/model", {"q": {"d": 1.0}}, {"q": {"d": 1}})
    curve = root / "curve.json"
    content = {"model": f"a/model {EVIL}", "tasks": ["SciFact"], "method": "Measured."}
    content["smallest_without_loss"] = "int8, 384 dimensions, flat: 1/4 of the memory."
    curve.write_text(json.dumps({**content, "rows": rows()}))
    board = leaderboard(find_results([root]), measure="nDCG@10", key=MAIN_KEY)
    whole = gather(board, key=MAIN_KEY, curves=[read_curve(curve)])
    path = root / "report.html"
    path.write_text(render(whole), encoding="utf-8")
    return path


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_setting_is_a_mark_and_a_row(
    browser: Browser, page: Path, width: int, dark: bool
) -> None:
    browser.size(width, dark=dark)
    browser.open(page)
    marks = "return document.querySelectorAll('#deployment figure [aria-label=dot] path').length"
    browser.until(f"{marks} === {len(rows())}")
    assert browser.script("return window.broken") is None and browser.errors() == []
    assert browser.script("return document.documentElement.scrollWidth") == width
    heads = browser.script(
        "return [...document.querySelectorAll('.settings tbody th')].map(th => th.textContent)"
    )
    assert len(heads) == len(rows())
    for head, row in zip(heads, rows(), strict=True):
        expected = f"{row['vectors']}, {row['dimension']} dimensions {row['index']}"
        assert " ".join(head.split()).startswith(expected)
    # Every mark says its setting, and a chosen axis redraws them.
    titles = (
        "return [...document.querySelectorAll('#deployment figure title')].map(t => t.textContent)"
    )
    assert any(
        "HNSW32" in title and "bytes a document" in title for title in browser.script(titles)
    )
    browser.script(
        "const pick = document.getElementById('pick-deployment-0');"
        "pick.value = 'one_core_p95_ms'; pick.dispatchEvent(new Event('change'))"
    )
    assert any("at 1 milliseconds" in title for title in browser.script(titles))
    browser.script("document.getElementById('deployment').scrollIntoView()")
    browser.picture(f"deployment-{width}-{'dark' if dark else 'light'}", whole=True)


def test_the_front_is_of_settings_that_none_beats(browser: Browser, page: Path) -> None:
    browser.size(1280)
    browser.open(page)
    browser.until("return !!document.querySelector('#deployment figure [aria-label=line] path')")
    line = browser.script(
        "return document.querySelector('#deployment figure [aria-label=line] path')"
        ".getAttribute('d')"
    )
    beaten = [
        row
        for row in rows()
        if any(
            other["bytes_per_document"] <= row["bytes_per_document"]
            and other["nDCG@10"] > row["nDCG@10"]
            for other in rows()
        )
    ]
    assert line.count("L") == len(rows()) - len(beaten) - 1 > 0
