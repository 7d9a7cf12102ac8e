"""Texts from data sets, models and servers, made safe to print.

A document's id may hold the escape sequence that clears a terminal or sets its title, and a cell
that starts with ``=`` is a formula to a spreadsheet.
"""

from __future__ import annotations

import re

import typer

from bge_eval.errors import without_home

_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 without tab and newline, delete, C1
    "\u202a-\u202e\u2066-\u2069]"  # overrides of the writing direction
)
_FORMULA = tuple("=+-@\t\r")
_NUMBER = re.compile(r"[+-]?(\d[\d,]*\.?\d*|\.\d+)([eE][+-]?\d+)?%?")


def printable(text: str) -> str:
    """Return a text whose control characters are pictures, such as ␛; others are \ufffd."""
    return _UNPRINTABLE.sub(_picture, text)


def json_printable(text: str) -> str:
    """Return JSON whose control characters are escapes, so that it reads back the same."""
    return _UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def no_formula(value: object) -> object:
    """Return a cell of CSV that no spreadsheet computes: an apostrophe stands before a formula."""
    if not isinstance(value, str) or not value.startswith(_FORMULA) or _NUMBER.fullmatch(value):
        return value
    return f"'{value}"


def print_error(text: str) -> None:
    """Print one error on stderr, whatever the texts in it hold."""
    typer.echo(f"Error: {printable(without_home(text))}", err=True)


def _picture(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else "\ufffd"
