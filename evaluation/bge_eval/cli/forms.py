"""The forms that output takes: a table's cells as Markdown, LaTeX and HTML."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from enum import StrEnum

from bge_eval.cli.grid import Cell, Grid

TIED = "≈"
"""Mark of what cannot be told from the best."""


class CheckForm(StrEnum):
    """How the verdict is written."""

    TERMINAL = "terminal"
    MARKDOWN = "markdown"
    JSON = "json"


_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "–": "--",
    "≈": r"$\approx$",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
}


def markdown(grid: Grid, heading: str, *, marked: bool) -> str:
    """Return a Markdown table; the best is bold, the second best italic."""
    lines = [f"**{heading}**", "", _pipes(grid.head)]
    numbers = len(grid.head) - grid.left
    lines.append("| " + " | ".join(["---"] * grid.left + ["---:"] * numbers) + " |")
    for line in grid.lines:
        cells = [_escaped_pipes(cell.text.strip()) for cell in line.cells]
        for place, cell in enumerate(line.cells):
            around = {1: "**", 2: "*"}.get(cell.rank, "")
            cells[place] = f"{around}{cells[place]}{around}{f' {TIED}' if cell.tied else ''}"
        lines.append("| " + " | ".join(cells) + " |")
    if marked:
        lines += ["", f"**bold** best, *italic* second best, {TIED} cannot be told from the best"]
    return "\n".join(lines)


def latex(grid: Grid, heading: str, *, marked: bool) -> str:
    r"""Return a LaTeX table with booktabs' rules; the best is bold, the second best underlined.

    It needs ``\usepackage{booktabs}``.
    """
    numbers = len(grid.head) - grid.left
    lines = [
        "% needs \\usepackage{booktabs}",
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{tex(heading)}{_latex_key() if marked else ''}}}",
        f"\\begin{{tabular}}{{{'l' * grid.left}{'r' * numbers}}}",
        "\\toprule",
        _row([tex(name) for name in grid.head]),
        "\\midrule",
    ]
    for line in grid.lines:
        cells = [_latex_cell(cell) for cell in line.cells]
        if line.cells[0].text.startswith(" "):
            cells[0] = f"\\quad {cells[0]}"
        lines.append(_row(cells))
    lines += ["\\bottomrule", "\\end{tabular}", "\\end{table}"]
    return "\n".join(lines)


def tex(text: str) -> str:
    """Return a text as LaTeX shows it, whatever characters it has."""
    return "".join(_LATEX.get(char, char) for char in text.strip())


def page_table(grid: Grid, heading: str, *, marked: bool) -> str:
    """Return an HTML table to put into a page; the best is ``<strong>``, the second ``<u>``."""
    lines = ["<table>", f"  <caption>{html.escape(heading)}</caption>", "  <thead>", "    <tr>"]
    for place, name in enumerate(grid.head):
        align = "" if place < grid.left else ' style="text-align: right"'
        lines.append(f'      <th scope="col"{align}>{html.escape(name)}</th>')
    lines += ["    </tr>", "  </thead>", "  <tbody>"]
    for line in grid.lines:
        lines.append("    <tr>")
        for place, cell in enumerate(line.cells):
            tag = 'th scope="row"' if place == 0 else "td"
            align = ' style="text-align: right"' if place >= grid.left else ""
            align = ' style="text-align: left; font-weight: normal"' if place == 0 else align
            lines.append(f"      <{tag}{align}>{_html_cell(cell)}</{tag[:2]}>")
        lines.append("    </tr>")
    lines += ["  </tbody>", "</table>"]
    if marked:
        key = f"<strong>bold</strong> best, <u>underlined</u> second best, {TIED} cannot be told"
        lines.append(f"<p>{key} from the best</p>")
    return "\n".join(lines)


def _html_cell(cell: Cell) -> str:
    text = html.escape(cell.text.strip())
    if cell.text.startswith(" "):
        text = "&emsp;" + text
    text = {1: f"<strong>{text}</strong>", 2: f"<u>{text}</u>"}.get(cell.rank, text)
    return f"{text} {TIED}" if cell.tied else text


def _latex_cell(cell: Cell) -> str:
    text = tex(cell.text)
    if re.fullmatch(r"[+-]\d.*", text):
        text = f"${text}$"
    marked = {1: f"\\textbf{{{text}}}", 2: f"\\underline{{{text}}}"}.get(cell.rank, text)
    return f"{marked}\\rlap{{\\,$\\approx$}}" if cell.tied else marked


def _latex_key() -> str:
    return (
        ". Bold: best; underlined: second best; $\\approx$: cannot be told from the best"
        " (paired randomisation test over queries, $p \\geq 0.05$)"
    )


def _row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _pipes(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(_escaped_pipes, cells)) + " |"


def _escaped_pipes(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*")
