"""The Pareto picture of a curve as SVG: nDCG@10 by memory, and by speed."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence

from bge_eval.curve.figures import Figures
from bge_eval.search.index import Precision

_WIDTH, _HEIGHT = 560, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 64, 56
_COLOURS = {
    Precision.FLOAT32: "#1f5fa8",
    Precision.FLOAT16: "#2a9d8f",
    Precision.INT8: "#c77700",
    Precision.BINARY: "#a8324a",
}
"""Colours that are told apart on white and in grey."""
_FONT = 'font-family="system-ui, sans-serif"'


def picture(rows: Sequence[Figures], title: str) -> str:
    """Return an SVG of two panels: nDCG@10 by bytes a document, and by queries a second.

    A circle is the flat index, a square another; the line joins the settings that no other one
    beats. Every mark has its setting as a tooltip.

    Args:
        rows: the figures of every setting.
        title: stands above the panels.
    """
    memory = _panel(rows, lambda row: row.bytes_per_document, "bytes a document", low_is_good=True)
    speed = _panel(
        rows,
        lambda row: row.paces[0].queries_per_second,
        "queries a second on one core",
        low_is_good=False,
    )
    width, height = 2 * _WIDTH, _HEIGHT + 40
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"'
            f' width="{width}" height="{height}" {_FONT}>',
            f"<title>{html.escape(title)}</title>",
            f'<rect width="{width}" height="{height}" fill="white"/>',
            _text(_LEFT, 26, title, size=17, anchor="start", weight="bold"),
            *_legend(rows),
            *memory,
            f'<g transform="translate({_WIDTH} 0)">',
            *speed,
            "</g>",
            "</svg>",
            "",
        ]
    )


def _legend(rows: Sequence[Figures]) -> list[str]:
    """Return the colours of the representations and the shapes of the indexes."""
    parts, x = [], float(_LEFT + 6)
    for precision in dict.fromkeys(row.point.options.precision for row in rows):
        parts.append(f'<circle cx="{x}" cy="46" r="5" fill="{_COLOURS[precision]}"/>')
        parts.append(_text(x + 10, 50, str(precision), anchor="start"))
        x += 80
    parts.append(_text(x, 50, "● flat  ■ other index  — front", anchor="start"))
    return parts


def _panel(
    rows: Sequence[Figures], value: Callable[[Figures], float], name: str, *, low_is_good: bool
) -> list[str]:
    """Return one panel: axes, marks, the front and its labels."""
    xs = [math.log10(value(row)) for row in rows]
    ys = [row.ndcg for row in rows]
    x_low, x_high = min(xs) - 0.12, max(xs) + 0.12
    pad = max((max(ys) - min(ys)) * 0.12, 0.002)
    y_low, y_high = min(ys) - pad, max(ys) + pad

    def x_of(x: float) -> float:
        return round(_LEFT + (x - x_low) / (x_high - x_low) * (_WIDTH - _LEFT - _RIGHT), 1)

    def y_of(y: float) -> float:
        inner = _HEIGHT - _TOP - _BOTTOM
        return round(_HEIGHT - _BOTTOM - (y - y_low) / (y_high - y_low) * inner, 1)

    parts = _axes(x_of, y_of, (x_low, x_high), (y_low, y_high), name)
    front = _front(xs, ys, low_is_good)
    points = " ".join(f"{x_of(xs[i])},{y_of(ys[i])}" for i in front)
    parts.append(f'<polyline points="{points}" fill="none" stroke="#777" stroke-width="1.5"/>')
    for place, row in enumerate(rows):
        parts.append(_mark(row, x_of(xs[place]), y_of(ys[place]), place in front))
    return parts


def _axes(
    x_of: Callable[[float], float],
    y_of: Callable[[float], float],
    xs: tuple[float, float],
    ys: tuple[float, float],
    name: str,
) -> list[str]:
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    parts = []
    for tick in _ticks(*ys):
        parts.append(f'<path d="M{_LEFT} {y_of(tick)}H{right}" stroke="#e3e3e3"/>')
        parts.append(_text(_LEFT - 8, y_of(tick) + 4, f"{tick:.3f}", anchor="end"))
    for x in _decades(*xs):
        place = x_of(math.log10(x))
        parts.append(f'<path d="M{place} {_TOP}V{bottom}" stroke="#eeeeee"/>')
        parts.append(_text(place, bottom + 18, f"{x:,.0f}"))
    parts.append(f'<path d="M{_LEFT} {_TOP}V{bottom}H{right}" fill="none" stroke="#555"/>')
    parts.append(_text((_LEFT + right) / 2, bottom + 40, f"{name} (logarithmic)"))
    parts.append(
        f'<text transform="translate(16 {(_TOP + bottom) / 2}) rotate(-90)" font-size="12"'
        ' text-anchor="middle">nDCG@10</text>'
    )
    return parts


def _mark(row: Figures, x: float, y: float, in_front: bool) -> str:
    colour = _COLOURS[row.point.options.precision]
    size = 6 if in_front else 4
    look = f'fill="{colour}" fill-opacity="{0.95 if in_front else 0.55}"'
    if row.point.options.name == "flat":
        shape = f'<circle cx="{x}" cy="{y}" r="{size}" {look}>'
        end = "</circle>"
    else:
        shape = (
            f'<rect x="{x - size}" y="{y - size}" width="{2 * size}" height="{2 * size}" {look}>'
        )
        end = "</rect>"
    text = f"{row.name}: nDCG@10 {row.ndcg:.5f}, {row.bytes_per_document:,.0f} bytes a document"
    return f"{shape}<title>{html.escape(text)}</title>{end}"


def _front(xs: Sequence[float], ys: Sequence[float], low_is_good: bool) -> list[int]:
    """Return the places of the points that no other one beats on both axes."""
    sign = 1 if low_is_good else -1
    front: list[int] = []
    for place in sorted(range(len(xs)), key=lambda i: (sign * xs[i], -ys[i])):
        if not front or ys[place] > ys[front[-1]]:
            front.append(place)
    return front


def _ticks(low: float, high: float) -> list[float]:
    """Return four to eight round values between two."""
    step = 10 ** math.floor(math.log10((high - low) / 3))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= 8)
    first = math.ceil(low / step)
    return [tick * step for tick in range(first, math.floor(high / step) + 1)]


def _decades(low: float, high: float) -> list[float]:
    """Return 1, 2 and 5 times the powers of ten between two logarithms; fewer if there are many."""
    factors = (1, 2, 5) if high - low < 2.5 else (1,)
    powers = range(math.floor(low), math.ceil(high) + 1)
    every = [factor * 10.0**power for power in powers for factor in factors]
    return [value for value in every if low <= math.log10(value) <= high]


def _text(
    x: float, y: float, text: str, *, size: int = 12, anchor: str = "middle", weight: str = "normal"
) -> str:
    return (
        f'<text x="{x}" y="{y}" font-size="{size}" font-weight="{weight}"'
        f' text-anchor="{anchor}">{html.escape(text)}</text>'
    )
