"""Texts that an int8 model is calibrated with: the package's own, or the user's.

A file of JSON lines: ``{"query": "…", "text": "…"}``. They must be no test data, since the ranges
of the model's numbers are fitted to them.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from bge_eval.errors import DamagedError, MissingError, UsageError, quoted
from bge_eval.resources import tasks_folder

_FILE = ("models", "calibration.jsonl")
_FEWEST = 26
"""Lines that a file must have: two are held out to check the model."""
_HELD_OUT = 13
"""Every line of this number is held out."""
_FIELDS = {"query", "text"}


@dataclass(frozen=True, slots=True)
class Calibration:
    """Queries with a text each."""

    lines: tuple[tuple[str, str], ...]
    """(query, text); neighbours are in one language, where the file is in order."""
    digest: str
    """Digest of the lines and of prompts, if there are any; 16 hexadecimal digits."""
    query_prompt: str = ""
    """Text before each query that is encoded alone."""
    document_prompt: str = ""
    """Text before each other text that is encoded alone."""

    def prompted(self, query: str, document: str) -> Calibration:
        """Return the same lines with the prompts of a model, which change the digest."""
        if not query and not document:
            return self
        text = json.dumps([self.digest, query, document])
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        return replace(self, digest=digest, query_prompt=query, document_prompt=document)

    def texts(self, *, held_out: bool) -> list[str]:
        """Return each query, each text, and each text followed by the next two: a long one.

        The model's prompts stand before them.

        Args:
            held_out: the texts to check with, instead of those to calibrate with.
        """
        chosen = []
        for query, text, longer in self._chosen(held_out):
            chosen.append(self.query_prompt + query)
            chosen += [self.document_prompt + text, self.document_prompt + longer]
        return chosen

    def pairs(self, *, held_out: bool) -> list[tuple[str, str]]:
        """Return each query with its text, with the next text, and with its text made long.

        Args:
            held_out: the pairs to check with, instead of those to calibrate with.
        """
        chosen = []
        for query, text, longer in self._chosen(held_out):
            other = longer.removeprefix(text).lstrip()
            chosen += [(query, text), (query, other), (query, longer)]
        return chosen

    def _chosen(self, held_out: bool) -> list[tuple[str, str, str]]:
        texts = [text for _, text in self.lines] * 2
        return [
            (query, text, " ".join(texts[row : row + 3]))
            for row, (query, text) in enumerate(self.lines)
            if (row % _HELD_OUT == _HELD_OUT - 1) is held_out
        ]


def read_calibration(path: Path | None = None) -> Calibration:
    """Read the texts of a file.

    Args:
        path: the user's file; None is the package's own.

    Raises:
        MissingError: the file does not exist.
        DamagedError: it is not readable, or a line is not of the form above.
        UsageError: it has too few lines.
    """
    return _read((tasks_folder().joinpath(*_FILE) if path is None else path).resolve())


@cache
def _read(path: Path) -> Calibration:
    try:
        content = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise MissingError(f"--calibration {path}: there is no such file.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DamagedError(f"--calibration {path} cannot be read as UTF-8 text.") from error
    lines = [
        _line(path, number, line)
        for number, line in enumerate(content.split("\n"), 1)
        if line.strip()
    ]
    if len(lines) < _FEWEST:
        raise UsageError(
            f"--calibration {path} has {len(lines)} lines; the ranges of int8 need at least"
            f" {_FEWEST}, better 100."
        )
    digest = hashlib.sha256(json.dumps(lines).encode()).hexdigest()[:16]
    return Calibration(tuple(lines), digest)


def _line(path: Path, number: int, line: str) -> tuple[str, str]:
    try:
        record: Any = json.loads(line)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict) or set(record) != _FIELDS:
        raise DamagedError(
            f'{path}, line {number}: expected {{"query": "…", "text": "…"}}, not {quoted(line)}.'
        )
    query, text = record["query"], record["text"]
    if not (isinstance(query, str) and isinstance(text, str) and query.strip() and text.strip()):
        raise DamagedError(f"{path}, line {number}: query and text must be non-empty texts.")
    return query, text
