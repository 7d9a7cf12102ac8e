"""What a command prints, before a format is chosen: tables and the text around them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

TIED = "≈"
"""Mark of a value that cannot be told from the best."""
UNTESTED = "?"
"""Mark of a value that was not tested against the best."""
TIED_KEY = "cannot be told from the best (randomised Tukey HSD over all rows, p ≥ 0.05)"
"""What `TIED` means, after the mark."""
UNTESTED_KEY = "not tested: it or the best has no values by query, text or pair, or has other ones"
"""What `UNTESTED` means, after the mark."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a table."""

    text: str
    """Its text; leading spaces indent it."""
    rank: int = 0
    """1 for the best of its column, 2 for the second best; 0 where it is not marked."""
    tied: bool = False
    """Whether it is not the best, and cannot be told from the best."""
    untested: bool = False
    """Whether it is not the best, and was not tested against the best."""
    detail: str = ""
    """Unmarked text after ``text``."""

    @property
    def mark(self) -> str:
        """Return `TIED`, `UNTESTED` or ""."""
        return TIED if self.tied else UNTESTED if self.untested else ""


@dataclass(frozen=True, slots=True)
class GridLine:
    """One line of a table."""

    cells: tuple[Cell, ...]
    """From left to right."""
    gain: bool = False
    """Whether it is a second stage's difference to its first, or a difference to a row."""


@dataclass(frozen=True, slots=True)
class Grid:
    """A table."""

    head: tuple[str, ...]
    """The headings of the columns."""
    lines: tuple[GridLine, ...]
    """The lines beneath the headings."""
    left: tuple[int, ...] = (0,)
    """The columns of words; the others are numbers, and stand on the right."""
    caption: str = ""
    """The table's title."""
    subtitle: str = ""
    """Text after the title, such as what A and B are."""
    marked: bool = False
    """Whether best cells are marked, so that the marks need a key."""

    @property
    def keys(self) -> list[str]:
        """Return what the marks of single cells mean, e.g. ``["≈ cannot be told …"]``."""
        cells = [cell for line in self.lines for cell in line.cells]
        keys = [f"{TIED} {TIED_KEY}"] if self.marked else []
        return [*keys, f"{UNTESTED} {UNTESTED_KEY}"] if any(c.untested for c in cells) else keys


@dataclass(frozen=True, slots=True)
class Title:
    """A line above a part of the output."""

    text: str
    """The title."""
    large: bool = False
    """Whether it stands above the whole output."""


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A sentence or more."""

    text: str
    """The sentences."""


@dataclass(frozen=True, slots=True)
class Note:
    """A remark that is set apart."""

    text: str
    """The remark."""
    warning: bool = False
    """Whether it may change what the output means."""


@dataclass(frozen=True, slots=True)
class Item:
    """One entry of a list."""

    text: str
    """The entry."""
    inner: tuple[str, ...] = ()
    """Entries beneath it."""


@dataclass(frozen=True, slots=True)
class Items:
    """A list."""

    items: tuple[Item, ...]
    """Its entries."""


Block = Grid | Title | Paragraph | Note | Items
"""One piece of a document."""


class Output(ABC):
    """What a command prints, in each of the ways in which formats need it."""

    @abstractmethod
    def terminal(self, console: Console) -> None:
        """Print it, fitted to the width of a terminal."""

    @abstractmethod
    def blocks(self) -> Sequence[Block]:
        """Return it as a document, for Markdown, LaTeX and HTML."""

    @abstractmethod
    def records(self) -> Sequence[Mapping[str, Any]]:
        """Return it as records of the same keys, for CSV; None is an empty cell."""

    @abstractmethod
    def content(self) -> Any:
        """Return it as what JSON holds."""
