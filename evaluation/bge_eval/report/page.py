"""Render the report's content as one self-contained HTML file.

Three guards keep texts of data sets harmless: Jinja escapes them in markup, data blocks contain no
character that could end them, and the content security policy allows only this package's scripts
and no connection.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import asdict
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

from bge_eval.report.content import Content
from bge_eval.report.queries import CHUNK, Blocks, pack

_SCRIPTS = ("vendor/d3-7.9.0.min.js", "vendor/plot-0.6.17.umd.min.js", "report.js")
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
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    assets = files("bge_eval.report") / "assets"
    scripts = [_text(assets, name) for name in _SCRIPTS]
    blocks = [pack(collection) for collection in content.collections]
    environment = Environment(
        loader=PackageLoader("bge_eval.report", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {"score": _score, "signed": _signed}
    return environment.get_template("report.html").render(
        content=content,
        policy=_policy(scripts),
        style=Markup(_fonts(assets) + _text(assets, "report.css")),
        scripts=[Markup(script) for script in scripts],
        data=Markup(data_block(_data(content, blocks))),
        blocks=blocks,
        queries=sum(len(collection.qrels) for collection in content.collections),
    )


def data_block(content: Any) -> str:
    """Return JSON that is safe inside a script element: nothing in it can end the element."""
    text = json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.translate(_UNSAFE)


def _data(content: Content, blocks: list[Blocks]) -> dict[str, Any]:
    collections = [
        {
            "label": collection.label,
            "task": collection.task,
            "measures": collection.measures,
            "systems": sorted(collection.results),
            "queries": len(collection.qrels),
            "chunks": len(packed.chunks),
            "pairs": collection.tests(),
        }
        for collection, packed in zip(content.collections, blocks, strict=True)
    ]
    return {
        "systems": [asdict(system) for system in content.systems],
        "tasks": [asdict(task) for task in content.tasks],
        "cutoffs": content.cutoffs,
        "publishedMeans": [asdict(figure) for figure in content.published_means],
        "collections": collections,
        "chunk": CHUNK,
    }


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


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.4f}".replace("-", "−")
