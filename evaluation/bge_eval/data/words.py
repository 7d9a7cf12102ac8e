"""The words of a text, and the text as it is compared: letter case, spacing, punctuation aside."""

from __future__ import annotations

import re
import unicodedata

_SPACELESS = r"\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
"""Letters of scripts that are written without spaces: Thai, Lao, Khmer, kana, Chinese."""
_WORD = re.compile(rf"[{_SPACELESS}]|[^\W_{_SPACELESS}]+")


def words(text: str) -> list[str]:
    """Return the words of a text; a letter of a script without spaces is a word."""
    return _WORD.findall(text)


def compared_words(text: str) -> list[str]:
    """Return the words by which texts are compared: NFKC, letter case folded."""
    folded = text if text.isascii() else unicodedata.normalize("NFKC", text)
    return words(folded.casefold())
