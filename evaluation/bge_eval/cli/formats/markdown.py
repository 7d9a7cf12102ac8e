"""Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from bge_eval.cli.formats.blocks import Block, Cell, Grid, Items, Note, Paragraph, Title


def markdown_document(blocks: Sequence[Block]) -> str:
    """Return blocks as Markdown."""
    return "\n\n".join(map(_block, blocks))


def escaped(text: str) -> str:
    """Return a text on one line in which Markdown finds nothing to interpret."""
    for mark in "\\`*_<>[]|":
        text = text.replace(mark, f"\\{mark}")
    return " ".join(text.split())


def _block(block: Block) -> str:
    match block:
        case Grid():
            return _table(block)
        case Title(text, large):
            return f"### {escaped(text)}" if large else f"**{escaped(text)}**"
        case Paragraph(text):
            return escaped(text)
        case Note(text, warning):
            return f"> {'⚠️ ' if warning else ''}{escaped(text)}"
        case Items(items):
            lines: list[str] = []
            for item in items:
                lines += [f"- {escaped(item.text)}", *(f"  - {escaped(i)}" for i in item.inner)]
            return "\n".join(lines)


def _table(grid: Grid) -> str:
    """Return a table; the best is bold, the second best italic."""
    lines: list[str] = []
    if grid.caption:
        subtitle = f": {escaped(grid.subtitle)}" if grid.subtitle else ""
        lines += [f"**{escaped(grid.caption)}**{subtitle}", ""]
    rule = ["---" if column in grid.left else "---:" for column in range(len(grid.head))]
    head = _pipes([escaped(name) for name in grid.head]).replace("|  |", "| |")
    lines += [head, _pipes(rule)]
    lines += [_pipes([_cell(cell) for cell in line.cells]) for line in grid.lines]
    if grid.marked:
        lines += ["", ", ".join(["**bold** best", "*italic* second best", *grid.keys])]
    return "\n".join(lines)


def _cell(cell: Cell) -> str:
    around = {1: "**", 2: "*"}.get(cell.rank, "")
    parts = [f"{around}{escaped(cell.text)}{around}", cell.mark]
    return " ".join(part for part in [*parts, escaped(cell.detail)] if part)


def _pipes(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
