"""Texts of data sets, models and servers cannot act on the terminal or in a spreadsheet."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.table import Table

from bge_eval.cli.console import SafeConsole
from bge_eval.cli.formats.printable import json_printable, no_formula, printable
from conftest import CommandLine

HOSTILE = "a\x1b[2J\x1b]0;title\x07b\x9bc\u202ed"


def test_control_characters_become_pictures() -> None:
    assert printable(HOSTILE) == "a␛[2J␛]0;title␇b\ufffdc\ufffdd"
    assert printable("tab\tline\n中文 ünï 🙂") == "tab\tline\n中文 ünï 🙂"


def test_json_reads_back_the_same() -> None:
    text = json_printable(json.dumps({"id": HOSTILE}, ensure_ascii=False))
    assert text.isascii() and "\x1b" not in text
    assert json.loads(text) == {"id": HOSTILE}


def test_a_console_prints_no_control_character_of_a_cell() -> None:
    file = io.StringIO()
    console = SafeConsole(file=file, force_terminal=True, width=60)
    table = Table("id")
    table.add_row(HOSTILE)
    console.print(table)
    console.print(HOSTILE, markup=False)
    shown = file.getvalue()
    assert "␛[2J" in shown and "\x1b[2J" not in shown and "\x07" not in shown
    assert "\x1b[" in shown  # rich's own styles stay


@pytest.mark.parametrize("cell", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1"])
def test_a_spreadsheet_computes_no_cell(cell: str) -> None:
    assert no_formula(cell) == f"'{cell}"


@pytest.mark.parametrize("cell", ["-0.00210", "+0.5", "1,234", "-3e-5", "12%", "model", "", -0.5])
def test_numbers_and_words_stay(cell: object) -> None:
    assert no_formula(cell) == cell


def test_rescore_prints_hostile_ids_as_text(bge_eval: CommandLine, tmp_path: Path) -> None:
    run, qrels = tmp_path / "a.run", tmp_path / "qrels.tsv"
    run.write_text("=1+1 Q0 d\x1b[2J 1 0.5 x\n")
    qrels.write_text("query-id\tcorpus-id\tscore\n=1+1\td\x1b[2J\t1\n")
    command = ("rescore", run, "--qrels", qrels, "--metric", "nDCG@10", "--per-query")
    for form in ("terminal", "csv", "json", "markdown"):
        done = bge_eval(*command, "--format", form)
        assert done.returncode == 0, done.stderr
        assert "\x1b[2J" not in done.stdout + done.stderr
    rows = list(csv.reader(io.StringIO(bge_eval(*command, "--format", "csv").stdout)))
    assert any("'=1+1" in row for row in rows)


@pytest.mark.parametrize(
    ("variables", "printed"),
    [
        ({"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}, "†"),
        ({"PYTHONIOENCODING": "ascii"}, "\\u2020"),
    ],
    ids=["a locale without it", "an encoding that the user names"],
)
def test_a_character_that_the_locale_lacks_is_no_failure(
    variables: dict[str, str], printed: str
) -> None:
    code = "from bge_eval.cli.quiet import encode_everything as f; f(); print(chr(0x2020))"
    variables = {**os.environ, **variables}
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode().strip() == printed
