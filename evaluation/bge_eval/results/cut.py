"""Cuts: a task's first queries, or a smaller corpus. What is scored on a cut has its own name.

::

    SciFact@limit=50                          the first 50 queries of every split and subset
    SciFact@lite=1000                         the judged documents and a sample of 1,000
    SciFact@lite=1000+top=100+runs=3f2a9c1b   also the first 100 documents of some runs
    SciFact@limit=50+lite=1000                both

A result is filed under such a name, so it never stands in a column, an average or a comparison
with one of the whole task. mteb knows the task by the part before ``@``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path

_MARK = "@"
_NAME = re.compile(r"(?P<task>.+)@(?P<cut>[a-z]+=[0-9a-f]+(\+[a-z]+=[0-9a-f]+)*)")


@dataclass(frozen=True, slots=True)
class Lite:
    """How a corpus is cut to the documents that matter most for its queries."""

    runs: str | Path | tuple[str | Path, ...] = ()
    """Folders of saved results, or of TREC runs named by their tasks."""
    top: int = 100
    """Number of each query's first documents in these runs that are kept."""
    sample: int = 1000
    """Number of documents that are sampled from the whole corpus."""
    seed: int = 0
    """Seed of the sample."""

    @property
    def folders(self) -> tuple[Path, ...]:
        """Return the folders of runs."""
        runs = (self.runs,) if isinstance(self.runs, str | Path) else tuple(self.runs)
        return tuple(Path(folder).expanduser() for folder in runs)


@dataclass(frozen=True, slots=True)
class Cut:
    """What is left of a task. The names of the fields are those in the text, in this order."""

    limit: int = 0
    """Number of queries (or pairs, or texts) of every split and subset, the first; 0 for all."""
    lite: int = 0
    """Documents that are sampled beside the judged ones; 0 for the whole corpus."""
    seed: int = 0
    """Seed of the sample."""
    top: int = 0
    """Number of each query's first documents in given runs that are kept too."""
    runs: str = ""
    """Digest of these documents, 8 hexadecimal digits; "" without runs."""

    def __str__(self) -> str:
        """Return the cut as it stands in names, such as ``limit=50``; "" for a whole task."""
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        return "+".join(f"{name}={value}" for name, value in values if value)

    def __bool__(self) -> bool:
        """Return whether anything is cut."""
        return self != WHOLE

    @property
    def kind(self) -> str:
        """Return the cut without the digest of one task's runs: tasks of one kind are averaged."""
        return str(replace(self, runs=""))

    def named(self, task: str) -> str:
        """Return the name under which results of a task are filed."""
        return f"{task}{_MARK}{self}" if self else task


WHOLE = Cut()
"""Nothing is cut."""


def split_name(name: str) -> tuple[str, Cut]:
    """Return the task's (or suite's) own name and the cut of a name, ``SciFact@limit=50``.

    A name that ends in no cut, such as a folder's with an ``@``, is returned as it is.
    """
    match = _NAME.fullmatch(name)
    values = dict(part.split("=") for part in match["cut"].split("+")) if match else {}
    known = {field.name for field in fields(Cut)}
    if not match or not values.keys() <= known or len(values) < match["cut"].count("="):
        return name, WHOLE
    runs = values.pop("runs", "")
    if not all(value.isdigit() for value in values.values()):
        return name, WHOLE
    cut = Cut(**{key: int(value) for key, value in values.items()}, runs=runs)
    return (match["task"], cut) if cut else (name, WHOLE)


def task_of(name: str) -> str:
    """Return the name by which mteb knows the task of a result."""
    return split_name(name)[0]


def is_cut(name: str) -> bool:
    """Return whether a result's name is that of a cut."""
    return bool(split_name(name)[1])


def averaged(tasks: Iterable[str]) -> tuple[str, ...]:
    """Return those of some tasks that have a mean together.

    These are the whole tasks. Without one, all of them if they are cut in the same way, else none.

    Args:
        tasks: names as results have them.
    """
    kinds: dict[str, list[str]] = {}
    for task in tasks:
        kinds.setdefault(split_name(task)[1].kind, []).append(task)
    if "" in kinds:
        return tuple(kinds[""])
    return tuple(next(iter(kinds.values()))) if len(kinds) == 1 else ()
