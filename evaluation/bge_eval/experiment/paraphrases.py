"""Paraphrases of prompts: the file that lists them, and the settings that they make.

::

    query = ["", "query: ", "Represent this sentence for searching relevant passages: "]
    document = ["", "passage: "]       # each with each query prompt; left out: the model's own

or, where a query prompt belongs to a document prompt::

    pairs = [["query: ", "passage: "], ["search_query: ", "search_document: "]]
"""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bge_eval.errors import DamagedError, MissingError, UsageError, did_you_mean, one_line

KEY = "paraphrases"
"""The key of an experiment that names the file."""
_ROLES = ("query", "document")
_PAIRS = "pairs"
_EXAMPLE = 'query = ["", "query: "], document = [""], or pairs = [["query: ", "passage: "]]'


def read_paraphrases(file: Path) -> list[Mapping[str, str]]:
    """Read a file of paraphrases.

    Returns:
        Options of ``bge-eval run``, without dashes, for every prompt: ``query-prompt``,
        ``document-prompt`` or both.

    Raises:
        MissingError: there is no such file.
        DamagedError: it is no TOML.
        UsageError: a key or a value is wrong, or there are not two prompts.
    """
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MissingError(f"There is no file of paraphrases {file}.") from error
    except (OSError, ValueError) as error:
        raise DamagedError(f"{file} is no readable TOML file ({one_line(error)}).") from error
    for name in content:
        if name not in (*_ROLES, _PAIRS):
            raise UsageError(
                f"{file}: '{name}' is no key of paraphrases.{did_you_mean(name, (*_ROLES, _PAIRS))}"
                f" Expected {_EXAMPLE}."
            )
    if _PAIRS in content and len(content) > 1:
        raise UsageError(f"{file} has pairs, and query or document too. Leave one of them out.")
    prompts = _of_pairs(file, content[_PAIRS]) if _PAIRS in content else _combined(file, content)
    if len(prompts) < 2:
        raise UsageError(
            f"{file} has {'one prompt' if prompts else 'no prompts'}, and a spread needs two or"
            f" more. Expected {_EXAMPLE}."
        )
    return prompts


def _of_pairs(file: Path, pairs: Any) -> list[Mapping[str, str]]:
    entries = pairs if isinstance(pairs, list) else [pairs]
    for entry in entries:
        if not isinstance(entry, list) or len(entry) != 2:
            raise UsageError(
                f"{file}: an entry of pairs is a query prompt and a document prompt, not {entry!r}."
            )
    _check(file, _PAIRS, [text for entry in entries for text in entry])
    _refuse_twice(file, _PAIRS, [tuple(entry) for entry in entries])
    return [{"query-prompt": query, "document-prompt": document} for query, document in entries]


def _combined(file: Path, content: Mapping[str, Any]) -> list[Mapping[str, str]]:
    axes = []
    for role, texts in content.items():
        if not isinstance(texts, list):
            raise UsageError(f"{file}: {role} is a list of prompts, not {texts!r}.")
        _check(file, role, texts)
        _refuse_twice(file, role, texts)
        axes.append([(f"{role}-prompt", text) for text in texts])
    return [dict(each) for each in itertools.product(*axes)] if axes else []


def _check(file: Path, key: str, texts: list[Any]) -> None:
    if wrong := [text for text in texts if not isinstance(text, str)]:
        raise UsageError(f"{file}: a prompt of {key} is a text, not {wrong[0]!r}.")


def _refuse_twice(file: Path, key: str, entries: list[Any]) -> None:
    if twice := [entry for n, entry in enumerate(entries) if entry in entries[:n]]:
        raise UsageError(f"{file} states a prompt of {key} twice: {twice[0]!r}. Leave one out.")
