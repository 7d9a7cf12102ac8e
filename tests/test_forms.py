"""The table's other forms: LaTeX and HTML, the best, differences, costs."""

from __future__ import annotations

import csv
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from bge_eval.cli.formats.latex import tex
from bge_eval.cli.formats.registry import Format
from bge_eval.cli.grid import Look, grid, weights
from bge_eval.cli.show import show
from bge_eval.leaderboard.board import MEAN_TASK, MEAN_TYPE, Leaderboard
from bge_eval.leaderboard.rows import Column, Row
from bge_eval.leaderboard.significance import Evidence
from bge_eval.measures.mteb_keys import MAIN_KEY
from conftest import CommandLine
from saved import save_run
from test_significance import QRELS, a_run, board_of


@pytest.fixture
def root(tmp_path: Path) -> Path:
    recorded = {
        "seconds": {"encode corpus": 4.0},
        "counts": {"encode corpus": 100},
        "settings": {"dimension": 384, "parameters": 109_482_240},
    }
    save_run(tmp_path, "a/good", a_run(1, 2), QRELS, recorded=recorded)
    save_run(tmp_path, "b/alike_2", a_run(2, 2), QRELS)
    save_run(tmp_path, "c/bad&worse", a_run(3, 9), QRELS)
    return tmp_path


def look_of(board: Leaderboard) -> Look:
    evidence = Evidence(board, MAIN_KEY)
    return Look(standings={task: evidence.mean({task: 1.0}) for task in board.tasks})


def shown(board: Leaderboard, form: Format, look: Look) -> str:
    output = io.StringIO()
    show(board, form, Console(width=120, file=output), look)
    return output.getvalue()


def test_latex(root: Path) -> None:
    board = board_of(root)
    text = shown(board, Format.LATEX, look_of(board))
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 4
    assert rows[0].startswith("model & precision & Mine")
    assert re.search(r"\\textbf\{0\.\d{5}\}", rows[1])
    assert re.search(r"b/alike\\_2 .*\\underline\{0\.\d{5}\}\\rlap", rows[2])
    assert "bad\\&worse" in rows[3] and "textbf" not in rows[3]
    assert text.count("{") == text.count("}")
    columns = re.search(r"begin\{tabular\}\{(\w+)\}", text)
    assert columns is not None and len(columns[1]) == rows[0].count(" & ") + 1


def test_every_character_is_escaped_for_latex() -> None:
    assert tex(r"50% of {a}_b & $c #1 ~^\d") == (
        r"50\% of \{a\}\_b \& \$c \#1 \textasciitilde{}\textasciicircum{}\textbackslash{}d"
    )


class _Cells(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data


def test_html_is_whole_and_escaped(root: Path) -> None:
    save_run(root, "x/<script>alert(1)</script>", a_run(3, 5), QRELS)
    board = board_of(root)
    text = shown(board, Format.HTML, look_of(board))
    assert "<script" not in text
    cells = _Cells()
    cells.feed(text)
    assert cells.open == []
    assert {len(row) for row in cells.rows} == {3}
    assert any("<script>alert(1)</script>" in row[0] for row in cells.rows)
    assert text.count("<strong>0.") == 1 and text.count("<u>0.") == 1


def test_markdown_and_terminal_mark_the_best(root: Path) -> None:
    board = board_of(root)
    markdown = shown(board, Format.MARKDOWN, look_of(board))
    assert re.search(r"\| a/good .*\| \*\*0\.\d{5}\*\* \|", markdown) or re.search(
        r"\| b/alike.*\| \*\*0\.\d{5}\*\* \|", markdown
    )
    assert re.search(r"\*0\.\d{5}\* ≈", markdown)
    terminal = shown(board, Format.TERMINAL, look_of(board))
    assert terminal.count("≈") == 2  # the tied row, and what the mark means
    assert "≈" not in shown(board, Format.TERMINAL, Look())


def test_differences_to_a_row(root: Path) -> None:
    board = board_of(root)
    reference = board.rows[2]
    table = grid(board, Look(reference=reference))
    texts = [line.cells[2].text for line in table.lines]
    expected = board.rows[0].scores["Mine"] - reference.scores["Mine"]
    assert texts[0] == f"{expected:+.5f}"
    assert texts[2] == f"{reference.scores['Mine']:.5f}"
    rows = json.loads(shown(board, Format.JSON, Look(reference=reference)))["rows"]
    assert rows[0]["differences"]["Mine"] == pytest.approx(expected)
    line = next(csv.DictReader(io.StringIO(shown(board, Format.CSV, Look(reference=reference)))))
    assert float(line["difference:Mine"]) == pytest.approx(expected)
    assert float(line["Mine"]) == board.rows[0].scores["Mine"]


def test_weights_are_those_of_the_means() -> None:
    columns = (Column("A", "Retrieval"), Column("B", "Retrieval"), Column("C", "STS"))
    row = Row("m", "r", "", None, "", {"A": 0.2, "B": 0.4, "C": 0.9})
    board = Leaderboard("main score", columns, (row,))
    for heading, mean in board.means(row).items():
        value = sum(row.scores[task] * part for task, part in weights(board, heading).items())
        assert value == pytest.approx(mean.value), heading
    assert weights(board, MEAN_TASK) == pytest.approx(dict.fromkeys("ABC", 1 / 3))
    assert weights(board, MEAN_TYPE) == pytest.approx({"A": 0.25, "B": 0.25, "C": 0.5})


def test_command(bge_eval: CommandLine, root: Path) -> None:
    done = bge_eval("table", root, "--best", "--costs", "--format", "csv")
    assert done.returncode == 0, done.stderr
    rows = {row["model"]: row for row in csv.DictReader(io.StringIO(done.stdout))}
    assert rows["a/good"]["seconds"] == "4.0" and rows["a/good"]["documents_per_second"] == "25.0"
    assert rows["a/good"]["parameters"] == "109482240"
    assert rows["b/alike_2"]["seconds"] == "" and rows["b/alike_2"]["dimension"] == ""
    assert sum(row["best"] == "Mine" for row in rows.values()) == 1
    assert sum(row["tied_with_best"] == "Mine" for row in rows.values()) == 1
    save_run(root, "a/good", a_run(4, 4), QRELS, experiment={"truncate_dim": 64})
    done = bge_eval("table", root, "--diff", "good", "--format", "markdown")
    assert done.returncode == 0 and "differences to a/good**" in done.stdout, done.stderr
    done = bge_eval("table", root, "--diff", "bda")
    assert done.returncode == 2
    assert "no row is called so" in done.stderr and "c/bad&worse" in done.stderr
    done = bge_eval("table", root, "--diff", "/")
    assert done.returncode == 2 and "4 rows have it" in done.stderr
