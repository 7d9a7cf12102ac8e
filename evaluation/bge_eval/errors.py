"""Everything that bge-eval raises on purpose.

::

    BgeEvalError            exit 1   base class; the message is meant for people
    ├── UnforeseenError     exit 1   a task ended in an error that nobody thought of
    ├── UsageError          exit 2   an option, a name or a combination that cannot be meant
    └── NotReadyError       exit 3   something needed cannot be used as it is
        ├── MissingError    exit 3   a model, a dataset or a package is not there
        │   ├── NoFolderError        no data folder holds a task under any of its names
        │   └── NotCachedError       no folder was given, and the Hugging Face cache lacks it
        └── DamagedError    exit 3   it is there, but its content is wrong

A message says what was given, what was expected and what to do next. The command line prints
it as one paragraph and exits with ``exit_code``; foreign exceptions are translated where the
foreign call is made.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class BgeEvalError(Exception):
    """Base of all errors whose message is written for the person at the terminal."""

    exit_code = 1


class UnforeseenError(BgeEvalError):
    """A task ended in an error that nobody thought of; it is the cause of this one."""

    def __init__(self, error: Exception) -> None:
        """Make the message from the error."""
        super().__init__(
            f"{type(error).__name__}: {one_line(error, None)}\nThis was not foreseen. Run it"
            " again as `bge-eval --debug …` to see where it happened."
        )


class UsageError(BgeEvalError):
    """What was asked for cannot be meant: a wrong name, option or combination."""

    exit_code = 2


class NotReadyError(BgeEvalError):
    """Something that the run needs cannot be used."""

    exit_code = 3


class MissingError(NotReadyError):
    """A model, a dataset or a package is not there."""


class NoFolderError(MissingError):
    """No data folder holds a task; keeps the parts, so that several can be reported together."""

    def __init__(self, task: str, wanted: Sequence[str], looked: str) -> None:
        """Make the message.

        Args:
            task: mteb's task name.
            wanted: the folder names under which it would have been found.
            looked: where was looked and what is there, a sentence.
        """
        self.short = f"no folder or zip named {' or '.join(wanted)}"
        self.looked = looked
        super().__init__(f"The data of {task} are not here: {self.short}. {looked}")


class NotCachedError(MissingError):
    """The Hugging Face cache lacks a task's data and nothing may be downloaded."""

    short = "not in the Hugging Face cache, and in no --data-dir"


class DamagedError(NotReadyError):
    """A model or a dataset is there, but its content is wrong."""


def one_line(error: BaseException | None, limit: int | None = 300) -> str:
    """Return a foreign error's message on one line, to quote in a message of ours.

    Args:
        error: the error of another library, or None where a caller has none.
        limit: longest text to return, in characters; None returns all of it.
    """
    return " ".join(str(error).split())[:limit]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean X, Y?"`` for the names nearest to a wrong one, or ``""``."""
    by_folded = {candidate.casefold(): candidate for candidate in known}
    near = difflib.get_close_matches(name.casefold(), by_folded, n=3, cutoff=0.6)
    if not near:
        return ""
    return f" Did you mean {', '.join(by_folded[match] for match in near)}?"
