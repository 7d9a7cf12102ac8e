"""Run commands in forked processes and disturb them: SIGKILL, a full disk, a limit on files.

A driver imports the libraries once and forks a process for each command. Python tells an audit hook
of every file that is opened to write, renamed or removed and of every folder that is made; at a
given one below a folder the process is killed, or the disk is full from there on. So a test names
the moment, and tries all of them if it likes.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

_CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_FULL = ("open", "os.mkdir")
"""Events that a full disk refuses."""


@dataclass(frozen=True)
class Order:
    """A command, and what happens to it."""

    words: Sequence[str]
    """The words after ``bge-eval``."""
    place: str
    """The folder whose changes are counted."""
    kill: int | None = None
    """The change before which the process is killed, from 0."""
    full: int | None = None
    """The change from which on the disk is full."""
    limit: int | None = None
    """The largest file in bytes."""
    clock: float | None = None
    """What the clock shows, in seconds since 1970."""


@dataclass(frozen=True)
class Done:
    """What became of a command."""

    code: int
    """The exit code; minus the signal that ended it."""
    stdout: str
    stderr: str
    changes: list[str] = field(default_factory=list)
    """The changes below the place: event and path."""

    @property
    def refused(self) -> bool:
        """Whether it ended as a full disk should end it: errors in sentences, exit code 3."""
        told = [line for line in self.stderr.splitlines() if line.startswith("Error: ")]
        return self.code == 3 and bool(told) and "Traceback" not in self.stderr


class Driver:
    """The process that forks commands."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Driver:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.__exit__(None, None, None)  # closes its pipes, and waits

    def run(self, place: Path, *words: object, **disturbance: Any) -> Done:
        """Run a command; the disturbance has the names of `Order`."""
        order = Order([str(word) for word in words], str(place.resolve()), **disturbance)
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(asdict(order)) + "\n")
        self._process.stdin.flush()
        return Done(**json.loads(self._process.stdout.readline()))


def _written(event: str, args: tuple[Any, ...]) -> str | None:
    """Return the path that an event changes; None if it changes none."""
    if event == "open":
        path, mode, flags = args
        writes = any(c in mode for c in "wax+") if isinstance(mode, str) else flags & _WRITES
        if not writes:
            return None
    elif event in _CHANGES:
        path = args[0]
    else:
        return None
    return os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else None


def _command(order: Order, changes: int) -> None:
    """Run a command in this process, which ends with it."""
    count = 0

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal count
        path = _written(event, args)
        # No Path.resolve: it looks at the disk.
        if path is None or not os.path.abspath(path).startswith(order.place):  # noqa: PTH100
            return
        if count == order.kill:
            os.kill(os.getpid(), signal.SIGKILL)
        if order.full is not None and count >= order.full and event in _FULL:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        count += 1
        os.write(changes, f"{event} {path}\n".encode())

    if order.limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (order.limit, order.limit))
    if order.clock is not None:
        import time

        shown = order.clock
        time.time, time.time_ns = (lambda: shown), (lambda: int(shown * 10**9))
    sys.addaudithook(hook)
    from bge_eval.cli.app import main

    sys.argv = ["bge-eval", *order.words]
    main()


def _piped(order: Order) -> Done:
    """Fork, and read what the child writes, into pipes that no limit holds for."""
    names = ("stdout", "stderr", "changes")
    pipes = {name: os.pipe() for name in names}
    child = os.fork()
    if not child:
        code = 1
        try:
            os.dup2(pipes["stdout"][1], 1)
            os.dup2(pipes["stderr"][1], 2)
            _command(order, pipes["changes"][1])
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(bool(end.code))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    import threading

    texts = dict.fromkeys(names, "")

    def read(name: str) -> None:
        with os.fdopen(pipes[name][0], encoding="utf-8", errors="replace") as file:
            texts[name] = file.read()

    for name in names:
        os.close(pipes[name][1])
    readers = [threading.Thread(target=read, args=(name,)) for name in names]
    for each in readers:
        each.start()
    for each in readers:
        each.join()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return Done(code, texts["stdout"], texts["stderr"], texts["changes"].splitlines())


def _serve() -> None:
    import mteb  # what commands import late
    import mteb.abstasks
    import transformers.models.bert.modeling_bert  # noqa: F401

    import bge_eval.cli.app  # noqa: F401

    mteb.get_tasks()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    os.chdir(tempfile.gettempdir())
    for line in sys.stdin:
        answers.write(json.dumps(asdict(_piped(Order(**json.loads(line))))) + "\n")
        answers.flush()


if __name__ == "__main__":
    _serve()
