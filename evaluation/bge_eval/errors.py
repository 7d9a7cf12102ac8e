"""The errors that bge-eval raises on purpose.

::

    BgeEvalError            exit 1   base class; its message is for the user
    ├── UnforeseenError     exit 1   a task failed with an unexpected exception
    ├── UsageError          exit 2   a wrong option, name or combination of options
    └── NotReadyError       exit 3   something that the run needs cannot be used
        ├── StorageError    exit 3   a folder cannot be written or read: full, read-only, gone
        ├── TemporaryError  exit 3   a temporary file cannot be written
        ├── TrackerError    exit 3   an experiment tracker has not taken saved scores
        ├── MissingError    exit 3   a model, dataset or package is missing
        │   ├── NoFolderError        no data folder has a task under any of its names
        │   └── NotCachedError       no --data-dir, and not in the Hugging Face cache
        └── DamagedError    exit 3   its content is wrong
            └── NewerError           a later version wrote it

A message names the input, what was expected and what to do next. The command line prints it as
one paragraph and exits with ``exit_code``. Exceptions of other libraries are translated where the
library is called.
"""

from __future__ import annotations

import difflib
import errno
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager


class BgeEvalError(Exception):
    """Base class of all errors whose message is written for the user."""

    exit_code = 1


class UnforeseenError(BgeEvalError):
    """A task failed with an unexpected exception, which is this error's cause."""

    def __init__(self, error: Exception) -> None:
        """Make the message from the exception."""
        super().__init__(
            f"{type(error).__name__}: {one_line(error, None)}\nThis was not foreseen. Run it"
            " again as `bge-eval --debug …` to see where it happened."
        )


class UsageError(BgeEvalError):
    """A wrong option, name or combination of options."""

    exit_code = 2


class NotReadyError(BgeEvalError):
    """Something that the run needs is missing or damaged."""

    exit_code = 3


class StorageError(NotReadyError):
    """A file or folder cannot be written or read: a full disk, a missing permission."""

    def __init__(self, error: OSError, place: object, advice: str = "") -> None:
        """Make the message from the system's error.

        Args:
            error: what the system reported.
            place: the folder or file in use, unless the error names one itself.
            advice: what to do next, as a sentence.
        """
        named = error.filename if isinstance(error.filename, str) else None
        problem = _STORAGE_PROBLEMS.get(error.errno or 0, "cannot be used")
        reason = error.strerror or one_line(error) or type(error).__name__
        super().__init__(f"{named or place} {problem} ({reason}). {advice}".rstrip())


_STORAGE_PROBLEMS = {
    errno.ENOSPC: "cannot be written, because the disk is full",
    errno.EDQUOT: "cannot be written, because your quota of the disk is used up",
    errno.EFBIG: "would be larger than the limit on the size of files (ulimit -f)",
    errno.EROFS: "cannot be written, because its file system is read-only",
    errno.EACCES: "cannot be used without a permission that is missing",
    errno.EPERM: "cannot be changed, because the system forbids it",
    errno.ENOENT: "does not exist, or has vanished while it was used",
    errno.ENOTDIR: "is in the path of a folder, but is a file itself",
    errno.EEXIST: "is a file, where a folder is needed",
    errno.EISDIR: "is a folder, where a file is needed",
    errno.EMFILE: "cannot be opened, because this process has too many files open (ulimit -n)",
    errno.EIO: "cannot be read or written: the disk reports an error",
}
"""The system's error number → what is wrong with a file or folder, after its name."""


class TemporaryError(NotReadyError):
    """A temporary file cannot be written: its folder is full. A smaller task may still run."""

    def __init__(self, error: OSError, place: object) -> None:
        """Make the message from the system's error; the arguments are those of `StorageError`."""
        advice = "TMPDIR names another folder for temporary files."
        super().__init__(str(StorageError(error, place, advice)))


@contextmanager
def temporary(place: object) -> Iterator[None]:
    """Raise the system's errors as those of a temporary file.

    Args:
        place: the file, or its folder if it has no name.

    Raises:
        TemporaryError: the file cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise TemporaryError(error, place) from error


class TrackerError(NotReadyError):
    """An experiment tracker has not taken scores, which are saved all the same."""


class MissingError(NotReadyError):
    """A model, dataset or package is missing."""


class NoFolderError(MissingError):
    """No data folder has the task; the parts of the message allow one report of several tasks."""

    reason = "no folder or zip of this name in a --data-dir"
    """The same for every task, to report them together."""

    def __init__(self, task: str, wanted: Sequence[str], looked: str) -> None:
        """Make the message.

        Args:
            task: mteb's task name.
            wanted: the folder names that were searched for.
            looked: a sentence that names the searched folders and their contents.
        """
        self.short = f"no folder or zip named {' or '.join(wanted)}"
        self.looked = looked
        super().__init__(f"The data of {task} are not here: {self.short}. {looked}")


class NotCachedError(MissingError):
    """The Hugging Face cache lacks a task's data and nothing may be downloaded."""

    reason = short = "not in the Hugging Face cache, and in no --data-dir"
    """The same for every task, to report them together."""


class DamagedError(NotReadyError):
    """The content of a model, dataset or result is wrong."""


class NewerError(DamagedError):
    """A file has a format that only a later version reads; nothing replaces it unasked."""


def as_failure(error: Exception, place: str) -> BgeEvalError:
    """Return an exception as bge-eval's own; another library's is kept as its cause.

    Args:
        error: what was raised.
        place: the file or folder in use, for an error of the system that names none.
    """
    if isinstance(error, BgeEvalError):
        return error
    failure: BgeEvalError = UnforeseenError(error)
    if isinstance(error, OSError) and error.errno is not None:
        failure = StorageError(error, place)
    failure.__cause__ = error
    return failure


def one_line(error: BaseException | None, limit: int | None = 300) -> str:
    """Return the message of another library's exception on one line, to be quoted in ours.

    Args:
        error: the exception, or None.
        limit: most characters to return; None returns all.
    """
    return " ".join(str(error).split())[:limit]


def without_home(text: str) -> str:
    """Return a text in which the user's home folder is ``~``: it names the user."""
    home = os.path.expanduser("~")  # noqa: PTH111 (without a home it stays, and raises nothing)
    if len(home) < 2 or home == "~":
        return text
    return re.sub(rf"(?<![\w.~-]){re.escape(home.rstrip(os.sep))}(?![\w.-])", "~", text)


def quoted(text: str, limit: int = 80) -> str:
    """Return the beginning of a text on one line in quotation marks, to be named in a message."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return f"'{line[:limit]}…'" if len(line) > limit else f"'{line}'"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean X, Y?"`` with the known names nearest to a wrong one, or ``""``."""
    by_folded = {candidate.casefold(): candidate for candidate in known}
    near = difflib.get_close_matches(name.casefold(), by_folded, n=3, cutoff=0.6)
    if not near:
        return ""
    return f" Did you mean {', '.join(by_folded[match] for match in near)}?"
