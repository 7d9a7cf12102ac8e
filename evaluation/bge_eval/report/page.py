"""Render the report's content as one self-contained HTML file.

Three guards keep texts of data sets harmless: Jinja escapes them in markup, data blocks contain no
character that could end them, and the content security policy allows only this package's scripts
and no connection. The blocks of queries stand last, so that the page is complete and answers while
a browser still reads them.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

from bge_eval.report.content import Content, System
from bge_eval.report.packing import CHUNK, SCALE, Block, pack

_SCRIPTS = (
    "vendor/d3-7.9.0.min.js",
    "vendor/plot-0.6.17.umd.min.js",
    "core.js",
    "address.js",
    "selection.js",
    "table.js",
    "board.js",
    "heat.js",
    "matrix.js",
    "scores.js",
    "trend.js",
    "queries.js",
    "failures.js",
    "reader.js",
    "curves.js",
    "deployment.js",
    "start.js",
)
_STYLES = ("report.css", "views.css", "narrow.css")
_FONTS = {
    "Inter": "vendor/inter-latin-wght-normal.woff2",
    "Source Serif 4": "vendor/source-serif-4-latin-wght-normal.woff2",
}
_UNSAFE = {ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}


def render(content: Content) -> str:
    """Return the whole page.

    Args:
        content: the content of the page.
    """
    return "".join(pieces(content))


def pieces(content: Content) -> Iterator[str]:
    """Yield the page piece by piece: a large one is never in memory as a whole.

    Args:
        content: the content of the page.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    assets = files("bge_eval.report") / "assets"
    scripts = [_text(assets, name) for name in _SCRIPTS]
    environment = Environment(
        loader=PackageLoader("bge_eval.report", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {"score": _score, "figure": _figure, "signed": _signed}
    return environment.get_template("report.html").generate(
        content=content,
        policy=_policy(scripts),
        style=Markup(_fonts(assets) + "".join(_text(assets, name) for name in _STYLES)),
        scripts=[Markup(script) for script in scripts],
        data=Markup(data_block(_data(content))),
        blocks=_blocks(content),
    )


def _blocks(content: Content) -> Iterator[Block]:
    for number, group in enumerate(content.collections):
        yield from pack(number, group)


def data_block(content: Any) -> str:
    """Return JSON that is safe inside a script element: nothing in it can end the element."""
    text = json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.translate(_UNSAFE)


def _data(content: Content) -> dict[str, Any]:
    collections = [
        {
            "label": group.label,
            "task": group.task,
            "measures": group.measures,
            "systems": group.systems,
            "queries": len(group.qrels),
        }
        for group in content.collections
    ]
    return {
        "systems": [_system(content, system) for system in content.systems],
        "tasks": [asdict(task) for task in content.tasks],
        "series": [asdict(each) for each in content.series],
        "costs": content.cost_headings,
        "cutoffs": content.cutoffs,
        "publishedMeans": [asdict(figure) for figure in content.published_means],
        "collections": collections,
        "curves": [{"points": [asdict(point) for point in it.points]} for it in content.curves],
        "chunk": CHUNK,
        "scale": SCALE,
    }


def _system(content: Content, system: System) -> dict[str, Any]:
    costs = [{"value": value, "text": text} for value, text in content.cost_cells(system)]
    return {**asdict(system), "cells": costs}


def _policy(scripts: list[str]) -> str:
    """Return a content security policy that allows exactly these scripts and no request."""
    digests = (hashlib.sha256(script.encode("utf-8")).digest() for script in scripts)
    hashes = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline';"
        " font-src data:; img-src data:; base-uri 'none'; form-action 'none'"
    )


def _text(assets: Traversable, name: str) -> str:
    return assets.joinpath(*name.split("/")).read_text(encoding="utf-8")


def _fonts(assets: Traversable) -> str:
    rules = []
    for family, name in _FONTS.items():
        encoded = base64.b64encode(assets.joinpath(*name.split("/")).read_bytes()).decode()
        rules.append(
            f'@font-face{{font-family:"{family}";font-style:normal;font-display:block;'
            f"font-weight:200 900;src:url(data:font/woff2;base64,{encoded})format('woff2')}}"
        )
    return "\n".join(rules) + "\n"


def _score(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _figure(value: float | None) -> str:
    """Return a number with three digits at least, and thousands apart."""
    if value is None:
        return "–"
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:,.{digits}f}"


def _signed(value: float) -> str:
    return f"{value:+.4f}".replace("-", "−")
