"""What the tests of bad inputs share: changes of files, and what every refusal must be like."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

Change = Callable[[Path], object]
"""Damages a folder."""

POINTER = (
    "version https://git-lfs.github.com/spec/v1\n"
    "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 133508397\n"
)
HALF_PAIR = '"\\ud800x"'
"""A string in JSON that is no valid Unicode."""


def text(name: str, content: str | bytes) -> Change:
    """Return a change that writes a file."""

    def change(folder: Path) -> None:
        data = content.encode() if isinstance(content, str) else content
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)

    return change


def more(name: str, content: str | bytes) -> Change:
    """Return a change that adds to the end of a file."""

    def change(folder: Path) -> None:
        data = content.encode() if isinstance(content, str) else content
        (folder / name).write_bytes((folder / name).read_bytes() + data)

    return change


def both(*changes: Change) -> Change:
    """Return a change that is several."""

    def change(folder: Path) -> None:
        for each in changes:
            each(folder)

    return change


def refused(done: subprocess.CompletedProcess[str], code: int, message: str) -> str:
    """Check that an input was refused as it should be, and return what was said.

    Args:
        done: the finished command.
        code: the exit code expected.
        message: a regular expression of a part of the message.
    """
    said = " ".join(done.stderr.split())
    assert "not foreseen" not in said, said
    assert "Traceback" not in said, said
    assert done.returncode == code, f"exit code {done.returncode}: {said}"
    assert re.search(message, said), said
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\x9b]", done.stderr.replace("\n", "")), said
    assert len(said) < 2500, f"{len(said)} characters: {said[:500]}"
    sentences = Counter(part for part in re.split(r"(?<=[.!?:]) ", said) if len(part) > 30)
    assert max(sentences.values(), default=0) <= 1, sentences.most_common(1)
    return said
