r"""LaTeX with booktabs' rules; a document needs ``\usepackage{booktabs}``."""

from __future__ import annotations

import re
from collections.abc import Sequence

from bge_eval.cli.formats.blocks import Block, Cell, Grid, Items, Note, Paragraph, Title

_CHARACTERS = {
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
    "…": r"\ldots{}",
    "→": r"$\rightarrow$",
    "✓": r"$\surd$",
    "≈": r"$\approx$",
    "≥": r"$\geq$",
    "†": r"$\dagger$",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
}


def latex_document(blocks: Sequence[Block]) -> str:
    """Return blocks as LaTeX."""
    return "\n\n".join(map(_block, blocks))


def tex(text: str) -> str:
    """Return a text as LaTeX shows it, whatever characters it has."""
    return "".join(_CHARACTERS.get(char, char) for char in text.strip())


def _block(block: Block) -> str:
    match block:
        case Grid():
            return _table(block)
        case Title(text):
            return f"\\paragraph{{{tex(text)}}}"
        case Paragraph(text) | Note(text):
            return tex(text)
        case Items(items):
            lines: list[str] = []
            for item in items:
                lines.append(f"\\item {tex(item.text)}")
                if item.inner:
                    lines += _list([f"\\item {tex(inner)}" for inner in item.inner])
            return "\n".join(_list(lines))


def _list(lines: Sequence[str]) -> list[str]:
    return ["\\begin{itemize}", *lines, "\\end{itemize}"]


def _table(grid: Grid) -> str:
    """Return a table; the best is bold, the second best underlined."""
    alignment = "".join("l" if i in grid.left else "r" for i in range(len(grid.head)))
    lines = ["% needs \\usepackage{booktabs}", "\\begin{table}", "\\centering"]
    if grid.caption:
        subtitle = f": {tex(grid.subtitle)}" if grid.subtitle else ""
        key = f". {tex('; '.join(['Bold: best', 'underlined: second best', *grid.keys]))}"
        key = key if grid.marked else ""
        lines.append(f"\\caption{{{tex(grid.caption)}{subtitle}{key}}}")
    lines += [
        f"\\begin{{tabular}}{{{alignment}}}",
        "\\toprule",
        _row([tex(name) for name in grid.head]),
        "\\midrule",
    ]
    for line in grid.lines:
        cells = [_cell(cell) for cell in line.cells]
        if line.cells[0].text.startswith(" "):
            cells[0] = f"\\quad {cells[0]}"
        lines.append(_row(cells))
    lines += ["\\bottomrule", "\\end{tabular}", "\\end{table}"]
    return "\n".join(lines)


def _cell(cell: Cell) -> str:
    text = tex(cell.text)
    if re.fullmatch(r"[+-]\d[\d.]*", text):
        text = f"${text}$"
    marked = {1: f"\\textbf{{{text}}}", 2: f"\\underline{{{text}}}"}.get(cell.rank, text)
    marked = f"{marked}\\rlap{{\\,{tex(cell.mark)}}}" if cell.mark else marked
    return f"{marked} {tex(cell.detail)}" if cell.detail else marked


def _row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"
