"""What mteb knows of tasks and models, remembered between commands.

Importing mteb takes seconds, and a table or a report asks it only for the splits of some tasks and
the revisions of models. Its answers are kept in a file of the cache folder, by the versions of mteb
and bge-eval, and asked for again where the file is absent or cannot be read.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bge_eval.encode.cache import cache_folder
from bge_eval.resources import tasks_folder

_FOLDER = "mteb-answers"


def remembered(question: str, ask: Callable[[], Any]) -> Any:
    """Return an answer of mteb's, from the cache folder if it was asked before.

    Args:
        question: what is asked, e.g. ``revisions``; the same in every command.
        ask: asks mteb. The answer consists of JSON's types.

    Returns:
        The answer as JSON gives it back: tuples are lists.
    """
    path = _file(question)
    with suppress(OSError, ValueError, KeyError, TypeError):
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["question"] == question:
            return kept["answer"]
    text = json.dumps({"question": question, "answer": ask()})
    staged = path.with_name(f".{secrets.token_hex(4)}")
    with suppress(OSError):  # without a cache folder, mteb is asked every time
        path.parent.mkdir(parents=True, exist_ok=True)
        staged.write_text(text, encoding="utf-8")
        staged.replace(path)
    return json.loads(text)["answer"]


def _file(question: str) -> Path:
    name = hashlib.sha256(question.encode()).hexdigest()[:16]
    return cache_folder() / _FOLDER / _library() / f"{name}.json"


@cache
def _library() -> str:
    """Return a name of the installed mteb and of the suites here, whose change is another name."""
    spec = find_spec("mteb")  # this does not import it
    files = [Path(spec.origin)] if spec is not None and spec.origin else []
    files += [*sorted(tasks_folder().glob("*.toml")), Path(__file__).with_name("catalogue.py")]
    states = [(str(file), os.stat(file).st_size, os.stat(file).st_mtime_ns) for file in files]  # noqa: PTH116
    digest = hashlib.sha256(repr([version("bge-eval"), states]).encode()).hexdigest()[:12]
    return f"{version('mteb')}-{digest}"
