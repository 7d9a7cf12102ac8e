"""Texts that are empty or broken: replacement characters, mojibake, control characters."""

from __future__ import annotations

import re

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_DOUBTFUL = re.compile(
    "(?=([\u00c2-\u00f4][\u0080-\u00ff\u0152\u0153\u0160\u0161\u0178\u017d\u017e\u0192\u02c6"
    "\u02dc\u2013\u2014\u2018-\u201e\u2020-\u2022\u2026\u2030\u2039\u203a\u20ac\u2122]{1,3}))"
)
"""What the bytes of one character of UTF-8 look like when they are read as Windows-1252."""
_PUNCTUATION = set("\u00a0\u00ab\u00bb\u00b7\u2039\u203a\u2026") | set(
    map(chr, range(0x2013, 0x201F))
)
"""What may follow a capital letter or "ß" in sound text, as in »Fuß« and «CAFÉ»."""
_KNOWN = ("锟斤拷", "烫烫烫", "ï¿½", "ï»¿")
"""Replacement characters read as GBK, uninitialised memory read as GBK, and broken marks."""


def problem_of(text: str) -> str:
    """Return what is wrong with a text, "" for nothing.

    Returns:
        "empty", "replacement characters", "mojibake" or "control characters": the first of them
        that holds.
    """
    if not text.strip():
        return "empty"
    if "\ufffd" in text:
        return "replacement characters"
    if is_mojibake(text):
        return "mojibake"
    return "control characters" if _CONTROL.search(text) else ""


def is_mojibake(text: str) -> bool:
    """Tell whether a text holds UTF-8 that was read as Latin-1 or Windows-1252, such as "Ã©".

    A sequence counts if its characters, as bytes again, are one character of UTF-8. One is enough
    if that is a letter or sign of Latin-1 ("Ã©"), or takes three bytes or more ("â€™"); of other
    letters ("Å½") a text needs two, because two letters of sound text may form one by chance.
    """
    if text.isascii():
        return False
    if any(known in text for known in _KNOWN):
        return True
    weak = 0
    for match in _DOUBTFUL.finditer(text):
        character, length = _read_as_utf8(match[1])
        if length > 2 or (character and ord(character) <= 0xFF):
            return True
        weak += bool(character)
    return weak >= 2


def _read_as_utf8(sequence: str) -> tuple[str, int]:
    """Return the character that the beginning of a sequence is as UTF-8, and its bytes.

    Returns:
        ("", 0) if it is none, or ends in a mark that may follow a letter.
    """
    length = 2 if sequence[0] < "\u00e0" else 3 if sequence[0] < "\u00f0" else 4
    part = sequence[:length]
    if len(part) < length or (length == 2 and part[1] in _PUNCTUATION):
        return "", 0
    try:
        return b"".join(map(_byte, part)).decode("utf-8"), length
    except UnicodeDecodeError:
        return "", 0


def _byte(character: str) -> bytes:
    """Return the byte that a character stands for in Windows-1252, else in Latin-1."""
    try:
        return character.encode("cp1252")
    except UnicodeEncodeError:
        return character.encode("latin-1", "replace")
