"""What an evaluation has left, and receipts by which its repetition finds the same results.

A receipt states everything that the results depend on, as far as it can be told without loading a
model: the command, its files, the packages and the machine. Where all of it is unchanged, the
identities of the results are unchanged too, and nothing has to be loaded to know it.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bge_eval.errors import BgeEvalError

_FOLDER = ".receipts"
_MOST_FILES = 20_000
"""Files of a folder beyond which looking at each takes longer than it saves."""


@dataclass(slots=True)
class Report:
    """Results and failures by task."""

    done: dict[str, list[Path]] = field(default_factory=dict)
    """Task name → its result files (first stage, then second stage if there is one)."""
    reused: list[str] = field(default_factory=list)
    """Tasks whose results were all saved before."""
    failed: dict[str, BgeEvalError] = field(default_factory=dict)
    """Task name → why it failed."""
    left: list[str] = field(default_factory=list)
    """Tasks that were not begun, because another one failed before and ``fail_fast`` is set."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """A command whose results are all saved."""

    tasks: list[str]
    """The columns of its table."""
    notes: list[str]
    """The notes that introduced its models."""
    results: list[dict[str, list[str]]]
    """Task → result files, model by model."""
    state: dict[str, str]
    """Path → its state: what the results depend on, and the results themselves."""
    listed: dict[str, str]
    """Folder → the names in it: data folders in which other data may appear."""

    def reports(self) -> list[Report]:
        """Return the results as a report of each model."""
        return [
            Report({task: [Path(path) for path in paths] for task, paths in done.items()}, [*done])
            for done in self.results
        ]


def write_receipt(output: Path, command: str, receipt: Receipt) -> None:
    """Write a receipt; where that fails, the next run does its work without one.

    Args:
        output: the folder of results.
        command: everything that a receipt is for; see `find_receipt`.
        receipt: what the command has left.
    """
    path = _path(output, command)
    staged = path.with_name(f".{secrets.token_hex(4)}")
    with suppress(OSError):
        path.parent.mkdir(exist_ok=True)
        staged.write_text(json.dumps(asdict(receipt), indent=1), encoding="utf-8")
        staged.replace(path)


def find_receipt(output: Path, command: str) -> Receipt | None:
    """Return the receipt of a command, if nothing that it states has changed.

    Args:
        output: the folder of results.
        command: the command, the machine and the packages, as one text.
    """
    try:
        content = json.loads(_path(output, command).read_text(encoding="utf-8"))
        receipt = Receipt(**content)
        unchanged = receipt.state == states(receipt.state) and receipt.listed == names_in(
            receipt.listed
        )
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return None
    return receipt if unchanged else None


def states(paths: Iterable[str | Path]) -> dict[str, str]:
    """Return the state of files and folders, path → a digest of names, sizes and times.

    A path that does not exist has the state "".

    Raises:
        OverflowError: a folder has too many files to look at each.
    """
    return {str(path): _state(Path(path)) for path in paths}


def names_in(folders: Iterable[str | Path]) -> dict[str, str]:
    """Return a digest of the names in folders, folder → digest."""
    digests = {}
    for folder in folders:
        try:
            names = sorted(os.listdir(folder))  # noqa: PTH208 (names alone)
        except OSError:
            names = []
        digests[str(folder)] = _digest(names)
    return digests


def _state(path: Path) -> str:
    if not path.exists():
        return ""
    lines = []
    for file in _files(path) if path.is_dir() else [path]:
        with suppress(FileNotFoundError):  # a link that leads nowhere
            of_file = file.stat()
            lines.append(f"{file} {of_file.st_size} {of_file.st_mtime_ns}")
        if len(lines) > _MOST_FILES:
            raise OverflowError(f"{path} has more than {_MOST_FILES} files")
    return _digest(sorted(lines))


def _files(path: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(path):
        folders[:] = [name for name in folders if name != "__pycache__"]
        yield from (Path(folder) / name for name in files)


def _digest(lines: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()[:16]


def _path(output: Path, command: str) -> Path:
    return output / _FOLDER / f"{hashlib.sha256(command.encode()).hexdigest()[:16]}.json"


def saved_files(results: Iterable[Mapping[str, Sequence[Path]]]) -> list[Path]:
    """Return every file that belongs to results: scores, records, runs, values by query."""
    files = []
    for done in results:
        for paths in done.values():
            for path in paths:
                files += [path.parent / "model_meta.json", *path.parent.glob(f"{path.stem}*")]
    return files
