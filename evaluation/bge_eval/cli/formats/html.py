"""HTML to put into a page."""

from __future__ import annotations

import html
from collections.abc import Sequence

from bge_eval.cli.formats.blocks import Block, Cell, Grid, Items, Note, Paragraph, Title

_RIGHT = ' style="text-align: right"'
_ROW_NAME = ' style="text-align: left; font-weight: normal"'


def html_document(blocks: Sequence[Block]) -> str:
    """Return blocks as HTML."""
    return "\n".join(map(_block, blocks))


def _block(block: Block) -> str:
    match block:
        case Grid():
            return _table(block)
        case Title(text, large):
            tag = "h3" if large else "h4"
            return f"<{tag}>{html.escape(text)}</{tag}>"
        case Paragraph(text):
            return f"<p>{html.escape(text)}</p>"
        case Note(text, warning):
            mark = "⚠️ " if warning else ""
            return f"<blockquote>{mark}{html.escape(text)}</blockquote>"
        case Items(items):
            lines = ["<ul>"]
            for item in items:
                inner = "".join(f"<li>{html.escape(text)}</li>" for text in item.inner)
                inner = f"<ul>{inner}</ul>" if inner else ""
                lines.append(f"  <li>{html.escape(item.text)}{inner}</li>")
            return "\n".join([*lines, "</ul>"])


def _table(grid: Grid) -> str:
    """Return a table; the best is ``<strong>``, the second ``<u>``."""
    lines = ["<table>"]
    if grid.caption:
        subtitle = f": {html.escape(grid.subtitle)}" if grid.subtitle else ""
        lines.append(f"  <caption>{html.escape(grid.caption)}{subtitle}</caption>")
    lines += ["  <thead>", "    <tr>"]
    for column, name in enumerate(grid.head):
        align = "" if column in grid.left else _RIGHT
        lines.append(f'      <th scope="col"{align}>{html.escape(name)}</th>')
    lines += ["    </tr>", "  </thead>", "  <tbody>"]
    for line in grid.lines:
        lines.append("    <tr>")
        for column, cell in enumerate(line.cells):
            tag = 'th scope="row"' if column == 0 else "td"
            align = "" if column in grid.left else _RIGHT
            align = _ROW_NAME if column == 0 else align
            lines.append(f"      <{tag}{align}>{_cell(cell)}</{tag[:2]}>")
        lines.append("    </tr>")
    lines += ["  </tbody>", "</table>"]
    if grid.marked:
        key = ["<strong>bold</strong> best", "<u>underlined</u> second best"]
        lines.append(f"<p>{', '.join([*key, *map(html.escape, grid.keys)])}</p>")
    return "\n".join(lines)


def _cell(cell: Cell) -> str:
    text = html.escape(cell.text.strip())
    if cell.text.startswith(" "):
        text = "&emsp;" + text
    text = {1: f"<strong>{text}</strong>", 2: f"<u>{text}</u>"}.get(cell.rank, text)
    text = f"{text} {cell.mark}" if cell.mark else text
    return f"{text} {html.escape(cell.detail)}" if cell.detail else text
